"""The last layer's Laplace approximation, against Bayesian linear regression, quadrature and automatic derivatives."""

import numpy as np
import pytest
import torch
from statistics_of_draws import assert_moments

from posterior_inpainting.inference.training.last_layer_laplace import information, last_layer_laplace
from posterior_inpainting.models import WeightDraws
from posterior_inpainting.models.censored_normal import CensoredNormal
from posterior_inpainting.models.networks import (
    ConvolutionalDecoder,
    Generator,
    MaskedEncoder,
    MultilayerDecoder,
)
from posterior_inpainting.models.random_weights.last_layer import last_layer_of
from posterior_inpainting.models.random_weights.last_layer_gaussian import LastLayerGaussian
from posterior_inpainting.models.random_weights.weight_priors import Gaussian, ScaleMixture

SHAPE, COUNT, PRIOR = (1, 2, 3), 60, 0.4


def fully_connected(likelihood="normal", **settings):
    torch.manual_seed(0)
    return MultilayerDecoder(2, SHAPE, (4,), scale_rank=2, likelihood=likelihood, **settings)


def convolutional(likelihood="normal", shape=(2, 4, 6)):
    torch.manual_seed(0)
    return ConvolutionalDecoder(2, shape, channels=(3, 2), widths=(4,), likelihood=likelihood)


DECODERS = pytest.mark.parametrize("make", [fully_connected, convolutional])


def fit(decoder, images, codes, **settings):
    return last_layer_laplace(decoder, images, codes=codes, progress=False, **settings)


def drawn_from(decoder):
    """Codes and images of them, near grey: what is clipped at 0 and 1 is then as good as not clipped."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn(COUNT, decoder.latent, generator=generator)
    with torch.no_grad():
        scale = decoder.mean_and_scale(codes)[1]
        noise = torch.randn(scale.shape, generator=generator)
        return (0.5 + 0.05 * codes[:, :1, None, None] + scale * noise).clamp(0.01, 0.99), codes


def linear(make):
    """A decoder whose means are linear in the weights of the last layer, and noise that never reaches an end."""
    decoder = make("censored_normal")
    head = decoder.scale_head[1] if make is fully_connected else decoder.maps.convolutions[-1]
    with torch.no_grad():
        head.bias[... if make is fully_connected else slice(2, None)] = -9.0  # scales of the floor, 0.03
        last = decoder.mean_head if make is fully_connected else head
        last.bias[... if make is fully_connected else slice(2)] = 0.5
        last.weight.mul_(0.1)
    return decoder


def table_of(decoder):
    layer = last_layer_of(decoder)
    return layer.table({path: decoder.get_parameter(path).detach() for path in layer.paths})


def jacobian(decoder, codes):
    """Derivatives of every mean in the weights of the last layer's means, by torch: ``(number, output * feature)``."""
    layer = last_layer_of(decoder)
    start = table_of(decoder)

    def means(table):
        """Return all means in one row; they are linear in the table where the link is."""
        weights = layer.weights(table)
        return torch.func.functional_call(decoder, weights, (codes,)).flatten()

    return torch.func.jacrev(means)(start).detach().flatten(1).double(), means(start).detach().double()


