"""Seen pixels under the clipped normal law: their log density and its slopes with respect to means and scales.

Inside (0, 1) a pixel counts as under the normal law; at an end it counts by the logarithm of the normal's probability
of lying beyond, whose slope is the inverse Mills ratio.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.distributions import constraints

from posterior_inpainting.models.censored_normal import CensoredNormal, log_normal_cdf_and_slope
from posterior_inpainting.models.densities.normal_pixels import NormalPixels
from posterior_inpainting.models.shapes import Image, Mask, check_support

__all__ = ["CensoredPixels"]


class CensoredPixels(NormalPixels):
    """Values of seen pixels in [0, 1], and how probable they are under clipped normal laws.

    Examples
    --------
    >>> import torch
    >>> pixels = CensoredPixels(torch.tensor([[[0.0, 0.5]]]))
    >>> log_likelihood, slope, _ = pixels.slopes(torch.zeros(1, 2), torch.ones(1, 2))
    >>> [round(v, 4) for v in slope[0].tolist()]
    [-0.7979, 0.5]
    """

    def __init__(self, image: Image, mask: Mask | None = None):
        super().__init__(image, mask)
        check_support(self._target, constraints.unit_interval)
        #: 1 at black pixels, -1 at white ones: by which the standardised pixel is multiplied there, 0 elsewhere.
        self._end = (self._target <= 0).to(image) - (self._target >= 1).to(image)
        inside = self._end == 0
        self._inside = inside.to(image) if self._weight is None else inside * self._weight

    def log_likelihood(self, mean: Tensor, scale: Tensor, which: Tensor | None = None) -> Tensor:
        """Return the sum over pixels, ``(..., chain)``, differentiable."""
        target, weight, _ = self.of(which)
        pixelwise = CensoredNormal(mean, scale, validate_args=False).log_prob(target)
        return (pixelwise if weight is None else pixelwise * weight).sum(-1)

    def slopes(
        self, mean: Tensor, scale: Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the same sum and its slopes, without a graph."""
        target, weight, _ = self.of(which)
        end, inside = (part if which is None else part[which] for part in (self._end, self._inside))
        # Of each term only one factor is not 0, so that nothing needs to be selected.
        standardised = (target - mean) / scale
        at_end, mills = log_normal_cdf_and_slope(standardised * end)
        beyond = end if weight is None else end * weight
        pixelwise = at_end * beyond.abs()
        pixelwise -= inside * (0.5 * standardised.square() + scale.log() + 0.5 * math.log(2 * math.pi))
        slope = (inside * standardised - beyond * mills).div_(scale)
        scale_slope = slope * standardised - inside / scale
        return pixelwise.sum(-1), slope, scale_slope
