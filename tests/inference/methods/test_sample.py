"""`sample` on models that are not images: eight schools, logistic regression and a hierarchical one."""

import itertools
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm
from statistics_of_draws import assert_moments
from targets import EFFECT, ERROR, eight_schools

from posterior_inpainting.inference import (
    MALA,
    NUTS,
    ChEES,
    ParallelTempering,
    TemperedSMC,
    Variational,
    diagnostics,
    sample,
)


def eight_schools_truth():
    """Moments of mu and tau by quadrature: eta is integrated out in closed form."""
    mu = np.linspace(-25, 35, 601)
    tau = np.concatenate([np.linspace(0.005, 60, 3000)])
    grid_mu, grid_tau = np.meshgrid(mu, tau, indexing="ij")
    log_density = norm.logpdf(grid_mu, 0, 5) - np.log1p((grid_tau / 5) ** 2)
    for effect, error in zip(EFFECT.numpy(), ERROR.numpy(), strict=True):
        log_density = log_density + norm.logpdf(effect, grid_mu, np.sqrt(error**2 + grid_tau**2))
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    log_tau = np.log(grid_tau)
    moments = []
    for values in (grid_mu, log_tau):
        mean = (weights * values).sum()
        moments.append((mean, np.sqrt((weights * (values - mean) ** 2).sum())))
    return np.array(moments).T


@pytest.mark.long
def test_eight_schools():
    idata = sample(eight_schools, ChEES(warmup=400), EFFECT, ERROR, draws=1000, chains=32, progress=False)
    assert set(idata.posterior.data_vars) == {"mu", "tau", "eta"}
    assert idata.posterior["eta"].shape == (32, 1000, 8)
    both = np.stack([idata.posterior["mu"], np.log(idata.posterior["tau"])], -1)
    assert_moments(both, *eight_schools_truth())


def logistic(design, outcome):
    weights = pyro.sample("weights", dist.Normal(torch.zeros(design.shape[1]), 2.0).to_event(1))
    with pyro.plate("data", len(design)):
        pyro.sample("outcome", dist.Bernoulli(logits=design @ weights), obs=outcome)


def test_logistic_regression_against_quadrature():
    torch.manual_seed(3)
    design = torch.randn(40, 2)
    outcome = (torch.rand(40) < torch.sigmoid(design @ torch.tensor([1.5, -1.0]))).float()
    axis = torch.linspace(-6, 8, 600, dtype=torch.double)
    grid = torch.cartesian_prod(axis, axis)
    logits = grid @ design.double().T
    log_density = -0.125 * grid.square().sum(1) + (
        outcome * logits - torch.nn.functional.softplus(logits)
    ).sum(1)
    weights = log_density.softmax(0).unsqueeze(1)
    mean = (weights * grid).sum(0)
    sd = (weights * (grid - mean) ** 2).sum(0).sqrt()
    idata = sample(logistic, ChEES(), design, outcome, draws=300, chains=32, progress=False)
    assert_moments(idata.posterior["weights"], mean, sd)


def hierarchical(y):
    """Normal means of five groups with known variances: the marginal posterior of the grand mean is normal."""
    grand = pyro.sample("grand", dist.Normal(0.0, 10.0))
    with pyro.plate("groups", 5, dim=-2):
        group = pyro.sample("group", dist.Normal(grand, 2.0))
        with pyro.plate("members", 4, dim=-1):
            pyro.sample("y", dist.Normal(group, 1.0), obs=y)


def test_hierarchical_model_with_nested_plates():
    torch.manual_seed(0)
    y = torch.randn(5, 4) + 3 * torch.randn(5, 1)
    idata = sample(hierarchical, ChEES(), y, draws=300, chains=32, progress=False)
    precision = 1 / 100 + 5 / (4 + 1 / 4)
    mean = y.mean(1).sum() / (4 + 1 / 4) / precision
    assert_moments(idata.posterior["grand"].to_numpy()[..., None], [float(mean)], [precision**-0.5])
    assert idata.posterior["group"].shape[:2] == (32, 300)


