"""Seen pixels under the normal law: their log density and its slopes with respect to means and scales."""

from __future__ import annotations

import math

from torch import Tensor

from posterior_inpainting.models.densities.seen_pixels import SeenPixels

__all__ = ["NormalPixels"]


class NormalPixels(SeenPixels):
    """Values of seen pixels, and how probable they are under normal laws.

    Examples
    --------
    >>> import torch
    >>> pixels = NormalPixels(torch.ones(1, 1, 2))
    >>> pixels.slopes(torch.zeros(1, 2), torch.tensor(0.5))[1]
    tensor([[4., 4.]])
    """

    def log_likelihood(self, mean: Tensor, scale: Tensor, which: Tensor | None = None) -> Tensor:
        """Return the sum over pixels, ``(..., chain)``, differentiable.

        Parameters
        ----------
        mean, scale
            ``(..., chain, pixel)`` of :attr:`index`; one scale for all pixels may be a number.
        which
            Indices of the images.
        """
        target, weight, count = self.of(which)
        pixelwise = 0.5 * ((target - mean) / scale).square() + scale.log()
        pixelwise = pixelwise if weight is None else pixelwise * weight
        return -pixelwise.sum(-1) - 0.5 * math.log(2 * math.pi) * count

    def slopes(
        self, mean: Tensor, scale: Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the same sum and its slopes, without a graph; none for the scale where that is a number."""
        target, weight, count = self.of(which)
        residual = target - mean
        residual = residual if weight is None else residual * weight
        if scale.dim() == 0:  # one scale for every pixel: it leaves the sums
            exponent = residual.square().sum(-1).mul_(-0.5 / scale**2) - count * scale.log()
            slope, scale_slope = residual.div_(scale**2), None
        else:
            residual = residual / scale
            squares = residual.square()
            pixelwise = squares.mul(0.5).add_(scale.log())
            exponent = -(pixelwise if weight is None else pixelwise * weight).sum(-1)
            scale_slope = squares.sub_(1.0 if weight is None else weight).div_(scale)
            slope = residual.div_(scale)
        return exponent - 0.5 * math.log(2 * math.pi) * count, slope, scale_slope
