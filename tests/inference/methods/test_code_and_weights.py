"""Code and weights together: every route to p(z, theta | x~, D) against a truth by brute force."""

import math

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy.special import logsumexp
from statistics_of_draws import assert_moments
from torch import nn

from posterior_inpainting.inference import MALA, MAP, ChEES, Variational, infer
from posterior_inpainting.inference.contract import Plan, Problem
from posterior_inpainting.inference.density.budget import gradient_budget
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods import alternating
from posterior_inpainting.inference.methods.alternating import Alternating
from posterior_inpainting.inference.methods.bridging import bridge
from posterior_inpainting.inference.methods.nested import Nested
from posterior_inpainting.inference.methods.two_stage import TwoStage
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import Observation
from posterior_inpainting.models.bayesian_decoder import BayesianDecoder
from posterior_inpainting.models.code_and_units import CodeAndUnits
from posterior_inpainting.models.code_and_weights import CodeAndWeights, WeightDraws
from posterior_inpainting.models.networks import ConvolutionalDecoder, MaskedEncoder, MultilayerDecoder

SHAPE = (1, 1, 3)
IMAGE = torch.tensor([[[0.9, 0.55, 0.0]]])
MASK = torch.tensor([[[True, True, False]]])


class Line(nn.Module):
    """Pixels ``slope * z * (1, -0.5, 2) + offset`` with noise 0.2: one code, two weights."""

    latent, image_shape, noise = 1, SHAPE, 0.2

    def __init__(self):
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.3))

    def mean_and_scale(self, z):
        pattern = torch.tensor([[[1.0, -0.5, 2.0]]])
        mean = self.slope * z[..., None, None] * pattern + self.offset
        return mean, torch.full_like(mean, self.noise)

    def forward(self, z):
        return self.mean_and_scale(z)[0]


def line():
    scales = {"slope": torch.tensor(0.3), "offset": torch.tensor(0.25)}
    torch.manual_seed(0)
    return BayesianDecoder(Line(), MaskedEncoder(1, SHAPE, (4,)), posterior_scale=scales).eval()


@pytest.fixture(scope="module")
def trained():
    return line()


@pytest.fixture(scope="module")
def seen():
    return Observation(IMAGE, MASK)


def figures_of(z, slope, offset):
    """What is compared: code, both weights in white coordinates, the hidden pixel."""
    return [z, (slope - 0.5) / 0.3, (offset - 0.3) / 0.25, 2 * slope * z + offset]


def log_density(z, slope, offset):
    """Log of q(theta) p(z) p(x~ | z, theta), by hand in numpy."""
    residual = np.stack([0.9 - slope * z - offset, 0.55 + 0.5 * slope * z - offset]) / 0.2
    white = (z, (slope - 0.5) / 0.3, (offset - 0.3) / 0.25)
    return (
        -0.5 * sum(w**2 for w in white)
        - 0.5 * (residual**2).sum(0)
        - 2 * math.log(0.2 * math.sqrt(2 * math.pi))
    )


@pytest.fixture(scope="module")
def truth():
    """Means and sds of ``figures_of``, and the evidence, on a grid of 161 ** 3 points."""
    axis = np.linspace(-5, 5, 161)
    z, a, b = np.meshgrid(axis, axis, axis, indexing="ij")
    values = figures_of(z, 0.5 + 0.3 * a, 0.3 + 0.25 * b)
    joint = log_density(z, 0.5 + 0.3 * a, 0.3 + 0.25 * b)
    weight = np.exp(joint - joint.max())
    weight /= weight.sum()
    mean = np.array([(weight * v).sum() for v in values])
    sd = np.sqrt([(weight * (v - m) ** 2).sum() for v, m in zip(values, mean, strict=True)])
    evidence = logsumexp(joint) + 3 * math.log(axis[1] - axis[0]) - 1.5 * math.log(2 * math.pi)
    return mean, sd, evidence


