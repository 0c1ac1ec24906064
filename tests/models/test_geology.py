"""Simulated channels against their law, wells against their counts, the published baseline against brute force."""

import math
import re

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import ndimage

from posterior_inpainting.inference import MAP, ChEES, TemperedSMC, infer
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.recipes.geology import GeologyRecipe
from posterior_inpainting.inference.recipes.train_recipe import train_recipe
from posterior_inpainting.models import LatentCode, LinearGaussian, Observation, PriorLoss, pretrained
from posterior_inpainting.models.geology.meandering_channels import (
    MeanderingChannels,
    disturbed_periodic,
    simulate,
)
from posterior_inpainting.models.geology.nearest_measurement import (
    RADII,
    NearestMeasurement,
    nearest_measurement,
    published_radius,
)
from posterior_inpainting.models.geology.wells import columns, nearest_seen, wells
from posterior_inpainting.models.mixture_prior import MixturePrior
from posterior_inpainting.models.networks import Discriminator, MultilayerDecoder
from posterior_inpainting.models.networks.code_mixture import CodeMixture
from posterior_inpainting.models.networks.convolutional_encoder import ConvolutionalEncoder
from tests.statistics_of_draws import assert_moments

SHAPE = (1, 64, 64)


class TestChannels:
    def test_the_seed_is_the_image_whatever_the_count(self):
        few, more = simulate(3, seed=5), simulate(260, seed=5)
        assert torch.equal(few, more[:3])
        assert not torch.equal(few, simulate(3, seed=6))
        assert few.dtype == torch.float32
        assert few.min() >= 0
        assert few.max() <= 1

    def test_grey_values_are_those_of_the_rocks(self):
        law = MeanderingChannels()
        indicator, images = law.indicator(100, seed=1), law.simulate(100, seed=1)
        for rock, value in ((indicator == 1, law.sand), (indicator == 0, law.background)):
            noise = images[rock] - value
            assert abs(float(noise.mean())) < 5 * law.nugget / math.sqrt(len(noise))
            assert abs(float(noise.std()) / law.nugget - 1) < 0.01  # a little is lost to the clip

    def test_a_straight_channel_has_the_width_it_was_given(self):
        law = MeanderingChannels((1, 1), (0.0, 0.0), swing=(0.0, 0.0), width=(6.0, 6.0), edge=1.0)
        images = law.indicator(200, seed=0)[:, 0]
        whole = images[:, [0, -1]].amax((1, 2)) == 0  # not cut by the upper or lower border
        assert whole.float().mean() > 0.7
        assert (images[whole].sum(1) - 6).abs().max() < 0.15

    def test_widths_and_share_stay_in_their_ranges(self):
        law = MeanderingChannels((1, 1), swing=(0.0, 0.2))
        masks = law.indicator(200, seed=2)[:, 0] >= 0.5
        centre = [m for m in masks.numpy() if m[:, 8:-8].sum(0).min() >= 4]
        widths = np.array([2 * ndimage.distance_transform_edt(np.pad(m, 1)).max() for m in centre])
        assert len(widths) > 100
        assert widths.min() > law.width[0] - 1
        assert widths.max() < law.width[1] + 2
        share = MeanderingChannels().indicator(512, seed=2).mean((1, 2, 3))
        assert 0.16 < float(share.mean()) < 0.21
        assert share.max() < 0.6

    def test_every_channel_crosses_the_image(self):
        law = MeanderingChannels()
        lines, _, there = law.centre_lines(500, SHAPE, torch.Generator().manual_seed(0))
        ends = lines[:, :, [0, -1]][there]
        assert (ends[:, 0, 1] < 0).all()
        assert (ends[:, 1, 1] > 63).all()
        for mask in law.indicator(60, seed=3)[:, 0].numpy() >= 0.5:
            labels, count = ndimage.label(mask, np.ones((3, 3)))
            border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
            assert set(range(1, count + 1)) <= set(border.tolist()), "a channel that comes from nowhere"

    def test_numbers_of_channels_are_equally_likely(self):
        _, _, there = MeanderingChannels((1, 3)).centre_lines(3000, SHAPE, torch.Generator().manual_seed(0))
        counts = torch.bincount(there.sum(1), minlength=4)
        assert counts[0] == 0
        assert (counts[1:] - 1000).abs().max() < 5 * math.sqrt(3000 * 2 / 9)

    def test_orientation_has_the_moments_of_its_range(self):
        law = MeanderingChannels((1, 1), orientation=(0.1, 0.5), swing=(0.0, 0.0))
        lines, _, _ = law.centre_lines(4000, SHAPE, torch.Generator().manual_seed(0))
        along = lines[:, 0, -1] - lines[:, 0, 0]
        angle = torch.atan2(along[:, 0], along[:, 1])
        variance = 0.4**2 / 12
        assert abs(float(angle.mean()) - 0.3) < 5 * math.sqrt(variance / 4000)
        # Of a uniform variable the fourth central moment is 9/5 of the variance squared.
        assert abs(float((angle - 0.3).square().mean()) - variance) < 5 * variance * math.sqrt(0.8 / 4000)

    def test_directions_are_stationary_with_the_correlation_of_the_process(self):
        count, wavelength, damping = 20_000, 40.0, 0.1
        noise = torch.randn(60, count, generator=torch.Generator().manual_seed(0))
        angles = disturbed_periodic(noise, torch.tensor(wavelength), damping).double()
        assert (angles.square().mean(1) - 1).abs().max() < 5 * math.sqrt(2 / count)
        k = 2 * math.pi / wavelength
        first = 2 * math.exp(-k * damping) * math.cos(k * math.sqrt(1 - damping**2))
        second = -math.exp(-2 * k * damping)
        expected = [1.0, first / (1 - second)]
        for _ in range(58):
            expected.append(first * expected[-1] + second * expected[-2])
        found = (angles[0] * angles).mean(1)
        assert (found - torch.tensor(expected)).abs().max() < 5 * math.sqrt(2 / count)
        assert min(expected) < -0.5, "half a wavelength on, the river has turned back"

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"width": (5.0, 4.0)}, "width=(5.0, 4.0); expected 1 <= low <= high"),
            ({"channels": (0, 2)}, "channels=(0, 2); expected 1 <= low <= high"),
            ({"damping": 1.0}, "damping=1.0; expected a number between 0 and 1"),
            ({"edge": 0.0}, "edge=0.0, nugget=0.06; expected edge > 0 and nugget >= 0"),
            ({"sand": 1.5}, "background=0.2, sand=1.5; expected grey values in [0, 1]"),
        ],
    )
    def test_settings_that_cannot_be(self, settings, message):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            MeanderingChannels(**settings)

    @pytest.mark.parametrize("shape", [(3, 64, 64), (64, 64)], ids=["colour", "no-channel"])
    def test_shapes_that_cannot_be(self, shape):
        with pytest.raises(ValueError, match=r"expected count >= 1 and \(1, row, column\)"):
            simulate(1, shape)


