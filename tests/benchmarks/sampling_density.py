"""The log joint density of a code and the seen pixels in JAX, by the same formulas as ours, from arrays alone.

Weights and pixels are arguments, so that what is compiled once serves every image with as many seen pixels.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import torch

from posterior_inpainting.models import LatentCode, Observation
from posterior_inpainting.models.likelihoods import censored_normal

__all__ = ["jax_data", "jax_log_density"]

_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


def jax_data(model: LatentCode, observation: Observation) -> dict:
    """Copy what the density needs: the last layer at seen pixels only, those pixels, and the prior."""
    decoder: Any = model.decoder
    seen = observation.mask.expand(observation.image.shape).flatten()
    layers = [(layer.weight, layer.bias) for layer in decoder.trunk if isinstance(layer, torch.nn.Linear)]
    weights = {"trunk": layers, "mean": (decoder.mean_head.weight[seen], decoder.mean_head.bias[seen])}
    if decoder.scale_rank is None:
        weights["scale"] = decoder.mean_and_scale(torch.zeros(decoder.latent))[1].flatten()[0]
    else:
        narrow, wide = decoder.scale_head
        weights["scale"] = (narrow.weight, narrow.bias, wide.weight[seen], wide.bias[seen])
        weights["floor"], weights["factor"] = torch.tensor(decoder.floor), torch.tensor(decoder.scale_factor)
    target = observation.image.flatten()[seen]
    data = {"weights": weights, "target": target}
    if model.likelihood is censored_normal:  # 1 at black pixels, -1 at white ones, 0 at others
        data["end"] = (target <= 0).float() - (target >= 1).float()
    if decoder.law_of_codes is not None:
        data["prior"] = decoder.law_of_codes.whitening()
    return jax.tree.map(lambda tensor: jnp.asarray(tensor.detach().numpy()), data)


def jax_log_density(data: dict, z):
    """Return the log joint density of a code and the seen pixels, by the same formulas as ours."""
    mean, scale = _decode(data, z)
    standardised = (data["target"] - mean) / scale
    pixels = -0.5 * standardised**2 - jnp.log(scale) - _HALF_LOG_2_PI
    if "end" in data:
        end = data["end"]
        pixels = jnp.where(end == 0, pixels, _log_normal_cdf(standardised * end))
    return _log_prior(data, z) + pixels.sum()


def _decode(data: dict, z):
    """Return the mean and the scale of the seen pixels."""
    weights, hidden = data["weights"], z
    for weight, bias in weights["trunk"]:
        hidden = jax.nn.silu(weight @ hidden + bias)
    mean = weights["mean"][0] @ hidden + weights["mean"][1]
    if "end" not in data:
        mean = jax.nn.sigmoid(mean)
    if "floor" not in weights:
        return mean, weights["scale"]
    narrow, narrow_bias, wide, wide_bias = weights["scale"]
    raw = wide @ (narrow @ hidden + narrow_bias) + wide_bias
    return mean, weights["factor"] * (weights["floor"] + jax.nn.softplus(raw))


def _log_prior(data: dict, z):
    """Return log p(z): standard normal, or a mixture of Gaussians, all of which are whitened by one product."""
    if "prior" not in data:
        return -0.5 * (z @ z) - len(z) * _HALF_LOG_2_PI
    matrix, offset, constant = data["prior"]
    residual = (matrix @ z).reshape(offset.shape) - offset
    return jax.nn.logsumexp(constant - 0.5 * (residual**2).sum(-1))


def _log_normal_cdf(u):
    """Return the logarithm of the normal distribution function, far below 0 by its series, as ours does."""
    near = jnp.log(0.5 * jax.lax.erfc(jnp.clip(u, -9.0, 6.0) * -(0.5**0.5)))
    far = jnp.minimum(u, -9.0)
    r = 1 / far**2
    tail = -0.5 / r - jnp.log(-far) - _HALF_LOG_2_PI - r * (1 - r * (2.5 - r * (37 / 3)))
    return jnp.where(u < -9.0, tail, near)
