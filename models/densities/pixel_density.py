r"""The log density of a code given seen pixels, with its gradient by hand.

For a Gaussian likelihood with unit weights,

.. math:: \log p(z) + \beta \sum_{i \,\mathrm{seen}} \log N(x_i; f(z)_i, \sigma(z)_i),

evaluated at seen pixels only. The gradient builds no graph, which for few chains costs more than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from posterior_inpainting.models.abilities import JointDensity
from posterior_inpainting.models.densities.code_prior import CodePrior
from posterior_inpainting.models.densities.seen_pixels import SeenPixels
from posterior_inpainting.models.networks.decoder import Restricted
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["PixelDensity"]


class PixelDensity(JointDensity):
    """Log prior and log likelihood of codes, apart from each other, and the gradient of their tempered sum.

    Parameters
    ----------
    restrict
        From indices into the flattened ``(channel, row, column)`` to a ``Restricted`` decoder.
    image, mask
        One image, or a batch ``(image, channel, row, column)``; without a mask everything is seen.
    prior
        p(z), event shape ``(latent,)``; standard normal by default.

    Examples
    --------
    >>> def restrict(pixels):
    ...     return lambda z: (z[..., pixels], torch.tensor(0.5), lambda slope, _: slope)
    >>> density = PixelDensity(restrict, torch.ones(1, 1, 2))
    >>> density.gradient({"z": torch.zeros(1, 2)}, 1.0)[2]
    tensor([[4., 4.]])
    """

    has_gradient = True

    def __init__(
        self,
        restrict: Callable[[Tensor], Restricted],
        image: Image,
        mask: Mask | None = None,
        *,
        prior: TorchDistribution | None = None,
    ):
        self._seen = SeenPixels(image, mask)
        self._decode = restrict(self._seen.index)
        self._prior = CodePrior(prior)

    def __call__(self, latents: dict[str, Tensor], which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, ``(..., chain)``, differentiable.

        Parameters
        ----------
        latents
            ``{"z": (chain, latent)}``, or ``(image, chain, latent)`` for a batch of images.
        which
            Indices of the images that the codes belong to; all of them by default.
        """
        z = latents["z"]
        mean, scale, _ = self._decode(z)
        target, weight, count = self._seen.of(which)
        pixelwise = 0.5 * ((target - mean) / scale).square() + scale.log()
        pixelwise = pixelwise if weight is None else pixelwise * weight
        return self._prior.log_prob(z), -pixelwise.sum(-1) - 0.5 * math.log(2 * math.pi) * count

    def gradient(
        self, latents: dict[str, Tensor], inverse_temperature: float | Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood, and the gradient of ``prior + inverse_temperature * likelihood``."""
        z = latents["z"]
        with torch.no_grad():
            log_prior, prior_slope = self._prior.log_prob_and_score(z)
            mean, scale, pull_back = self._decode(z)
            target, weight, count = self._seen.of(which)
            residual = target - mean
            residual = residual if weight is None else residual * weight
            if scale.dim() == 0:  # one scale for every pixel: it leaves the sums
                exponent = residual.square().sum(-1).mul_(-0.5 / scale**2) - count * scale.log()
                slope = pull_back(residual, None) / scale**2
            else:
                residual = residual / scale
                squares = residual.square()
                pixelwise = squares.mul(0.5).add_(scale.log())
                exponent = -(pixelwise if weight is None else pixelwise * weight).sum(-1)
                scale_slope = squares.sub_(1.0 if weight is None else weight).div_(scale)
                slope = pull_back(residual.div_(scale), scale_slope)
            beta = inverse_temperature
            slope = slope * (beta.unsqueeze(-1) if isinstance(beta, Tensor) else beta)
            log_likelihood = exponent - 0.5 * math.log(2 * math.pi) * count
            return log_prior, log_likelihood, slope + prior_slope
