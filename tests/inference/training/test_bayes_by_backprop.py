"""Bayes by Backprop: the bound and its minibatches, optima that are known, what is left after pruning."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import nn
from torch.nn import functional as F

from posterior_inpainting.inference.evaluation.pruning import SHARES, prune, pruning_curve
from posterior_inpainting.inference.training.bayes_by_backprop import (
    BayesByBackprop,
    DivergenceWeight,
    geometric_weights,
    uniform_weights,
)
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models.random_weights.layers import bayesian
from posterior_inpainting.models.random_weights.weight_priors import Gaussian, ScaleMixture
from posterior_inpainting.models.supervised import Supervised

PRIORS = [Gaussian(0.8), ScaleMixture(0.5, 1.0, 0.1)]


def classifier(prior, scale=0.2):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    return Supervised(
        bayesian(net, prior, posterior_scale=scale), lambda logits: dist.Categorical(logits=logits)
    )


@pytest.fixture
def points():
    torch.manual_seed(2)
    x = torch.randn(23, 3)
    return x, (x[:, 0] > 0).long()


class TestMinibatchWeights:
    @pytest.mark.parametrize("weights", [uniform_weights, geometric_weights])
    @pytest.mark.parametrize("batches", [1, 2, 7, 469, 2000])
    def test_sum_to_one_and_are_finite(self, weights, batches):
        found = weights([10] * batches)
        assert found.isfinite().all()
        assert float(found.double().sum()) == pytest.approx(1.0, abs=1e-5)

    def test_are_the_paper_s(self):
        assert geometric_weights([10] * 7).tolist() == pytest.approx(
            [2 ** (7 - i) / (2**7 - 1) for i in range(1, 8)]
        )
        assert uniform_weights([10] * 7).tolist() == pytest.approx([1 / 7] * 7)

    def test_unknown_ones_are_named(self):
        with pytest.raises(ValueError, match="geometric"):
            BayesByBackprop("halving")


def cost(model, x, y, share=1.0, seed=0):
    """The loss at one draw of the weights, the same for the same seed."""
    torch.manual_seed(seed)
    with DivergenceWeight(share):
        return BayesByBackprop().differentiable_loss(model, model.guide, x, y)


@pytest.mark.parametrize("prior", PRIORS, ids=["Gaussian", "mixture"])
class TestBound:
    @pytest.mark.parametrize("kind", ["uniform", "geometric"])
    def test_costs_of_an_epoch_sum_to_that_of_all_data(self, prior, points, kind):
        """At the same draw of the weights, so that it is an equation and not an expectation."""
        model, (x, y) = classifier(prior), points
        parts = torch.randperm(23).split(5)  # the last is smaller
        shares = BayesByBackprop(kind).minibatch_weights([len(part) for part in parts])
        total = sum(cost(model, x[p], y[p], share) for p, share in zip(parts, shares, strict=True))
        torch.testing.assert_close(total, cost(model, x, y))

    @pytest.mark.long  # the equation above says the same of all minibatches together
    def test_uniform_minibatch_is_unbiased(self, prior, points):
        """Mean of M times the cost of a random minibatch, over shuffles and draws, against the full cost."""
        model, (x, y) = classifier(prior), (points[0][:20], points[1][:20])
        with torch.no_grad():
            full = torch.stack([cost(model, x, y, seed=s) for s in range(1500)])
            one = []
            for seed in range(1500):
                part = torch.randperm(20, generator=torch.Generator().manual_seed(seed))[:5]
                one.append(4 * cost(model, x[part], y[part], 1 / 4, seed=10_000 + seed))
        one = torch.stack(one)
        error = (one.var() / len(one) + full.var() / len(full)).sqrt()
        assert abs(one.mean() - full.mean()) < 5 * error
        assert error < 0.05 * full.mean().abs()  # else the line above says nothing

    @pytest.mark.long
    def test_is_the_evidence_lower_bound_as_pyro_has_it(self, prior, points):
        model = classifier(prior)
        values = []
        for elbo in (BayesByBackprop(), TraceMeanField_ELBO()):
            with torch.no_grad():
                draws = []
                for seed in range(1000):
                    torch.manual_seed(seed)
                    draws.append(elbo.differentiable_loss(model, model.guide, *points))
            values.append(torch.stack(draws))
        difference = values[0] - values[1]  # the same draws of the weights
        assert abs(difference.mean()) <= 5 * difference.std() / math.sqrt(1000) + 1e-4
        assert values[0].var() <= values[1].var() * 1.01

    def test_gradient_is_that_of_the_paper_s_formula(self, prior, points):
        """log q(w) - log p(w) - log p(D | w) in nothing but torch, and the gradient of our loss."""
        model, (x, y) = classifier(prior), points
        net = model.network
        (cost(model, x, y, share=0.3)).backward()
        torch.manual_seed(0)
        mu = {path: p.detach().clone().requires_grad_() for path, p in net.mean.named_parameters()}
        rho = {p: net.raw_scale[p.replace(".", "/")].detach().clone().requires_grad_() for p in mu}
        w = {p: mu[p] + F.softplus(rho[p]) * torch.randn(mu[p].shape) for p in mu}
        hidden = F.relu(x @ w["0.weight"].T + w["0.bias"])
        misfit = F.cross_entropy(hidden @ w["2.weight"].T + w["2.bias"], y, reduction="sum")
        divergence = 0.0
        for p in mu:
            if isinstance(prior, Gaussian):
                q, p_ = (
                    torch.distributions.Normal(m, s) for m, s in ((mu[p], F.softplus(rho[p])), (0.0, 0.8))
                )
                divergence = divergence + torch.distributions.kl_divergence(q, p_).sum()
            else:
                law = torch.distributions.Normal(mu[p], F.softplus(rho[p]))
                parts = [0.5 * torch.distributions.Normal(0, s).log_prob(w[p]).exp() for s in (1.0, 0.1)]
                divergence = divergence + (law.log_prob(w[p]) - sum(parts).log()).sum()
        (0.3 * divergence + misfit).backward()
        for p in mu:
            torch.testing.assert_close(net.mean.get_parameter(p).grad, mu[p].grad, rtol=1e-4, atol=1e-5)
            ours = net.raw_scale[p.replace(".", "/")].grad
            torch.testing.assert_close(ours, rho[p].grad, rtol=1e-4, atol=1e-5)


class TestLinearRegression:
    """Gaussian posterior with precision P and mean m: the best mean-field Gaussian is N(m_j, 1 / P_jj)."""

    scale, prior_scale = 0.5, 1.0

    @pytest.fixture
    def problem(self):
        torch.manual_seed(3)
        x = torch.randn(60, 3) @ torch.tensor([[1.0, 0.7, 0.0], [0.0, 0.7, 0.0], [0.0, 0.0, 0.3]])
        y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + self.scale * torch.randn(60, 1)
        precision = x.T @ x / self.scale**2 + torch.eye(3) / self.prior_scale**2
        mean = torch.linalg.solve(precision, x.T @ y / self.scale**2)[:, 0]
        model = Supervised(
            bayesian(nn.Linear(3, 1, bias=False), Gaussian(self.prior_scale)),
            lambda m: dist.Normal(m, self.scale).to_event(1),
        )
        return model, x, y, mean, precision

    def test_fitted_guide_is_the_optimum(self, problem):
        model, x, y, mean, precision = problem
        train(
            model, model.guide, x, targets=y, loss=BayesByBackprop(particles=4), epochs=500, batch_size=30,
            learning_rate=0.05, progress=False,
        )  # fmt: skip
        law = model.network.posterior()["weight"]
        best = precision.diagonal().rsqrt()
        # What is left is the noise of the last steps, whose size falls to 0: a fraction of a standard deviation.
        assert ((law.loc[0] - mean) / best).abs().max() < 0.1
        np.testing.assert_allclose(law.scale[0].detach(), best, rtol=0.05)
        marginal = precision.inverse().diagonal().sqrt()
        assert (marginal / best).max() > 1.3  # the marginal deviations are something else

    @pytest.mark.long
    def test_gradient_is_zero_there_and_nowhere_near(self, problem):
        model, x, y, mean, precision = problem
        best = precision.diagonal().rsqrt()
        for shift, stretch, at_the_optimum in ((0.0, 1.0, True), (0.5, 1.0, False), (0.0, 1.3, False)):
            with torch.no_grad():
                model.network.mean.weight.copy_(mean + shift * best)
                model.network.raw_scale["weight"].copy_((stretch * best).expm1().log())
            slopes = []
            for seed in range(1500):
                model.zero_grad()
                cost(model, x, y, seed=seed).backward()
                slopes.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
            slopes = torch.stack(slopes)
            z = slopes.mean(0) / (slopes.std(0) / math.sqrt(len(slopes)))
            assert (z.abs().max() < 5) == at_the_optimum, z

    def test_reported_loss_is_the_bound_in_closed_form(self, problem):
        model, x, y, mean, precision = problem
        with torch.no_grad():
            model.network.mean.weight.copy_(mean)
            model.network.raw_scale["weight"].copy_(precision.diagonal().rsqrt().expm1().log())
        law = dist.MultivariateNormal(
            torch.zeros(60), self.prior_scale**2 * x @ x.T + self.scale**2 * torch.eye(60)
        )
        gap = 0.5 * (precision.diagonal().log().sum() - precision.logdet())  # KL to the posterior
        exact = float(gap - law.log_prob(y[:, 0])) / 60
        losses = train(
            model, model.guide, x, targets=y, loss=BayesByBackprop("geometric"), epochs=400, batch_size=7,
            learning_rate=0.0, progress=False,
        ).losses  # fmt: skip
        assert abs(np.mean(losses) - exact) < 5 * np.std(losses) / math.sqrt(len(losses))
        assert np.std(losses) / math.sqrt(len(losses)) < 0.01 * abs(exact)


def test_bands_widen_where_there_are_no_data():
    """The paper's figure 5 with a small network: sure inside [0, 0.5], unsure outside."""
    torch.manual_seed(0)
    x = torch.rand(200, 1) / 2
    noise = 0.02 * torch.randn(200, 1)
    y = x + 0.3 * (2 * math.pi * (x + noise)).sin() + 0.3 * (4 * math.pi * (x + noise)).sin() + noise
    net = nn.Sequential(nn.Linear(1, 50), nn.ReLU(), nn.Linear(50, 1))
    with torch.no_grad():
        net[0].weight.normal_(0, 4)
        net[0].bias.copy_(-net[0].weight[:, 0] * torch.empty(50).uniform_(-0.5, 1))  # kinks on [-0.5, 1]
    model = Supervised(
        bayesian(net, lambda path, _: Gaussian(4.0 if path[0] == "0" else 0.3)),
        lambda mean: dist.Normal(mean, 0.06).to_event(1),
    )
    training = train(
        model, model.guide, x, targets=y, loss=BayesByBackprop(), epochs=400, batch_size=50,
        learning_rate=0.02, progress=False,
    )  # fmt: skip
    assert training.losses[-1] < training.losses[0]
    with torch.no_grad():
        spread = model.predict(torch.tensor([[-0.4], [0.25], [0.9]]), draws=500).mean[..., 0].std(0)
        fitted = model.predict(x, draws=200).mean.mean(0)
    assert spread[0] > 3 * spread[1]
    assert spread[2] > 3 * spread[1]
    assert (fitted - y).square().mean().sqrt() < 0.09  # the noise itself is 0.06


