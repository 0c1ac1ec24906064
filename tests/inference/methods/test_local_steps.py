"""Trajectories refined where a chain is: moments where one step size suits nowhere, and the faults that bias them."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from statistics_of_draws import assert_moments

from posterior_inpainting.inference import ChEES, sample
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods import local_steps
from posterior_inpainting.inference.methods.adaptation import Preconditioner
from posterior_inpainting.inference.methods.local_steps import refined
from posterior_inpainting.inference.methods.trajectory import evaluate, follow, trajectory

NECK, REFINEMENTS = 3.0, 4


def funnel():
    """Neal's, in three dimensions: the scale of two is e to half of the first."""
    v = pyro.sample("v", dist.Normal(0.0, NECK))
    pyro.sample("x", dist.Normal(torch.zeros(2), torch.exp(v / 2)).to_event(1))


def drawn(draws, chains=64):
    """Draws of the funnel's neck and mouth, ``(chain, draw, 1)``, and their statistics."""
    method = ChEES(warmup=150, max_steps=32, metric="identity")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sample(funnel, method, draws=draws, chains=chains, progress=False)
    return found.posterior["v"].to_numpy()[..., None], found.sample_stats


def test_moments_of_a_funnel():
    v, stats = drawn(400)
    assert_moments(v, [0.0], [NECK])
    assert not stats["diverging"].any()
    before, step = v[:, :-1, 0], stats["step_size"].to_numpy()[:, 1:]
    assert np.log(step[before < -4]).mean() < np.log(step[before > 2]).mean() - 1


def way_and_way_back(step=0.6, steps=6):
    """Refine trajectories of the funnel's own draws, and those that start at their ends; what was done, both times."""
    density = Potential(Problem(funnel))
    torch.manual_seed(0)
    start = evaluate(density, density.draw_prior(800).unsqueeze(0))
    scales, size = Preconditioner.identity(start.position), torch.tensor([step])
    first = trajectory(density, start, size, [steps], scales, torch.Generator().manual_seed(0))
    there, level = refined(density, start, first, size, [steps], scales, REFINEMENTS)
    turned = follow(density, there.point, -there.momentum, size, [steps], scales)
    back, level_back = refined(density, there.point, turned, size, [steps], scales, REFINEMENTS)
    return start, there, level, back, level_back


class TestWayBack:
    """Whoever may be moved along a trajectory would come back along the same."""

    def check(self):
        start, there, level, back, level_back = way_and_way_back()
        moved = there.acceptance > 0
        assert torch.equal(level[moved], level_back[moved])
        torch.testing.assert_close(back.point.position[moved], start.position[moved], atol=1e-3, rtol=1e-3)

    def test_is_the_same(self):
        self.check()

    def test_if_nobody_checks_it_is_another(self, monkeypatch):
        monkeypatch.setattr(
            local_steps._Chains, "_comes_back", lambda self, found, level: torch.ones_like(level, dtype=bool)
        )
        with pytest.raises(AssertionError):
            self.check()

    def test_what_only_gains_is_another(self, monkeypatch):
        """A criterion that looks at losses of density alone is not the same from both ends."""
        monkeypatch.setattr(
            local_steps, "_followed_well", lambda proposal: proposal.change >= -local_steps.TOLERANCE
        )
        with pytest.raises(AssertionError):
            self.check()

    def test_some_are_refused_for_it_and_many_are_not(self):
        _, there, level, *_ = way_and_way_back()
        assert ((there.acceptance == 0) & (level > 0) & (there.change.abs() < 1)).any()
        assert ((there.acceptance > 0) & (level > 0)).sum() > 50


def test_where_the_shared_step_is_right_nothing_is_computed():
    def model():
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    density = Potential(Problem(model))
    start = evaluate(density, torch.zeros(1, 8, 3))
    scales, size = Preconditioner.identity(start.position), torch.tensor([0.2])
    proposal = trajectory(density, start, size, [5], scales, torch.Generator().manual_seed(0))
    before = density.gradients
    same, level = refined(density, start, proposal, size, [5], scales, REFINEMENTS)
    assert same is proposal
    assert not level.any()
    assert density.gradients == before


def test_of_several_posteriors_and_temperatures():
    """Each group is refined with its own step and weight of the likelihood, as it would be by itself."""

    def model(seen):
        v = pyro.sample("v", dist.Normal(0.0, NECK))
        pyro.sample("seen", dist.Normal(0.0, torch.exp(v / 2)), obs=seen)

    seen, beta = torch.tensor([0.1, 5.0]), torch.tensor([[1.0], [0.5]]).expand(2, 60)
    sizes, steps = torch.tensor([1.5, 3.0]), [4, 6]
    both = Potential(Problem(model, (seen,)), groups=2)
    torch.manual_seed(1)
    start = evaluate(both, 3 * torch.randn(2, 60, 1), beta)
    scales = Preconditioner.identity(start.position)
    proposal = trajectory(both, start, sizes, steps, scales, torch.Generator().manual_seed(0), beta)
    together, level = refined(both, start, proposal, sizes, steps, scales, REFINEMENTS, beta)
    assert (level > 0).any(1).all()
    for group in range(2):
        one = Potential(Problem(model, (seen[group],)))
        alone = evaluate(one, start.position[group : group + 1], beta[group : group + 1])
        rows = slice(group, group + 1)
        part = Preconditioner(scales.factor[rows])
        first = follow(one, alone, proposal.initial[rows], sizes[rows], [steps[group]], part, beta[rows])
        found, same = refined(one, alone, first, sizes[rows], [steps[group]], part, REFINEMENTS, beta[rows])
        assert torch.equal(same[0], level[group])
        torch.testing.assert_close(found.point.position[0], together.point.position[group])
        torch.testing.assert_close(found.acceptance[0], together.acceptance[group])
