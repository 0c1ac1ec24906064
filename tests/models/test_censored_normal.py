"""The clipped normal law against quadrature, its own draws and torch's normal."""

import math

import pytest
import torch

from posterior_inpainting.inference import NUTS, ChEES, infer
from posterior_inpainting.inference.evaluation.calibration import calibrate
from posterior_inpainting.models import (
    LatentCode,
    Observation,
    VariationalAutoencoder,
    likelihoods,
    observations,
)
from posterior_inpainting.models.censored_normal import (
    CensoredNormal,
    log_normal_cdf,
    log_normal_cdf_and_slope,
)
from posterior_inpainting.models.densities.censored_pixels import CensoredPixels
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder

SHAPE = (1, 4, 4)
LOC = torch.tensor([-0.6, -0.1, 0.2, 0.5, 0.95, 1.3])


def law(scale: float) -> CensoredNormal:
    return CensoredNormal(LOC, torch.tensor(scale))


def black_and_white_decoder() -> LatentCode:
    torch.manual_seed(3)
    decoder = MultilayerDecoder(2, SHAPE, (8,), scale_rank=2, floor=0.1, likelihood="censored_normal")
    with torch.no_grad():
        decoder.mean_head.weight *= 4.0
        decoder.mean_head.bias.copy_(torch.linspace(-0.5, 1.5, 16))
    return LatentCode(decoder)


@pytest.mark.parametrize("scale", [0.05, 0.3, 2.0])
class TestLaw:
    def test_it_is_normalised(self, scale):
        inside = torch.linspace(1e-4, 1 - 1e-4, 20001).unsqueeze(-1)
        total = torch.trapezoid(law(scale).log_prob(inside).exp(), inside, dim=0) + 2e-4 * law(
            scale
        ).log_prob(torch.tensor([[1e-4], [1 - 1e-4]])).exp().mean(0)
        ends = law(scale).log_prob(torch.tensor([[0.0], [1.0]])).exp().sum(0)
        torch.testing.assert_close(total + ends, torch.ones(6), atol=1e-3, rtol=0)

    def test_draws_have_its_moments_and_point_masses(self, scale):
        torch.manual_seed(0)
        draws = law(scale).sample((40_000,))
        error = draws.std(0) / 200 + 1e-4
        assert bool(((draws.mean(0) - law(scale).mean).abs() < 5 * error).all())
        squares = (draws - law(scale).mean).square()
        assert bool(((squares.mean(0) - law(scale).variance).abs() < 5 * squares.std(0) / 200 + 1e-4).all())
        for end in (0.0, 1.0):
            share = law(scale).log_prob(torch.tensor(end)).exp()
            found = (draws == end).float().mean(0)
            assert bool(((found - share).abs() < 5 * (share * (1 - share) / 40_000).sqrt() + 1e-4).all())


def test_log_distribution_function_against_torch():
    u = torch.linspace(-60.0, 10.0, 7001)
    exact = u.double().requires_grad_()
    log = torch.special.log_ndtr(exact)
    (slope,) = torch.autograd.grad(log.sum(), exact)
    mine = u.clone().requires_grad_()
    differentiated = torch.autograd.grad(log_normal_cdf(mine).sum(), mine)[0]
    value, by_hand = log_normal_cdf_and_slope(u)
    for found in (log_normal_cdf(u), value):
        torch.testing.assert_close(found, log.float().detach(), rtol=2e-6, atol=1e-5)
    for found in (differentiated, by_hand):
        torch.testing.assert_close(found, slope.float(), rtol=2e-5, atol=1e-5)


def test_batched_by_vmap():
    u = torch.tensor([[-12.0, 0.0], [1.0, 3.0]])
    torch.testing.assert_close(torch.func.vmap(log_normal_cdf)(u), log_normal_cdf(u))


def test_outside_there_is_no_density():
    scores = CensoredNormal(LOC, torch.tensor(0.3), validate_args=False).log_prob(
        torch.tensor([[-0.1], [1.1]])
    )
    assert bool((scores == -math.inf).all())


class TestInput:
    """Values at 0 and 1 are what the law is for; beyond them it says so in one line, and the normal one takes them."""

    def image(self, value):
        image = torch.full(SHAPE, 0.5)
        image[0, 0] = value
        return image

    @pytest.mark.parametrize("value", [-0.2, 1.2])
    def test_seen_values_beyond_the_ends(self, value):
        model, image = black_and_white_decoder(), self.image(value)
        seen = Observation(image, torch.ones(SHAPE, dtype=torch.bool), any_values=True)
        with pytest.raises(ValueError, match=r"^image has seen values from .*; expected values in \[0, 1\]"):
            infer(model, seen, ChEES(), progress=False)
        with pytest.raises(ValueError, match="expected values in"):
            model(image)
        with pytest.raises(ValueError, match="expected values in"):
            CensoredPixels(image)

    def test_hidden_values_beyond_the_ends(self):
        image, mask = self.image(7.0), torch.ones(SHAPE, dtype=torch.bool)
        mask[0, 0] = False
        assert bool(black_and_white_decoder()(image, mask).isfinite().all())

    def test_a_decoder_with_an_unknown_likelihood(self):
        decoder = MultilayerDecoder(2, SHAPE, (8,))
        decoder.likelihood = "poisson"
        with pytest.raises(ValueError, match="likelihood='poisson'; expected one of normal, censored_normal"):
            VariationalAutoencoder(decoder, MaskedEncoder(2, SHAPE))(torch.rand(SHAPE))
        with pytest.raises(ValueError, match="likelihood='gamma'; expected one of"):
            MultilayerDecoder(2, SHAPE, (8,), likelihood="gamma")


def test_the_fast_route_finds_the_posterior_that_nuts_finds():
    model = black_and_white_decoder()
    torch.manual_seed(1)
    image = model().detach()
    seen = Observation(image, observations.half(SHAPE, hide="bottom"))
    assert {0.0, 1.0} < set(image.flatten().tolist())
    fast = infer(model, seen, ChEES(), draws=500, chains=8, progress=False)
    slow = infer(model, seen, NUTS(warmup=300), draws=1500, chains=2, progress=False)
    for moment in ("mean", "std"):
        mine, theirs = (getattr(i.posterior["z"], moment)(("chain", "draw")).to_numpy() for i in (fast, slow))
        assert abs(mine - theirs).max() < 0.12


def test_predictive_draws_are_clipped_and_calibrated():
    model = black_and_white_decoder()
    found = calibrate(
        model, ChEES(), mask=observations.half(SHAPE, hide="bottom"), datasets=100, draws=50, chains=4
    )
    assert found.sbc().inside_band
    assert (found.coverage()["p"] > 1e-3).all()


def test_likelihood_is_the_decoders_own():
    model = black_and_white_decoder()
    assert model.likelihood is likelihoods.censored_normal
    assert isinstance(model.log_densities(torch.rand(SHAPE))._pixels, CensoredPixels)