def figures(posterior):
    z = posterior.posterior["z"].to_numpy()[..., 0]
    a, b = posterior.posterior["weights"].to_numpy().transpose(2, 0, 1)
    return np.stack(figures_of(z, 0.5 + 0.3 * a, 0.3 + 0.25 * b), -1)


class TestAllWeights:
    """Chains over z and white weights."""

    @pytest.mark.parametrize(
        "method",
        [
            ChEES(warmup=150),
            pytest.param(MALA(warmup=200), marks=pytest.mark.long),
            Alternating(warmup=150, steps=5),
        ],
        ids=lambda m: type(m).__name__,
    )
    def test_agrees_with_the_grid(self, trained, seen, truth, method):
        model = CodeAndWeights(trained)
        posterior = infer(model, seen, method, draws=300, chains=16, progress=False)
        assert_moments(figures(posterior), truth[0], truth[1])
        completion = posterior.posterior["completion"].to_numpy()[..., 0, 0, 2:]
        assert_moments(completion, truth[0][3:], truth[1][3:])

    def test_without_the_metropolis_test_of_the_weights_it_is_wrong(self, trained, seen, truth, monkeypatch):
        monkeypatch.setattr(alternating, "acceptance_of", torch.ones_like)
        posterior = infer(
            CodeAndWeights(trained), seen, Alternating(warmup=100), draws=200, chains=16, progress=False
        )
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(figures(posterior), truth[0], truth[1])

    def test_variational(self, trained, seen, truth):
        method = Variational(guide="normal", steps=800)
        posterior = infer(CodeAndWeights(trained), seen, method, draws=500, chains=4, progress=False)
        drawn = figures(posterior).reshape(-1, 4)
        # Mean field: the middle is right, the spread too small where latents vary together, never too large.
        assert np.abs(drawn.mean(0) - truth[0])[[1, 2]].max() < 0.5
        assert (drawn.std(0) < 1.1 * truth[1])[:3].all()  # of the latents; not of what depends on several

    def test_names_a_missing_site(self, trained, seen):
        with pytest.raises(ValueError, match="no site 'code'"):
            infer(
                CodeAndWeights(trained), seen, Alternating(code=("code",)), draws=1, chains=2, progress=False
            )


COUNT = 6


@pytest.fixture(scope="module")
def networks(trained):
    return WeightDraws(trained, COUNT, seed=3)


@pytest.fixture(scope="module")
def exact(networks):
    """Log evidence of each network, and means and sds of z and the hidden pixel over all of them."""
    z = np.linspace(-6, 6, 4001)
    pairs = [(float(n.decoder.slope), float(n.decoder.offset)) for n in networks.networks]
    joint = []
    for a, b in pairs:
        prior_of_theta = -0.5 * (((a - 0.5) / 0.3) ** 2 + ((b - 0.3) / 0.25) ** 2)
        joint.append(log_density(z, a, b) - prior_of_theta - 0.5 * math.log(2 * math.pi))
    joint = np.stack(joint)
    evidence = logsumexp(joint, 1) + math.log(z[1] - z[0])
    values = np.stack([np.stack([z, 2 * a * z + b]) for a, b in pairs])  # (network, figure, z)

    def moments(log_weight):
        weight = np.exp(log_weight - logsumexp(log_weight))[:, None]
        mean = (weight * values).sum((0, 2))
        return mean, np.sqrt((weight * (values - mean[None, :, None]) ** 2).sum((0, 2)))

    return evidence, moments(joint), moments(joint - evidence[:, None])


