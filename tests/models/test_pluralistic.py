"""Pluralistic completion in three forms: what the published one does, and what the other two promise."""

import json
import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from digit import HALF, SHAPE
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.optim import Adam
from statistics_of_draws import assert_moments
from torch.distributions import kl_divergence

from posterior_inpainting.inference import ChEES, Exact, Variational, calibrate, infer, train
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.recipes.pluralistic import (
    PLURALISTIC_RECIPES,
    ConditionalRecipe,
    JointRecipe,
    TwoPathRecipe,
)
from posterior_inpainting.inference.results.images_of_posterior import completed_images
from posterior_inpainting.inference.training.two_path import TwoPathObjective
from posterior_inpainting.models import LatentCode, Observation, datasets, observations, pretrained
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.networks.attention import ShortLongAttention, coarse_mask
from posterior_inpainting.models.networks.context_encoder import ContextEncoder
from posterior_inpainting.models.networks.patch_discriminator import PatchDiscriminator
from posterior_inpainting.models.networks.pluralistic import PluralisticDecoder, PluralisticEncoder
from posterior_inpainting.models.pluralistic import (
    PluralisticConditional,
    PluralisticJoint,
    PluralisticTwoPath,
    prior_scale,
)


def two_path():
    return PluralisticTwoPath(
        PluralisticEncoder(SHAPE, code_channels=2, widths=(8, 8)),
        PluralisticDecoder(SHAPE, code_channels=2, widths=(8, 8)),
    )


def conditional():
    return PluralisticConditional(
        ContextEncoder(2, SHAPE, (16,), context=3),
        MultilayerDecoder(5, SHAPE, (16,)),
        MaskedEncoder(2, (2, 8, 8), (16,)),
    )


def joint():
    return PluralisticJoint(MultilayerDecoder(2, SHAPE, (16,)), MaskedEncoder(2, SHAPE, (16,)))


FORMS = {"two-path": two_path, "conditional": conditional, "joint": joint}
ANCESTRAL = ("two-path", "conditional")


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def model(form):
    return FORMS[form]()


@pytest.fixture(scope="module")
def images():
    return datasets.load("digits")[:6]


def pair(form, model):
    """What `train` is given."""
    return (model, model.guide) if form == "joint" else (model.training_model, model.training_guide)