class TestTraining:
    @pytest.mark.parametrize(
        "settings", [{}, {"loss": BayesByBackprop()}, {"loss": BayesByBackprop("geometric")}]
    )
    def test_learns_and_is_reproducible(self, points, settings):
        """The divergence is shared out whatever the loss is: it is counted once an epoch."""
        x, y = points
        states = []
        for _ in range(2):
            model = classifier(PRIORS[0])
            training = train(
                model, model.guide, x, targets=y, epochs=120, batch_size=5, learning_rate=0.015,
                progress=False, **settings,
            )  # fmt: skip
            states.append(model.state_dict())
        assert training.losses[-1] < training.losses[0]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        full = torch.stack([cost(model, x, y, seed=s).detach() for s in range(500)]) / 23
        tail = torch.tensor(training.losses[-30:])
        error = (full.var() / len(full) + tail.var() / len(tail)).sqrt()
        assert abs(tail.mean() - full.mean()) < 5 * error

    @pytest.mark.long
    def test_local_reparametrisation_reaches_the_same_bound(self, points):
        x, y = points
        ends = []
        for local in (False, True):
            torch.manual_seed(0)
            net = bayesian(
                nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)),
                Gaussian(0.8),
                local_reparametrisation=local,
            )
            model = Supervised(net, lambda logits: dist.Categorical(logits=logits))
            train(
                model, model.guide, x, targets=y, loss=BayesByBackprop(), epochs=200, batch_size=5,
                learning_rate=0.02, progress=False,
            )  # fmt: skip
            model.eval()
            ends.append(torch.stack([cost(model, x, y, seed=s).detach() for s in range(1000)]).mean())
        assert abs(ends[0] - ends[1]) < 0.05 * ends[0]

    def test_any_optimiser(self, points):
        model = classifier(PRIORS[1])
        training = train(
            model, model.guide, points[0], targets=points[1], optimiser=torch.optim.SGD, epochs=300,
            learning_rate=0.01, loss=BayesByBackprop(particles=2), progress=False,
        )  # fmt: skip
        assert training.losses[-1] < training.losses[0]

    def test_names_what_is_wrong(self, points):
        model, (x, y) = classifier(PRIORS[0]), points
        with pytest.raises(ValueError, match="23 inputs and 22 targets"):
            train(model, model.guide, x, targets=y[:-1], progress=False)
        with pytest.raises(ValueError, match="one or the other"):
            train(model, model.guide, x, targets=y, masks=torch.ones(1, 3) > 0, progress=False)