class TestNetworks:
    """A posterior over z for each network, and its evidence."""

    @staticmethod
    def both(posterior):
        z = posterior.posterior["z"].to_numpy()[..., 0]
        return np.stack([z, posterior.posterior["completion"].to_numpy()[..., 0, 0, 2]], -1)

    def test_evidences(self, networks, exact):
        images, masks = IMAGE[None], MASK[None]
        plan = Plan(100, 16, Streams(1))
        found = Nested(ChEES(warmup=100)).networks(Problem(networks, (images, masks)), 1, plan)
        error = found.log_evidence[0].numpy() - exact[0]
        assert np.abs(error).max() < 0.1
        assert np.exp(exact[0] - exact[0].max()).min() < 0.2  # they do differ
        assert float(found.error.max()) < 0.1
        assert float(found.rhat.max()) < 1.05

    def test_nested_agrees_with_the_grid_and_cut_does_not(self, networks, seen, exact):
        draws = {"draws": 100, "chains": 16, "progress": False}
        nested = infer(networks, seen, Nested(ChEES(warmup=60)), **draws)
        cut = infer(networks, seen, Nested(ChEES(warmup=60), cut=True), **draws)
        assert (nested.attrs["method"], cut.attrs["method"]) == ("nested", "cut posterior")
        for posterior, right, wrong in ((nested, exact[1], exact[2]), (cut, exact[2], exact[1])):
            assert_moments(self.both(posterior), *right, independent=True, errors=6)
            with pytest.raises(AssertionError, match="biased"):
                assert_moments(self.both(posterior), *wrong, independent=True, errors=6)
        weights = np.exp(exact[0] - logsumexp(exact[0]))
        assert nested.attrs["effective_networks"] == pytest.approx(1 / (weights**2).sum(), rel=0.1)
        assert cut.attrs["effective_networks"] == pytest.approx(COUNT)
        assert "log_evidence" not in cut.attrs
        assert nested.attrs["log_evidence"] == pytest.approx(logsumexp(exact[0]) - math.log(COUNT), abs=0.1)

    def test_many_networks_come_to_the_joint_posterior(self, trained, truth):
        """The evidence over all weights is the mean over networks: 4,000 of them, z by quadrature."""
        weights = trained.decoder.draw_weights(4000)
        z = np.linspace(-6, 6, 401)[:, None]
        a, b = (weights[name].numpy()[None] for name in ("slope", "offset"))
        prior_of_theta = -0.5 * (((a - 0.5) / 0.3) ** 2 + ((b - 0.3) / 0.25) ** 2)
        joint = log_density(z, a, b) - prior_of_theta - 0.5 * math.log(2 * math.pi)
        each = np.exp(logsumexp(joint, 0) + math.log(z[1, 0] - z[0, 0]))
        assert abs(each.mean() - math.exp(truth[2])) < 5 * each.std() / math.sqrt(4000)

    @pytest.mark.parametrize("budget", [700, 900, 1100])
    def test_what_a_network_that_was_cut_off_cost_is_counted(self, networks, seen, budget):
        with gradient_budget(budget):
            found = infer(networks, seen, Nested(ChEES(warmup=30)), draws=20, chains=4, progress=False)
        assert found.attrs["budget_spent"] == 1
        assert 1 <= found.attrs["networks"] < COUNT
        # What is left is less than an iteration takes, in which some chains may have refined their trajectories.
        assert budget - 4 < found.attrs["gradient_evaluations"] <= budget

    def test_yeh_under_each_network(self, networks, seen):
        found = infer(networks, seen, Nested(MAP(restarts=3, steps=400)), progress=False)
        assert found.attrs["draws_are"] == "restarts"
        z = found.posterior["z"].to_numpy()[:, 0, 0]
        grid = np.linspace(-6, 6, 4001)
        for index, network in enumerate(networks.networks):
            decoder = network.decoder
            best = grid[log_density(grid, float(decoder.slope), float(decoder.offset)).argmax()]
            assert abs(z[index] - best) < 0.02

    def test_other_models_and_methods_are_refused(self, trained, networks, seen):
        with pytest.raises(ValueError, match="give a WeightDraws"):
            infer(CodeAndWeights(trained), seen, Nested(), draws=1, chains=1, progress=False)
        with pytest.raises(ValueError, match="expected Markov chains"):
            infer(networks, seen, Nested(Variational()), draws=2, chains=1, progress=False)
        with pytest.raises(ValueError, match="count=0"):
            WeightDraws(trained, 0)


