"""Samplers that denoise, on a mixture of Gaussians whose posterior, evidence and mode weights are known."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from statistics_of_draws import assert_moments

from posterior_inpainting.inference import (
    DPS,
    MAP,
    ConditionalDiffusion,
    DiffPIR,
    Exact,
    NoiseMatchedGibbs,
    NoiseMatchedSMC,
    NoiseMatchedTempering,
    ParticleGibbs,
    PiGDM,
    RePaint,
    diagnostics,
    infer,
    infer_many,
    step_doubling,
)
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.denoised_images import DenoisedImages
from posterior_inpainting.inference.density.reverse_steps import ReverseSteps
from posterior_inpainting.inference.results.images_of_posterior import posterior_mean
from posterior_inpainting.models import DiffusionPrior, LatentCode, MixtureField, Observation, pretrained

SHAPE = (1, 1, 4)
MASK = torch.tensor([[[True, True, False, False]]])
IMAGE = torch.tensor([[[0.1, 0.2, 0.0, 0.0]]])
NOISE = 0.25


def covariance(loadings):
    """Of pixels that depend on each other, so that what is seen of some says much of the others."""
    factor = torch.tensor(loadings).double()
    return torch.outer(factor, factor) + 0.02 * torch.eye(4).double()


def field(apart, noise=NOISE):
    """Two modes whose hidden pixels differ, and whose seen pixels do so by a little."""
    means = torch.tensor([[0.0, 0.3, 0.0, 0.2], [0.2, 0.1, apart, 0.2 - apart]]).double()
    covariances = torch.stack([covariance([0.6, 0.5, 0.6, -0.6]), covariance([0.5, 0.3, -0.4, 0.5])])
    return MixtureField(torch.tensor([0.7, 0.3]), means, covariances, SHAPE, noise)


def hidden(idata):
    return idata.posterior["completion"].to_numpy()[..., 0, 0, 2:]


def exact(model):
    posterior = model.exact_posterior(IMAGE, MASK)
    return posterior.mean[2:].numpy(), posterior.variance[2:].sqrt().numpy()


def share_of_second(model, idata, apart):
    """Share of draws in the second mode, told by the hidden pixels, beside the exact one."""
    posterior = model.exact_posterior(IMAGE, MASK)
    x = hidden(idata)
    second = (x[..., 0] - x[..., 1]) > apart - 0.1
    return second, float(posterior.mixture_distribution.probs[1])


class TestOneMode:
    """Modes near each other, so that chains go between them by themselves."""

    MODEL = field(apart=0.3)

    @pytest.mark.parametrize(
        "method",
        [
            NoiseMatchedGibbs(steps=None, warmup=50),
            NoiseMatchedTempering(steps=None, temperatures=5, warmup=50),
            NoiseMatchedGibbs(steps=60, warmup=50),
        ],
        ids=["Gibbs", "tempering", "Gibbs in 60 steps"],
    )
    def test_moments(self, method):
        idata = infer(self.MODEL, Observation(IMAGE, MASK), method, draws=400, chains=16, progress=False)
        assert_moments(hidden(idata), *exact(self.MODEL))

    def test_a_copy_under_other_noise_would_be_wrong(self, monkeypatch):
        """As of a split Gibbs sampler, which adds the copy's noise to the observation's: the test above can fail."""
        levels = DenoisedImages.levels
        monkeypatch.setattr(DenoisedImages, "levels", lambda self, beta: 2**0.5 * levels(self, beta))
        method = NoiseMatchedGibbs(steps=None, warmup=50)
        idata = infer(self.MODEL, Observation(IMAGE, MASK), method, draws=2000, chains=16, progress=False)
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(hidden(idata), *exact(self.MODEL))

    def test_too_few_steps_are_wrong(self):
        method = NoiseMatchedGibbs(steps=4, warmup=50)
        idata = infer(self.MODEL, Observation(IMAGE, MASK), method, draws=2000, chains=16, progress=False)
        assert idata.attrs["biased"] == 1
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(hidden(idata), *exact(self.MODEL))

    def test_many_images_in_one_batch(self):
        seen = [Observation(IMAGE, MASK), Observation(1 - IMAGE, ~MASK)]
        method = NoiseMatchedGibbs(steps=None, warmup=50)
        first, second = infer_many(self.MODEL, seen, method, draws=400, chains=16, progress=False)
        assert_moments(hidden(first), *exact(self.MODEL))
        posterior = self.MODEL.exact_posterior(1 - IMAGE, ~MASK)
        found = second.posterior["completion"].to_numpy()[..., 0, 0, :2]
        assert_moments(found, posterior.mean[:2].numpy(), posterior.variance[:2].sqrt().numpy())


class TestTwoModes:
    APART = 3.0
    MODEL = field(apart=APART)

    @pytest.fixture(scope="class")
    @classmethod
    def particles(cls):
        method = NoiseMatchedSMC(steps=None, share=0.9)
        return infer(cls.MODEL, Observation(IMAGE, MASK), method, draws=1000, chains=8, progress=False)

    def test_evidence(self, particles):
        attrs = particles.attrs
        assert attrs["log_evidence_se"] < 0.05
        truth = float(self.MODEL.log_evidence(IMAGE, MASK))
        assert abs(attrs["log_evidence"] - truth) < 4 * attrs["log_evidence_se"]

    def test_share_of_particles(self, particles):
        second, truth = share_of_second(self.MODEL, particles, self.APART)
        # Of each replicate's own: draws of the result are of all of them.
        replicate = particles.sample_stats["replicate"].to_numpy()
        shares = np.array([second[replicate == one].mean() for one in np.unique(replicate)])
        assert 0.2 < truth < 0.8
        assert abs(second.mean() - truth) < 4 * shares.std(ddof=1) / math.sqrt(len(shares)) + 1e-3

    def test_share_of_tempered_chains(self):
        method = NoiseMatchedTempering(steps=None, temperatures=8, warmup=100)
        seen = Observation(IMAGE, MASK)
        idata = infer(self.MODEL, seen, method, draws=600, chains=16, progress=False)
        second, truth = share_of_second(self.MODEL, idata, self.APART)
        assert_moments(second[..., None].astype(float), [truth], [math.sqrt(truth * (1 - truth))])
        assert float(idata.sample_stats["swap_rate"].mean()) > 0.2

    def test_chains_at_one_level_stay_where_they_fell(self):
        method = NoiseMatchedGibbs(steps=None, warmup=50)
        seen = Observation(IMAGE, MASK)
        idata = infer(self.MODEL, seen, method, draws=200, chains=16, progress=False)
        second, _ = share_of_second(self.MODEL, idata, self.APART)
        assert set(second.mean(1)) == {0.0, 1.0}


class TestParticleGibbs:
    """Exact for the discrete chain, however few its steps: the truth is that chain's, by importance sampling."""

    STEPS = 3
    MODEL = field(apart=0.3)

    @pytest.fixture(scope="class")
    @classmethod
    def truth(cls):
        density = DenoisedImages(Problem(cls.MODEL, (IMAGE, MASK)), cls.STEPS)
        x = density.draw_from_prior(400_000, torch.Generator().manual_seed(0)).unsqueeze(0)
        weight = density.log_likelihood(x)[0].double().softmax(0).numpy()
        pixels = x[0, :, 2:].numpy()
        mean = weight @ pixels
        assert 1 / (weight**2).sum() > 20_000
        return mean, np.sqrt(weight @ (pixels - mean) ** 2)

    @pytest.mark.parametrize("particles", [4, 32])
    def test_moments(self, truth, particles):
        method = ParticleGibbs(particles=particles, steps=self.STEPS, warmup=20)
        idata = infer(self.MODEL, Observation(IMAGE, MASK), method, draws=400, chains=16, progress=False)
        assert_moments(hidden(idata), *truth)
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(hidden(idata), *exact(self.MODEL))

    def test_particles_that_are_not_weighed_for_the_pull_are_wrong(self, truth, monkeypatch):
        """Pulled towards what is seen, and weighed as if they had not been."""
        extend = ReverseSteps.extend

        def forgetful(self, state, step, value):
            return extend(self, dataclasses.replace(state, pull=torch.zeros_like(state.pull)), step, value)

        monkeypatch.setattr(ReverseSteps, "extend", forgetful)
        method = ParticleGibbs(particles=8, steps=self.STEPS, warmup=20)
        idata = infer(self.MODEL, Observation(IMAGE, MASK), method, draws=400, chains=16, progress=False)
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(hidden(idata), *truth)


