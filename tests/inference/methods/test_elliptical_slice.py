"""The benchmarks' elliptical slice sampler against a Gaussian posterior that is known."""

import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from statistics_of_draws import assert_moments

from posterior_inpainting.inference import sample

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import elliptical_slice
from elliptical_slice import EllipticalSlice

FACTORS = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]])
SEEN, NOISE = torch.tensor([1.0, -0.5]), 0.5


def linear():
    """Two numbers seen, linear in three standard normal weights."""
    weights = pyro.sample("weights", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.sample("seen", dist.Normal(weights @ FACTORS.T, NOISE).to_event(1), obs=SEEN)


def draws(count):
    method = EllipticalSlice(warmup=20, thin=2)
    return sample(linear, method, draws=count, chains=4, progress=False).posterior["weights"].to_numpy()


def truth():
    covariance = torch.linalg.inv(torch.eye(3) + FACTORS.T @ FACTORS / NOISE**2)
    return covariance @ FACTORS.T @ SEEN / NOISE**2, covariance.diagonal().sqrt()


def test_moments_are_the_posteriors():
    assert_moments(draws(300), *truth())


def test_those_of_a_slice_twice_as_deep_are_not(monkeypatch):
    """It is that under the root of the likelihood."""
    monkeypatch.setattr(
        elliptical_slice, "level_under", lambda log_likelihood, u: log_likelihood + 2 * u.log()
    )
    with pytest.raises(AssertionError, match="biased"):
        assert_moments(draws(300), *truth())