class TestWells:
    @pytest.mark.parametrize("count", [0, 4, 8, 20, 200])
    def test_as_many_as_asked_for_and_isolated(self, count):
        mask = wells((2, 64, 48), count, seed=1)
        assert mask.dtype == torch.bool
        assert mask.shape == (2, 64, 48)
        assert torch.equal(mask[0], mask[1])
        assert int(mask[0].sum()) == count
        neighbours = ndimage.convolve(mask[0].numpy().astype(int), np.ones((3, 3)), mode="constant")
        assert (neighbours[mask[0].numpy()] == 1).all()

    def test_wells_lie_anywhere(self):
        generator = torch.Generator().manual_seed(0)
        hits = sum(wells((1, 4, 4), 1, generator).int() for _ in range(1600))
        assert (hits - 100).abs().max() < 5 * math.sqrt(1600 * 15 / 256)

    def test_columns_are_whole(self):
        mask = columns(SHAPE, 3, seed=2)
        assert int(mask.sum()) == 3 * 64
        assert sorted(set(mask[0].sum(0).tolist())) == [0, 64]

    def test_bad_input_is_one_line(self):
        with pytest.raises(ValueError, match=r"^wells count=30; only \d+ that are not neighbours fit 8 x 8$"):
            wells((1, 8, 8), 30)
        with pytest.raises(ValueError, match=r"^columns count=9; the image has 8$"):
            columns((1, 8, 8), 9)
        with pytest.raises(ValueError, match=r"^wells count=-1; expected a whole number of at least 0$"):
            wells((1, 8, 8), -1)
        with pytest.raises(ValueError, match=r"^shape=\(8, 8\); expected \(channel, row, column\)$"):
            columns((8, 8), 1)

    def test_nothing_seen_is_infinitely_far(self):
        distance, _ = nearest_seen(torch.zeros(1, 3, 3, dtype=torch.bool))
        assert distance.isinf().all()