class TestConditionalDiffusion:
    """The posterior's own diffusion: its steps are all that is wrong with it, and enough of them are enough."""

    MODEL = field(apart=0.3)
    SEEN = Observation(IMAGE, MASK)

    def test_moments(self):
        draws = {"draws": 1000, "chains": 4, "progress": False}
        idata = infer(self.MODEL, self.SEEN, ConditionalDiffusion(steps=300), **draws)
        assert_moments(hidden(idata), *exact(self.MODEL))

    def test_expectations_on_the_way_have_the_posterior_mean_and_less_chance(self):
        draws = {"draws": 1000, "chains": 4, "progress": False}
        idata = infer(self.MODEL, self.SEEN, ConditionalDiffusion(steps=300), **draws)
        mean, sd = exact(self.MODEL)
        expected = idata.sample_stats["expected_completion"].to_numpy()[..., 0, 0, 2:]
        spread = expected.std((0, 1))
        assert (np.abs(expected.mean((0, 1)) - mean) < 5 * spread / math.sqrt(4000)).all()
        assert (spread < 0.8 * sd).all()
        assert np.allclose(posterior_mean(idata)[0, 0, 2:], expected.mean((0, 1)), atol=1e-5)

    def test_weights_of_two_separated_modes(self):
        model = field(apart=3.0)
        draws = {"draws": 1000, "chains": 4, "progress": False}
        idata = infer(model, self.SEEN, ConditionalDiffusion(steps=200), **draws)
        second, truth = share_of_second(model, idata, 3.0)
        assert 0.1 < truth < 0.9
        assert abs(second.mean() - truth) < 5 * math.sqrt(truth * (1 - truth) / second.size)

    def test_a_seen_pixel_under_other_noise_would_be_wrong(self, monkeypatch):
        """As if the observation had half its noise: the first test can fail."""
        monkeypatch.setattr(
            ConditionalDiffusion,
            "step",
            lambda method, step: self.with_half_the_noise(method, step),
        )
        idata = infer(
            self.MODEL, self.SEEN, ConditionalDiffusion(steps=300), draws=4000, chains=4, progress=False
        )
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(hidden(idata), *exact(self.MODEL))

    @staticmethod
    def with_half_the_noise(method, step):
        reverse = step.density.reverse
        levels = [
            torch.where(step.seen, t.clamp(max=0.5 * reverse.noise), t) for t in (step.now, step.following)
        ]
        mean, spread = reverse.step(step.images, *levels)
        return mean + spread * step.noise()

    def test_many_images_in_one_batch(self):
        seen = [self.SEEN, Observation(1 - IMAGE, ~MASK)]
        method = ConditionalDiffusion(steps=200)
        first, second = infer_many(self.MODEL, seen, method, draws=4000, chains=1, progress=False)
        assert_moments(hidden(first).reshape(4, 1000, 2), *exact(self.MODEL))
        posterior = self.MODEL.exact_posterior(1 - IMAGE, ~MASK)
        found = second.posterior["completion"].to_numpy()[..., 0, 0, :2].reshape(4, 1000, 2)
        assert_moments(found, posterior.mean[:2].numpy(), posterior.variance[:2].sqrt().numpy())

    def test_a_denoiser_of_one_level_an_image_is_refused(self):
        network = torch.nn.Conv2d(1, 2, 1)
        network.channels, network.centre, network.spread = 1, 0.0, 1.0
        network.size, network.takes_levels_of_pixels = None, False
        with pytest.raises(ValueError, match="takes one noise level an image, not one a pixel"):
            infer(DiffusionPrior(network, SHAPE), self.SEEN, ConditionalDiffusion(), progress=False)