def whole_matrix(attention, decoded, encoded, seen):
    """The equation with the matrix of all positions, on averages where the maps are too large."""
    rows, columns = decoded.shape[2:]
    times = -(-max(rows, columns) // attention.side)
    size = -(-rows // times), -(-columns // times)
    d, e = (torch.nn.functional.adaptive_avg_pool2d(one, size) for one in (decoded, encoded))
    query = attention.query(d).flatten(2)
    scores = (query.transpose(1, 2) @ query).softmax(-1).transpose(1, 2)
    short, long = (
        torch.nn.functional.interpolate(
            (one.flatten(2) @ scores).unflatten(2, size), (rows, columns), mode="bilinear"
        )
        for one in (d, e)
    )
    long = attention.alpha * (1 - seen) * long + seen * encoded
    return torch.cat([attention.gamma * short + decoded, long], 1)


def law_of(program, *args):
    return poutine.trace(program).get_trace(*args).nodes["z"]["fn"].base_dist


def sites(model, image, mask, z=None):
    given = model if z is None else poutine.condition(model, {"z": z})
    return poutine.trace(given).get_trace(image, mask).nodes


class TestEveryForm:
    def test_sites(self, model, images):
        found = sites(model, images[0], HALF)
        assert found["completion"]["value"].shape == SHAPE
        assert found["completion"]["infer"]["_deterministic"]
        assert found["image"]["is_observed"]
        latent = {n for n, s in found.items() if s["type"] == "sample" and not s["is_observed"]}
        assert latent == {"z"}
        assert law_of(model.guide, images[0], HALF).batch_shape == found["z"]["value"].shape

    def test_hidden_pixels_change_no_number(self, form, model, images):
        reference = None
        method = Variational() if form == "joint" else Exact()
        for fill in (0.0, 0.7, float("nan"), float("inf")):
            image = torch.where(HALF, images[0], fill)
            found = sites(
                model, image, HALF, torch.zeros(model.decoder.latent if form == "joint" else model.latent)
            )
            law = law_of(model.guide, image, HALF)
            drawn = infer(model, Observation(image, HALF), method, draws=3, chains=1, progress=False)
            numbers = [
                found["completion"]["value"],
                law.loc,
                law.scale,
                torch.tensor(drawn.posterior_predictive["image"].to_numpy()),
                torch.tensor(drawn.sample_stats["lp"].to_numpy()),
            ]
            reference = reference or numbers
            for one, other in zip(numbers, reference, strict=True):
                assert one.isfinite().all()
                assert torch.equal(one, other)

    def test_seen_pixels_do_matter(self, model, images):
        changed = images[0].clone()
        changed[0, 1, 3] = 1 - changed[0, 1, 3]
        before, after = (law_of(model.guide, image, HALF).loc for image in (images[0], changed))
        assert not torch.equal(before, after)

    def test_batch_equals_each_alone(self, model, images):
        masks = torch.stack([HALF, ~HALF, HALF | ~HALF, observations.scatter(SHAPE, 0.5)])
        together = law_of(model.guide, images[:4], masks)
        z = together.sample()
        completions = sites(model, images[:4], masks, z)["completion"]["value"]
        for i in range(4):
            alone = law_of(model.guide, images[i], masks[i])
            torch.testing.assert_close(together.loc[i], alone.loc, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(together.scale[i], alone.scale, atol=1e-5, rtol=1e-4)
            one = sites(model, images[i], masks[i], z[i])["completion"]["value"]
            torch.testing.assert_close(completions[i], one, atol=1e-5, rtol=1e-4)

    def test_seen_pixels_are_exact(self, form, model, images):
        method = Variational() if form == "joint" else Exact()
        drawn = infer(model, Observation(images[0], HALF), method, draws=5, chains=2, progress=False)
        image = completed_images(drawn)
        seen = HALF.numpy()
        assert (image[:, :, seen] == images[0].numpy()[seen]).all()
        assert image[:, :, ~seen].std((0, 1)).min() > 0

    def test_loss_decreases(self, form, model, digits):
        masks = observations.random_masks(SHAPE, 200)
        training = train(
            *pair(form, model),
            digits[:256],
            masks=masks,
            epochs=5,
            batch_size=64,
            learning_rate=3e-3,
            progress=False,
        )
        assert training.losses[-1] < training.losses[0] - 1

    def test_bare_pyro(self, model, images):
        svi = SVI(model, model.guide, Adam({"lr": 1e-3}), Trace_ELBO())
        with warnings.catch_warnings():  # the guide of an ancestral form never meets the decoder's weights
            warnings.simplefilter("ignore", UserWarning)
            assert np.isfinite(svi.step(images[0], HALF))
        assert Predictive(model, num_samples=4)()["image"].shape[-3:] == SHAPE

    def test_wrong_shapes_are_named(self, model, images):
        with pytest.raises(ValueError, match=r"shape \(1, 4, 4\); expected \(1, 8, 8\)"):
            model(torch.zeros(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))
        with pytest.raises(ValueError, match="mask is a bool tensor"):
            model(images[0], torch.ones(1, 8, 9, dtype=torch.bool))


@pytest.mark.parametrize("form", ANCESTRAL)
class TestAncestralForms:
    def test_seen_pixels_score_nothing(self, form, images):
        """They are input already: scored as well, they would count twice."""
        model = FORMS[form]()
        traced = poutine.trace(model).get_trace(images[:3], HALF)
        traced.compute_log_prob()
        assert float(traced.nodes["image"]["log_prob_sum"]) == 0
        drawn = infer(model, Observation(images[0], HALF), Variational(), draws=20, chains=1, progress=False)
        assert float(abs(drawn.sample_stats["log_weight"]).max()) < 1e-4

    def test_exact_draws_have_the_guides_moments(self, form, images):
        model = FORMS[form]()
        law = law_of(model.guide, images[0], HALF)
        drawn = infer(model, Observation(images[0], HALF), Exact(), draws=2000, chains=1, progress=False)
        mean, sd = law.loc.detach(), law.scale.detach()
        assert_moments(drawn.posterior["z"], mean, sd, independent=True)
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(drawn.posterior["z"], mean, 1.3 * sd, independent=True)

    def test_training_needs_masks(self, form, images):
        model = FORMS[form]()
        with pytest.raises(ValueError, match=r"learns from hidden pixels; pass masks=random_masks"):
            train(model.training_model, model.training_guide, images, epochs=1, progress=False)
        if form == "two-path":
            with pytest.raises(ValueError, match=r"two paths need hidden pixels; pass masks=random_masks"):
                train(
                    model.training_model,
                    model.training_guide,
                    images,
                    epochs=1,
                    loss=TwoPathObjective(),
                    progress=False,
                )

    def test_the_training_guide_sees_hidden_pixels_and_the_other_does_not(self, form, images):
        model = FORMS[form]()
        changed = torch.where(HALF, images, 1 - images)
        for program, moves in ((model.training_guide, True), (model.guide, False)):
            before, after = (law_of(program, given, HALF).loc for given in (images, changed))
            assert torch.equal(before, after) != moves


class TestTwoPath:
    def test_what_it_says_it_is(self, images):
        drawn = infer(two_path(), Observation(images[0], HALF), Exact(), draws=2, chains=1, progress=False)
        assert drawn.attrs["density"] == "pseudo-posterior"
        assert "log_evidence" not in drawn.attrs

    @pytest.mark.parametrize(("visible", "expected"), [(0.5, 0.917), (0.75, 0.599), (0.9, 0.310)])
    def test_prior_scale(self, visible, expected):
        mask = torch.arange(400) < 400 * visible
        assert float(prior_scale(mask.reshape(1, 20, 20))) == pytest.approx(expected, abs=5e-4)

    @pytest.mark.parametrize("regulariser", ["paper", "code"])
    def test_divergences_agree_with_their_integrals(self, regulariser, images):
        """The recorded closed forms, times the entries of z, against the mean of log ratios at draws."""
        model, masks = two_path(), HALF.expand(images.shape)
        objective = TwoPathObjective(regulariser=regulariser)
        objective.differentiable_loss(model, None, images, masks)
        paths = model.two_paths(images, masks)
        q, p, prior = paths.hidden_law, paths.seen_law, paths.prior
        first = (q, prior) if regulariser == "paper" else (prior, q)
        for name, (one, other) in {"q and N(0, s^2)": first, "q and p": (q, p)}.items():
            with torch.no_grad():
                z = one.sample((4000,))
                ratio = (one.log_prob(z) - other.log_prob(z)).mean((-2, -1))
            error = float(ratio.std() / len(ratio) ** 0.5)
            found = objective.record[0][name]
            assert abs(found - float(ratio.mean())) < 4 * error
            turned = float(kl_divergence(other, one).mean().detach())
            assert abs(turned - float(ratio.mean())) > 4 * error  # the other direction is another number

    def test_the_gradient_of_q_is_stopped_on_the_generative_path(self, images):
        """Moving p changes no gradient of q's head; without the stop it would."""
        masks = HALF.expand(images.shape)
        model = two_path()
        only = {"divergence": 1.0, "error": 0.0, "adversarial": 0.0, "features": 0.0}

        def gradients(shift):
            model.zero_grad()
            with torch.no_grad():
                model.encoder.seen_head[-1].bias += shift
            TwoPathObjective(**only).differentiable_loss(model, None, images, masks).backward()
            return [
                model.encoder.hidden_head[-1].bias.grad.clone(),
                model.encoder.seen_head[-1].bias.grad.clone(),
            ]

        (before, own), (after, moved) = gradients(0.0), gradients(1.0)
        torch.testing.assert_close(before, after)
        assert own.abs().max() > 0
        assert not torch.allclose(own, moved)
        paths = model.two_paths(images, masks)
        kl_divergence(paths.hidden_law, paths.seen_law).mean().backward()
        assert (model.encoder.hidden_head[-1].bias.grad - after).abs().max() > 1e-3

    def test_the_generative_path_scores_seen_pixels_only(self, images):
        model, masks = two_path(), HALF.expand(images.shape)
        errors = []
        for given in (images, torch.where(HALF, images, 1 - images)):
            torch.manual_seed(3)
            objective = TwoPathObjective()
            objective.differentiable_loss(model, None, given, masks)
            errors.append(objective.record[0])
        assert errors[0]["seen error"] == errors[1]["seen error"]
        assert errors[0]["whole error"] != errors[1]["whole error"]

    def test_errors_of_every_scale(self, images):
        """By hand, scale by scale: a coarse pixel counts where all that it stands for is seen."""
        model, mask = two_path(), observations.scatter(SHAPE, 0.8, seed=1)
        masks = mask.expand(images.shape)
        objective = TwoPathObjective()
        torch.manual_seed(5)
        objective.differentiable_loss(model, None, images, masks)
        torch.manual_seed(5)
        paths = model.two_paths(images, masks)
        expected = 0.0
        for painted, size in zip(paths.generated, (4, 2, 1), strict=True):
            for i in range(8 // size):
                for j in range(8 // size):
                    rows, columns = slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size)
                    if mask[0, rows, columns].all():
                        target = images[:, 0, rows, columns].mean((-2, -1))
                        expected += (
                            float((painted[:, 0, i, j] - target).abs().mean().detach()) / (8 // size) ** 2
                        )
        assert objective.record[0]["seen error"] == pytest.approx(expected, rel=1e-4)

    def test_the_total_is_the_weighted_sum(self, images):
        objective = TwoPathObjective(divergence=7.0, error=5.0, adversarial=3.0, features=2.0)
        loss = objective.differentiable_loss(two_path(), None, images, HALF.expand(images.shape))
        r = objective.record[0]
        expected = 7 * (r["q and N(0, s^2)"] + r["q and p"]) + 5 * (r["whole error"] + r["seen error"])
        expected += 3 * r["fooling"] + 2 * r["matching features"]
        assert float(loss.detach()) == pytest.approx(len(images) * expected, rel=1e-5)

    def test_published_loss_weights(self):
        assert TwoPathObjective().weights == {
            "divergence": 80.0, "error": 20.0, "adversarial": 1.0, "features": 1.0,
        }  # fmt: skip

    def test_adversarial_training(self, digits):
        """It learns to redraw, and its discriminators to tell."""
        model, objective, training = self.trained(digits, epochs=10)
        assert training.losses[-1] < 0.6 * training.losses[0]
        first, last = objective.record[0], objective.record[-1]
        assert last["whole error"] < 0.7 * first["whole error"]
        assert last["discriminators"] < first["discriminators"]
        with torch.no_grad():
            paths = model.two_paths(digits[:64], HALF.expand(64, *SHAPE))
            scores = [objective.judges[1](x)[0].mean() for x in (digits[:64], paths.generated[-1])]
        assert scores[0] > scores[1]

    def test_same_seed_same_weights(self, digits):
        models = [self.trained(digits, epochs=1)[0] for _ in range(2)]
        for one, other in zip(*(m.parameters() for m in models), strict=True):
            assert torch.equal(one, other)

    @staticmethod
    def trained(digits, epochs):
        torch.manual_seed(0)
        model, objective = two_path(), TwoPathObjective(learning_rate=1e-3)
        masks = observations.random_masks(SHAPE, 100)
        training = train(
            model.training_model, model.training_guide, digits[:256], masks=masks, epochs=epochs, batch_size=32,
            learning_rate=3e-3, loss=objective, progress=False,
        )  # fmt: skip
        return model, objective, training

    def test_the_models_step_teaches_its_discriminators_nothing(self, images):
        objective = TwoPathObjective()
        loss = objective.differentiable_loss(two_path(), None, images, HALF.expand(images.shape))
        own = [p.grad.clone() for p in objective.judges.parameters()]  # of the step that they have just made
        loss.backward()
        assert sum(float(g.abs().sum()) for g in own) > 0
        for before, parameter in zip(own, objective.judges.parameters(), strict=True):
            assert torch.equal(before, parameter.grad)
            assert parameter.requires_grad

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"regulariser": "both"}, "regulariser='both'; expected 'paper' or 'code'"),
            ({"error": -1.0}, "error=-1.0; expected a weight of at least 0"),
        ],
        ids=["regulariser", "weight"],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            TwoPathObjective(**options)

    def test_sizes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"image_shape=\(1, 9, 8\); expected .* divisible by 4"):
            PluralisticEncoder((1, 9, 8))
        with pytest.raises(ValueError, match="encoder's code has 8 entries and the decoder's 12"):
            PluralisticTwoPath(PluralisticEncoder(SHAPE, 2, (8, 8)), PluralisticDecoder(SHAPE, 3, (8, 8)))


class TestAttention:
    def test_formula(self):
        """Loops over positions, as the equation is written."""
        attention = ShortLongAttention(6, query_channels=3)
        with torch.no_grad():
            attention.gamma.fill_(0.7)
            attention.alpha.fill_(-0.4)
        decoded, encoded = torch.randn(2, 6, 3, 4), torch.randn(2, 5, 3, 4)
        seen = torch.rand(2, 1, 3, 4)
        found = attention(decoded, encoded, seen).flatten(2)
        d, e, m = decoded.flatten(2), encoded.flatten(2), seen.flatten(2)
        query = (
            torch.einsum("qc,ncp->nqp", attention.query.weight[..., 0, 0], d) + attention.query.bias[:, None]
        )
        for n in range(2):
            for i in range(12):
                scores = torch.stack([query[n, :, i] @ query[n, :, j] for j in range(12)]).softmax(0)
                short = 0.7 * sum(scores[j] * d[n, :, j] for j in range(12)) + d[n, :, i]
                long = -0.4 * (1 - m[n, 0, i]) * sum(scores[j] * e[n, :, j] for j in range(12))
                expected = torch.cat([short, long + m[n, 0, i] * e[n, :, i]])
                torch.testing.assert_close(found[n, :, i], expected, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("size", [(8, 12), (20, 7)], ids=["as it is", "averaged"])
    def test_equals_the_whole_matrix(self, size):
        """In double precision, above the largest size on averages; without them it is another number."""
        attention = ShortLongAttention(6, side=12).double()
        with torch.no_grad():
            attention.gamma.fill_(0.7)
            attention.alpha.fill_(-0.4)
        decoded, encoded = (torch.randn(2, n, *size, dtype=torch.double, requires_grad=True) for n in (6, 5))
        seen = torch.rand(2, 1, *size, dtype=torch.double)
        found, expected = (
            attend(decoded, encoded, seen) for attend in (attention, partial(whole_matrix, attention))
        )
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        slopes = [torch.autograd.grad(out.square().sum(), (decoded, encoded)) for out in (found, expected)]
        torch.testing.assert_close(*slopes, atol=1e-10, rtol=0)
        attention.side = 20
        apart = float((attention(decoded, encoded, seen) - expected).abs().max().detach())
        assert (apart < 1e-12) == (size == (8, 12))

    def test_completions_of_the_bundled_weights_stay(self):
        model, images = PluralisticTwoPath.load(), datasets.load("fashion-mnist-samples")[:4]
        mask = observations.half(images.shape[1:], hide="bottom").expand(images.shape)
        z, features = torch.randn(3, 4, model.latent), model.encoder(images, mask)
        found = model.decoder(z, features, mask)[-1]
        attention = model.decoder.attention
        attention.forward = partial(whole_matrix, attention)
        torch.testing.assert_close(found, model.decoder(z, features, mask)[-1], atol=2e-5, rtol=0)
        attention.gamma.fill_(0.0)  # it is not that attention does nothing
        assert (found - model.decoder(z, features, mask)[-1]).abs().max() > 1e-3

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the most memory is read from Linux")
    @pytest.mark.parametrize(("attend", "fits"), [("attention", True), ("whole", False)])
    def test_memory_grows_with_positions(self, attend, fits):
        """Of 96 x 96 positions that all attend, the matrix has 340 MB: more than is used, unless it is made."""
        program = f"""
import torch
from test_pluralistic import ShortLongAttention, whole_matrix
attention = ShortLongAttention(8, side=96)
whole = lambda *given: whole_matrix(attention, *given)
given = torch.rand(1, 8, 96, 96), torch.rand(1, 8, 96, 96), torch.rand(1, 1, 96, 96)
def most():  # `getrusage` counts what the process that started this one had
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
before = most()
{attend}(*given).sum().backward()
print(most() - before)
"""
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert (1024 * int(run.stdout) < 96**4) == fits

    def test_a_side_below_one_is_refused(self):
        with pytest.raises(ValueError, match="side=0; expected at least 1"):
            ShortLongAttention(4, side=0)

    def test_begins_without_attention(self):
        decoded, encoded, seen = torch.randn(1, 4, 2, 2), torch.randn(1, 3, 2, 2), torch.zeros(1, 1, 2, 2)
        out = ShortLongAttention(4)(decoded, encoded, seen)
        assert torch.equal(out[:, :4], decoded)
        assert (out[:, 4:] == 0).all()

    def test_what_it_looks_at_comes_from_seen_pixels(self, images):
        encoder = PluralisticEncoder(SHAPE, 2, (8, 8))
        first, second = (
            encoder(given, HALF.expand(images.shape))[0]
            for given in (images, torch.where(HALF, images, torch.nan))
        )
        assert torch.equal(first, second)

    def test_coarse_mask_is_a_share(self):
        share = coarse_mask(observations.scatter((3, 8, 8), 0.5).expand(2, 5, 3, 8, 8), 2)
        assert share.shape == (2, 5, 1, 4, 4)
        assert set(share.unique().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}

    def test_discriminator_has_a_bounded_slope(self):
        """Spectral norms near 1: an input that is nearer gives a score that is nearer."""
        judge = PatchDiscriminator(SHAPE, width=8)
        for _ in range(50):  # power iterations
            judge(torch.rand(2, *SHAPE))
        for layer in judge.layers:
            norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
            assert float(norm) == pytest.approx(1, abs=0.05)


class Affine(torch.nn.Module):
    """Laws of a linear-Gaussian image (s, h): s seen, h hidden, z between them; 1 x 1 x 2 pixels."""

    latent, context, image_shape = 1, 1, (1, 1, 2)
    prior, weight, slope, noise = (
        (0.8, 0.6),
        1.5,
        -0.7,
        0.3,
    )  # z | s ~ N(.8 s, .6^2), h ~ N(1.5 z - .7 s, .3^2)

    def __init__(self):
        super().__init__()
        self.used = torch.nn.Parameter(torch.ones(()))


class AffinePrior(Affine):
    def forward(self, image, mask):
        seen = image[..., 0, :, 0]
        return self.prior[0] * seen * self.used, self.prior[1] * torch.ones_like(seen), seen


class AffineDecoder(Affine):
    latent = 2

    def mean_and_scale(self, both):
        hidden = self.weight * both[..., 0] + self.slope * both[..., 1]
        mean = torch.stack([both[..., 1], hidden], -1)[..., None, None, :] * self.used
        return mean, torch.full_like(mean, self.noise)


class AffinePosterior(Affine):
    """The exact p(z | s, h), by conditioning a Gaussian."""

    def forward(self, parts, masks):
        seen, hidden = parts[..., 0, :, 0], parts[..., 1, :, 1]
        precision = self.prior[1] ** -2 + (self.weight / self.noise) ** 2
        pull = self.prior[0] * seen / self.prior[1] ** 2
        pull = pull + self.weight * (hidden - self.slope * seen) / self.noise**2
        return pull / precision, torch.full_like(seen, precision**-0.5)


class TestConditional:
    MASK = torch.tensor([[[True, False]]])

    def model(self):
        return PluralisticConditional(AffinePrior(), AffineDecoder(), AffinePosterior())

    @staticmethod
    def exact(seen):
        """Mean and sd of h given s, z integrated out."""
        mean = (Affine.weight * Affine.prior[0] + Affine.slope) * seen
        return mean, (Affine.weight**2 * Affine.prior[1] ** 2 + Affine.noise**2) ** 0.5

    def test_draws_of_a_linear_gaussian_case(self):
        image = torch.tensor([[[0.9, torch.nan]]])
        drawn = infer(
            self.model(), Observation(image, self.MASK), Exact(), draws=4000, chains=1, progress=False
        )
        hidden = drawn.posterior_predictive["image"].to_numpy()[..., 0, 0, 1:]
        mean, sd = self.exact(0.9)
        assert_moments(hidden, [mean], [sd], independent=True)
        with pytest.raises(AssertionError, match="biased"):  # the completion lacks the noise
            assert_moments(
                drawn.posterior["completion"].to_numpy()[..., 0, 0, 1:], [mean], [sd], independent=True
            )

    def test_bound_is_the_evidence_where_the_guide_is_the_posterior(self):
        model, data = self.model(), torch.randn(20, 1, 1, 2)
        masks = self.MASK.expand(data.shape)
        elbo = -Trace_ELBO().loss(model.training_model, model.training_guide, data, masks)
        mean, sd = self.exact(data[..., 0])
        assert elbo == pytest.approx(float(dist.Normal(mean, sd).log_prob(data[..., 1]).sum()), rel=1e-4)
        shown = -Trace_ELBO().loss(model.training_model, model.guide, data, masks)
        assert shown < elbo - 1  # with p(z | x~) for a guide it is a bound, and below

    def test_only_hidden_pixels_are_scored(self, images):
        model = conditional()
        z = torch.zeros(len(images), 2)
        traced = poutine.trace(poutine.condition(model.training_model, {"z": z})).get_trace(images, HALF)
        traced.compute_log_prob()
        law = traced.nodes["image"]["fn"].base_dist.base_dist
        expected = law.log_prob(images)[..., ~HALF].sum()
        torch.testing.assert_close(traced.nodes["image"]["log_prob_sum"], expected)

    def test_bad_parts(self, images):
        with pytest.raises(ValueError, match="the decoder takes 4 numbers; expected 2 of the code and 3"):
            PluralisticConditional(
                ContextEncoder(2, SHAPE, (4,), context=3), MultilayerDecoder(4, SHAPE, (4,))
            )
        bare = PluralisticConditional(
            ContextEncoder(2, SHAPE, (4,), context=3), MultilayerDecoder(5, SHAPE, (4,))
        )
        with pytest.raises(ValueError, match="no posterior_encoder, which training needs"):
            bare.training_guide(images[0], HALF)


class Plane(torch.nn.Module):
    """A linear decoder with known noise, whose posterior is a Gaussian; no `restrict`, so that Pyro is asked."""

    latent, image_shape, noise = 2, (1, 2, 3), 0.5

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = torch.nn.Parameter(torch.randn(6, 2, generator=generator), requires_grad=False)

    def mean_and_scale(self, z):
        mean = (z @ self.weight.T).unflatten(-1, self.image_shape)
        return mean, torch.full_like(mean, self.noise)

    def posterior(self, image, mask):
        weight = self.weight[mask.flatten()]
        covariance = torch.linalg.inv(torch.eye(2) + weight.T @ weight / self.noise**2)
        return covariance @ weight.T @ image[mask] / self.noise**2, covariance.diagonal().sqrt()


class Narrow(torch.nn.Module):
    """A guide that is wrong on purpose: shifted from the posterior's mean, and too narrow."""

    def __init__(self, plane):
        super().__init__()
        self.plane = plane

    def forward(self, image, mask):
        laws = [
            self.plane.posterior(x, m)
            for x, m in zip(
                image.reshape(-1, 1, 2, 3), mask.expand(image.shape).reshape(-1, 1, 2, 3), strict=True
            )
        ]
        loc, scale = (torch.stack(part).reshape(*image.shape[:-3], 2) for part in zip(*laws, strict=True))
        return loc + 0.3, 0.4 * scale


class TestJoint:
    MASK = torch.tensor([[[True, True, False], [True, False, False]]])

    def model(self):
        plane = Plane()
        return PluralisticJoint(plane, Narrow(plane)).eval()

    def test_closed_form_equals_the_model(self, images):
        problem = Problem(joint(), (images[0], HALF))
        fast, general = Potential(problem), Potential(problem, closed_form=False)
        assert (fast.route, general.route) == ("closed form", "vmap")
        position = torch.randn(6, 2)
        for ours, theirs in zip(fast.gradient(position, 0.3), general.gradient(position, 0.3), strict=True):
            torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-4, atol=2e-3)

    def test_same_density_as_a_latent_code(self, images):
        """It is the density that `LatentCode` has over the same decoder."""
        model = joint()
        other = LatentCode(model.decoder)
        z = torch.randn(2)
        totals = [
            poutine.trace(poutine.condition(one, {"z": z})).get_trace(images[0], HALF).log_prob_sum()
            for one in (model.eval(), other)
        ]
        torch.testing.assert_close(*totals)

    def test_chains_start_from_the_guides_draws(self):
        model, image = self.model(), torch.randn(3, 1, 2, 3)
        masks = self.MASK.expand(image.shape)
        potential = Potential(Problem(model, (image, masks), guide=model.guide), groups=3)
        state = ChEES(init="guide").start(
            potential, torch.zeros(3, 2000, 2), torch.Generator().manual_seed(0)
        )
        for i in range(3):
            loc, scale = model.encoder(image[i], self.MASK)
            assert_moments(state.point.position[i][None], loc, scale, independent=True)

    def test_refinement_ends_at_the_posterior_whatever_the_guide(self):
        model, image = self.model(), torch.tensor([[[0.5, -0.2, 0.0], [1.0, 0.0, 0.0]]])
        seen, truth = Observation(image, self.MASK, any_values=True), Plane().posterior(image, self.MASK)
        before = infer(model, seen, Variational(), draws=1000, chains=1, progress=False)
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(before.posterior["z"], *truth, independent=True)
        after = infer(model, seen, ChEES(init="guide", warmup=100), draws=100, chains=32, progress=False)
        assert_moments(after.posterior["z"], *truth)

    def test_calibration_before_and_after(self):
        settings = {"mask": self.MASK, "datasets": 60, "progress": False}
        before = calibrate(self.model(), Variational(), draws=60, chains=1, **settings)
        after = calibrate(self.model(), ChEES(init="guide", warmup=40), draws=30, chains=8, **settings)
        assert not before.sbc().inside_band
        assert not before.tarp().inside_band
        assert after.sbc().inside_band
        assert after.tarp().inside_band


SMALL = {
    "two-path": TwoPathRecipe(dataset="digits", images=48, code_channels=2, widths=(8, 8), epochs=1),
    "conditional": ConditionalRecipe(
        dataset="digits", latent=2, context=2, widths=(8,), encoder_widths=(8,), epochs=1
    ),
    "joint": JointRecipe(
        dataset="digits", latent=2, widths=(8,), encoder_widths=(8,), epochs=1, encoder_epochs=1
    ),
}


class TestRecipes:
    def test_there_is_one_for_every_form(self):
        assert {name.removeprefix("fashion-mnist-pluralistic-") for name in PLURALISTIC_RECIPES} == set(FORMS)

    def test_train_and_save(self, form, digits, tmp_path):
        recipe = SMALL[form]
        model = recipe.fit(digits[:64], progress=False)
        assert not any(p.requires_grad for p in model.decoder.parameters())
        for part, network in recipe.parts(model).items():
            again = type(network)(**json.loads(json.dumps(network.configuration())))
            again.load_state_dict(network.state_dict())
            assert sum(p.numel() for p in again.parameters()) > 0, part


BUNDLED = {
    "fashion-mnist-pluralistic-two-path": PluralisticTwoPath,
    "fashion-mnist-pluralistic-conditional": PluralisticConditional,
    "fashion-mnist-pluralistic-joint": PluralisticJoint,
}


class TestBundled:
    @pytest.fixture(params=BUNDLED)
    def loaded(self, request):
        return BUNDLED[request.param].load()

    def test_completes_what_it_has_not_seen(self, loaded):
        """Nearer to the truth than the mean of all images is, in the hole, by three standard errors."""
        images = datasets.load("fashion-mnist-samples")[:32]
        mask = observations.half((1, 28, 28), hide="bottom")
        method = Variational() if isinstance(loaded, PluralisticJoint) else Exact()
        gains = []
        for image in images:
            drawn = infer(loaded, Observation(image, mask), method, draws=20, chains=1, progress=False)
            mean = drawn.posterior["completion"].to_numpy().mean((0, 1))
            hidden = ~mask.numpy()
            flat, error = (((m - image.numpy())[hidden] ** 2).mean() for m in (images.mean(0).numpy(), mean))
            gains.append(flat - error)
        assert np.mean(gains) > 3 * np.std(gains) / len(gains) ** 0.5

    @pytest.mark.parametrize("name", BUNDLED)
    def test_card_names_its_command(self, name):
        assert f"posterior-inpainting train {name} --out DIR" in pretrained.card(name)