def brute_force(image, mask, radius):
    """Targets and weights, pixel by pixel."""
    target, weight = torch.zeros_like(image), torch.zeros_like(image)
    for c, r, k in np.ndindex(*image.shape):
        seen = [(math.hypot(r - i, k - j), i, j) for i, j in mask[c].nonzero().tolist()]
        distance, i, j = min(seen)
        if distance <= radius:
            target[c, r, k], weight[c, r, k] = image[c, i, j], 1 / math.sqrt(distance + 1)
    return target, weight


class TestNearestMeasurement:
    def test_targets_and_weights_by_brute_force(self):
        image = torch.rand(2, 17, 13)
        mask = torch.stack([wells((1, 17, 13), count, seed=count)[0] for count in (3, 6)])
        target, weight = nearest_measurement(image, mask, 5.0)
        expected_target, expected_weight = brute_force(image, mask, 5.0)
        assert torch.equal(target, expected_target)
        assert torch.allclose(weight, expected_weight, atol=1e-6)
        assert (weight == 0).any()

    @pytest.mark.parametrize("count", RADII)
    def test_published_radii(self, count):
        image, mask = simulate(1)[0], wells(SHAPE, count)
        target, weight = nearest_measurement(image, mask, RADII[count])
        assert torch.equal(target[mask], image[mask])
        assert (weight[mask] == 1).all()
        distance, _ = nearest_seen(mask)
        assert torch.equal(weight == 0, distance > RADII[count])
        assert weight[~mask].max() == pytest.approx(1 / math.sqrt(2))

    def test_published_radii_of_other_images(self):
        assert published_radius(8, (1, 128, 128)) == RADII[8]
        assert published_radius(4, (1, 64, 96)) == RADII[4] / 2
        with pytest.raises(
            ValueError, match=r"^count=9; expected one of 4, 8, 20, of which a radius is published$"
        ):
            published_radius(9, SHAPE)

    def test_hidden_values_are_not_read(self):
        image, mask = simulate(1)[0], wells(SHAPE, 8)
        spoilt = torch.where(mask, image, torch.nan)
        for a, b in zip(
            nearest_measurement(image, mask, 12), nearest_measurement(spoilt, mask, 12), strict=True
        ):
            assert torch.equal(a, b)

    def test_errors(self):
        image, mask = torch.zeros(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)
        with pytest.raises(ValueError, match=r"^radius=0; expected a positive number of pixels$"):
            nearest_measurement(image, mask, 0)
        with pytest.raises(ValueError, match=r"^radius=-1; expected a positive number of pixels$"):
            NearestMeasurement(decoder(), -1)
        with pytest.raises(ValueError, match=r"^mask is .*; expected a boolean tensor, True = seen$"):
            nearest_measurement(image, mask.float(), 2)


def decoder():
    torch.manual_seed(0)
    return MultilayerDecoder(3, (1, 8, 8), (16,), scale_rank=None)


@pytest.fixture
def model():
    return NearestMeasurement(decoder(), radius=3.0, prior_weight=2.0)


