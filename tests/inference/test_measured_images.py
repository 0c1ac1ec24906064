"""Inference from measurements: the groups that come out, the samplers that take them, and what is refused."""

import numpy as np
import pytest
import torch
from digit import HALF, SHAPE
from registry import MODELS
from statistics_of_draws import assert_moments

from posterior_inpainting.inference import (
    ChEES,
    Gibbs,
    Variational,
    diagnostics,
    infer,
    infer_many,
    more,
    plots,
    scores,
)
from posterior_inpainting.inference.results.containers import group, group_names, load, save
from posterior_inpainting.models import (
    CodeAndUnits,
    DeepImagePrior,
    ExpertField,
    LatentCode,
    LinearGaussian,
    Measurement,
    MixtureField,
    Observation,
    PixelConstrained,
    WeightDraws,
    datasets,
    operators,
    pretrained,
)
from posterior_inpainting.models.expert_field import ExpertConditionals
from posterior_inpainting.models.fields.channel_prior import ChannelPrior
from posterior_inpainting.models.networks import Experts

SMALL = operators.average(SHAPE, 2)


@pytest.fixture(scope="module")
def images():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def measured(images):
    noise = 0.05 * torch.randn(SMALL.output_shape, generator=torch.Generator().manual_seed(0))
    return Measurement(SMALL, SMALL(images[3]) + noise, noise=0.05)


@pytest.fixture(scope="module")
def linear():
    return LinearGaussian.fit(datasets.load("digits", split="train"), latent=5)


class Inexact(LinearGaussian):
    """The same density to chains, which are not told that its posterior is known."""

    guide_is_exact = False


@pytest.fixture(scope="module")
def inexact(linear):
    return Inexact(linear.loadings, linear.mean, linear.noise)


@pytest.fixture(scope="module")
def posterior(linear, measured):
    return infer(linear, measured, draws=100, chains=4, progress=False)


class TestGroups:
    def test_what_is_there(self, posterior, measured):
        assert posterior.posterior["completion"].shape == (4, 100, *SHAPE)
        assert posterior.log_likelihood["measurement"].shape == (4, 100, 16)
        assert not posterior.constant_data["mask"].to_numpy().any()
        np.testing.assert_array_equal(posterior.observed_data["measurement"], measured.values.numpy())
        assert float(posterior.constant_data["measurement_noise"]) == 0.05

    def test_images_agree_with_what_was_measured(self, posterior, measured):
        images = torch.as_tensor(posterior.posterior_predictive["image"].to_numpy())
        residual = measured.operator(images) - measured.values
        assert abs(float(residual.std()) / 0.05 - 1) < 0.05

    def test_scores_count_the_whole_image(self, posterior, images):
        found = scores.score(posterior, images[3])
        drawn = posterior.posterior["completion"].to_numpy().reshape(-1, 64).clip(0, 1)
        expected = -10 * np.log10(np.mean((drawn.mean(0) - images[3].flatten().numpy()) ** 2))
        assert found["PSNR of the mean (dB)"] == pytest.approx(expected, abs=1e-3)

    def test_saved_summarised_and_drawn(self, posterior, tmp_path, images):
        save(posterior, tmp_path / "posterior.nc")
        again = load(tmp_path / "posterior.nc")
        assert set(group_names(again)) == set(group_names(posterior))
        assert "measurement" in group(again, "observed_data")
        assert diagnostics.verdict(again).may_be_used
        assert diagnostics.summary(again)["draws"] == 400
        axes = plots.completions(posterior, truth=images[3])
        assert axes[0].get_title() == "measured"

    def test_more(self, linear, measured, posterior):
        longer = more(posterior, linear, measured, draws=20, progress=False)
        assert longer.posterior.sizes["draw"] == 120
        other = Measurement(SMALL, measured.values + 0.1, noise=0.05)
        with pytest.raises(ValueError, match="the posterior is of another observation"):
            more(posterior, linear, other, draws=20, progress=False)

    def test_a_store_goes_on(self, measured, tmp_path):
        model = LatentCode(pretrained.load("digits-vae-2d"))
        settings = {"draws": 20, "chains": 4, "progress": False}
        whole = infer(model, measured, ChEES(warmup=20), **settings)
        stored = infer(model, measured, ChEES(warmup=20), store=tmp_path / "run.zarr", **settings)
        np.testing.assert_array_equal(whole.posterior["z"], stored.posterior["z"])