class TestStepDoubling:
    MODEL, SEEN = field(apart=0.3), Observation(IMAGE, MASK)
    DRAWS = {"draws": 10_000, "chains": 4, "progress": False}  # noqa: RUF012 - not changed

    def found(self, method):
        return step_doubling(self.MODEL, self.SEEN, method, **self.DRAWS)

    def test_it_predicts_the_bias_that_is_there(self):
        """What moves from n steps to 2 n is what is wrong at 2 n, within a factor of two."""
        found, sd = self.found(ConditionalDiffusion(steps=24)), exact(self.MODEL)[1]
        wrong = hidden(found.many).std((0, 1)) / sd - 1
        moved = hidden(found.many).std((0, 1)) / hidden(found.few).std((0, 1)) - 1
        assert np.abs(wrong).max() > 0.02
        assert 0.5 < np.abs(wrong).mean() / np.abs(moved).mean() < 2

    def test_verdict(self):
        few, many = self.found(ConditionalDiffusion(steps=4)), self.found(ConditionalDiffusion(steps=150))
        coarse, fine = diagnostics.verdict(few.many), diagnostics.verdict(many.many)
        assert coarse.kind == "biased"
        assert "which of 4 steps says little" in coarse.reason
        assert "Double from 20 steps" in coarse.advice
        assert fine.kind == "independent"
        assert f"pixels moved by {many.shift:.2f} sd" in fine.reason
        assert "exact draws" not in fine.reason
        assert diagnostics.verdict(many.few).kind == "biased"
        many.many.attrs["step_doubling_spread"] = 1.06
        assert "Take twice the steps" in diagnostics.verdict(many.many).advice

    def test_evidence(self):
        found = step_doubling(
            self.MODEL, self.SEEN, NoiseMatchedSMC(steps=16), draws=2000, chains=8, progress=False
        )
        moved, error = found.evidence
        assert abs(moved) > 3 * error
        truth = float(self.MODEL.log_evidence(IMAGE, MASK))
        wrong = found.many.attrs["log_evidence"] - truth
        assert moved * wrong < 0
        assert "log evidence by" in diagnostics.verdict(found.many).reason

    def test_bad_input(self):
        with pytest.raises(ValueError, match="Exact has no reverse steps to double"):
            self.found(Exact())
        with pytest.raises(ValueError, match="MAP has no reverse steps to double"):
            self.found(MAP())
        with pytest.raises(ValueError, match="no pixel is hidden"):
            step_doubling(
                self.MODEL,
                Observation(IMAGE, torch.ones_like(MASK)),
                DPS(steps=2),
                draws=20,
                chains=2,
                progress=False,
            )