class TestPseudoPosterior:
    def test_score_is_the_published_loss(self, model):
        image, mask, z = torch.rand(1, 8, 8), wells((1, 8, 8), 4), torch.randn(3)
        traced = poutine.trace(poutine.condition(model, {"z": z})).get_trace(image, mask)
        target, weight = brute_force(image, mask, 3.0)
        loss = (weight * (model.decoder(z) - target).abs()).sum() + z.square().sum()
        constant = weight.sum() * math.log(2) + 3 * math.log(2 * math.pi)
        assert float(traced.log_prob_sum()) == pytest.approx(float(-loss - constant), rel=1e-5)

    @pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
    def test_fast_density_is_the_model(self, model, batch):
        image = torch.rand(2, 1, 8, 8)
        mask = torch.stack([wells((1, 8, 8), 4, seed) for seed in (0, 1)])
        args, groups = ((image, mask), 2) if batch else ((image[0], mask[0]), None)
        fast, slow = (Potential(Problem(model, (image[0], mask[0])), closed_form=c) for c in (True, False))
        assert (fast.route, slow.route) == ("closed form", "vmap")
        z = torch.randn(2, 5, 3) if batch else torch.randn(5, 3)
        potential = Potential(Problem(model, args), groups=groups)
        by_hand = potential.gradient(z)
        for i in range(2) if batch else [None]:
            one = slow if i is None else Potential(Problem(model, (image[i], mask[i])), closed_form=False)
            rows = slice(None) if i is None else i
            for a, b in zip(by_hand, one.gradient(z[rows]), strict=True):
                assert torch.allclose(a[rows], b, rtol=1e-4, atol=1e-4)

    def test_restarts_are_restarts_of_a_pseudo_posterior(self, model):
        image, mask = torch.rand(1, 8, 8), wells((1, 8, 8), 4)
        spoilt = Observation(torch.where(mask, image, torch.nan), mask)
        found = [
            infer(model, seen, MAP(restarts=5, steps=200), progress=False)
            for seen in (Observation(image, mask), spoilt)
        ]
        assert found[0].attrs["draws_are"] == "restarts"
        assert found[0].attrs["density"] == "pseudo-posterior"
        z = [one.posterior["z"].to_numpy() for one in found]
        assert np.array_equal(*z)
        potential = Potential(Problem(model, (image, mask)))
        anywhere, found_by_search = (
            sum(potential(p)) for p in (torch.randn(1000, 3), torch.from_numpy(z[0][:, 0]))
        )
        assert found_by_search.min() > anywhere.quantile(0.99)

    @pytest.mark.parametrize("weight", [10.0, 2.5])
    def test_lambda_weighs_the_discriminators_term(self, model, weight):
        """As published: -L - lambda log(1 - D(f(z))), beside p(z) once."""
        torch.manual_seed(1)
        judge = Discriminator((1, 8, 8), channels=(4,), widths=(8,))
        judged = NearestMeasurement(decoder(), radius=3.0, prior_loss=PriorLoss(judge, weight))
        plain = NearestMeasurement(decoder(), radius=3.0)
        image, mask, z = torch.rand(1, 8, 8), wells((1, 8, 8), 4), torch.randn(6, 3)
        one, two = (sum(Potential(Problem(m, (image, mask)))(z)) for m in (judged, plain))
        with torch.no_grad():
            loss = torch.log1p(-torch.sigmoid(judge(judged.decoder(z))))
        torch.testing.assert_close(one - two, -weight * loss, rtol=1e-3, atol=1e-3)
        # A weight on p(z), which was taken for lambda once, is another density.
        wrong = NearestMeasurement(decoder(), radius=3.0, prior_weight=weight)
        assert not torch.allclose(sum(Potential(Problem(wrong, (image, mask)))(z)), one, rtol=1e-2)

    def test_optima_under_a_discriminator_are_what_it_takes_for_real(self):
        torch.manual_seed(1)
        judge = Discriminator((1, 8, 8), channels=(4,), widths=(8,))
        image, mask = torch.rand(1, 8, 8), wells((1, 8, 8), 4)
        found = []
        for loss in (None, PriorLoss(judge, 100.0)):
            model = NearestMeasurement(decoder(), radius=3.0, prior_loss=loss)
            run = infer(model, Observation(image, mask), MAP(restarts=4, steps=200), progress=False)
            completion = torch.from_numpy(run.posterior["completion"].to_numpy()[:, 0])
            with torch.no_grad():
                found.append(judge(completion))
        assert found[1].min() > found[0].max()

    def test_all_hidden_leaves_the_prior(self, model):
        nothing = torch.zeros(1, 8, 8, dtype=torch.bool)
        prior, likelihood = Potential(Problem(model, (torch.zeros(1, 8, 8), nothing)))(torch.zeros(2, 3))
        assert (likelihood == 0).all()
        assert prior.isfinite().all()