def test_bridge_of_densities_that_overlap_in_a_chain():
    generator = torch.Generator().manual_seed(0)
    centres, widths = torch.arange(4.0).double(), torch.tensor([1.0, 0.5, 2.0, 1.5]).double()
    x = centres[:, None] + widths[:, None] * torch.randn(4, 3000, generator=generator).double()
    density = -0.5 * ((x.flatten() - centres[:, None]) / widths[:, None]) ** 2
    density[0] -= 0.5 * math.log(2 * math.pi)
    found = bridge(density, torch.full((4,), 3000))
    exact = widths[1:].log() + 0.5 * math.log(2 * math.pi)
    assert float((found - exact).abs().max()) < 0.1


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    decoder = MultilayerDecoder(1, SHAPE, (2, 2), scale_rank=1, floor=0.2)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.copy_(
                torch.randn_like(parameter) if "scale" not in name else 0.3 * torch.randn_like(parameter)
            )
    return BayesianDecoder(decoder, MaskedEncoder(1, SHAPE, (4,)), posterior_scale=0.4).eval()


@pytest.fixture(scope="module")
def by_importance(small):
    """Moments of z, the completion and the hidden pixel's scale over *weights*, from 400,000 draws of the prior."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(5)
        count = 400_000
        z, weights = torch.randn(count, 1), small.decoder.draw_weights(count)
        mean, scale = small.decoder.forward_with(weights, z, method="mean_and_scale", paired=True)
        law = torch.distributions.Normal(mean, scale)
        log_weight = law.log_prob(IMAGE).flatten(1)[:, MASK.flatten()].sum(1).double()
    weight = log_weight.softmax(0).numpy()
    values = torch.cat([z, mean.flatten(1), scale.flatten(1)[:, 2:]], 1).double().numpy()
    centre = weight @ values
    assert 1 / (weight**2).sum() > 20_000
    return centre, np.sqrt(weight @ (values - centre) ** 2)


class TestUnits:
    """Noise at the units of one image is the law of random weights, exactly."""

    @pytest.mark.parametrize(
        "method",
        [ChEES(warmup=150), Alternating(warmup=150, steps=5, moves=4), TwoStage(ChEES(warmup=80), warmup=80)],
        ids=["ChEES", "Alternating", "TwoStage"],
    )
    def test_agrees_with_importance_sampling_over_weights(self, small, by_importance, method):
        model = CodeAndUnits(small)
        posterior = infer(model, Observation(IMAGE, MASK), method, draws=400, chains=16, progress=False)
        latents = [torch.as_tensor(posterior.posterior[name].to_numpy()) for name in ("z", "units", "pixels")]
        mean, scale = model.decode(*latents)
        values = torch.cat([latents[0], mean, scale[..., 2:]], -1)
        # The truth has an error too, that of 20,000 draws or more against an ESS of at most 6,400: 5 -> 6.5.
        assert_moments(values, *by_importance, errors=6.5)

    def test_the_closed_form_is_what_the_model_scores(self, small):
        model = CodeAndUnits(small)
        images, masks = torch.rand(3, *SHAPE), torch.stack([MASK, ~MASK, MASK | True])
        potentials = [
            Potential(Problem(model, (images, masks)), groups=3, closed_form=closed)
            for closed in (True, False)
        ]
        assert [p.route for p in potentials] == ["closed form", "vmap"]
        position = torch.randn(3, 5, potentials[0].dim)
        for ours, pyros in zip(*(p.gradient(position) for p in potentials), strict=True):
            torch.testing.assert_close(ours, pyros, rtol=1e-4, atol=1e-4)
        some = torch.tensor([2, 0])
        ours, pyros = (p(position[some], some) for p in potentials)
        torch.testing.assert_close(ours, pyros, rtol=1e-4, atol=1e-4)

    def test_fixed_parameters_have_no_noise(self):
        decoder = MultilayerDecoder(1, SHAPE, (2,), scale_rank=1)
        trained = BayesianDecoder(
            decoder,
            MaskedEncoder(1, SHAPE, (4,)),
            posterior_scale=0.5,
            random=lambda path: "mean_head" in path,
        )
        model = CodeAndUnits(trained)
        z, units = torch.randn(4, 1), torch.randn(4, model.hidden)
        mean, scale = model.decode(z, units, torch.zeros(4, 2, 3))
        expected = decoder.mean_and_scale(z)
        torch.testing.assert_close((mean, scale), tuple(v.flatten(1) for v in expected), rtol=1e-5, atol=1e-6)

    def test_another_decoder_is_refused(self, trained):
        with pytest.raises(ValueError, match="expected a MultilayerDecoder"):
            CodeAndUnits(trained)


@pytest.fixture(scope="module")
def convolutional():
    torch.manual_seed(2)
    decoder = ConvolutionalDecoder(1, (1, 2, 4), channels=(2,), widths=(2,), floor=0.2)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    encoder = MaskedEncoder(1, (1, 2, 4), (4,))
    return BayesianDecoder(decoder, encoder, posterior_scale=0.3).eval()


@pytest.fixture(scope="module")
def observed():
    image = torch.tensor([[[0.9, 0.3, 0.6, 0.1], [0.2, 0.5, 0.0, 0.0]]])
    return Observation(image, torch.tensor([[[True, True, True, True], [True, True, False, False]]]))


@pytest.fixture(scope="module")
def over_weights(convolutional, observed):
    """Moments of z, the means and the hidden pixels' scales over *weights*, from 400,000 draws of the prior."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(5)
        parts = []
        for _ in range(8):
            z, weights = torch.randn(50_000, 1), convolutional.decoder.draw_weights(50_000)
            laws = convolutional.decoder.forward_with(weights, z, method="mean_and_scale", paired=True)
            parts.append((z, *laws))
        z, mean, scale = (torch.cat(values) for values in zip(*parts, strict=True))
        law = torch.distributions.Normal(mean, scale)
        log_weight = law.log_prob(observed.image)[:, observed.mask].sum(1).double()
    weight = log_weight.softmax(0).numpy()
    values = torch.cat([z, mean.flatten(1), scale.flatten(1)[:, 6:]], 1).double().numpy()
    centre = weight @ values
    assert 1 / (weight**2).sum() > 20_000
    return centre, np.sqrt(weight @ (values - centre) ** 2)