GUIDED = (DPS(steps=60), PiGDM(steps=60), DiffPIR(steps=60, fresh=1.0), RePaint(steps=60, repeats=1))


@pytest.mark.parametrize(
    "method", [m for m in GUIDED if m.label != "DiffPIR"], ids=lambda method: method.label
)
def test_with_nothing_seen_a_guided_chain_is_the_plain_one(method):
    """And that has the prior's mean; its spread is too small by what its steps lack."""
    model = field(apart=0.3)
    nothing = Observation(IMAGE, torch.zeros_like(MASK))
    idata = infer(model, nothing, method, draws=2000, chains=2, progress=False)
    found = idata.posterior["completion"].to_numpy()[..., 0, 0, :]
    prior = model.exact_posterior()
    error = prior.variance.sqrt().numpy() / math.sqrt(4000)
    assert (np.abs(found.mean((0, 1)) - prior.mean.numpy()) < 5 * error).all()
    ratio = found.std((0, 1)) / prior.variance.sqrt().numpy()
    assert ((ratio > 0.7) & (ratio < 1.05)).all()
    assert idata.attrs["approximate"] == 1


@pytest.mark.parametrize("method", GUIDED, ids=lambda method: method.label)
def test_seen_pixels_pull(method):
    model = field(apart=0.3, noise=0.02)
    idata = infer(model, Observation(IMAGE, MASK), method, draws=50, chains=2, progress=False)
    seen = idata.posterior["completion"].to_numpy()[..., 0, 0, :2]
    assert np.abs(seen.mean((0, 1)) - IMAGE[0, 0, :2].numpy()).max() < 0.06