class TestPruning:
    def make(self):
        net = bayesian(nn.Linear(4, 1))
        with torch.no_grad():
            net.mean.weight.copy_(torch.tensor([[4.0, -3.0, 0.5, 1.0]]))
            net.mean.bias.fill_(0.2)
            sd = torch.tensor([[4.0, 1.0, 0.01, 0.4]])  # signal-to-noise 1, 3, 50, 2.5
            net.raw_scale["weight"].copy_(sd.expm1().log())
            net.raw_scale["bias"].fill_(math.log(math.expm1(2.0)))  # 0.1
        return net

    def test_the_least_sure_weights_go(self):
        net = self.make()
        kept = [(prune(net, k / 5).weight[0] != 0).tolist() for k in range(5)]
        assert kept == [
            [True, True, True, True],  # nothing
            [True, True, True, True],  # the bias
            [False, True, True, True],
            [False, True, True, False],
            [False, False, True, False],
        ]
        assert prune(net, 0.2).bias == 0
        assert (prune(net, 1.0).weight == 0).all()
        assert (net.mean.weight != 0).all()

    def test_magnitude_is_another_order(self):
        assert (prune(self.make(), 0.6, by="magnitude").weight[0] != 0).tolist() == [True, True, False, False]

    def test_ties_keep_the_share(self):
        net = bayesian(nn.Linear(10, 10, bias=False))
        with torch.no_grad():
            net.mean.weight.fill_(1.0)
        assert int((prune(net, 0.37).weight == 0).sum()) == 37

    def test_each_layer_by_itself(self):
        """One layer is surer of all its weights than the other: together, it alone is left."""
        net = bayesian(nn.Sequential(nn.Linear(4, 1), nn.Linear(4, 1)))
        with torch.no_grad():
            for size, layer in ((1.0, net.mean[0]), (10.0, net.mean[1])):
                layer.weight.copy_(size * torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
                layer.bias.fill_(5 * size)
        together, apart = (prune(net, 0.5, per_layer=each) for each in (False, True))
        assert [int((layer.weight != 0).sum()) for layer in together] == [0, 4]
        assert [(layer.weight[0] != 0).tolist() for layer in apart] == [[False, False, True, True]] * 2
        curve = pruning_curve(net, lambda pruned: float(pruned[0].bias.detach()), [0.5, 0.9], per_layer=True)
        assert curve["weights"].tolist() == [6, 2]
        assert curve["score"].tolist() == [5.0, 5.0]

    def test_curve(self):
        curve = pruning_curve(self.make(), lambda net: float(net.weight.detach().abs().sum()), [0, 0.4, 1])
        assert curve["weights"].tolist() == [5, 3, 0]
        assert curve["score"].tolist() == pytest.approx([8.5, 4.5, 0])
        assert tuple(pruning_curve(self.make(), lambda net: 0.0).index) == SHARES

    @pytest.mark.parametrize(
        ("wrong", "said"), [({"share": 1.5}, "share=1.5"), ({"share": 0.1, "by": "size"}, "by=")]
    )
    def test_names_what_is_wrong(self, wrong, said):
        with pytest.raises(ValueError, match=said):
            prune(self.make(), **wrong)
