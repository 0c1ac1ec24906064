"""Samplers of weights by minibatches, against Bayesian linear regression and the exact law of a biased chain."""

from dataclasses import dataclass, replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from statistics_of_draws import assert_moments
from torch import nn

from posterior_inpainting.inference.training.cycles import Cycles
from posterior_inpainting.inference.training.examples import Examples
from posterior_inpainting.inference.training.sample_weights import WeightWalk, sample_weights
from posterior_inpainting.inference.training.swag import swag
from posterior_inpainting.inference.training.weight_kernels import SGHMC, SGLD
from posterior_inpainting.models import VariationalAutoencoder, datasets
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.random_weights.weight_priors import Gaussian, ScaleMixture

COUNT, NOISE, PRIOR = 120, 0.7, 0.5


@dataclass(frozen=True, kw_only=True)
class TooWarm(SGHMC):
    """Noise of twice the variance: what a factor forgotten in the noise would be."""

    def step(self, state, weights, gradient, size, noise, generator):
        return super().step(state, weights, gradient, size, 2 * noise, generator)


class Regression:
    """Targets of two inputs, and the exact posterior of the two slopes."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(COUNT, 2, generator=generator) * torch.tensor([1.0, 0.9])
        noise = NOISE * torch.randn(COUNT, generator=generator)
        self.targets = self.inputs @ torch.tensor([0.8, -0.3]) + noise
        self.network = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        precision = self.inputs.T @ self.inputs / NOISE**2 + torch.eye(2) / PRIOR**2
        self.curvatures, self.axes = torch.linalg.eigh(precision.double())
        self.mean = torch.linalg.solve(precision, self.inputs.T @ self.targets / NOISE**2).double()

    def model(self, inputs, targets):
        with pyro.plate("data", len(inputs)):
            pyro.sample("target", dist.Normal(self.network(inputs)[:, 0], NOISE), obs=targets)

    def guide(self, inputs, targets):
        """Nothing is random but the weights."""

    def settings(self):
        return {"network": self.network, "prior": Gaussian(PRIOR)}

    def data(self):
        return Examples(self.inputs, self.targets)

    def draws(self, kernel, cycles):
        """Draws in the posterior's own axes, ``(chain, draw, 2)``."""
        chains = []
        for seed in range(2):
            law = sample_weights(
                self.model,
                self.guide,
                self.data(),
                **self.settings(),
                kernel=kernel,
                cycles=replace(cycles, seed=seed),
            )
            chains.append((law.weights["weight"][:, 0].double() - self.mean) @ self.axes)
        return torch.stack(chains).numpy()

    def sd(self):
        return self.curvatures.rsqrt().numpy()


@pytest.fixture(scope="module")
def regression():
    return Regression()


