"""Stopping by held-out seen pixels: the truth is never read, and the step is the one that they choose."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from digit import HALF, SHAPE

from posterior_inpainting.inference import MAP, early_stopping, infer, infer_many, sample
from posterior_inpainting.inference.contract import Plan, Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.early_stop import StoppedClimb, held_apart
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import (
    DeepImagePrior,
    LatentCode,
    Measurement,
    Observation,
    datasets,
    observations,
    operators,
    pretrained,
)
from posterior_inpainting.models.networks import Hourglass

STEPS = 120
METHOD = MAP(restarts=3, steps=STEPS, learning_rate=0.05, held_out=0.2)


def hourglass(shape=SHAPE):
    torch.manual_seed(0)
    return DeepImagePrior(shape, Hourglass(shape, channels=4, scales=1, skip=2, input_channels=3))


@pytest.fixture(scope="module")
def image():
    return datasets.load("digits")[5]


@pytest.fixture(scope="module")
def seen(image):
    return Observation(image, observations.scatter(SHAPE, 0.6))


def parts_of(problem, share=0.2):
    """The problems of what is fitted and of what is held out in a run with seed 0."""
    return held_apart(problem, share, Streams(0).generator("held out"))


def losses_along(model, seen, method=METHOD):
    """Half the squared error over the noise at held-out pixels ``(restart, step)``, and completions at every step."""
    fitted, judged = parts_of(Problem(model, seen.arguments), method.held_out)
    climbing = method._process(Problem(model, seen.arguments), Plan(1, 1, Streams(0)))
    rows = StoppedClimb(
        Potential(fitted, jacobian=False),
        climbing.position,
        method.steps,
        method.learning_rate,
        tuple(range(method.steps)),
        judge=climbing.judge,
    )
    completions = torch.stack([rows.step()[0]["completion"][0] for _ in range(method.steps + 1)], 1)
    error = ((completions - seen.image) / model.noise)[..., judged.args[1]]
    return 0.5 * error.square().sum(-1).numpy(), completions.numpy()


class TestWhichPixels:
    def test_seen_ones_alone_each_in_one_part(self, image, seen):
        fitted, judged = (one.args[1] for one in parts_of(Problem(hourglass(), seen.arguments)))
        assert torch.equal(fitted | judged, seen.mask)
        assert not (fitted & judged).any()
        assert int(judged.sum()) == round(0.2 * int(seen.mask.sum()))

    def test_all_channels_of_a_place_together(self):
        shape = (3, 6, 7)
        mask = observations.scatter(shape, 0.7)
        fitted, judged = (
            one.args[1] for one in parts_of(Problem(hourglass(shape), (torch.rand(shape), mask)))
        )
        assert torch.equal(judged.any(0), judged.all(0))
        assert torch.equal(fitted | judged, mask)

    def test_every_seen_place_is_as_likely_as_the_others(self, seen):
        problem, runs = Problem(hourglass(), seen.arguments), 400
        held = sum(
            held_apart(problem, 0.2, Streams(i).generator("held out"))[1].args[1].int() for i in range(runs)
        )
        share = float(held[seen.mask].float().mean()) / runs
        # The greatest of some forty binomial shares lies within four standard errors.
        error = (share * (1 - share) / runs) ** 0.5
        assert (held[seen.mask] / runs - share).abs().max() < 4 * error
        assert (held[~seen.mask] == 0).all()

    @pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.999, 40)])
    def test_at_least_one_in_either_part(self, seen, share, count):
        problem = Problem(hourglass(), seen.arguments)
        assert int(seen.mask.sum()) == 41
        assert int(parts_of(problem, share)[1].args[1].sum()) == count

    def test_too_few_seen_and_other_models_are_refused(self, image):
        one = torch.zeros(SHAPE, dtype=torch.bool)
        one[0, 3, 3] = True
        with pytest.raises(ValueError, match=r"^held_out=0.2 of 1 seen pixels; expected at least 2$"):
            infer(hourglass(), Observation(image, one), METHOD, progress=False)

        def model():
            pyro.sample("x", dist.Normal(0.0, 1.0))

        with pytest.raises(ValueError, match=r"^held_out=0.2 is of seen pixels; expected a model of images$"):
            sample(model, METHOD, progress=False)

    @pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
    def test_shares_that_cannot_be(self, share):
        with pytest.raises(ValueError, match=f"^held_out={share}; expected a number between 0 and 1$"):
            MAP(held_out=share)


class TestTheStep:
    def test_is_that_of_the_least_held_out_loss(self, seen):
        model = hourglass()
        losses, completions = losses_along(model, seen)
        found = infer(model, seen, METHOD, progress=False)
        step = found.sample_stats["step"].to_numpy()[:, 0]
        np.testing.assert_array_equal(step, losses.argmin(1))
        assert ((step > 0) & (step < STEPS)).any(), "nothing was stopped early"
        chosen = completions[np.arange(3), step]
        np.testing.assert_allclose(found.posterior["completion"].to_numpy()[:, 0], chosen, atol=1e-6)
        assert found.attrs["best_restart"] == losses.min(1).argmin()
        assert found.attrs["held_out_pixels"] == round(0.2 * int(seen.mask.sum()))
        assert found.attrs["held_out_stream"] == "held out"

    def test_the_path_says_the_same(self, seen):
        model = hourglass()
        method = MAP(restarts=3, steps=STEPS, learning_rate=0.05, held_out=0.2, snapshots=40)
        path = infer(model, seen, method, progress=False).sample_stats
        found = infer(model, seen, METHOD, progress=False).sample_stats
        least = path["held_out_loss"].to_numpy().min(1)
        assert (found["held_out_loss"].to_numpy()[:, 0] <= least).all()
        assert int(path["step"][0, -1]) == STEPS

    @pytest.mark.parametrize(
        "fault",
        [lambda climb, loss: -loss, lambda climb, loss: -sum(climb.density(climb.position))],
        ids=["the worst step", "the step that fits best"],
    )
    def test_a_broken_judge_is_found(self, seen, monkeypatch, fault):
        right = StoppedClimb._loss

        def broken(climb, position):
            with torch.no_grad():
                return fault(climb, right(climb, position))

        losses, _ = losses_along(hourglass(), seen)
        monkeypatch.setattr(StoppedClimb, "_loss", broken)
        step = infer(hourglass(), seen, METHOD, progress=False).sample_stats["step"].to_numpy()[:, 0]
        assert (step != losses.argmin(1)).any()

    def test_it_helps_a_network_that_fits_noise(self):
        """A smooth image under noise: the end has fitted the noise, and what is stopped is nearer to the truth."""
        shape = (1, 16, 16)
        truth = 0.5 + 0.3 * torch.sin(torch.linspace(0, 3, 16)).expand(shape)
        noisy = truth + 0.15 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
        seen = Observation(noisy.clamp(0, 1), observations.scatter(shape, 0.5))
        torch.manual_seed(0)
        model = DeepImagePrior(shape, Hourglass(shape, channels=16, scales=2), noise=0.15)
        errors = {}
        for held_out in (None, 0.2):
            method = MAP(restarts=4, steps=400, learning_rate=0.02, held_out=held_out)
            completion = infer(model, seen, method, progress=False).posterior["completion"].to_numpy()[:, 0]
            error = (completion - truth.numpy())[:, ~seen.mask.numpy()]
            errors[held_out] = np.square(error).mean(1)
        assert (errors[0.2] < errors[None]).all()


class TestTheTruthIsNotRead:
    @pytest.mark.parametrize("fill", [0.0, 1.0, float("nan")])
    def test_bit_by_bit(self, image, seen, fill):
        """At the problem itself: an observation forgets hidden values on arrival."""
        other = torch.where(seen.mask, image, torch.full_like(image, fill))
        plan = Plan(1, 1, Streams(0))
        runs = [METHOD.run(Problem(hourglass(), (one, seen.mask)), plan) for one in (image, other)]
        for one, two in zip(runs[0].latents.values(), runs[1].latents.values(), strict=True):
            assert torch.equal(one, two)
        assert torch.equal(runs[0].stats["step"], runs[1].stats["step"])

    def test_seen_ones_are(self, image, seen):
        """The counterpart, without which the test above could not fail."""
        other = torch.where(seen.mask, 1 - image, image)
        plan = Plan(1, 1, Streams(0))
        one, two = (METHOD.run(Problem(hourglass(), (i, seen.mask)), plan) for i in (image, other))
        assert not torch.equal(one.stats["step"], two.stats["step"])


class TestManyAtOnce:
    def test_an_image_of_a_batch_gets_what_it_gets_alone(self):
        model = LatentCode(pretrained.load("digits-vae-2d")).double()
        images = datasets.load("digits")[:3].double()
        masks = torch.stack([HALF, ~HALF, observations.scatter(SHAPE, 0.4)])
        method = MAP(restarts=2, steps=60, held_out=0.2)
        plan = Plan(1, 1, Streams(0))
        together, _ = method.optimise(Problem(model, (images, masks)), plan)
        for i in range(3):
            alone, _ = method.optimise(Problem(model, (images[i : i + 1], masks[i : i + 1])), plan)
            torch.testing.assert_close(together["z"][:, i], alone["z"][:, 0], atol=1e-6, rtol=1e-6)

    def test_infer_many_says_that_it_cannot(self, seen):
        with pytest.raises(ValueError, match="MAP draws from one posterior at a time"):
            infer_many(hourglass(), [seen], METHOD, progress=False)

    def test_values_of_a_measurement_are_held_out(self, image):
        small = operators.average(SHAPE, 2)
        measured = Measurement(small, small(image), noise=0.02)
        found = infer(hourglass(), measured, METHOD, progress=False)
        assert found.attrs["held_out_pixels"] == 3
        fitted, judged = (one.args for one in parts_of(Problem(hourglass(), measured.arguments)))
        assert fitted[0].numel() + judged[0].numel() == 16
        torch.testing.assert_close(judged[1].operator(image), judged[0])

    def test_early_stopping_takes_its_path(self, image, seen):
        method = MAP(restarts=2, steps=50, snapshots=8, held_out=0.2)
        curve = early_stopping(infer(hourglass(), seen, method, progress=False), image)
        assert curve.index[-1] == 50
