"""Networks with random weights: priors weight by weight, coherent draws, any method, any sampler."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from scipy.special import logsumexp
from scipy.stats import norm
from statistics_of_draws import assert_moments
from torch import nn

from posterior_inpainting.inference import ChEES, sample
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.tracing import batched_trace
from posterior_inpainting.models.networks import MultilayerDecoder
from posterior_inpainting.models.random_weights.layers import (
    BayesianConv2d,
    BayesianLinear,
    BayesianModule,
    bayesian,
)
from posterior_inpainting.models.random_weights.weight_priors import FanIn, Gaussian, ScaleMixture
from posterior_inpainting.models.supervised import Supervised


def small_net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


class TestScaleMixture:
    @pytest.mark.parametrize("prior", [ScaleMixture(), ScaleMixture(0.25, math.exp(-2), math.exp(-8))])
    def test_is_the_logsumexp_of_each_weight(self, prior):
        w = torch.tensor([0.0, 1e-3, -0.01, 0.5, -10.0, 10.0, 1e4], dtype=torch.double)
        logs = [
            np.log(p) + norm(0, s).logpdf(w.numpy())
            for p, s in ((prior.share, prior.wide), (1 - prior.share, prior.narrow))
        ]
        ours = prior.expand((7,)).log_prob(w)
        assert ours.isfinite().all()
        np.testing.assert_allclose(ours, logsumexp(logs, axis=0), rtol=1e-12)

    def test_tensor_of_weights_is_not_mixed_as_a_whole(self):
        prior, w = ScaleMixture(wide=1.0, narrow=0.1), torch.tensor([0.01, 2.0])
        as_a_whole = torch.logaddexp(
            *(math.log(0.5) + dist.Normal(0.0, s).log_prob(w).sum() for s in (1.0, 0.1))
        )
        per_weight = prior.expand((2,)).to_event(1).log_prob(w)
        torch.testing.assert_close(per_weight, sum(prior.log_prob(one) for one in w))
        assert abs(per_weight - as_a_whole) > 0.5

    def test_gradient_is_finite_and_right_far_out(self):
        w = torch.tensor([0.0, 1e-4, 0.01, 10.0, -1e3], dtype=torch.double, requires_grad=True)
        prior = ScaleMixture(wide=0.5)
        (slope,) = torch.autograd.grad(prior.log_prob(w).sum(), w)
        assert slope.isfinite().all()
        torch.testing.assert_close(slope[3:], -w[3:] / 0.25)  # the wide component alone
        assert torch.autograd.gradcheck(lambda v: prior.log_prob(v), w[:3])

    def test_draws(self):
        prior = ScaleMixture(0.25, wide=1.0, narrow=0.1)
        drawn = prior.expand((3,)).sample((20_000,))
        assert_moments(drawn[None], np.zeros(3), prior.expand((3,)).stddev, independent=True)
        outer = (drawn.abs() > 0.5).float()  # only the wide component goes there, each weight by itself
        chance = 0.25 * 2 * norm.sf(0.5)
        assert_moments(
            outer[None], np.full(3, chance), [math.sqrt(chance * (1 - chance))] * 3, independent=True
        )
        assert abs(np.corrcoef(outer.T)[0, 1]) < 5 / math.sqrt(20_000)

    @pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"wide": 0.001}, {"narrow": -1.0}])
    def test_names_what_is_wrong(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ScaleMixture(**wrong)


def test_prior_by_fan_in_keeps_the_size_of_outputs():
    net = bayesian(nn.Linear(400, 50), FanIn(gain=1.0, bias=0.1))
    outputs = torch.stack([net(torch.ones(1, 400))[0] for _ in range(200)])
    assert_moments(
        outputs.detach()[None], np.zeros(50), np.full(50, math.sqrt(1.01)), independent=True, errors=5.5
    )


class TestModel:
    @pytest.mark.parametrize("prior", [None, Gaussian(0.3), FanIn()])
    def test_density_is_that_of_all_weights(self, prior):
        net = bayesian(small_net(), prior)
        trace = poutine.trace(net).get_trace(torch.zeros(5, 3))
        assert trace.stochastic_nodes == ["0.weight", "0.bias", "2.weight", "2.bias"]
        by_hand = 0.0
        for path in trace.stochastic_nodes:
            value = trace.nodes[path]["value"]
            law = net.prior(path, value) if isinstance(prior, FanIn) else net.prior
            by_hand += sum(law.log_prob(weight) for weight in value.flatten())
        torch.testing.assert_close(trace.log_prob_sum(), by_hand)

    def test_runs_the_network_that_it_drew(self):
        net, x = bayesian(small_net(), Gaussian(1.0)), torch.randn(5, 3)
        trace = poutine.trace(net).get_trace(x)
        network = small_net()
        network.load_state_dict({name: trace.nodes[name]["value"] for name in trace.stochastic_nodes})
        torch.testing.assert_close(trace.nodes["_RETURN"]["value"], network(x))

    def test_one_draw_is_one_network_for_all_images(self):
        image = torch.randn(1, 1, 6, 6).expand(4, -1, -1, -1)
        for net in (
            BayesianConv2d(1, 2, 3, prior=Gaussian(1.0)),
            bayesian(nn.Conv2d(1, 2, 3), Gaussian(1.0)),
        ):
            first, second = net(image), net(image)
            assert torch.equal(first[0], first[3])  # the same kernel for every image ...
            assert not torch.allclose(first, second)  # ... and another one in the next draw
            flat = net(torch.ones(1, 1, 6, 6))
            torch.testing.assert_close(flat, flat[..., :1, :1].expand_as(flat))  # and for every pixel

    def test_layers_in_a_pyro_module_have_its_names(self):
        net = PyroModule[nn.Sequential](BayesianLinear(3, 4), PyroModule[nn.Tanh](), BayesianLinear(4, 2))
        names = ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert poutine.trace(net).get_trace(torch.zeros(5, 3)).stochastic_nodes == names
        guided = [poutine.trace(layer.guide).get_trace().stochastic_nodes for layer in (net[0], net[2])]
        assert [name for layer in guided for name in layer] == names

    def test_leaves_the_given_network_alone(self):
        given = small_net()
        before = [p.clone() for p in given.parameters()]
        net = bayesian(given)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(1.0)
        assert all(torch.equal(a, b) for a, b in zip(before, given.parameters(), strict=True))

    def test_some_parameters_only(self):
        net = bayesian(small_net(), random=lambda path: path.startswith("2"))
        assert poutine.trace(net).get_trace(torch.zeros(5, 3)).stochastic_nodes == ["2.weight", "2.bias"]
        x = torch.randn(5, 3)
        outputs = net.forward_with(net.draw_weights(2), x)
        hidden = net.mean[1](net.mean[0](x))
        weights = net.draw_weights(1)
        by_hand = hidden @ weights["2.weight"][0].T + weights["2.bias"][0]
        torch.testing.assert_close(net.forward_with(weights, x)[0], by_hand)
        assert outputs.shape == (2, 5, 2)
        with pytest.raises(ValueError, match="no parameter"):
            bayesian(small_net(), random=lambda path: False)

    @pytest.mark.parametrize("local", [True, False])
    def test_a_step_of_svi_moves_means_and_scales(self, local):
        with pyro.settings.context(module_local_params=local):
            model = Supervised(bayesian(small_net()), lambda mean: dist.Normal(mean, 1.0).to_event(1))
            before = [p.detach().clone() for p in model.parameters()]
            x, y = torch.randn(5, 3), torch.randn(5, 2)
            if (
                local
            ):  # Pyro's SVI takes no plain parameter then, anyone's: its documented way is torch's optimiser
                optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
                Trace_ELBO().differentiable_loss(model, model.guide, x, y).backward()
                optimiser.step()
            else:
                svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
                assert math.isfinite(svi.step(x, y))
            assert len(before) == 8
            assert all((a != b).any() for a, b in zip(before, model.parameters(), strict=True))


class TestDraws:
    def test_moments_of_the_learnt_law(self):
        net = BayesianModule(small_net(), posterior_scale=0.3)
        drawn = net.draw_weights(4_000)
        guided = torch.stack([net.guide()["0.weight"].detach() for _ in range(1_000)])
        for path, law in net.posterior().items():
            mean, sd = law.loc.detach().flatten(), law.scale.detach().flatten()
            torch.testing.assert_close(sd, torch.full_like(sd, 0.3))
            assert_moments(drawn[path].flatten(1)[None], mean, sd, independent=True)
            if path == "0.weight":
                assert_moments(guided.flatten(1)[None], mean, sd, independent=True)
            torch.testing.assert_close(net.signal_to_noise()[path].flatten(), mean.abs() / 0.3)

    def test_many_networks_equal_each_alone(self):
        net, x = bayesian(small_net(), posterior_scale=0.5), torch.randn(5, 3)
        weights = net.draw_weights(7)
        together = net.forward_with(weights, x)
        for i in range(7):
            one = {path: value[i] for path, value in weights.items()}
            torch.testing.assert_close(together[i], net.forward_with(one, x))
            network = small_net()
            network.load_state_dict(one)
            torch.testing.assert_close(together[i], network(x))
        torch.testing.assert_close(net.forward_with(weights, x, chunk=3), together)
        grid = {path: value[:6].reshape(2, 3, *value.shape[1:]) for path, value in weights.items()}
        torch.testing.assert_close(net.forward_with(grid, x), together[:6].reshape(2, 3, 5, 2))

    def test_any_method_with_codes_of_their_own(self):
        decoder = MultilayerDecoder(2, (1, 4, 4), widths=(8,), scale_rank=3)
        net = bayesian(decoder, posterior_scale=0.5)
        weights, z = net.draw_weights(6), torch.randn(6, 9, 2)
        mean, scale = net.forward_with(weights, z, method="mean_and_scale", paired=True)
        assert mean.shape == scale.shape == (6, 9, 1, 4, 4)
        for i in range(6):
            decoder.load_state_dict({path: value[i] for path, value in weights.items()})
            for ours, expected in zip((mean[i], scale[i]), decoder.mean_and_scale(z[i]), strict=True):
                torch.testing.assert_close(ours, expected)

    def test_gradients_reach_the_learnt_law(self):
        net = bayesian(small_net())
        net.forward_with(net.guide(), torch.randn(5, 3)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())

    def test_names_what_is_wrong(self):
        net = bayesian(small_net())
        with pytest.raises(ValueError, match=r"'1\.weight' is not a parameter"):
            net.forward_with({"1.weight": torch.zeros(4, 3)}, torch.zeros(5, 3))
        with pytest.raises(ValueError, match=r"shape \(3, 4\); expected \(\.\.\., 4, 3\)"):
            net.forward_with({"0.weight": torch.zeros(3, 4)}, torch.zeros(5, 3))
        with pytest.raises(ValueError, match="numbers of draws"):
            net.forward_with({"0.weight": torch.zeros(2, 4, 3), "0.bias": torch.zeros(4)}, torch.zeros(5, 3))


class TestLocalReparametrisation:
    def make(self, **settings):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        return bayesian(network, Gaussian(0.7), posterior_scale=0.4, **settings)

    def test_outputs_have_the_law_of_explicit_draws(self):
        torch.manual_seed(0)
        net = bayesian(nn.Linear(3, 2), Gaussian(0.7), posterior_scale=0.4, local_reparametrisation=True)
        x = torch.randn(1, 3)
        explicit = net.forward_with(net.draw_weights(20_000), x)[:, 0]
        at_units = net(x.expand(20_000, 3)).detach()
        mean = net.mean(x)[0].detach()
        sd = (0.4**2 * (x.square().sum() + 1)).sqrt().expand(2)
        assert_moments(explicit[None], mean, sd, independent=True)
        assert_moments(at_units[None], mean, sd, independent=True)

    def test_bound_is_that_of_explicit_draws(self):
        """One row, since only there do both have the same law; and a linear layer after another."""
        x, y = torch.randn(1, 3), torch.randn(1, 2)
        bounds = []
        for local in (True, False):
            net = self.make(local_reparametrisation=local)
            model = Supervised(net, lambda mean: dist.Normal(mean, 1.0).to_event(1))
            elbo = Trace_ELBO()
            with torch.no_grad():
                bounds.append(
                    torch.stack([elbo.differentiable_loss(model, model.guide, x, y) for _ in range(1500)])
                )
        difference = bounds[0].mean() - bounds[1].mean()
        error = (sum(b.var() / len(b) for b in bounds)).sqrt()
        assert abs(difference) < 5 * error
        assert bounds[0].std() < bounds[1].std()

    def test_is_for_training_alone(self):
        net, x = self.make(local_reparametrisation=True), torch.ones(6, 3)
        assert not torch.allclose(*net(x)[:2])  # two rows, two different networks
        assert net.guide() == {}
        net.eval()
        assert torch.equal(*net(x)[:2])
        assert set(net.guide()) == {"0.weight", "0.bias", "1.weight", "1.bias"}

    def test_draws_stay_coherent_in_training_mode(self):
        net = self.make(local_reparametrisation=True)
        drawn = net.forward_with(net.draw_weights(5), torch.ones(6, 3))
        torch.testing.assert_close(drawn, drawn[:, :1].expand_as(drawn))

    def test_convolutions_and_mixtures_refuse(self):
        with pytest.raises(ValueError, match="not a weight of a linear layer"):
            BayesianConv2d(1, 2, 3, prior=Gaussian(), local_reparametrisation=True)
        with pytest.raises(ValueError, match="closed form"):
            BayesianLinear(3, 2, local_reparametrisation=True)


class TestSamplers:
    def test_posterior_of_the_weights_is_the_exact_one(self):
        """Bayesian linear regression: the weights' posterior is Gaussian, with a known mean and covariance."""
        torch.manual_seed(1)
        x, scale, prior_scale = torch.randn(20, 2), 0.5, 1.5
        y = x @ torch.tensor([[1.0], [-0.5]]) + 0.3 + scale * torch.randn(20, 1)
        net = BayesianLinear(2, 1, prior=Gaussian(prior_scale))
        model = Supervised(net, lambda mean: dist.Normal(mean, scale).to_event(1))
        idata = sample(model, ChEES(), x, y, draws=250, chains=32, progress=False)
        design = torch.cat([x, torch.ones(20, 1)], 1).double()
        precision = design.T @ design / scale**2 + torch.eye(3) / prior_scale**2
        mean = torch.linalg.solve(precision, design.T @ y.double() / scale**2)[:, 0]
        sd = precision.inverse().diagonal().sqrt()
        draws = [idata.posterior[name].to_numpy() for name in ("network.weight", "network.bias")]
        chains, count = draws[0].shape[:2]
        assert_moments(np.concatenate([d.reshape(chains, count, -1) for d in draws], -1), mean, sd)

    def test_density_is_vectorised_over_chains(self):
        class Decoded(PyroModule):
            def __init__(self):
                super().__init__()
                self.decoder = bayesian(MultilayerDecoder(2, (1, 4, 4), widths=(6,)))

            def forward(self, image):
                weights = self.decoder.sample_weights()
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                law = self.decoder.forward_with(weights, z, method="mean_and_scale", paired=True)
                pyro.sample("image", dist.Normal(*law).to_event(3), obs=image)

        model, image = Decoded(), torch.rand(1, 4, 4)
        potential = Potential(Problem(model, (image,)))
        assert potential.route == "vmap"
        position = potential.draw_prior(3)
        prior, likelihood = potential(position)
        for i in range(3):
            data = potential.constrain(position[i])
            trace = poutine.trace(poutine.condition(model, data=data)).get_trace(image)
            torch.testing.assert_close(trace.log_prob_sum(), prior[i] + likelihood[i])
        # and all draws go through the model in one call, inside a plate to its left
        guided = {name: value.detach() for name, value in potential.constrain(position).items()}
        traced = batched_trace(model, Problem(model, (image,)), 3, 0, guided)
        assert traced.nodes["image"]["fn"].batch_shape == (3,)
        torch.testing.assert_close(traced.nodes["image"]["fn"].log_prob(image), likelihood)
