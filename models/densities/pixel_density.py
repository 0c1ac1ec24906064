r"""The log density of a code given seen pixels, with its gradient by hand.

For normal or clipped normal pixels with unit weights, or what an instrument gave of them,

.. math:: \log p(z) + \beta \sum_{i \,\mathrm{seen}} \log p(x_i; f(z)_i, \sigma(z)_i),

evaluated at seen pixels only. The gradient builds no graph, which for few chains costs more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from posterior_inpainting.models.abilities import JointDensity
from posterior_inpainting.models.densities.censored_pixels import CensoredPixels
from posterior_inpainting.models.densities.code_prior import CodePrior
from posterior_inpainting.models.densities.measured_pixels import MeasuredPixels
from posterior_inpainting.models.densities.normal_pixels import NormalPixels
from posterior_inpainting.models.likelihoods import Likelihood, censored_normal, normal
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.networks.decoder import Restricted
from posterior_inpainting.models.shapes import Mask

__all__ = ["PIXELS", "PixelDensity", "pixels_of"]

#: The likelihoods whose densities are written by hand.
PIXELS: dict[Any, type[NormalPixels]] = {normal: NormalPixels, censored_normal: CensoredPixels}


def pixels_of(
    likelihood: Likelihood, image: Tensor, mask: Mask | Instrument | None = None
) -> NormalPixels | MeasuredPixels:
    """Return what is seen behind a mask, or what an instrument gave, under one of these likelihoods.

    >>> type(pixels_of(normal, torch.ones(1, 1, 2))).__name__
    'NormalPixels'
    """
    if isinstance(mask, Instrument):
        return MeasuredPixels(likelihood, image, mask)
    return PIXELS[likelihood](image, mask)


class PixelDensity(JointDensity):
    """Log prior and log likelihood of codes, apart from each other, and the gradient of their tempered sum.

    Parameters
    ----------
    restrict
        From indices into the flattened ``(channel, row, column)`` to a ``Restricted`` decoder.
    pixels
        What is seen, and the law of a pixel.
    prior
        p(z), event shape ``(latent,)``; standard normal by default.

    Examples
    --------
    >>> def restrict(pixels):
    ...     return lambda z: (z[..., pixels], torch.tensor(0.5), lambda slope, _: slope)
    >>> density = PixelDensity(restrict, NormalPixels(torch.ones(1, 1, 2)))
    >>> density.gradient({"z": torch.zeros(1, 2)}, 1.0)[2]
    tensor([[4., 4.]])
    """

    has_gradient = True

    def __init__(
        self,
        restrict: Callable[[Tensor], Restricted],
        pixels: NormalPixels | MeasuredPixels,
        *,
        prior: TorchDistribution | None = None,
    ):
        self._pixels = pixels
        self._decode = restrict(pixels.index)
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
        return self._prior.log_prob(z), self._pixels.log_likelihood(mean, scale, which)

    def gradient(
        self, latents: dict[str, Tensor], inverse_temperature: float | Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood, and the gradient of ``prior + inverse_temperature * likelihood``."""
        z = latents["z"]
        with torch.no_grad():
            log_prior, prior_slope = self._prior.log_prob_and_score(z)
            mean, scale, pull_back = self._decode(z)
            log_likelihood, mean_slope, scale_slope = self._pixels.slopes(mean, scale, which)
            slope, beta = pull_back(mean_slope, scale_slope), inverse_temperature
            slope = slope * (beta.unsqueeze(-1) if isinstance(beta, Tensor) else beta)
            return log_prior, log_likelihood, slope + prior_slope