class TestLinearRegression:
    """Exact in mean and covariance, whatever weights it starts from."""

    @pytest.fixture(params=[fully_connected, convolutional], ids=lambda make: make.__name__)
    def case(self, request):
        decoder = linear(request.param)
        images, codes = drawn_from(decoder)
        return decoder, images, codes

    def exact(self, decoder, images, codes):
        """Bayesian linear regression of all pixels at once, by one matrix over the weights of all outputs."""
        slopes, at_start = jacobian(decoder, codes)
        scale = decoder.mean_and_scale(codes)[1].detach().flatten().double()
        flat = table_of(decoder).flatten().double()
        precision = (slopes / scale[:, None]).T @ (slopes / scale[:, None])
        precision += torch.eye(len(flat)) / PRIOR**2
        targets = images.flatten().double() - at_start + slopes @ flat
        return torch.linalg.solve(precision, slopes.T @ (targets / scale**2)), torch.linalg.inv(precision)

    def test_mean_and_covariance(self, case):
        decoder, images, codes = case
        mean, covariance = self.exact(*case)
        law = fit(decoder, images, codes, prior=Gaussian(PRIOR), steps=1)
        sd = covariance.diagonal().sqrt()
        assert ((law.mean.flatten() - mean).abs() < 0.01 * sd).all()
        blocks = torch.block_diag(*[law.covariance(output) for output in range(len(law.mean))])
        assert ((blocks - covariance).abs() < 0.01 * torch.outer(sd, sd)).all()  # what is off the blocks is 0

    def test_without_a_step_the_mean_stays(self, case):
        decoder, images, codes = case
        law, moved = (fit(decoder, images, codes, prior=Gaussian(PRIOR), steps=n) for n in (0, 1))
        torch.testing.assert_close(law.mean, table_of(decoder))
        torch.testing.assert_close(law.factor, moved.factor, rtol=1e-3, atol=1e-3)

    def draws(self, law, covariance, mean):
        """Draws of all weights in the posterior's own axes, ``(1, draw, weight)``."""
        torch.manual_seed(3)
        tables = torch.func.vmap(law.layer.table)(law.draw_weights(20_000))
        variances, axes = torch.linalg.eigh(covariance)
        return ((tables.flatten(1).double() - mean) @ axes)[None].numpy(), variances.sqrt().numpy()

    def test_draws(self, case):
        decoder, images, codes = case
        mean, covariance = self.exact(*case)
        draws, sd = self.draws(fit(decoder, images, codes, prior=Gaussian(PRIOR), steps=1), covariance, mean)
        assert_moments(draws, np.zeros(len(sd)), sd, independent=True)

    def test_a_factor_on_its_wrong_side_is_seen(self, case):
        """L^-1 noise has the covariance of L^T L, not of L L^T."""
        decoder, images, codes = case
        mean, covariance = self.exact(*case)
        law = fit(decoder, images, codes, prior=Gaussian(PRIOR), steps=1)
        precision = law.factor @ law.factor.mT
        law.factor = torch.linalg.cholesky(law.factor.mT @ law.factor)
        assert not torch.allclose(law.factor @ law.factor.mT, precision, rtol=0.1)
        draws, sd = self.draws(law, covariance, mean)
        with pytest.raises(AssertionError, match="biased: the variance"):
            assert_moments(draws, np.zeros(len(sd)), sd, independent=True)


class TestCurvature:
    @DECODERS
    @pytest.mark.parametrize("likelihood", ["normal", "censored_normal"])
    def test_is_that_of_gauss_and_newton(self, make, likelihood):
        """J^T I J with derivatives by torch, through the link, of minibatches together."""
        decoder = make(likelihood)
        images, codes = drawn_from(decoder)
        law = fit(decoder, images, codes, prior=Gaussian(PRIOR))
        slopes = jacobian(decoder, codes)[0]
        mean, scale = (value.detach().double() for value in decoder.mean_and_scale(codes))
        fisher = information(likelihood)(mean, scale).flatten()
        expected = slopes.T @ (fisher[:, None] * slopes) + torch.eye(slopes.shape[1]) / PRIOR**2
        found = torch.block_diag(*(law.factor @ law.factor.mT)).double()
        size = expected.diagonal().sqrt()
        assert ((found - expected).abs() < 1e-3 * torch.outer(size, size)).all()

    @pytest.mark.parametrize("mean", [-0.3, 0.0, 0.02, 0.5, 1.1])
    def test_information_of_clipped_pixels(self, mean):
        """The expected square of the score, by quadrature and the two ends."""
        x = torch.linspace(0, 1, 20_001, dtype=torch.double)
        at, scale = torch.full_like(x, mean).requires_grad_(), torch.tensor(0.2, dtype=torch.double)
        log_density = CensoredNormal(at, scale).log_prob(x)
        (scores,) = torch.autograd.grad(log_density.sum(), at)
        weights = torch.full_like(x, 1 / 20_000)
        weights[[0, -1]] = 1.0  # probabilities, not densities
        expected = float((weights * log_density.detach().exp() * scores**2).sum())
        found = information("censored_normal")(torch.tensor(mean, dtype=torch.double), scale)
        assert float(found) == pytest.approx(expected, rel=1e-3)

    def test_more_images_than_fit_at_once(self, monkeypatch):
        decoder = convolutional()
        images, codes = drawn_from(decoder)
        whole = fit(decoder, images, codes)
        monkeypatch.setattr("posterior_inpainting.inference.training.last_layer_laplace._ROWS", 24 * 7)
        torch.testing.assert_close(fit(decoder, images, codes).factor, whole.factor)


