"""The verdict in words, nested R-hat, and efficiency, on draws whose fault is known."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from digit import HALF

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
from posterior_inpainting.inference.evaluation.particles_judged import rhat_between_replicates
from posterior_inpainting.inference.methods.loop import ENDINGS
from posterior_inpainting.inference.results.chain_statistics import ess
from posterior_inpainting.inference.results.containers import to_arviz
from posterior_inpainting.inference.results.convert import latent_groups
from posterior_inpainting.models import LatentCode, Observation, PluralisticTwoPath, observations, pretrained
from posterior_inpainting.models.networks.pluralistic import PluralisticDecoder, PluralisticEncoder


def judged_data(values, stats=None, **attrs):
    values = torch.as_tensor(values, dtype=torch.float32)
    more = {name: torch.as_tensor(value) for name, value in (stats or {}).items()}
    drawn = Draws({"x": values}, {"lp": torch.zeros(values.shape[:2]), **more}, "markov")
    return to_arviz(latent_groups(drawn), {"draws_are": "markov", "method": "ChEES"} | attrs)


def judged(values, stats=None, **attrs):
    return diagnostics.verdict(judged_data(values, stats, **attrs))


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


def test_trusted_begins_the_sentence(noise):
    assert str(judged(noise)).startswith("trusted: converged: R-hat up to 1.00")
    assert not str(judged(noise, approximate=1)).startswith("trusted")


def test_divergences_are_never_converged(noise):
    diverging = np.zeros((8, 500), bool)
    diverging[2, 17] = True
    found = judged(noise, {"diverging": diverging})
    assert found.kind == "diverging"
    assert not found.may_be_used
    assert "1 of 4000 iterations diverged" in found.reason
    assert judged(noise, {"diverging": ~diverging & False}).kind == "converged"


def test_a_few_divergences_count_less_where_chains_jump(noise):
    diverging = np.zeros((8, 500), bool)
    diverging[2, 17] = True
    jumps = {"jumped": np.ones((8, 500), bool)}
    assert judged(noise, jumps | {"diverging": diverging}).may_be_used
    diverging[3, :5] = True
    assert judged(noise, jumps | {"diverging": diverging}).kind == "diverging"


def test_a_far_mode_seen_a_few_times_leaves_the_spread_unknown(noise):
    """A thousandth of the draws, evenly over the chains, so far away that it makes half of the variance."""
    rare = noise.copy()
    rare[:4, 100] += 30
    found = judged(rare)
    assert found.kind == "too few draws"
    assert "of a standard deviation" in found.reason


def test_tails_count():
    """Of draws that seldom leave the middle, but then stay outside for long, bulk ESS is high."""
    random = np.random.default_rng(4)
    values = random.normal(size=(4, 1000, 1))
    for chain in range(4):  # each visits the tail once, for long
        start = random.integers(0, 900)
        values[chain, start : start + 40] = 4 + 0.01 * random.normal(size=(40, 1))
    found = judged(values)
    assert found.kind != "converged"
    effective = int(found.reason.split("ESS down to ")[1].split()[0])
    assert effective < 400 < float(ess(values, "bulk").min())


class TestStuckChains:
    """A place of next to no mass is no mode, whatever R-hat says; and a mode is one, whatever its density."""

    def normals(self, centres, scales, chains=8, dim=3):
        """Chains in normals of one mass each: the density at the centre is the lower the wider they are."""
        random = np.random.default_rng(1)
        z = random.normal(size=(chains, 400, dim))
        which = np.arange(chains) % len(centres)
        centre, scale = (np.array(values)[which][:, None, None] for values in (centres, scales))
        lp = -0.5 * (z**2).sum(-1) - dim * np.log(scale[..., 0])
        return centre + scale * z, lp

    def verdict(self, values, lp, **attrs):
        return judged(values, {"lp": lp}, **attrs)

    def test_two_modes(self):
        assert self.verdict(*self.normals([-5, 5], [1, 1])).kind == "several modes"

    def test_a_wide_mode_beside_a_narrow_one_of_the_same_mass(self):
        """Their log densities are 28 nats apart, and each has half of the posterior."""
        values, lp = self.normals([-50, 50], [1e-3, 10])
        assert abs(lp[0].mean() - lp[1].mean()) > 25
        assert self.verdict(values, lp).kind == "several modes"

    @pytest.mark.parametrize("moves", [0.0, 1e-6, 1.0])
    def test_chains_that_never_left_a_poor_start(self, moves):
        values, lp = self.normals([0], [1])
        values[3], lp[3] = 9 + moves * values[3], lp[3] - 200
        found = self.verdict(values, lp)
        assert found.kind == "stuck"
        assert found.reason.startswith("1 of 8 chains never left a poor start")
        assert not found.may_be_used


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("ParallelTempering", "{}", "give it more temperatures"),
        ("ChEES", '{"init": "tempered"}', "their shares are those of the start"),
        ("ChEES", '{"init": "prior"}', "use GlobalLocal(), ParallelTempering() or"),
        ("GlobalLocal", "{}", "give it more draws and particles"),
    ],
)
def test_advice_is_not_what_was_tried(noise, method, settings, words):
    apart = noise + 8 * (np.arange(8) % 2)[:, None, None]
    assert words in judged(apart, method=method, settings=settings).advice


def test_random_walks():
    assert judged(walk(8, 500)).kind == "not mixing"


def test_few_draws(noise):
    assert judged(noise[:, :20]).kind == "too few draws"


def test_biased_draws_are_never_converged(noise):
    """What the method declares counts, not a word in its label."""
    found = judged(noise, method="Mine", biased=1)
    assert found.kind == "biased"
    assert "R-hat up to 1.00" in found.reason
    assert judged(noise, method="unadjusted for inflation", biased=0).kind == "converged"


def test_approximate_draws_are_not_the_posteriors(noise):
    found = judged(noise, approximate=1)
    assert found.kind == "converged"
    assert found.advice.startswith("Read them as draws of what ChEES puts in the posterior's place")


def test_draws_that_left_the_numbers(noise):
    noise[3, 400:] = np.nan
    assert judged(noise).kind == "not mixing"
    assert "300 of the values are not finite" in judged(noise).reason
    noise[3, 400:] = np.inf
    assert judged(noise).kind == "not mixing"


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_chains_that_never_move(apart):
    found = judged(np.zeros((8, 500, 3)) + apart * np.arange(8)[:, None, None])
    assert str(found).startswith("not mixing: no chain ever moves")


def test_a_value_that_never_varies_does_no_harm(noise):
    noise[..., 0] = 0.25
    assert judged(noise).kind == "converged"


@pytest.mark.parametrize("draws", [1, 3])
def test_too_few_draws_to_say_anything(noise, draws):
    found = judged(noise[:, :draws])
    assert found.kind == "too few draws"
    assert f"{draws} draws a chain" in found.reason


@pytest.mark.parametrize("ended", [word for word in ENDINGS if word != "diverged"])
def test_an_incomplete_run_says_so(noise, ended):
    found = judged(noise, **{ended: 1})
    assert found.kind == "converged"
    assert "incomplete" in found.advice
    assert str(found).startswith(f"converged (incomplete run: {ended.replace('_', ' ')}): R-hat")


def test_a_diverged_run_is_not_converged(noise):
    found = judged(noise, diverged=1)
    assert found.kind == "not mixing"
    assert "incomplete run: diverged" in str(found)


def test_draws_of_an_unknown_kind(noise):
    with pytest.raises(ValueError, match="the draws are 'tea leaves'; expected one of markov"):
        judged(noise, draws_are="tea leaves")


def test_verdicts_of_real_runs(linear, digits, digits_model):
    seen = Observation(digits[3], HALF)
    options = {"draws": 500, "chains": 8, "progress": False}
    assert diagnostics.verdict(infer(linear, seen, ChEES(), **options)).kind == "converged"
    exact = diagnostics.verdict(infer(linear, seen, Exact(), **options))
    assert exact.kind == "independent"
    assert exact.reason.startswith("exact draws of the model's own posterior, by construction")
    assert exact.advice == "Use the draws."
    poor = infer(digits_model, seen, Variational(guide="normal", steps=1), **options)
    assert "not the posterior" in diagnostics.verdict(poor).reason
    assert diagnostics.verdict(infer(linear, seen, ULA(warmup=20), **options)).kind == "biased"
    assert diagnostics.verdict(infer(linear, seen, MAP(restarts=2, steps=5), **options)).kind == "restarts"
    particles = infer(linear, seen, TemperedSMC(), draws=500, chains=8, progress=False)
    assert diagnostics.verdict(particles).kind == "particles"
    assert diagnostics.verdict(particles).reason.startswith("replicates agree: log evidence within")
    assert diagnostics.verdict(particles).advice == "Use the draws."


class TestPseudoPosteriors:
    """Draws of a density that is no joint density are never recommended as a posterior's."""

    @pytest.fixture
    def model(self):
        shape = (1, 8, 8)
        return PluralisticTwoPath(
            PluralisticEncoder(shape, 2, (8, 8)), PluralisticDecoder(shape, 2, (8, 8))
        ).eval()

    @pytest.mark.parametrize("method", [Exact(), Variational(steps=0)], ids=["exact", "guide"])
    def test_two_path(self, model, method, digits):
        idata = infer(model, Observation(digits[3], HALF), method, draws=100, chains=2, progress=False)
        found = diagnostics.verdict(idata)
        assert "Use the draws" not in str(found)
        assert "inf" not in found.reason
        assert "of the model's own pseudo-posterior" in found.reason or "is the pseudo-post" in found.reason
        assert found.advice.startswith("Read them as draws of the pseudo-posterior, not of a posterior")

    def test_chains(self, noise):
        found = judged(noise, density="pseudo-posterior")
        assert found.kind == "converged"
        assert found.reason.startswith("as draws of a pseudo-posterior, R-hat")
        assert found.advice.startswith("Read them as draws of the pseudo-posterior, not of a posterior")

    def test_a_heavier_prior(self, digits):
        code = LatentCode(pretrained.load("digits-vae-2d"), prior_weight=10.0)
        seen = Observation(digits[3], HALF)
        idata = infer(code, seen, TemperedSMC(), draws=300, chains=4, progress=False)
        assert not {"log_evidence", "log_evidence_se"} & set(idata.attrs)
        found = diagnostics.verdict(idata)
        assert found.kind == "particles"
        assert "evidence" not in str(found)
        assert found.advice.startswith("Read them as draws of the pseudo-posterior")

    @pytest.mark.parametrize("draws_are", ["markov", "particles", "independent"])
    @pytest.mark.parametrize("approximate", [0, 1])
    @pytest.mark.parametrize("weights", ["none", "equal", "good", "bad"])
    def test_whatever_the_figures(self, noise, draws_are, approximate, weights):
        scale = {"none": None, "equal": 0.0, "good": 0.3, "bad": 30.0}[weights]
        stats = {} if scale is None else {"log_weight": scale * noise[..., 0]}
        attrs = {"replicates": 8, "effective_replicates": 8.0} if draws_are == "particles" else {}
        found = judged(
            noise,
            stats=stats,
            draws_are=draws_are,
            density="pseudo-posterior",
            approximate=approximate,
            **attrs,
        )
        assert "Use the draws" not in str(found)


