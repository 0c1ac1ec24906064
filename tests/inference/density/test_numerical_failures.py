"""A chain whose density cannot be computed is rejected, and the others go on: the draws are of the posterior still."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from posterior_inpainting.inference import MALA, NUTS, ChEES, TemperedSMC, sample
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.results.chain_statistics import ess

WALL = -1.0


def walled(offset=-WALL):
    """Where x is below the wall there is no Cholesky factor; y is seen with noise of that scale."""
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    scale = torch.linalg.cholesky((x + offset).reshape(1, 1))[0, 0]
    pyro.sample("y", dist.Normal(0.0, 0.5 + scale), obs=torch.tensor(1.0))


@pytest.fixture(scope="module")
def truth():
    """Mean and variance by quadrature."""
    x = torch.linspace(WALL, 6, 200_001, dtype=torch.float64)[1:]
    density = (
        dist.Normal(0.0, 1.0).log_prob(x)
        + dist.Normal(0.0, 0.5 + (x - WALL).sqrt()).log_prob(torch.tensor(1.0, dtype=torch.float64))
    ).exp()
    weight = density / density.sum()
    mean = float((weight * x).sum())
    return mean, float((weight * (x - mean) ** 2).sum())


@pytest.mark.parametrize(
    ("method", "draws", "chains"),
    [(ChEES(warmup=60, max_steps=4), 120, 16), (MALA(warmup=60), 200, 8), (NUTS(warmup=80), 150, 2)],
)
def test_moments(truth, method, draws, chains):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the density could not be computed")
        found = sample(walled, method, draws=draws, chains=chains, progress=False, seed=1)
    x = found.posterior["x"].to_numpy()
    assert x.min() > WALL
    mean, variance = truth
    for values, right in ((x, mean), ((x - mean) ** 2, variance)):
        error = values.std() / np.sqrt(float(ess(values[..., None], "mean")[0]))
        assert abs(values.mean() - right) < 4 * error
    assert int(found.sample_stats["failures"].sum()) > 0


def test_particles(truth):
    with pytest.warns(UserWarning, match="could not be computed"):
        found = sample(walled, TemperedSMC(), draws=60, chains=4, progress=False, seed=1)
    x = found.posterior["x"].to_numpy()
    assert x.min() > WALL
    assert abs(x.mean() - truth[0]) < 4 * np.sqrt(truth[1] / x.size) * 2  # moves leave some correlation


def test_many_failures_are_warned_of_and_few_are_not():
    with pytest.warns(UserWarning, match="could not be computed at .* positions, which count as outside"):
        sample(walled, MALA(warmup=30), draws=20, chains=8, progress=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the density could not")
        found = sample(walled, MALA(warmup=30), 100.0, draws=20, chains=4, progress=False)
    assert "failures" in found.sample_stats


def test_a_failure_everywhere_is_an_error_in_a_line():
    with pytest.raises(
        ValueError, match=r"cannot be computed at 20 draws of its prior: .*ositive-definite"
    ) as caught:
        sample(walled, ChEES(), -100.0, draws=10, chains=2, progress=False)
    assert "\n" not in str(caught.value)


def test_other_errors_are_no_failures():
    def broken():
        x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(x @ torch.ones(3), 1.0), obs=torch.tensor(0.0))

    with pytest.raises(RuntimeError, match="size"):
        sample(broken, ChEES(), draws=10, chains=2, progress=False)


@pytest.mark.parametrize("groups", [None, 3])
def test_only_what_fails_is_lost(groups):
    """With a batch of observations too; gradients of the others are those that they have alone."""

    def model(y):
        x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        scale = torch.linalg.cholesky((x[0] - WALL).reshape(1, 1))[0, 0]
        pyro.sample("y", dist.Normal(x[1], scale), obs=y)

    args = (torch.tensor(0.3),) if groups is None else (torch.tensor([0.3, -0.2, 1.0]),)
    potential = Potential(Problem(model, args), groups=groups)
    shape = (5, 2) if groups is None else (3, 5, 2)
    position = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    position[..., 2, 0] = WALL - 1
    prior, likelihood, gradient = potential.gradient(position)
    failed = torch.zeros(shape[:-1], dtype=torch.bool)
    failed[..., 2] = True
    assert torch.equal((prior + likelihood).isneginf(), failed)
    assert (gradient[failed] == 0).all()
    assert gradient[~failed].isfinite().all()
    assert potential.failures == int(failed.sum())
    counted = potential.take_failures(groups or 1, 5)
    assert torch.equal(counted, failed.reshape(-1, 5).long())
    assert int(potential.take_failures(groups or 1, 5).sum()) == 0
    whole = Potential(Problem(model, args), groups=groups)
    alone = [whole.gradient(position[..., i : i + 1, :])[2] for i in (0, 1, 3, 4)]
    torch.testing.assert_close(gradient[~failed], torch.cat(alone, -2).reshape(-1, 2))
