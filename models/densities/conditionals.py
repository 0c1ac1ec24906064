"""Draws of some latents given the others, for models that can make them exactly: what a Gibbs sampler asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Generator, Tensor

__all__ = ["Conditionals"]


class Conditionals(ABC):
    """The conditional laws of one posterior; what ``Abilities.conditionals`` returns."""

    @abstractmethod
    def start(self, chains: int, generator: Generator) -> dict[str, Tensor]:
        """Return where chains begin, apart from each other: site -> ``(chain, *event)``."""

    @abstractmethod
    def sweep(self, latents: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """Return latents after each part was drawn once given the others, of the same shapes."""

    def expected(self, latents: dict[str, Tensor], generator: Generator) -> Tensor | None:
        """Return the mean of the completion given what the next sweep would draw first, if it is known."""
        return None

    @abstractmethod
    def log_density(self, latents: dict[str, Tensor]) -> Tensor:
        """Return the log joint density of latents and seen pixels but for a constant, ``(chain,)``."""