class TestKernels:
    """Noise at units and at kernels is the law of a convolutional decoder's random weights."""

    @pytest.mark.parametrize(
        ("kind", "method"),
        [
            (CodeAndUnits, Alternating(warmup=150, steps=5, moves=4)),
            pytest.param(CodeAndWeights, Alternating(warmup=150, steps=5, moves=4), marks=pytest.mark.long),
            (CodeAndUnits, TwoStage(ChEES(warmup=80), warmup=80)),
        ],
        ids=["Alternating-units", "Alternating-weights", "TwoStage-units"],
    )
    def test_agrees_with_importance_sampling_over_weights(
        self, convolutional, observed, over_weights, method, kind
    ):
        model = kind(convolutional)
        posterior = infer(model, observed, method, draws=400, chains=16, progress=False).posterior
        z = torch.as_tensor(posterior["z"].to_numpy())
        if kind is CodeAndUnits:
            mean, scale = model.decode(
                z, *(torch.as_tensor(posterior[n].to_numpy()) for n in ("units", "kernels"))
            )
        else:
            laws = model._decode(torch.as_tensor(posterior["weights"].to_numpy()), z)
            mean, scale = (value.flatten(-3) for value in laws)
        assert_moments(torch.cat([z, mean, scale[..., 6:]], -1), *over_weights, errors=6.5)

    def test_the_closed_form_is_what_the_model_scores(self, convolutional):
        model = CodeAndUnits(convolutional)
        images = torch.rand(3, 1, 2, 4)
        masks = torch.rand(3, 1, 2, 4) > 0.4
        potentials = [
            Potential(Problem(model, (images, masks)), groups=3, closed_form=closed)
            for closed in (True, False)
        ]
        assert [p.route for p in potentials] == ["closed form", "vmap"]
        position = torch.randn(3, 5, potentials[0].dim)
        for ours, pyros in zip(*(p.gradient(position) for p in potentials), strict=True):
            torch.testing.assert_close(ours, pyros, rtol=1e-4, atol=1e-4)

    def test_without_noise_it_is_the_decoder(self, convolutional):
        model, z = CodeAndUnits(convolutional), torch.randn(2, 3, 1)
        laws = model.decode(z, torch.zeros(model.hidden), torch.zeros(2, 3, model._noisy.rest_shape[0]))
        expected = convolutional.decoder.mean.mean_and_scale(z)
        torch.testing.assert_close(laws, tuple(value.flatten(-3) for value in expected))
        some = model.decode(
            z, torch.zeros(model.hidden), torch.zeros(model._noisy.rest_shape), torch.tensor([5, 1])
        )
        torch.testing.assert_close(some[0], laws[0][..., [5, 1]])

    def test_noise_of_one_kernel_for_all_places_alone_agrees(self, convolutional):
        """A kernel drawn anew at each place, as local reparametrisation would have it, decorrelates pixels."""
        model = CodeAndUnits(convolutional)
        torch.manual_seed(0)
        count = 20_000
        with torch.no_grad():
            z = torch.zeros(count, 1)
            ours = model.decode(z, torch.zeros(model.hidden), torch.randn(count, *model._noisy.rest_shape))[0]
            mean, drawn = convolutional.decoder.mean, convolutional.decoder.draw_weights(count)
            weights = {
                path: value if "convolutions" in path else mean.get_parameter(path).expand_as(value)
                for path, value in drawn.items()
            }
            theirs = convolutional.decoder.forward_with(weights, z, method="mean_and_scale", paired=True)[0]
        first, second = (torch.corrcoef(values.flatten(1).T) for values in (ours, theirs))
        assert (second - torch.eye(8)).abs().max() > 0.2  # there is something to agree on
        torch.testing.assert_close(first, second, rtol=0, atol=5 * (2 / count) ** 0.5)