class TestKernels:
    """Many chains at once on a Gaussian, whose law under unaccepted steps is known, minibatch noise included."""

    CURVATURE, IMAGES, CHAINS = torch.tensor([4.0, 0.8]), 50, 4000

    def draws(self, kernel, size, spread, steps=400):
        generator = torch.Generator().manual_seed(0)
        weights = torch.zeros(self.CHAINS, 2)
        state = kernel.start([weights])
        for _ in range(steps):
            gradient = self.CURVATURE * weights + spread / self.IMAGES * torch.randn(
                weights.shape, generator=generator
            )
            state = kernel.learnt(state, [gradient]) if not state.squares else state
            state = kernel.step(state, [weights], [gradient], size, 1 / self.IMAGES, generator)
        return weights.numpy()[None]

    def sd(self, size, spread, friction=None):
        """The formula of the file's docstring."""
        variance, shrunk = 1 / (self.IMAGES * self.CURVATURE), 1.0 if friction is None else 2 - friction
        heat = 1 + size * spread**2 / (2 * self.IMAGES * (1 if friction is None else friction))
        return (variance * heat / (1 - size * self.CURVATURE / (2 * shrunk))).sqrt().numpy()

    @pytest.mark.parametrize("spread", [0.0, 6.0])
    @pytest.mark.parametrize(
        ("kernel", "size", "friction"), [(SGLD(), 0.1, None), (SGHMC(friction=0.3), 0.2, 0.3)]
    )
    def test_the_bias_is_the_one_that_is_stated(self, kernel, size, friction, spread):
        draws, zeros = self.draws(kernel, size, spread), np.zeros(2)
        assert_moments(draws, zeros, self.sd(size, spread, friction), independent=True)
        with pytest.raises(AssertionError, match="biased: the variance"):  # and it is there to be seen
            assert_moments(draws, zeros, self.sd(1e-9, 0.0, friction), independent=True)

    def test_a_preconditioner_that_is_held_keeps_the_law(self):
        """Steps that small are hardly biased, whatever they are divided by."""
        kernel = SGLD(preconditioned=True, floor=1.0)
        draws = self.draws(kernel, 0.02, 2.0, steps=1500)
        assert_moments(draws, np.zeros(2), self.sd(0.01, 2.0), independent=True)

    def test_wrong_noise_is_seen(self):
        draws = self.draws(TooWarm(friction=0.3), 0.2, 0.0)
        with pytest.raises(AssertionError, match="biased: the variance"):
            assert_moments(draws, np.zeros(2), self.sd(0.2, 0.0, 0.3), independent=True)

    def test_preconditioned_steps_are_those_of_li(self):
        kernel, weights = SGLD(preconditioned=True, memory=0.5), torch.zeros(2)
        state = kernel.start([weights])
        for gradient in ([3.0, 1.0], [1.0, 3.0]):
            state = kernel.learnt(state, [torch.tensor(gradient)])
        kernel.step(state, [weights], [torch.ones(2)], 0.1, 0.0, torch.Generator())
        torch.testing.assert_close(weights, torch.full((2,), -0.1 / (1e-5 + 5**0.5)))

    def test_a_preconditioner_needs_something_learnt(self):
        kernel, weights = SGLD(preconditioned=True), torch.zeros(2)
        with pytest.raises(ValueError, match="expected exploring above 0"):
            kernel.step(kernel.start([weights]), [weights], [torch.ones(2)], 0.1, 0.0, torch.Generator())


class TestLinearRegression:
    """The whole of `sample_weights`: minibatches of a half, prior and likelihood from a Pyro model."""

    CYCLES = Cycles(
        cycles=1, epochs=1600, batch_size=60, last=1.0, exploring=0.05, samples=1500, progress=False
    )  # fmt: skip

    @pytest.mark.parametrize(
        ("kernel", "rate"),
        [
            (SGHMC(friction=0.5), 0.025),
            (SGLD(), 0.05),
            pytest.param(SGHMC(friction=0.5, preconditioned=True, floor=1.0), 0.03, marks=pytest.mark.long),
        ],
        ids=["SGHMC", "SGLD", "preconditioned"],
    )
    def test_both_moments(self, regression, kernel, rate):
        draws = regression.draws(kernel, replace(self.CYCLES, learning_rate=rate))
        assert_moments(draws, np.zeros(2), regression.sd())

    @pytest.mark.long
    def test_wrong_noise_fails(self, regression):
        draws = regression.draws(TooWarm(friction=0.5), replace(self.CYCLES, learning_rate=0.025))
        with pytest.raises(AssertionError, match="biased: the variance"):
            assert_moments(draws, np.zeros(2), regression.sd())

    def test_the_gradient_of_an_epoch_is_that_of_all_data(self, regression):
        walk = WeightWalk(regression.model, regression.guide, regression.data(), **regression.settings())
        parts = [walk.gradient(which)[0] for which in torch.arange(COUNT).split(30)]
        precision = regression.axes @ regression.curvatures.diag() @ regression.axes.T
        expected = -(precision @ regression.mean) / COUNT  # at weights of 0
        torch.testing.assert_close(torch.stack(parts).mean(0)[0].double(), expected, rtol=1e-4, atol=1e-5)

    def test_swag_is_centred_on_the_posterior(self, regression):
        cycles = Cycles(
            cycles=40, epochs=2, batch_size=30, learning_rate=0.01, last=1.0, exploring=0.0, samples=1
        )
        cycles = replace(cycles, progress=False)
        law = swag(
            regression.model, regression.guide, regression.data(), **regression.settings(), cycles=cycles
        )
        assert law.rank == 20
        off = (law.mean["weight"][0].double() - regression.mean) @ regression.axes
        assert (off.abs().numpy() < 0.5 * regression.sd()).all()