class TestSamplers:
    def test_auto_agrees_with_the_exact_posterior(self, inexact, measured):
        found = infer(inexact, measured, progress=False)
        law = inexact.exact_posterior(*measured.arguments)
        assert_moments(found.posterior["z"].to_numpy(), law.mean, law.variance.sqrt())

    def test_of_a_mask_it_is_the_posterior_of_seen_pixels(self, images):
        model, pick = LatentCode(pretrained.load("digits-vae-2d")), operators.mask(HALF)
        seen = infer(model, Observation(images[3], HALF), progress=False, seed=1)
        found = infer(model, Measurement(pick, pick(images[3]), noise=0.0), progress=False)
        truth = seen.posterior["z"].to_numpy()
        # The truth has an error too, about as large.
        assert_moments(found.posterior["z"].to_numpy(), truth.mean((0, 1)), truth.std((0, 1)), errors=7)

    def test_many_at_once(self, inexact, images):
        seen = [Measurement(SMALL, SMALL(image), noise=0.05) for image in images[:3]]
        together = infer_many(inexact, seen, ChEES(warmup=150), draws=300, chains=16, progress=False)
        for one, observation in zip(together, seen, strict=True):
            law = inexact.exact_posterior(*observation.arguments)
            assert_moments(one.posterior["z"].to_numpy(), law.mean, law.variance.sqrt())

    @pytest.mark.parametrize("kind", [CodeAndUnits, WeightDraws, DeepImagePrior, MixtureField])
    def test_every_default_runs(self, kind, measured):
        found = infer(MODELS[kind](), measured, draws=20, chains=4, progress=False)
        assert np.isfinite(found.posterior["completion"].to_numpy()).all()

    def test_variational(self, measured):
        model = LatentCode(pretrained.load("digits-vae-2d"))
        found = infer(model, measured, Variational(guide="normal", steps=50), draws=20, progress=False)
        assert found.posterior.sizes["draw"] == 20


def given_mean_precisions(model, conditionals):
    """Precision of pixels given mean precisions of responses, without what is seen, and draws of pixels given both."""
    like = torch.zeros(1, *model.image_shape)
    precisions = [part.detach() for part in model.experts.mean_precisions(like)]
    size = like.numel()
    unit = torch.eye(size).reshape(size, *model.image_shape)

    def many(count):
        return [part.expand(count, -1, -1, -1) for part in precisions]

    with torch.no_grad():
        prior = model.experts.precision_times(unit, many(size)).flatten(1).double()
        generator = torch.Generator().manual_seed(1)
        draws = conditionals._pixels(many(3000), like.expand(3000, -1, -1, -1), generator)
    return prior, draws


