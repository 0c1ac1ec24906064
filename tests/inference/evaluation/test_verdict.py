"""The verdict in words, nested R-hat, and efficiency, on draws whose fault is known."""

import numpy as np
import pytest
import torch

from posterior_inpainting.inference import (
    MAP,
    ULA,
    ChEES,
    Exact,
    TemperedSMC,
    Variational,
    diagnostics,
    infer,
    sample,
)
from posterior_inpainting.inference.contract import Draws
from posterior_inpainting.inference.results.convert import latent_groups, to_arviz
from posterior_inpainting.models import Observation, observations

HALF = observations.half((1, 8, 8), hide="bottom")


def judged(values, **attrs):
    values = torch.as_tensor(values, dtype=torch.float32)
    drawn = Draws({"x": values}, {"lp": torch.zeros(values.shape[:2])}, "markov")
    return diagnostics.verdict(
        to_arviz(latent_groups(drawn), {"draws_are": "markov", "method": "ChEES"} | attrs)
    )


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=(8, 500, 3))


def walk(chains, draws):
    return np.random.default_rng(0).normal(size=(chains, draws, 3)).cumsum(1)


def test_good_draws(noise):
    assert judged(noise).kind == "converged"


def test_chains_in_different_places(noise):
    found = judged(noise + 8 * (np.arange(8) % 2)[:, None, None])
    assert found.kind == "several modes"
    assert "ParallelTempering" in found.advice


def test_one_chain_of_eight_elsewhere(noise):
    assert judged(noise + 8 * (np.arange(8) == 3)[:, None, None]).kind == "several modes"


def test_random_walks():
    assert judged(walk(8, 500)).kind == "not mixing"


def test_few_draws(noise):
    assert judged(noise[:, :20]).kind == "too few draws"


def test_unadjusted_is_never_converged(noise):
    assert judged(noise, method=ULA().label).kind == "biased"


def test_verdicts_of_real_runs(linear, digits, digits_model):
    seen = Observation(digits[3], HALF)
    options = {"draws": 500, "chains": 8, "progress": False}
    assert diagnostics.verdict(infer(linear, seen, ChEES(), **options)).kind == "converged"
    exact = diagnostics.verdict(infer(linear, seen, Exact(), **options))
    assert exact.kind == "independent"
    assert exact.advice.startswith("Use the draws")
    poor = infer(digits_model, seen, Variational(guide="normal", steps=1), **options)
    assert "not the posterior" in diagnostics.verdict(poor).reason
    assert diagnostics.verdict(infer(linear, seen, MAP(restarts=2, steps=5), **options)).kind == "restarts"
    particles = infer(linear, seen, TemperedSMC(), draws=500, chains=8, progress=False)
    assert diagnostics.verdict(particles).kind == "particles"
    assert "log evidence" in str(diagnostics.verdict(particles))


def test_several_modes_of_a_real_posterior(digits_model):
    from posterior_inpainting.models import datasets

    image, mask = datasets.load("digits")[0], observations.half((1, 8, 8), hide="right")
    idata = infer(digits_model, Observation(image, mask), ChEES(), draws=300, chains=16, progress=False)
    assert diagnostics.verdict(idata).kind == "several modes"


class TestNested:
    def test_is_the_formula(self, noise):
        superchains = noise.reshape(4, 2, 500, 3)
        between = superchains.mean((1, 2)).var(0, ddof=1)
        within = (superchains.mean(2).var(1, ddof=1) + superchains.var(2, ddof=1).mean(1)).mean(0)
        assert diagnostics.nested_rhat(noise, 4) == pytest.approx(np.sqrt(1 + between / within))

    def test_many_short_chains_that_agree(self):
        """A single draw of each of 512 chains: R-hat cannot say anything, nested R-hat can."""
        draws = np.random.default_rng(0).normal(size=(512, 1))
        assert diagnostics.nested_rhat(draws, 8) < 1.02

    def test_superchains_that_remember_their_start(self, linear, digits):
        starts = np.repeat(np.random.default_rng(0).normal(size=8) * 5, 64)
        draws = np.random.default_rng(1).normal(size=(512, 5)) + starts[:, None]
        assert diagnostics.nested_rhat(draws, 8) > 2

    def test_superchains_of_a_run(self, linear, digits):
        seen = Observation(digits[3], HALF)
        method = ChEES(warmup=100, superchains=4)
        idata = infer(linear, seen, method, draws=20, chains=64, progress=False)
        assert diagnostics.nested_rhat(idata.posterior["z"].to_numpy(), 4).max() < 1.02

    @pytest.mark.parametrize("superchains", [1, 3, 16])
    def test_what_does_not_divide_is_refused(self, noise, superchains):
        with pytest.raises(ValueError, match=f"superchains={superchains}"):
            diagnostics.nested_rhat(noise, superchains)


def test_efficiency_is_in_the_attributes(linear, digits):
    idata = infer(linear, Observation(digits[3], HALF), ChEES(), draws=200, chains=8, progress=False)
    worst = float(diagnostics.pixel_ess(idata).min())
    assert idata.attrs["ess_per_second"] == pytest.approx(worst / idata.attrs["wall_time_s"])
    expected = 1000 * worst / idata.attrs["gradient_evaluations"]
    assert idata.attrs["ess_per_1000_gradients"] == pytest.approx(expected)
    exact = infer(linear, Observation(digits[3], HALF), Exact(), draws=20, chains=2, progress=False)
    assert "ess_per_second" not in exact.attrs
    drawn = sample(_normal, ChEES(warmup=50), draws=100, chains=8, progress=False)
    assert drawn.attrs["ess_per_second"] > 0


def _normal():
    import pyro
    import pyro.distributions as dist

    pyro.sample("x", dist.Normal(0.0, 1.0))


def test_one_chain_is_never_enough(noise):
    found = judged(noise[:1])
    assert found.kind == "too few draws"
    assert "several chains" in found.advice
    assert judged(walk(1, 500)).kind == "not mixing"
