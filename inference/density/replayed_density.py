"""A traced density, and its gradient, from recordings where there are some."""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.inference.density.recorded import Recorded
from posterior_inpainting.inference.density.traced_density import TracedDensity

__all__ = ["ReplayedDensity"]


class ReplayedDensity:
    """What a traced density says, without its traces; ``None`` as long as there is no recording, or where it fails.

    Parameters
    ----------
    traced
        The density, which vmap can vectorise.
    """

    def __init__(self, traced: TracedDensity):
        self._alone = traced.groups is None
        self._density, self._gradient = Recorded(traced.vectorised), Recorded(traced.gradient)

    def __call__(self, position: Tensor, which: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Return log prior and log likelihood ``([group,] chain)`` of positions ``([group,] chain, dim)``."""
        found = self._density(position, *([] if which is None else [which]))
        return None if found is None else (found[0], found[1])

    def gradient(
        self, position: Tensor, inverse_temperature: float | Tensor, which: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return the same of positions ``(..., chain, dim)``, and the gradient of the tempered sum.

        Parameters
        ----------
        position, inverse_temperature, which
            As for ``Potential.gradient``.
        """
        shape = position.shape[:-1]
        weight = torch.as_tensor(inverse_temperature, device=position.device).to(position)
        if self._alone:  # groups of it are temperatures of one posterior
            position, which = position.flatten(0, -2), None
        if weight.dim():
            weight = weight.expand(shape).reshape(position.shape[:-1])
        found = self._gradient(position, weight, *([] if which is None else [which]))
        if found is None:
            return None
        log_prior, log_likelihood, gradient = found
        return log_prior.reshape(shape), log_likelihood.reshape(shape), gradient.reshape(*shape, -1)
