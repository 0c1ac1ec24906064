"""Chains start where the density is finite, from streams of their own, or it is said that there is no such place."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.starts_of_finite_density import draw_starts
from posterior_inpainting.inference.streams import Streams


def half_impossible(bad):
    """Positive x have no density."""
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("seen", torch.where(x > 0, bad, 0.0))


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
def test_hopeless_chains_are_drawn_again_and_the_others_left(bad):
    potential = Potential(Problem(half_impossible, (torch.tensor(bad),)))
    with Streams(3).seeded("starts"):
        first = potential.draw_prior(64)
    starts = draw_starts(potential, 64, Streams(3))
    assert starts.shape == (1, 64, 1)
    assert (starts < 0).all()
    fine = first < 0
    assert 0 < int(fine.sum()) < 64
    assert torch.equal(starts[0][fine], first[fine])
    assert starts.unique().numel() == 64
    assert potential.gradients == 0


def test_from_the_prior_of_hopeless_ones():
    """Half-normal: the mean of 4000 redrawn starts lies within 5 standard errors of it."""
    potential = Potential(Problem(half_impossible, (torch.tensor(math.nan),)))
    starts = draw_starts(potential, 4000, Streams(0))
    error = float(starts.mean()) + math.sqrt(2 / math.pi)
    assert abs(error) < 5 * math.sqrt((1 - 2 / math.pi) / 4000)


def test_same_seed_same_starts_and_the_callers_generator_untouched():
    potential = Potential(Problem(half_impossible, (torch.tensor(math.nan),)))
    before = torch.get_rng_state()
    starts = [draw_starts(potential, 8, Streams(seed)) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_groups():
    bad = torch.tensor([math.nan, 0.0])
    potential = Potential(Problem(half_impossible, (bad,)), groups=2)
    starts = draw_starts(potential, 50, Streams(0))
    assert starts.shape == (2, 50, 1)
    assert (starts[0] < 0).all()
    assert (starts[1] > 0).any()


def test_nowhere_finite_is_refused():
    def model(y):
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    with pytest.raises(
        ValueError, match=r"^the log density of chain 0 is not finite at 20 draws of the prior; .*$"
    ):
        draw_starts(Potential(Problem(model, (torch.tensor(math.nan),))), 4, Streams(0))
    several = Potential(Problem(model, (torch.tensor([1.0, math.nan]),)), groups=2)
    with pytest.raises(ValueError, match=r"^the log density of chain 0 of observation 1 is not finite"):
        draw_starts(several, 4, Streams(0))
