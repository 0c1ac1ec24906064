"""The yardstick against dense float64 algebra, and every exact method against the yardstick."""

import math

import numpy as np
import pytest
import torch
from statistics_of_draws import assert_moments

from posterior_inpainting.inference import HMC, MAP, NUTS, Exact, Variational, infer
from posterior_inpainting.models import (
    LatentCode,
    LinearGaussian,
    Observation,
    datasets,
    observations,
    pretrained,
)
from posterior_inpainting.models.networks import MultilayerDecoder

MASKS = {
    "half": observations.half((1, 8, 8), hide="bottom"),
    "scatter": observations.scatter((1, 8, 8), keep=0.3, seed=1),
    "nothing seen": torch.zeros(1, 8, 8, dtype=torch.bool),
    "everything seen": torch.ones(1, 8, 8, dtype=torch.bool),
}


@pytest.fixture(params=MASKS, ids=str)
def seen(request, digits):
    return Observation(digits[3], MASKS[request.param])


@pytest.fixture
def half(digits):
    return Observation(digits[3], MASKS["half"])


def dense_joint(model):
    """Mean and covariance of the pixels, in float64, without any lemma."""
    W = model.loadings.double()
    return model.mean.double().flatten(), W @ W.T + model.noise.double() ** 2 * torch.eye(
        64, dtype=torch.double
    )


def dense_posterior(model, seen):
    """Mean and covariance of z by conditioning the dense joint of z and the seen pixels."""
    mean, covariance = dense_joint(model)
    index = seen.mask.flatten().nonzero().flatten()
    W = model.loadings.double()[index]
    gain = W.T @ torch.linalg.inv(covariance[index][:, index])
    loc = gain @ (seen.image.double().flatten()[index] - mean[index])
    return loc, torch.eye(model.latent, dtype=torch.double) - gain @ W


def test_fit_is_the_maximum_likelihood(digits):
    model = LinearGaussian.fit(digits, latent=5)

    def log_likelihood(loadings, mean, noise):
        covariance = loadings.double() @ loadings.double().T + noise.double() ** 2 * torch.eye(64)
        law = torch.distributions.MultivariateNormal(mean.double().flatten(), covariance)
        return law.log_prob(digits.double().flatten(1)).mean()

    best = log_likelihood(model.loadings, model.mean, model.noise)
    for factor in (0.97, 1.03):
        assert log_likelihood(model.loadings * factor, model.mean, model.noise) < best
        assert log_likelihood(model.loadings, model.mean, model.noise * factor) < best
        assert log_likelihood(model.loadings, model.mean * factor, model.noise) < best
    torch.manual_seed(0)
    assert log_likelihood(model.loadings + 0.01 * torch.randn(64, 5), model.mean, model.noise) < best


