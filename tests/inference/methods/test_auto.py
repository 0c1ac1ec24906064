"""`Auto` chooses by the model, `GlobalLocal` jumps between modes and draws in rounds, and a budget ends both."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from digit import HALF, SHAPE
from registry import MODELS
from scipy import stats
from statistics_of_draws import assert_moments
from targets import Grid

from posterior_inpainting import models
from posterior_inpainting.inference import (
    MALA,
    Auto,
    ChEES,
    ConditionalDiffusion,
    Exact,
    Gibbs,
    GlobalLocal,
    Nested,
    Trusted,
    TwoStage,
    diagnostics,
    infer,
    infer_many,
    sample,
)
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.budget import BudgetSpentError
from posterior_inpainting.inference.methods import mixture_of_t, rounds
from posterior_inpainting.inference.methods.mixture_of_t import MixtureOfT, fitted, wide
from posterior_inpainting.models import (
    LatentCode,
    LinearGaussian,
    Observation,
    datasets,
    observations,
    pretrained,
)

DIGITS = datasets.load("digits")
CODE = LatentCode(pretrained.load("digits-vae-2d"))
#: An image and a mask for which a mode holds 1.8 %, which chains without jumps find or do not.
SCATTERED = Observation(DIGITS[0], observations.scatter(SHAPE, 0.2, seed=0))
QUIET = {"progress": False, "seed": 1}


def far_modes():
    """Three modes of shares .6, .3 and .1 in three dimensions, twenty standard deviations apart."""
    x = pyro.sample("x", dist.Normal(torch.zeros(3), 4.0).to_event(1))
    places, shares = 5.0 * torch.eye(3), torch.tensor([0.6, 0.3, 0.1])
    modes = dist.Normal(places, 0.25).to_event(1).log_prob(x.unsqueeze(-2)) + shares.log()
    pyro.factor("modes", modes.logsumexp(-1) - dist.Normal(torch.zeros(3), 4.0).to_event(1).log_prob(x))


class TestMixture:
    POINTS = torch.randn(2, 600, 3, generator=torch.Generator().manual_seed(0))

    def mixture(self):
        points = self.POINTS.clone()
        points[1, :300] += 8
        return fitted(points, wide(3 * self.POINTS))

    def test_a_group_has_its_own_components(self):
        weights = self.mixture().log_weight.exp()
        assert ((weights > 0).sum(1) == torch.tensor([2, 3])).all()
        assert torch.allclose(weights.sum(1), torch.ones(2))

    def test_density_and_draws_are_of_one_law(self):
        """The mean of p / g over draws of g is 1, for p a normal inside."""
        mixture = self.mixture()
        draws = mixture.draw(40_000, torch.Generator().manual_seed(1))
        law = dist.Normal(torch.full((3,), 1.0), 1.5).to_event(1)
        weight = (law.log_prob(draws) - mixture.log_density(draws)).exp()
        error = (weight.mean(1) - 1) / (weight.std(1) / 200)
        assert (error.abs() < 4).all()

    def test_wide_takes_any_tails(self):
        cauchy = dist.StudentT(1.0).sample((1, 2000, 2))
        assert (wide(cauchy).root.diagonal(dim1=-2, dim2=-1) < 5).all()


class TestJumps:
    def check(self, seed=0):
        idata = sample(far_modes, GlobalLocal(), draws=400, chains=16, seed=seed, progress=False)
        x = idata.posterior["x"].to_numpy()
        shares = np.stack([(x[..., k] > 2.5) for k in range(3)], -1)
        truth = np.array([0.6, 0.3, 0.1])
        assert_moments(shares, truth, np.sqrt(truth * (1 - truth)))
        within = x[..., 0][shares[..., 0]]
        assert abs(within.mean() - 5) < 0.03
        assert abs(within.std() / 0.25 - 1) < 0.05
        return idata

    def test_far_modes_have_their_shares(self):
        assert float(self.check().sample_stats["jumped"].mean()) > 0.3

    def test_a_jump_that_forgets_what_proposed_it_fails(self, monkeypatch):
        monkeypatch.setattr(MixtureOfT, "log_density", lambda self, position: position[..., 0] * 0)
        with pytest.raises(AssertionError):
            self.check()

    def test_a_rare_mode_of_digits(self):
        """R-hat without jumps passes on chains that never saw it (see the verdict of an earlier ChEES)."""
        idata = infer(CODE, SCATTERED, **QUIET)
        grid = Grid.of(CODE, SCATTERED.image, SCATTERED.mask)
        mean, sd = grid.moments()
        labels, shares = grid.modes()
        z = idata.posterior["z"].to_numpy()
        assert idata.attrs["until_missing"] == ""
        assert diagnostics.verdict(idata).may_be_used
        assert_moments(z, mean, sd)
        found = np.bincount(grid.label(z, labels).ravel(), minlength=len(shares) + 1)[1:] / z[..., 0].size
        assert abs(found - shares).max() < 0.01
        assert shares[1] > 0.01


class TestRounds:
    def impatient(self, monkeypatch):
        monkeypatch.setattr(rounds, "_FIRST", 20)
        monkeypatch.setattr(rounds, "_LEAST", 64)

    def test_chains_that_disagree_begin_anew(self, monkeypatch):
        self.impatient(monkeypatch)
        method = GlobalLocal(warmup=20, particles=16)
        # A seed by which the first chains, which hardly warm up, find different modes.
        settings = QUIET | {"seed": 3}
        idata = sample(far_modes, method, draws=2000, chains=16, until=Trusted(), **settings)
        assert idata.attrs["rounds"] > 1
        assert idata.attrs["until_missing"] == ""
        shares = (idata.posterior["x"].to_numpy() > 2.5).mean((0, 1))
        assert abs(shares - [0.6, 0.3, 0.1]).max() < 0.06

    def test_a_budget_that_ends_in_a_later_round_leaves_the_draws_of_the_last(self, monkeypatch):
        self.impatient(monkeypatch)
        method = GlobalLocal(warmup=20, particles=16)
        settings = {"draws": 2000, "chains": 16, "until": Trusted(rhat=1.0001)} | QUIET
        whole = sample(far_modes, method, **(settings | {"draws": 20}))
        spent = int(whole.attrs["gradient_evaluations"])
        ended = sample(far_modes, method, **settings, budget=f"{spent + 1500} gradients")
        assert ended.attrs["budget_spent"] == 1
        assert ended.attrs["rounds"] == 1
        assert ended.posterior.sizes["draw"] >= 20
        assert not diagnostics.verdict(ended).may_be_used

    def test_images_leave_the_batch(self, monkeypatch):
        self.impatient(monkeypatch)
        seen = [Observation(DIGITS[i], observations.scatter(SHAPE, 0.2, seed=0)) for i in range(3)]
        method = GlobalLocal(warmup=20, particles=16)
        found = infer_many(
            CODE, seen, method, draws=400, chains=8, until=Trusted(rhat=1.02, ess=200), **QUIET
        )
        assert (
            len({one.attrs["rounds"] for one in found} | {one.posterior.sizes["draw"] for one in found}) > 2
        )
        for one, observation in zip(found, seen, strict=True):
            mean, sd = Grid.of(CODE, observation.image, observation.mask).moments()
            assert (abs(one.posterior["z"].to_numpy().mean((0, 1)) - mean) / sd < 0.4).all()


#: Model -> the method that it calls for.
CHOICES = {
    models.LinearGaussian: Exact,
    models.LatentCode: GlobalLocal,
    models.DiffusionPrior: ConditionalDiffusion,
    models.ExpertField: Gibbs,
    models.CodeAndUnits: TwoStage,
    models.WeightDraws: Nested,
    models.GaussianProcess: Exact,
}


class TestChoice:
    @pytest.mark.parametrize("kind", CHOICES)
    def test_by_what_a_model_declares(self, kind):
        model = MODELS[kind]()
        image = torch.rand(model.image_shape)
        problem = Problem(model, (image, torch.ones_like(image, dtype=torch.bool)), guide=model.guide)
        assert type(Auto().chosen(problem)) is CHOICES[kind]

    @pytest.mark.parametrize(("latents", "kind"), [(100, GlobalLocal), (1000, ChEES), (1001, MALA)])
    def test_by_how_many_latents_there_are(self, latents, kind):
        def model():
            pyro.sample("x", dist.Normal(torch.zeros(latents), 1.0).to_event(1))

        assert type(Auto().chosen(Problem(model))) is kind

    def test_a_goal_is_checked_whatever_is_chosen(self):
        model, seen = LinearGaussian.fit(DIGITS, latent=3), Observation(DIGITS[0], HALF)
        with pytest.raises(ValueError, match="until is a int: 3; expected Trusted"):
            infer(model, seen, until=3, **QUIET)
        assert infer(model, seen, until=Trusted(), **QUIET).attrs["method"] == "Exact"

    def test_the_result_says_what_was_chosen(self):
        model = LinearGaussian.fit(DIGITS, latent=3)
        idata = infer(model, Observation(DIGITS[0], HALF), **QUIET)
        assert (idata.attrs["method"], idata.attrs["chosen_by"]) == ("Exact", "Auto")
        assert dict(idata.posterior.sizes)["draw"] == 1000
        assert "until" not in idata.attrs

    def test_any_pyro_model(self):
        heads = torch.tensor([1.0] * 7 + [0.0] * 3)

        def coin(heads):
            fairness = pyro.sample("fairness", dist.Beta(2.0, 2.0))
            with pyro.plate("tosses", len(heads)):
                pyro.sample("heads", dist.Bernoulli(fairness), obs=heads)

        idata = sample(coin, None, heads, **QUIET)
        truth = stats.beta(9, 5)
        assert idata.attrs["method"] == "GlobalLocal"
        assert diagnostics.verdict(idata).kind == "converged"
        assert_moments(idata.posterior["fairness"].to_numpy()[..., None], [truth.mean()], [truth.std()])


class TestBudget:
    @pytest.mark.parametrize("budget", ["", "60", "-1 s", "1e400 s s", "5 gradient", 60, "0 s"])
    def test_what_is_none_is_said_in_a_line(self, budget):
        with pytest.raises(ValueError, match=r"budget=.*expected one such as"):
            infer(CODE, SCATTERED, budget=budget, **QUIET)

    def test_time_ends_a_run_with_the_draws_that_it_has(self):
        idata = infer(
            CODE, SCATTERED, ChEES(warmup=20), draws=100_000, chains=4, budget="1.5 s", keep=(), **QUIET
        )
        assert idata.attrs["budget_spent"] == 1
        assert 0 < idata.posterior.sizes["draw"] < 100_000
        assert 1 < idata.attrs["wall_time_s"] < 10

    def test_too_little_is_said(self):
        with pytest.raises(BudgetSpentError, match="budget of gradients is spent"):
            infer(CODE, SCATTERED, budget="10 gradients", **QUIET)


def test_the_mixture_is_deterministic():
    points = torch.randn(1, 300, 4, generator=torch.Generator().manual_seed(2))
    one, other = (fitted(points, wide(points)) for _ in range(2))
    assert (one.root == other.root).all()
    assert mixture_of_t.SHARE == 0.1
