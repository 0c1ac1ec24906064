"""All that a sampler may ask of a posterior: an abstract density over flat, unconstrained positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.budget import spend

__all__ = ["Density"]


class Density(ABC):
    r"""Log prior and log likelihood over positions :math:`q \in R^{\mathrm{dim}}`, and their gradient.

    ``Potential`` is the density of a Pyro model; others are the same density in other coordinates. Samplers know
    nothing else of a problem.

    Attributes
    ----------
    problem
        What the density is of.
    dim
        Length of a position.
    groups
        Number of posteriors that are evaluated together, ``None`` for a single one without that dimension.
    shapes
        Latent site -> its shape in unconstrained space, in the order in which a position holds them.
    gradients
        Gradient evaluations so far, all chains counted.
    route
        How the density is computed, in words.
    like
        An empty tensor of the positions' type, on their device.
    """

    problem: Problem
    dim: int
    groups: int | None
    shapes: Mapping[str, torch.Size]
    gradients: int
    route: str
    like: Tensor

    @abstractmethod
    def __call__(self, position: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, both ``(..., chain)``, of positions ``(..., chain, dim)``.

        Parameters
        ----------
        position
            With groups ``(group, chain, dim)``.
        which
            Indices of the groups that ``position`` holds; all of them by default.
        """

    @abstractmethod
    def gradient(
        self, position: Tensor, inverse_temperature: float | Tensor = 1.0, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood and the gradient of their tempered sum, shaped as ``position``.

        Parameters
        ----------
        position, which
            As for a call.
        inverse_temperature
            Weight of the log likelihood, one number or ``(..., chain)``.
        """

    @abstractmethod
    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return latents in the model's own space, site -> ``(..., *shape)``, of positions ``(..., dim)``."""

    @abstractmethod
    def unconstrain(self, latents: Mapping[str, Tensor], batch: int = 0) -> Tensor:
        """Return positions ``(*batch, dim)`` of latents with ``batch`` leading dimensions."""

    @abstractmethod
    def draw_prior(self, count: int) -> Tensor:
        """Return positions ``(count, dim)`` drawn from the prior with torch's global generator."""

    def keep(self, position: Tensor) -> dict[str, Tensor]:
        """Return what is kept of draws at positions ``(..., dim)``: the latents, or what the model says."""
        return self.problem.abilities.kept(self.constrain(position))

    def count(self, gradients: int) -> None:
        """Count gradients that are about to be taken, and take them from the budget if there is one."""
        spend(gradients)
        self.gradients += gradients

    @property
    def failures(self) -> int:
        """How many positions there were so far at which it could not be computed and was taken as zero."""
        return 0

    @property
    def may_fail(self) -> bool:
        """Whether there can be such positions."""
        return False

    def take_failures(self, groups: int, chains: int) -> Tensor:
        """Return how often each chain ``(group, chain)`` met a position that failed since this was last asked."""
        return torch.zeros(groups, chains, dtype=torch.int64, device=self.like.device)

    def sites(self) -> dict[str, slice]:
        """Return where in a position each site lies."""
        found, first = {}, 0
        for name, shape in self.shapes.items():
            found[name] = slice(first, first + shape.numel())
            first += shape.numel()
        return found