class TestVerdict:
    """It never recommends draws whose error nobody has measured."""

    def said(self, method):
        seen = Observation(IMAGE, MASK)
        return diagnostics.verdict(infer(field(0.3), seen, method, draws=800, chains=8, progress=False))

    def test_steps_are_an_error_of_the_methods_own(self):
        found = self.said(NoiseMatchedGibbs(steps=20))
        assert found.kind == "biased"
        assert "twice the steps" in found.advice

    def test_without_steps_there_is_none(self):
        assert self.said(NoiseMatchedSMC(steps=None)).kind == "particles"
        assert self.said(NoiseMatchedTempering(steps=None, temperatures=4)).kind == "converged"

    def test_guided_chains_are_approximate(self):
        found = self.said(DPS(steps=10))
        assert found.kind == "approximate"
        assert found.advice.startswith("Use NoiseMatchedSMC()")


class TestBadInput:
    SEEN = Observation(IMAGE, MASK)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: infer(field(0.3), TestBadInput.SEEN, NoiseMatchedGibbs(steps=0)),
                "steps=0; expected at",
            ),
            (
                lambda: infer(field(0.3), TestBadInput.SEEN, ParticleGibbs()),
                "is no reverse chain; say steps=100",
            ),
            (
                lambda: infer(field(0.3, 1e-4), TestBadInput.SEEN, NoiseMatchedSMC()),
                "below the smallest level",
            ),
            (lambda: ParticleGibbs(particles=1), "particles=1; expected at least 2"),
            (lambda: NoiseMatchedSMC(share=1.0), "share=1.0; expected a number in"),
            (lambda: NoiseMatchedSMC(rounds=0), "rounds=0; expected at least 1"),
            (lambda: NoiseMatchedTempering(temperatures=1), "temperatures=1; expected at least 2"),
            (lambda: DPS(scale=0.0), "scale=0.0; expected"),
            (lambda: PiGDM(steps=0), "steps=0; expected"),
            (lambda: ConditionalDiffusion(steps=0), "steps=0; expected at least 1"),
            (lambda: DiffPIR(fresh=2.0), "fresh=2.0; expected"),
            (lambda: RePaint(repeats=0), "repeats=0; expected"),
            (
                lambda: infer(
                    LatentCode(pretrained.load("digits-vae-2d")),
                    Observation(torch.zeros(1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)),
                    NoiseMatchedSMC(),
                ),
                "LatentCode does not denoise; use ChEES",
            ),
        ],
        ids=range(13),
    )
    def test_is_named_in_a_line(self, make, message):
        with pytest.raises(ValueError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "seen", [torch.zeros_like(MASK), torch.ones_like(MASK)], ids=["nothing", "everything"]
    )
    @pytest.mark.parametrize(
        "method", [NoiseMatchedGibbs(steps=None), NoiseMatchedSMC(steps=None), DPS(steps=5)]
    )
    def test_nothing_or_everything_seen_is_no_mistake(self, seen, method):
        idata = infer(field(0.3), Observation(IMAGE, seen), method, draws=10, chains=2, progress=False)
        assert np.isfinite(idata.posterior["completion"]).all()