class TestIndependentDraws:
    @staticmethod
    def of(noise, scale, **attrs):
        weights = {} if scale is None else {"log_weight": scale * noise[..., 0]}
        return judged(noise, stats=weights, draws_are="independent", **attrs)

    @pytest.mark.parametrize("scale", [None, 0.0, 1e-5])
    def test_exact_ones(self, noise, scale):
        found = self.of(noise, scale, approximate=0)
        assert found.reason.startswith("exact draws of the model's own posterior, by construction")
        assert "k-hat" not in str(found)
        assert found.advice == "Use the draws."
        assert ("equal within 1e-05 nats" in found.reason) == (scale == 1e-5)

    def test_weights_can_contradict_them(self, noise):
        found = self.of(noise, 3.0, approximate=0)
        assert "spread by 3.1 nats" in found.reason
        assert found.advice.startswith("Do not use the draws")

    @pytest.mark.parametrize(("scale", "advice"), [(0.3, "Reweight"), (30.0, "Read them as such")])
    def test_exact_ones_of_another_law(self, noise, scale, advice):
        found = self.of(noise, scale, approximate=0, law="constrained law")
        assert found.reason.startswith("exact draws of the constrained law; k-hat")
        assert found.advice.startswith(advice)

    @pytest.mark.parametrize(
        ("scale", "reason", "advice"),
        [
            (0.0, "importance weights are equal", "Use the draws."),
            (0.3, "the guide is near the posterior", "Use the draws, or reweight them."),
            (3.0, "the guide is not the posterior", "Use ChEES()"),
            (300.0, "a few weights carry everything", "Use ChEES()"),
            (None, "k-hat is not known", "Compare with ChEES()."),
        ],
    )
    @pytest.mark.parametrize("attrs", [{}, {"approximate": 1}], ids=["unsaid", "said"])
    def test_a_guide(self, noise, scale, reason, advice, attrs):
        found = self.of(noise, scale, **attrs)
        assert reason in found.reason
        assert found.advice.startswith(advice)
        assert "inf" not in found.reason

    def test_an_interrupted_fit(self, noise):
        assert "incomplete run: interrupted" in str(self.of(noise, 0.3, approximate=1, interrupted=1))


