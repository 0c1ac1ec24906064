"""The density of some coordinates of a position given the others, as a density of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from posterior_inpainting.inference.density.density import Density

__all__ = ["Conditional"]


class Conditional(Density):
    """Log prior and log likelihood of the whole, with a gradient in some coordinates alone.

    Parameters
    ----------
    density
        Of the whole.
    where
        Indices of the coordinates that move, ``(part,)``.
    position
        Whole positions ``(group, chain, dim)``, whose other coordinates stay.
    """

    def __init__(self, density: Density, where: Tensor, position: Tensor):
        self.density, self.where, self.position = density, where, position
        self.problem, self.groups, self.route = density.problem, density.groups, density.route
        self.dim, self.like = len(where), density.like
        spans = density.sites().items()
        self.names = tuple(n for n, span in spans if span.start in where.tolist())
        self.shapes = {n: density.shapes[n] for n in self.names}

    @property
    def gradients(self) -> int:  # type: ignore[override]
        """Evaluations of the whole density's gradients."""
        return self.density.gradients

    def at(self, position: Tensor) -> Conditional:
        """Return the same coordinates' density given those of other positions."""
        return Conditional(self.density, self.where, position)

    def part(self, position: Tensor) -> Tensor:
        """Return the coordinates that move, ``(..., part)``, of whole positions."""
        return position[..., self.where]

    def whole(self, part: Tensor) -> Tensor:
        """Put coordinates ``(group, chain, part)`` in their places."""
        return self.position.index_copy(-1, self.where, part)

    def __call__(self, position: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood of the whole."""
        return self.density(self.whole(position), which)

    def gradient(
        self, position: Tensor, inverse_temperature: float | Tensor = 1.0, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return both, and the gradient in the coordinates that move: nothing is computed for the others."""
        self.density.count(math.prod(position.shape[:-1]))
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            log_prior, log_likelihood = self(position, which)
            total = (log_prior + inverse_temperature * log_likelihood).sum()
            (gradient,) = torch.autograd.grad(total, position)
        return log_prior.detach(), log_likelihood.detach(), gradient

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return all latents in the model's own space."""
        return self.density.constrain(self.whole(position))

    def unconstrain(self, latents: Mapping[str, Tensor], batch: int = 0) -> Tensor:
        """Return the moving coordinates of latents."""
        return self.part(self.density.unconstrain(latents, batch))

    def draw_prior(self, count: int) -> Tensor:
        """Return the moving coordinates of draws of the prior."""
        return self.part(self.density.draw_prior(count))
