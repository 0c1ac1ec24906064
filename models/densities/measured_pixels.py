"""Values of an instrument in the form in which densities of codes compare them with what chains decode."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posterior_inpainting.models.likelihoods import Likelihood
from posterior_inpainting.models.measurements import Instrument

__all__ = ["MeasuredPixels"]


class MeasuredPixels:
    """What was measured of images, and how probable it is given means and scales of all their pixels.

    As ``NormalPixels`` is of seen pixels, and called as it is; slopes are autograd's.

    Parameters
    ----------
    likelihood
        The law of single pixels.
    values
        ``(*output_shape)``, or a row of them for each image of a batch.
    instrument
        What measured.

    Examples
    --------
    >>> from posterior_inpainting.models import operators
    >>> from posterior_inpainting.models.likelihoods import normal
    >>> total = Instrument(operators.average((1, 1, 2), 1), noise=0.0)
    >>> pixels = MeasuredPixels(normal, torch.ones(1, 1, 2), total)
    >>> pixels.slopes(torch.zeros(1, 2), torch.tensor(0.5))[1]
    tensor([[4., 4.]])
    """

    def __init__(self, likelihood: Likelihood, values: Tensor, instrument: Instrument):
        self.likelihood, self.instrument = likelihood, instrument
        self.image_shape = instrument.operator.image_shape
        #: All pixels: each may enter a value.
        self.index = torch.arange(math.prod(self.image_shape), device=values.device)
        self._target = values.flatten(-3).unsqueeze(-2)

    def log_likelihood(self, mean: Tensor, scale: Tensor, which: Tensor | None = None) -> Tensor:
        """Return the log density of the values, ``(..., chain)``, differentiable.

        Parameters
        ----------
        mean, scale
            ``(..., chain, pixel)``; one scale for all pixels may be a number.
        which
            Indices of the images.
        """
        law = self.likelihood(mean, scale)
        moments = (
            part.expand(mean.shape).unflatten(-1, self.image_shape) for part in (law.mean, law.variance)
        )
        return self.instrument.law(*moments).log_prob(self._target if which is None else self._target[which])

    def slopes(
        self, mean: Tensor, scale: Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the same and its slopes, without a graph; none for the scale where that is a number."""
        is_number = scale.dim() == 0
        with torch.enable_grad():
            leaves = [mean.detach().requires_grad_(), scale.detach().requires_grad_(not is_number)]
            found = self.log_likelihood(leaves[0], leaves[1], which)
            slopes = torch.autograd.grad(found.sum(), leaves[: 1 if is_number else 2])
        return found.detach(), slopes[0], None if is_number else slopes[1]