@pytest.mark.parametrize("method", [ChEES(warmup=100), TemperedSMC()], ids=["chees", "smc"])
def test_posterior_from_wells_of_a_linear_gaussian_decoder_is_exact(method):
    images = MeanderingChannels((1, 1), width=(3.0, 4.0)).simulate(400, (1, 16, 16))
    model = LinearGaussian.fit(images, latent=6)
    seen = Observation(images[0], wells((1, 16, 16), 8, seed=1))
    draws = infer(model, seen, method, draws=1000, chains=8, progress=False)
    exact = model.exact_posterior(seen.image, seen.mask)
    z = draws.posterior["z"].to_numpy()
    assert_moments(z, exact.mean, exact.variance.sqrt(), independent=method == TemperedSMC(), errors=6)
    completion = draws.posterior["completion"].to_numpy()[..., 0, :, :].reshape(-1, 256)
    far = nearest_seen(seen.mask)[0].flatten() > 3
    sd = (model.loadings @ exact.covariance_matrix @ model.loadings.T).diagonal().sqrt()
    assert np.allclose(completion.std(0)[far], sd[far], rtol=0.08)


class TestGenerator:
    def test_recipe_ends_in_weights_and_a_card_that_says_how(self, tmp_path):
        small = GeologyRecipe(
            images=40, shape=(1, 16, 16), latent=2, widths=(16,), scale_rank=4, epochs=1, components=2
        )
        card = train_recipe("small", small, tmp_path, progress=False)
        assert (tmp_path / "small.md").read_text() == card
        assert "posterior-inpainting train small --out DIR" in card
        assert "nan" not in card
        written = {path.name for path in tmp_path.iterdir()}
        assert written == {"SHA256SUMS", "small.decoder.safetensors", "small.prior.safetensors", "small.md"}

    def test_encoder_reads_no_hidden_pixel(self):
        torch.manual_seed(0)
        encoder = ConvolutionalEncoder(3, (1, 9, 7), channels=(4, 8), widths=(16,))
        image, mask = torch.rand(2, 1, 9, 7), wells((1, 9, 7), 5)
        reference = encoder(image, mask)
        for fill in (0.3, torch.nan, torch.inf):
            for a, b in zip(encoder(torch.where(mask, image, fill), mask), reference, strict=True):
                assert torch.equal(a, b)
        assert not torch.equal(encoder(1 - image, mask)[0], reference[0])
        assert not torch.equal(encoder(torch.zeros_like(image), mask)[0], encoder(image * 0, ~mask)[0])
        # One at a time or all at once.
        assert torch.allclose(encoder(image[0], mask)[0], reference[0][0], atol=1e-6)
        again = ConvolutionalEncoder(**encoder.configuration())
        assert [p.shape for p in again.parameters()] == [p.shape for p in encoder.parameters()]

    def test_bundled_generator_honours_the_wells_and_keeps_its_diversity(self):
        parts = pretrained.load_parts("channels-generator")
        decoder, model = parts["decoder"], LatentCode(parts["decoder"], prior=MixturePrior(parts["prior"]))
        truth, mask = simulate(1, seed=600_000)[0], wells(SHAPE, 8, seed=0)
        method = TemperedSMC(max_moves=3)
        posterior = infer(model, Observation(truth, mask), method, draws=150, chains=2, progress=False)
        z = torch.from_numpy(posterior.posterior["z"].to_numpy()).flatten(0, 1)
        mean, scale = decoder.mean_and_scale(z)
        prior = decoder(model.prior().sample((300,)))
        seen, far = mask[0], nearest_seen(mask)[0][0] > 12
        residual = (mean[:, 0, seen] - truth[0, seen]) / scale[:, 0, seen]
        assert (residual.abs() < 3).float().mean() > 0.97
        assert residual.abs().max() < 6
        before, after = (part[:, 0, far].var(0).mean().sqrt() for part in (prior, mean))
        assert after > 0.6 * before