class TestParticles:
    """Replicates that agree are usable; those that do not, or cannot, are not."""

    @staticmethod
    def of(noise, shares, place=0.0, **attrs):
        shares = np.asarray(shares, float) / np.sum(shares)
        count = len(shares)
        excess = count * np.sum(shares**2) - 1
        attrs = {
            "replicates": count,
            "effective_replicates": 1 / np.sum(shares**2),
            "log_evidence_se": np.sqrt(excess / (count - 1)) if count > 1 else np.nan,
        } | attrs
        random = np.random.default_rng(1)
        replicate = random.choice(count, p=shares, size=noise.shape[:2])
        values = noise + place * (replicate % 2)[..., None]
        return judged(values, stats={"replicate": replicate}, draws_are="particles", **attrs)

    def test_that_agree(self, noise):
        found = self.of(noise, np.linspace(0.9, 1.1, 8))
        assert found.reason.startswith("replicates agree: log evidence within 0.02")
        assert found.advice == "Use the draws."

    def test_that_differ(self, noise):
        found = self.of(noise, np.linspace(0.5, 1.5, 8))
        assert found.reason.startswith("replicates differ: log evidence within 0.1")
        assert found.advice == "Use more particles or replicates."

    def test_that_disagree(self, noise):
        found = self.of(noise, [1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 1e-3])
        assert found.reason.startswith("replicates disagree")
        assert "1.7 of 8 replicates in effect" in found.reason
        assert "Use the draws" not in str(found)

    def test_a_single_one(self, noise):
        found = self.of(noise, [1])
        assert "not known" in found.reason
        assert "chains=8" in found.advice

    def test_that_agree_in_evidence_and_lie_apart(self, noise):
        """Two modes of equal evidence: each replicate found one, and none knows of the other's."""
        found = self.of(noise, np.ones(8), place=10.0)
        assert found.reason.startswith("replicates are in different places")
        assert "Use the draws" not in str(found)

    def test_replicates_of_one_draw_each_say_nothing_of_places(self, noise):
        made = judged_data(noise[:1, :8], stats={"replicate": np.arange(8)[None]}, draws_are="particles")
        assert np.isnan(rhat_between_replicates(made))

    def test_an_outside_method(self, noise):
        said = judged(noise, draws_are="particles", log_evidence_se=0.05)
        assert said.advice == "Use the draws."
        assert "not known" in judged(noise, draws_are="particles").reason

    NETWORKS: ClassVar = {
        "networks": 10,
        "effective_networks": 6.0,
        "log_evidence_error_of_a_network": 0.02,
        "rhat_within_networks": 1.003,
    }

    @pytest.mark.parametrize(
        ("change", "chains", "reason"),
        [
            ({"rhat_within_networks": 1.2}, 8, "chains within networks disagree"),
            ({"rhat_within_networks": np.nan}, 8, "chains within networks disagree"),
            ({"log_evidence_error_of_a_network": 0.5}, 8, "networks cannot be weighed"),
            ({"effective_networks": 1.2}, 8, "one network has nearly all the weight"),
            ({}, 1, "one chain a network has none to agree with"),
        ],
    )
    def test_networks_that_are_not_to_be_trusted(self, noise, change, chains, reason):
        found = judged(noise[:chains], draws_are="particles", **self.NETWORKS | change)
        assert found.reason.startswith(reason)
        assert "Use the draws" not in str(found)

    def test_networks_that_agree(self, noise):
        found = judged(noise, draws_are="particles", **self.NETWORKS)
        assert found.reason.startswith("chains within networks agree: R-hat within networks up to 1.003")
        assert found.advice == "Use the draws."
        stopped = judged(noise, draws_are="particles", interrupted=1, **self.NETWORKS)
        assert "incomplete run: interrupted" in str(stopped)


@pytest.mark.long
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