def test_posterior_equals_dense_conditioning(linear, seen):
    loc, covariance = dense_posterior(linear, seen)
    law = linear.exact_posterior(seen.image, seen.mask)
    torch.testing.assert_close(law.mean.double(), loc, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(law.covariance_matrix.double(), covariance, atol=1e-5, rtol=1e-4)


def test_evidence_equals_a_dense_gaussian(linear, seen):
    mean, covariance = dense_joint(linear)
    index = seen.mask.flatten().nonzero().flatten()
    expected = 0.0
    if len(index):
        law = torch.distributions.MultivariateNormal(mean[index], covariance[index][:, index])
        expected = float(law.log_prob(seen.image.double().flatten()[index]))
    assert float(linear.log_evidence(seen.image, seen.mask)) == pytest.approx(expected, abs=1e-6)


def test_evidence_of_a_batch(linear, digits):
    together = linear.log_evidence(digits[:3], MASKS["half"])
    alone = torch.stack([linear.log_evidence(image, MASKS["half"]) for image in digits[:3]])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    ("method", "draws", "chains"),
    [
        (Exact(), 1000, 4),
        (NUTS(warmup=150), 400, 2),
        (HMC(warmup=300), 800, 2),
        (Variational(guide="amortised"), 1000, 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exact_methods_agree_with_the_closed_form(linear, half, method, draws, chains):
    idata = infer(linear, half, method, draws=draws, chains=chains, seed=3, progress=False)
    loc, covariance = dense_posterior(linear, half)
    independent = idata.attrs["draws_are"] == "independent"
    assert_moments(idata.posterior["z"], loc, covariance.diagonal().sqrt(), independent=independent)
    # and in pixel space: hidden pixels with their noise
    hidden = ~half.mask.flatten()
    W = linear.loadings.double()[hidden]
    pixel_loc = W @ loc + linear.mean.double().flatten()[hidden]
    pixel_sd = ((W @ covariance * W).sum(1) + linear.noise.double() ** 2).sqrt()
    drawn = idata.posterior_predictive["image"].to_numpy().reshape(chains, draws, 64)[..., hidden.numpy()]
    assert_moments(drawn, pixel_loc, pixel_sd, independent=independent)


def test_exact_reports_the_evidence(linear, half):
    idata = infer(linear, half, Exact(), draws=10, chains=1, progress=False)
    assert idata.attrs["log_evidence"] == pytest.approx(float(linear.log_evidence(half.image, half.mask)))


def test_importance_weights_of_the_exact_guide_are_the_evidence(linear, half):
    idata = infer(linear, half, Exact(), draws=50, chains=2, progress=False)
    weights = idata.sample_stats["log_weight"].to_numpy()
    assert weights == pytest.approx(float(linear.log_evidence(half.image, half.mask)), abs=2e-3)


@pytest.mark.long
def test_mean_field_reaches_the_inverse_diagonal_of_the_precision(linear, half):
    """The optimal factorised Gaussian has the right means and variances 1 / diag(precision)."""
    method = Variational(guide="normal", steps=3000, learning_rate=0.05)
    idata = infer(linear, half, method, draws=2000, chains=2, progress=False)
    loc, covariance = dense_posterior(linear, half)
    sd = torch.linalg.inv(covariance).diagonal().rsqrt()
    z = idata.posterior["z"].to_numpy().reshape(-1, linear.latent)
    # A fit by 3,000 noisy steps wanders around the optimum by some hundredths of a sd.
    assert (np.abs(z.mean(0) - loc.numpy()) < 0.1 * sd.numpy()).all()
    assert z.std(0) == pytest.approx(sd.numpy(), rel=0.1)
    assert (sd < 0.95 * covariance.diagonal().sqrt()).any()  # else the test could not tell it from the truth


@pytest.mark.long
def test_multivariate_normal_reaches_the_posterior(linear, half):
    method = Variational(guide="multivariate_normal", steps=3000, learning_rate=0.05)
    idata = infer(linear, half, method, draws=2000, chains=2, progress=False)
    loc, covariance = dense_posterior(linear, half)
    z = idata.posterior["z"].to_numpy().reshape(-1, linear.latent)
    sd = covariance.diagonal().sqrt().numpy()
    assert (np.abs(z.mean(0) - loc.numpy()) < 0.1 * sd).all()
    assert z.std(0) == pytest.approx(sd, rel=0.1)


@pytest.mark.long
def test_flow_bounds_the_evidence(linear, half):
    idata = infer(linear, half, Variational(guide="iaf", steps=1500), draws=500, chains=2, progress=False)
    evidence = float(linear.log_evidence(half.image, half.mask))
    weights = torch.from_numpy(idata.sample_stats["log_weight"].to_numpy()).flatten().double()
    assert evidence - 0.5 < float(weights.mean()) < evidence + 0.05  # the ELBO
    assert float(weights.logsumexp(0)) - math.log(len(weights)) == pytest.approx(evidence, abs=0.1)


def test_map_is_the_posterior_mean(linear, half):
    idata = infer(linear, half, MAP(restarts=3), progress=False)
    loc, _ = dense_posterior(linear, half)
    assert idata.attrs["draws_are"] == "restarts"
    assert dict(idata.posterior["z"].sizes) == {"chain": 3, "draw": 1, "latent": 5}
    for restart in idata.posterior["z"].to_numpy()[:, 0]:
        assert restart == pytest.approx(loc.numpy(), abs=1e-3)


def test_all_hidden_gives_the_prior(linear, digits):
    nothing = Observation(digits[3], MASKS["nothing seen"])
    idata = infer(linear, nothing, NUTS(warmup=200), draws=600, chains=2, progress=False)
    assert_moments(idata.posterior["z"], torch.zeros(5), torch.ones(5))


def test_colourisation_of_natural_patches():
    """Fitted on colour patches, seeing one channel: the conditional mean beats ignoring the seen channel."""
    photographs = datasets.load("natural", split="train")
    model = LinearGaussian.fit(datasets.patches(photographs, 8, 2000), latent=40)
    held_out = datasets.patches(datasets.load("natural", split="test")[:1], 8, 100, seed=5)
    mask = observations.channels((3, 8, 8), keep=1)
    z = model.exact_posterior(held_out, mask).mean
    coloured = (z @ model.loadings.T).reshape(held_out.shape) + model.mean
    hidden = [0, 2]
    error = (coloured - held_out)[:, hidden].square().mean()
    grey = (held_out[:, 1:2] - held_out)[:, hidden].square().mean()
    mean = (model.mean - held_out)[:, hidden].square().mean()
    assert error < 0.8 * grey
    assert error < 0.2 * mean


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.zeros(4, 2), torch.zeros(1, 3, 3), 0.1),
            r"loadings has shape \(4, 2\); expected \(9, latent\)",
        ),
        ((torch.zeros(9, 2), torch.zeros(1, 3, 3), 0.0), "expected one positive number"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinearGaussian(*arguments)


def test_too_many_components(digits):
    with pytest.raises(ValueError, match=r"latent=64; expected 1\.\.63"):
        LinearGaussian.fit(digits, latent=64)


def test_exact_is_refused_where_there_is_none(digits_model, half):
    with pytest.raises(ValueError, match="LatentCode has no exact posterior"):
        infer(digits_model, half, Exact(), progress=False)


def test_latent_code_over_a_linear_decoder_is_linear_gaussian(linear, half):
    """`LatentCode` with a linear module must score exactly as the yardstick does."""

    class Linear(torch.nn.Module):
        latent, image_shape, noise = 5, (1, 8, 8), linear.noise

        def forward(self, z):
            return (z @ linear.loadings.T).unflatten(-1, (1, 8, 8)) + linear.mean

    from pyro import poutine

    model = LatentCode(Linear())
    z = torch.randn(5)
    scores = [
        poutine.trace(poutine.condition(m, {"z": z})).get_trace(half.image, half.mask).log_prob_sum()
        for m in (model, linear)
    ]
    torch.testing.assert_close(*scores)


def test_decoder_kinds_are_interchangeable():
    """mean_and_scale, scale(z) and a constant noise give one and the same law."""
    decoder = pretrained.load("digits-vae-2d")
    assert isinstance(decoder, MultilayerDecoder)
    z = torch.randn(7, 2)
    mean, scale = decoder.mean_and_scale(z)
    torch.testing.assert_close(mean, decoder(z))
    torch.testing.assert_close(scale, decoder.scale(z))
    pixels = torch.tensor([3, 17, 60])
    for whole, part in zip((mean, scale), decoder.restrict(pixels)(z)[:2], strict=True):
        torch.testing.assert_close(whole.flatten(1)[:, pixels], part)