class TestMixturePrior:
    @pytest.fixture
    def mixture(self):
        torch.manual_seed(0)
        scales = torch.randn(4, 3, 3).tril(-1) + torch.diag_embed(0.3 + torch.rand(4, 3))
        return CodeMixture(4, 3).set(torch.tensor([0.1, 0.2, 0.3, 0.4]), 2 * torch.randn(4, 3), scales)

    def test_density_is_that_of_the_mixture(self, mixture):
        parts = torch.distributions.MultivariateNormal(mixture.means, scale_tril=mixture.scale_trils)
        weights = torch.distributions.Categorical(logits=mixture.log_weights)
        expected = torch.distributions.MixtureSameFamily(weights, parts)
        z = 3 * torch.randn(50, 2, 3)
        assert torch.allclose(MixturePrior(mixture).log_prob(z), expected.log_prob(z), rtol=1e-4, atol=1e-4)

    def test_score_is_autograds_and_needs_no_graph(self, mixture, monkeypatch):
        prior = MixturePrior(mixture).expand((2,))
        z = (3 * torch.randn(50, 2, 3)).requires_grad_()
        (expected,) = torch.autograd.grad(prior.log_prob(z).sum(), z)
        # Far out one component has all the weight, and nothing overflows.
        assert prior.log_prob_and_score(torch.full((2, 3), 1e4))[1].isfinite().all()
        monkeypatch.setattr(torch.autograd, "grad", None)
        log_prob, score = prior.log_prob_and_score(z)
        assert torch.allclose(log_prob, prior.log_prob(z))
        assert torch.allclose(score, expected, rtol=1e-4, atol=1e-4)
        assert not log_prob.requires_grad
        assert not score.requires_grad

    def test_a_posterior_with_it_is_differentiated_by_hand(self, mixture, monkeypatch):
        honest = LatentCode(decoder(), prior=MixturePrior(mixture))
        published = NearestMeasurement(decoder(), 3.0, prior=MixturePrior(mixture))
        image, mask = torch.rand(1, 8, 8), wells((1, 8, 8), 4)
        z = torch.randn(5, 3)
        expected = [
            Potential(Problem(m, (image, mask)), closed_form=False).gradient(z) for m in (honest, published)
        ]
        monkeypatch.setattr(torch.autograd, "grad", None)
        for model, truth in zip((honest, published), expected, strict=True):
            for a, b in zip(model.log_densities(image, mask).gradient({"z": z}, 1.0), truth, strict=True):
                assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)

    def test_draws_have_its_moments(self, mixture):
        draws = MixturePrior(mixture).expand((8,)).sample((4000,)).transpose(0, 1)
        weights = mixture.log_weights.exp()
        mean = weights @ mixture.means
        within = (mixture.scale_trils @ mixture.scale_trils.mT).diagonal(dim1=-2, dim2=-1)
        variance = weights @ (within + (mixture.means - mean).square())
        assert_moments(draws, mean, variance.sqrt(), independent=True)

    def test_prior_of_a_posterior_from_wells(self, mixture):
        model = LatentCode(decoder(), prior=MixturePrior(mixture))
        seen = Observation(torch.rand(1, 8, 8), wells((1, 8, 8), 4))
        fast = Potential(Problem(model, (seen.image, seen.mask)))
        slow = Potential(Problem(model, (seen.image, seen.mask)), closed_form=False)
        assert (fast.route, slow.route) == ("closed form", "vmap")
        z = torch.randn(5, 3)
        for a, b in zip(fast.gradient(z), slow.gradient(z), strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)
        # With nothing seen the posterior is the prior, both of its moments and all of its modes.
        nothing = Observation(seen.image, torch.zeros(1, 8, 8, dtype=torch.bool))
        draws = (
            infer(model, nothing, TemperedSMC(), draws=500, chains=8, progress=False)
            .posterior["z"]
            .to_numpy()
        )
        exact = MixturePrior(mixture).sample((100_000,))
        assert_moments(draws, exact.mean(0), exact.std(0), independent=True, errors=6)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"^components=0, latent=2; expected at least 1 of each$"):
            CodeMixture(0, 2)
