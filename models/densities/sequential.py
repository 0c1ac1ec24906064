r"""A posterior in an order: what particle methods ask of a model whose latents come one after another.

With latents :math:`x_1, \dots, x_T` and densities :math:`\gamma_t(x_{1:t})` of which the last, :math:`\gamma_T`, is the
joint density of latents and data, particles are proposed from :math:`q_t(x_t \mid x_{1:t-1})` and weighed by

.. math:: \frac{\gamma_t(x_{1:t})\, \psi_t(x_{1:t})}
               {\gamma_{t-1}(x_{1:t-1})\, \psi_{t-1}(x_{1:t-1})\, q_t(x_t \mid x_{1:t-1})}, \qquad \psi_T = 1

(Naesseth, Lindsten & Schon 2019, *Elements of Sequential Monte Carlo*). The *twist* :math:`\psi_t` is a guess, up to a
constant, of the probability of the data that are still to come. Whatever proposal and twist are, the particles are of
the posterior and their evidence is unbiased: they decide how many particles it takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Extended", "SequentialModel"]


@dataclass(frozen=True)
class Extended:
    r"""Particles after one more step.

    Parameters
    ----------
    state
        Whatever the model goes on from, of all particles.
    log_increment
        :math:`\log \gamma_t - \log \gamma_{t-1} - \log q_t` of each particle ``(count,)``.
    log_twist
        :math:`\log \psi_t` of each ``(count,)``, which is not asked for after the last step.
    """

    state: Any
    log_increment: Tensor
    log_twist: Tensor


class SequentialModel(ABC):
    """The latents of one posterior in their order; what ``Abilities.sequential`` returns.

    Draws come from torch's global generators. A state is used once: a call may change the one that it is given. A
    *path* is all values of a particle, in their order, one after another.

    Attributes
    ----------
    sizes
        How many values each step has.
    rest_is_cheap
        Whether :meth:`log_rest` costs no more than a few steps, so that it may be asked for at each.
    device
        Where it computes.
    """

    sizes: tuple[int, ...]
    rest_is_cheap: bool = False
    device: torch.device

    @abstractmethod
    def start(self, count: int) -> Extended:
        """Return ``count`` particles before the first step, with what data alone contribute."""

    @abstractmethod
    def propose(self, state: Any, step: int) -> Tensor:
        """Draw the values of a step, ``(count, sizes[step])``; the state stays as it is."""

    @abstractmethod
    def extend(self, state: Any, step: int, value: Tensor) -> Extended:
        """Take values ``(count, sizes[step])`` into the particles, wherever they come from."""

    @abstractmethod
    def select(self, state: Any, index: Tensor) -> Any:
        """Return the particles of an index ``(count,)``, in which one may come many times."""

    def log_rest(self, state: Any, step: int, rest: Tensor) -> Tensor | None:
        r"""Return :math:`\log \gamma_T(x_{<t}, x'_{\ge t}) - \log \gamma_{t-1}(x_{<t})` of each particle ``(count,)``.

        Up to a constant; ``None`` where it is not known, or costs too much. The state stays as it is.

        Parameters
        ----------
        state, step
            Particles that have made all steps before this one.
        rest
            Values of this step and all that follow, ``(count, the sum of their sizes)``.
        """
        return None

    @abstractmethod
    def latents(self, path: Tensor) -> dict[str, Tensor]:
        """Return sites ``(*batch, *event)`` of paths ``(*batch, the sum of all sizes)``."""

    def windows(self) -> list[Tensor]:
        """Return which steps a move of particle Gibbs draws anew, move by move: of each window the indices, rising.

        Together they hold every step. By default one window of all.
        """
        return [torch.arange(len(self.sizes), device=self.device)]

    def given(self, path: Tensor, window: Tensor) -> SequentialModel:
        """Return the steps of a window in their order, all others being as they are on the chains' paths.

        Parameters
        ----------
        path
            One of each chain, ``(chain, dim)``.
        window
            Of :meth:`windows`, and not all steps.
        """
        raise NotImplementedError(f"{type(self).__name__} has one window")

    def statistics(self, path: Tensor) -> dict[str, Tensor]:
        """Return what there is to tell of paths ``(*batch, dim)``, each ``(*batch,)``; ``lp`` is their log density."""
        return {}

    @property
    def dim(self) -> int:
        """Length of a path."""
        return sum(self.sizes)