class TestWalk:
    @pytest.fixture
    def vae(self):
        torch.manual_seed(0)
        return VariationalAutoencoder(
            MultilayerDecoder(2, (1, 8, 8), (8,)), MaskedEncoder(2, (1, 8, 8), (8,))
        )

    CYCLES = Cycles(cycles=2, epochs=1, batch_size=20, samples=2, progress=False)

    def sampled(self, vae, **changes):
        images = datasets.load("digits")[:60]
        settings = {"network": vae.decoder, "kernel": SGLD()} | changes
        return sample_weights(vae, vae.guide, images, **{"cycles": self.CYCLES} | settings)

    def test_the_model_is_as_it_was(self, vae):
        vae.decoder.requires_grad_(False).eval()
        before = {name: value.clone() for name, value in vae.state_dict().items()}
        state = torch.get_rng_state()
        law = self.sampled(vae)
        assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
        assert not any(p.requires_grad for p in vae.decoder.parameters())
        assert all(p.requires_grad and p.grad is None for p in vae.encoder.parameters())
        assert torch.equal(torch.get_rng_state(), state)
        assert law.count == 4
        assert all(len({float(one.sum()) for one in value}) == 4 for value in law.weights.values())

    def test_same_seed_same_draws(self, vae):
        one, same, other = (self.sampled(vae, cycles=replace(self.CYCLES, seed=s)).weights for s in (0, 0, 1))
        assert all(torch.equal(one[path], same[path]) for path in one)
        assert not any(torch.equal(one[path], other[path]) for path in one)

    def test_any_prior(self, vae):
        assert (
            self.sampled(vae, prior=ScaleMixture(), kernel=SGHMC())
            .weights["mean_head.weight"]
            .isfinite()
            .all()
        )

    def test_weights_of_another_model_are_refused(self, vae):
        """They would walk over their prior, whatever the images."""
        other = MultilayerDecoder(2, (1, 8, 8), (8,))
        with pytest.raises(ValueError, match=r"does not depend on 'trunk\.0\.weight'"):
            self.sampled(vae, network=other)
        vae.eval().requires_grad_(False)
        with pytest.raises(ValueError, match="no gradient in the network's weights"):
            self.sampled(vae, network=other)

    def test_too_large_steps_are_named(self, vae):
        with pytest.raises(ValueError, match=r"not finite in cycle 1; try a learning rate below 1e\+30"):
            self.sampled(vae, cycles=replace(self.CYCLES, learning_rate=1e30))


class TestCycles:
    def test_steps_are_those_of_zhang(self):
        cycles = Cycles(learning_rate=0.3)
        sizes = [cycles.size(k, 10) for k in range(10)]
        expected = [0.15 * (np.cos(np.pi * k / 10) + 1) for k in range(10)]  # equation 1 with k - 1 from 0
        assert sizes == pytest.approx(expected)

    def test_kept_are_of_the_part_that_draws(self):
        cycles = Cycles(exploring=0.7, samples=3)
        assert cycles.kept(10) == [7, 8, 9]
        assert not any(cycles.explores(k, 10) for k in cycles.kept(10))
        assert cycles.explores(6, 10)
        with pytest.raises(ValueError, match="samples=3 of the 2 steps"):
            cycles.kept(6)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"samples": 0}, "samples=0"),
            ({"learning_rate": 0.0}, "learning_rate=0.0"),
            ({"exploring": 1.0}, "exploring=1.0"),
            ({"last": 1.1}, "last=1.1"),
            ({"temperature": -1.0}, "temperature=-1.0"),
        ],
    )
    def test_refused(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            Cycles(**wrong)


def test_refusals(regression):
    with pytest.raises(ValueError, match="friction=0"):
        SGHMC(friction=0.0)
    with pytest.raises(ValueError, match="memory=1"):
        SGLD(memory=1.0)
    given = regression.model, regression.guide, regression.data()
    with pytest.raises(ValueError, match="rank=1"):
        swag(*given, **regression.settings(), rank=1)
    with pytest.raises(ValueError, match="1 snapshot"):
        swag(*given, **regression.settings(), cycles=Cycles(cycles=1, epochs=1, samples=1, progress=False))
