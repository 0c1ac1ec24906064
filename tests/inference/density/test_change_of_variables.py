"""Supports that depend on other latents, and angles: the density by hand, moments, and there and back."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.special import i0, i1
from statistics_of_draws import assert_moments
from torch.nn.functional import logsigmoid

from posterior_inpainting.inference import MALA, ChEES, TemperedSMC, sample
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.supports import same_support


def nested_intervals():
    """Uniform on the triangle 0 < y < x < 1, weighed with 1 / x: E x = 1/2, E y = 1/4."""
    x = pyro.sample("x", dist.Uniform(0.0, 1.0))
    pyro.sample("y", dist.Uniform(0.0, x))


#: Means and variances of x and y: E y^2 = E x^2 / 3 = 1 / 9.
TRIANGLE = np.array([1 / 2, 1 / 4]), np.sqrt([1 / 12, 1 / 9 - 1 / 16])


def test_log_density_by_hand():
    potential = Potential(Problem(nested_intervals))
    position = torch.randn(6, 2)
    log_prior, log_likelihood, slope = potential.gradient(position)
    # x = s(u), y = x s(v): the density 1 / x and the Jacobian s'(u) x s'(v)
    wanted = (logsigmoid(position) + logsigmoid(-position)).sum(-1)
    torch.testing.assert_close(log_prior, wanted)
    torch.testing.assert_close(slope, 1 - 2 * position.sigmoid())
    assert (log_likelihood == 0).all()
    latents = potential.constrain(position)
    u, v = position.sigmoid().unbind(-1)
    torch.testing.assert_close(latents["x"], u)
    torch.testing.assert_close(latents["y"], u * v)
    torch.testing.assert_close(potential.unconstrain(latents, batch=1), position, rtol=1e-4, atol=1e-4)


def test_without_the_jacobian():
    potential = Potential(Problem(nested_intervals), jacobian=False)
    position = torch.randn(6, 2)
    torch.testing.assert_close(potential(position)[0], -position[:, 0].sigmoid().log())


def test_prior_draws():
    potential = Potential(Problem(nested_intervals))
    torch.manual_seed(1)
    latents = potential.constrain(potential.draw_prior(4000))
    both = torch.stack([latents["x"], latents["y"]], -1)
    assert_moments(both.unsqueeze(0), *TRIANGLE, independent=True)


def test_moments_of_draws():
    idata = sample(nested_intervals, ChEES(warmup=300), draws=600, chains=32, progress=False)
    both = np.stack([idata.posterior["x"], idata.posterior["y"]], -1)
    assert (both[..., 1] < both[..., 0]).all()
    assert_moments(both, *TRIANGLE)


def test_moments_of_a_posterior_by_particles():
    """y is seen to be about .3, so that x > y matters: by quadrature over the triangle."""

    def model():
        x = pyro.sample("x", dist.Uniform(0.0, 1.0))
        y = pyro.sample("y", dist.Uniform(0.0, x))
        pyro.sample("seen", dist.Normal(y, 0.1), obs=torch.tensor(0.3))

    x, y = np.meshgrid(*[(np.arange(2000) + 0.5) / 2000] * 2, indexing="ij")
    weight = np.where(y < x, np.exp(-0.5 * ((y - 0.3) / 0.1) ** 2) / x, 0.0)
    weight /= weight.sum()
    truth = np.array([(weight * x).sum(), (weight * y).sum()])
    idata = sample(model, TemperedSMC(), draws=1000, chains=16, progress=False)
    replicates = np.stack([idata.posterior["x"], idata.posterior["y"]], -1).mean(1)
    error = np.abs(replicates.mean(0) - truth) / (replicates.std(0, ddof=1) / math.sqrt(16))
    assert (error < 5).all()


def test_a_support_that_branches():
    """Its bounds are the same in half of all runs."""

    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Uniform(0.0, torch.where(x > 0, 1.0, 2.0)))

    latents = Potential(Problem(model)).constrain(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert latents["y"].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    "high", [lambda x: x.item(), lambda x: 1.0 if x > 0.5 else 2.0], ids=("item", "branch")
)
def test_bounds_that_are_plain_numbers_move_too(high):
    def model():
        x = pyro.sample("x", dist.Uniform(0.0, 1.0))
        pyro.sample("y", dist.Uniform(0.0, high(x)))

    with pytest.warns(UserWarning, match="cannot be vectorised"):
        potential = Potential(Problem(model))
    latents = potential.constrain(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    assert latents["y"].tolist() == pytest.approx([high(x) / 2 for x in latents["x"]])


def test_fixed_bounds_take_the_fast_path():
    def model(high):
        pyro.sample("x", dist.Uniform(0.0, high))

    runs = []

    def counted(high):
        runs.append(1)
        model(high)

    potential = Potential(Problem(counted, (torch.tensor(4.0),)))
    before = len(runs)
    assert potential.constrain(torch.zeros(3, 1))["x"].tolist() == [2.0] * 3
    assert len(runs) == before


def test_supports_that_differ_between_groups_are_refused():
    def model(high):
        pyro.sample("x", dist.Uniform(0.0, high))

    with pytest.raises(
        ValueError, match="the support of site 'x' differs between observations; infer them one"
    ):
        Potential(Problem(model, (torch.tensor([1.0, 2.0]),)), groups=2)


def test_supports_that_depend_on_latents_are_the_same_in_all_groups():
    def model(seen):
        x = pyro.sample("x", dist.Uniform(0.0, 1.0))
        y = pyro.sample("y", dist.Uniform(0.0, x))
        pyro.sample("seen", dist.Normal(y, 0.1), obs=seen)

    seen = torch.tensor([0.1, 0.5])
    many = Potential(Problem(model, (seen,)), groups=2)
    position = torch.randn(2, 3, 2)
    for i in range(2):
        alone = Potential(Problem(model, (seen[i],)))
        for ours, theirs in zip(many.gradient(position), alone.gradient(position[i]), strict=True):
            torch.testing.assert_close(ours[i], theirs)


class TestAngles:
    @pytest.mark.parametrize(
        "law",
        [
            lambda: dist.VonMises(torch.tensor([3.0, -3.0]), 2.0).to_event(1),
            lambda: dist.VonMises(torch.tensor([3.0, -3.0]), 2.0).mask(True).to_event(1),
            lambda: dist.VonMises(torch.tensor(3.0), 2.0).expand([2]).to_event(1),
        ],
        ids=("independent", "masked", "expanded"),
    )
    def test_wrapped(self, law):
        potential = Potential(Problem(lambda: pyro.sample("angle", law())))
        position = torch.tensor([[0.0, 1.0], [4.0, -4.0], [100.0, math.pi], [-math.pi, -7.0]])
        angle = potential.constrain(position)["angle"]
        assert (angle >= -math.pi).all()
        assert (angle < math.pi).all()
        torch.testing.assert_close(angle.sin(), position.sin(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(angle.cos(), position.cos(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(potential(position)[0], law().log_prob(position), rtol=1e-4, atol=1e-4)

    def test_the_likelihood_sees_the_wrapped_angle(self):
        """Else the density that is sampled has other pieces of the line than the draws."""

        def model():
            angle = pyro.sample("angle", dist.VonMises(0.0, 1.0))
            pyro.sample("y", dist.Normal(angle, 1.0), obs=torch.tensor(1.0))

        prior, likelihood = Potential(Problem(model))(torch.tensor([[1.0], [1.0 + 2 * math.pi]]))
        torch.testing.assert_close(prior[0], prior[1])
        torch.testing.assert_close(likelihood[0], likelihood[1])

    def test_draws(self):
        """Around the end of the interval, half of the mass on either side; no chain goes round."""

        def model():
            pyro.sample("angle", dist.VonMises(math.pi, 8.0))

        idata = sample(model, MALA(warmup=200, thin=3), draws=300, chains=32, progress=False)
        angle = idata.posterior["angle"].to_numpy()
        assert (np.abs(angle) <= np.float32(math.pi)).all()
        assert 0.4 < (angle > 0).mean() < 0.6
        mean = -i1(8.0) / i0(8.0)
        # E cos^2 = 1 - A(k) / k with A = I1 / I0
        sd = np.sqrt([1 + mean / 8 - mean**2, -mean / 8])
        assert_moments(np.stack([np.cos(angle), np.sin(angle)], -1), [mean, 0.0], sd)


def test_same_support():
    constraints = torch.distributions.constraints
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert same_support(constraints.interval(0.0, one), constraints.interval(0.0, one.clone()))
    assert not same_support(constraints.interval(0.0, one), constraints.interval(0.0, two))
    assert not same_support(constraints.positive, constraints.real)
    nested = [constraints.independent(constraints.greater_than(bound), 1) for bound in (one, two, one)]
    assert same_support(nested[0], nested[2])
    assert not same_support(nested[0], nested[1])
    stacked = [constraints.stack([constraints.real, constraints.less_than(bound)]) for bound in (one, two)]
    assert not same_support(*stacked)