@pytest.mark.parametrize("kind", [CodeAndWeights, WeightDraws, CodeAndUnits], ids=lambda k: k.__name__)
class TestModels:
    """The properties of the contract that do not need a site to be continuous."""

    @pytest.fixture
    def model(self, kind):
        torch.manual_seed(0)
        decoder, encoder = MultilayerDecoder(2, SHAPE, (4,), scale_rank=2), MaskedEncoder(2, SHAPE, (4,))
        return kind(BayesianDecoder(decoder, encoder, posterior_scale=0.3).eval())

    def test_model_and_guide_have_the_same_sites(self, model):
        for image, mask in ((None, None), (IMAGE, MASK), (IMAGE.expand(4, *SHAPE), MASK)):
            sites = [
                {n for n, s in poutine.trace(f).get_trace(image, mask).nodes.items() if s["type"] == "sample"}
                for f in (model, model.guide)
            ]
            assert sites[0] - sites[1] == {"image", "completion"}

    def test_hidden_pixels_change_no_number(self, model):
        found = []
        for fill in (0.0, 0.7, math.nan):
            torch.manual_seed(1)
            image = torch.where(MASK, IMAGE, fill)
            found.append(poutine.trace(model).get_trace(image, MASK).log_prob_sum().item())
        assert math.isfinite(found[0])
        assert len(set(found)) == 1