@pytest.mark.parametrize(
    "method",
    [
        NUTS(warmup=50),
        MALA(warmup=50),
        ParallelTempering(temperatures=3, warmup=50),
        TemperedSMC(),
        Variational(guide="normal", steps=50),
    ],
    ids=lambda m: type(m).__name__,
)
def test_every_method_takes_any_model(method):
    idata = sample(eight_schools, method, EFFECT, ERROR, draws=50, chains=2, progress=False)
    assert idata.posterior["eta"].shape == (2, 50, 8)
    assert (idata.posterior["tau"] > 0).all()
    assert np.isfinite(idata.sample_stats["lp"]).all()


#: Predictors far from 0, outcomes far closer to a line than to what the prior expects.
PREDICTOR = torch.linspace(85.0, 115.0, 50)
OUTCOME = 20.0 + 0.6 * PREDICTOR + 0.2 * torch.randn(50, generator=torch.Generator().manual_seed(0))


def regression(predictor, outcome):
    """A line under a prior a thousand times wider than the posterior."""
    line = pyro.sample("line", dist.Normal(torch.zeros(2), torch.tensor([1000.0, 100.0])).to_event(1))
    with pyro.plate("data", len(outcome)):
        pyro.sample("outcome", dist.Normal(line[0] + line[1] * predictor, 0.2), obs=outcome)


def lines():
    """The line's coefficients, centred on the truth and white."""
    found = sample(regression, MALA(), PREDICTOR, OUTCOME, draws=400, chains=16, progress=False)
    design = torch.stack([torch.ones(50), PREDICTOR], 1).double()
    precision = design.T @ design / 0.2**2 + torch.tensor([1e-6, 1e-4]).diag()
    mean = torch.linalg.solve(precision, design.T @ OUTCOME.double() / 0.2**2)
    root = torch.linalg.cholesky(precision)
    return (found.posterior["line"].to_numpy() - mean.numpy()) @ root.numpy()


def test_langevin_steps_find_their_way_from_a_wide_prior():
    assert_moments(lines(), [0.0, 0.0], [1.0, 1.0])


def test_same_seed_same_draws():
    first, second, other = (
        sample(eight_schools, ChEES(warmup=30), EFFECT, ERROR, draws=20, chains=4, seed=seed, progress=False)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first.posterior["mu"], second.posterior["mu"])
    assert not np.array_equal(first.posterior["mu"], other.posterior["mu"])


def test_keyword_arguments_reach_the_model():
    idata = sample(eight_schools, ChEES(warmup=30), EFFECT, error=ERROR, draws=5, chains=4, progress=False)
    assert idata.posterior["mu"].shape == (4, 5)


class TestModelsThatAreAnotherOneAtEveryCall:
    """They have no density, and are refused with the name of what changes."""

    @staticmethod
    def refusal(model, *args):
        with pytest.raises(ValueError, match=r".") as error:
            sample(model, ChEES(warmup=20), *args, draws=10, chains=2, progress=False)
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_a_plate_that_is_subsampled(self):
        def model(x):
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x), subsample_size=2) as some:
                pyro.sample("x", dist.Normal(m, 1.0), obs=x[some])

        assert "plate 'data' takes 2 of its 10 at random" in self.refusal(model, torch.zeros(10))

    def test_a_site_that_comes_and_goes(self):
        calls = itertools.count()

        def model():
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            if next(calls) % 2:
                pyro.sample("extra", dist.Normal(m, 1.0))

        assert "site 'extra' is in some runs of the model only" in self.refusal(model)

    def test_a_site_whose_shape_changes(self):
        calls = itertools.count(1)

        def model():
            pyro.sample("m", dist.Normal(torch.zeros(next(calls)), 1.0).to_event(1))

        assert re.match(r"site 'm' has shape \(\d,\) in one run and \(\d,\) in another", self.refusal(model))

    def test_a_full_plate_is_none(self):
        def model(x):
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x)) as every:
                pyro.sample("x", dist.Normal(m, 1.0), obs=x[every])

        found = sample(model, ChEES(warmup=50), torch.ones(10), draws=50, chains=4, progress=False)
        assert abs(float(found.posterior["m"].mean()) - 10 / 11) < 0.2
        assert "R-hat, m (max)" in diagnostics.summary(found)