class TestExperts:
    """The draw of pixels given components, against the Gaussian law that it is."""

    @pytest.mark.parametrize("operator", [SMALL, operators.blur(SHAPE, 0.8)], ids=("average", "blur"))
    def test_pixels_given_components(self, operator):
        torch.manual_seed(0)
        model = ExpertField(Experts(1, 3, 3, 1), SHAPE)
        values = torch.rand(operator.output_shape)
        conditionals = model.conditionals(*Measurement(operator, values, noise=0.1).arguments)
        prior, draws = given_mean_precisions(model, conditionals)
        rows = operator.dense(values).double() / 0.1
        centre = model.experts.ridge * model.experts.centre * torch.ones(64).double()
        covariance = torch.linalg.inv(prior + rows.T @ rows)
        mean = covariance @ (centre + rows.T @ values.flatten().double() / 0.1)
        assert_moments(draws.reshape(1, 3000, 64), mean, covariance.diagonal().sqrt(), independent=True)

    def test_pixels_given_a_law_of_their_mean_colour(self):
        """Two channels whose mean is nearly all that is known: against the Gaussian law that it is."""
        torch.manual_seed(0)
        covariance = torch.tensor([[0.02, 0.01], [0.01, 0.03]]).double()
        means = 0.4 + torch.randn(200, 2).double() @ torch.linalg.cholesky(covariance).T
        colours = ChannelPrior(means, torch.eye(2).double().expand(200, 2, 2))
        shape, grey = (2, 4, 4), operators.matrix(torch.eye(16).repeat(1, 2), (2, 4, 4))
        model = ExpertField(Experts(2, 3, 3, 1), shape, colours=colours)
        values = torch.full(grey.output_shape, 0.9)
        conditionals = model.conditionals(*Measurement(grey, values, noise=0.1).arguments)
        prior, draws = given_mean_precisions(model, conditionals)
        average = torch.eye(32).reshape(32, *shape).mean((-2, -1)).T.double()
        inverse = torch.linalg.inv(means.T.cov())
        rows = grey.dense(values).double() / 0.1
        precision = prior + rows.T @ rows + average.T @ inverse @ average
        right = model.experts.ridge * model.experts.centre + average.T @ inverse @ means.mean(0)
        covariance = torch.linalg.inv(precision)
        mean = covariance @ (right + rows.T @ values.flatten().double() / 0.1)
        assert_moments(draws.reshape(1, 3000, 32), mean, covariance.diagonal().sqrt(), independent=True)
        images = torch.rand(3, *shape)
        apart = model.conditionals(*Measurement(grey, values, noise=0.1).arguments).log_density(
            {"pixels": images}
        )
        plain = ExpertField(model.experts, shape).conditionals(
            *Measurement(grey, values, noise=0.1).arguments
        )
        offset = images.mean((-2, -1)).double() - means.mean(0)
        expected = -0.5 * ((offset @ inverse) * offset).sum(-1)
        found = apart - plain.log_density({"pixels": images})
        torch.testing.assert_close(found.detach(), expected.float(), atol=1e-2, rtol=1e-3)

    def test_images_made_large(self):
        model = ExpertField(Experts(1, 3, 3, 1), SHAPE)
        found = infer(
            model, Measurement(SMALL, torch.rand(1, 4, 4)), Gibbs(warmup=5), draws=5, chains=2, progress=False
        )
        assert isinstance(model.conditionals(*found_arguments()), ExpertConditionals)
        np.testing.assert_array_equal(found.posterior["completion"], found.posterior_predictive["image"])


def found_arguments():
    return Measurement(SMALL, torch.rand(1, 4, 4)).arguments


class TestRefusals:
    def test_a_model_of_seen_pixels(self):
        image = datasets.load("fashion-mnist-samples")[0]
        model = PixelConstrained(**pretrained.load_parts("fashion-mnist-pixels-16"))
        small = operators.average(image.shape, 4)
        with pytest.raises(ValueError, match="PixelConstrained is of pixels that are seen or not"):
            infer(model, Measurement(small, small(image)), progress=False)

    def test_another_shape(self, linear):
        large = operators.average((1, 28, 28), 4)
        with pytest.raises(ValueError, match=r"expected \(1, 8, 8\)"):
            infer(linear, Measurement(large, torch.zeros(1, 7, 7)), progress=False)

    def test_no_trained_guide(self, measured):
        model = LatentCode(pretrained.load("digits-vae-2d"))
        with pytest.raises(ValueError, match="guide"):
            infer(model, measured, Variational(), progress=False)

    def test_instruments_that_differ(self, measured, images):
        model = LatentCode(pretrained.load("digits-vae-2d"))
        others = Measurement(SMALL, SMALL(images[0]), noise=0.1), Observation(images[0], HALF)
        for other in others:
            with pytest.raises(ValueError, match="one operator with one noise"):
                infer_many(model, [measured, other], ChEES(warmup=10), draws=5, chains=4, progress=False)