class TestStep:
    def test_reaches_a_mode(self):
        """Through the sigmoid too: after some steps the log posterior is flat, to a small part of a deviation."""
        decoder = fully_connected()
        images, codes = drawn_from(decoder)
        laws = [fit(decoder, images, codes, prior=Gaussian(PRIOR), steps=n) for n in (7, 8)]
        moved = (laws[1].mean - laws[0].mean).abs()
        sd = torch.stack([laws[0].covariance(g).diagonal().sqrt() for g in range(6)])
        assert (moved < 0.01 * sd).all()
        assert ((laws[1].mean - table_of(decoder)).abs() > 0.5 * sd).any()


@pytest.mark.parametrize(
    "make", [fully_connected, convolutional, lambda: Generator(2, SHAPE, (4,), noise=0.1)]
)
def test_tables_go_there_and_back(make):
    decoder = make()
    layer = last_layer_of(decoder)
    before = {path: decoder.get_parameter(path).detach() for path in layer.paths}
    table, z = layer.table(before), torch.randn(5, 2)
    after = layer.weights(table.expand(3, -1, -1))
    assert all(torch.equal(after[path], value.expand(3, *value.shape)) for path, value in before.items())
    raw = layer.inputs(z) @ table.T
    torch.testing.assert_close(raw.sigmoid(), layer.arrange(decoder(z)))


def test_scales_of_a_convolution_are_not_drawn():
    decoder = convolutional()
    images, codes = drawn_from(decoder)
    weight = fit(decoder, images, codes).draw_weights(4)["maps.convolutions.2.weight"]
    assert (weight[:, :, 2:] == weight[:1, :, 2:]).all()
    assert (weight[0, :, :2] != weight[1, :, :2]).all()


def test_codes_are_drawn_by_the_encoder_and_the_decoder_stays():
    decoder = fully_connected()
    decoder.encoder = MaskedEncoder(2, SHAPE, (4,))
    images = drawn_from(decoder)[0]
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    state = torch.get_rng_state()
    one, same, other = (last_layer_laplace(decoder, images, seed=s, progress=False) for s in (0, 0, 1))
    assert torch.equal(one.factor, same.factor)
    assert not torch.equal(one.factor, other.factor)
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert len(WeightDraws(one, 3).networks) == 3


class TestRefusals:
    def test_of_the_fit(self):
        decoder = fully_connected()
        images, codes = drawn_from(decoder)
        with pytest.raises(ValueError, match=r"images have shape \(60, 2, 3\)"):
            fit(decoder, images[:, 0], codes)
        with pytest.raises(ValueError, match=r"codes have shape \(59, 2\); expected \(60, 2\)"):
            fit(decoder, images, codes[1:])
        with pytest.raises(ValueError, match="steps=-1"):
            fit(decoder, images, codes, steps=-1)
        with pytest.raises(ValueError, match="carries no encoder; give codes"):
            fit(decoder, images, None)
        with pytest.raises(ValueError, match=r"prior of 'mean_head\.weight' is a ScaleMixture"):
            fit(decoder, images, codes, prior=ScaleMixture())
        with pytest.raises(ValueError, match="likelihood='laplace'"):
            information("laplace")

    def test_of_the_law(self):
        decoder, ones = fully_connected(), torch.eye(5).expand(6, 5, 5)
        with pytest.raises(ValueError, match=r"shapes \(6, 4\) and"):
            LastLayerGaussian(decoder, torch.zeros(6, 4), ones)
        with pytest.raises(ValueError, match="of 6 outputs is not positive definite"):
            LastLayerGaussian(decoder, torch.zeros(6, 5), -ones)
