r"""Moves of weights by noisy gradients of minibatches: Langevin dynamics without and with momentum.

Stochastic gradient Langevin dynamics (SGLD; Welling & Teh 2011, *Bayesian Learning via Stochastic Gradient Langevin
Dynamics*, equation 4), optionally preconditioned (pSGLD; Li, Chen, Carlson & Carin 2016, algorithm 1), and stochastic
gradient Hamiltonian Monte Carlo (SGHMC; Chen, Fox & Guestrin 2014, equation 15). With
:math:`U(\theta) = -\log p(\theta) - \sum_{i=1}^N \log p(x_i \mid \theta)`, a minibatch's estimate g of
:math:`\nabla U / N`, step size l, preconditioner G, friction alpha, temperature T and :math:`\xi \sim N(0, I)`,

.. math:: \text{SGLD:} \quad \theta \leftarrow \theta - l\, G g + \sqrt{2\, l\, T G / N}\; \xi, \qquad
          \text{SGHMC:} \quad v \leftarrow (1 - \alpha) v - l\, G g + \sqrt{2\, \alpha\, l\, T G / N}\; \xi, \quad
          \theta \leftarrow \theta + v.

Step sizes are of the mean loss an image, as an optimiser's are: SGLD's :math:`\epsilon` is :math:`2 l / N`. At T = 0
they are gradient descent without and with momentum.

There is no accept step, so that both are biased. On a Gaussian of standard deviation s, with V the variance of a
minibatch's estimate of :math:`\nabla U`, which no noise is taken away for, their variances are

.. math:: s^2\, \frac{1 + l V / (2 N)}{1 - l / (2 N s^2)}, \qquad
          s^2\, \frac{1 + l V / (2 \alpha N)}{1 - l / (2 (2 - \alpha) N s^2)}.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["SGHMC", "SGLD", "WeightKernel", "WeightState"]


@dataclass(frozen=True)
class WeightState:
    """What the next step needs: ``momentum`` and the preconditioner's mean ``squares``, empty where there is none."""

    momentum: tuple[Tensor, ...] = ()
    squares: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WeightKernel(ABC):
    r"""Abstract move of weights, and the preconditioner that all moves may have.

    Parameters
    ----------
    preconditioned
        Whether each weight's step is divided by the root of its mean squared gradient,
        :math:`G = 1 / (\lambda + \sqrt{V})`. Li et al. go on learning V while they draw and leave out the term that
        this calls for; here V is learnt where nothing is drawn and then held, which needs no such term.
    memory
        Weight of the past in V, per step.
    floor
        :math:`\lambda`.

    Raises
    ------
    ValueError
        For a memory outside [0, 1), or a floor that is not positive.
    """

    preconditioned: bool = False
    memory: float = 0.99
    floor: float = 1e-5

    def __post_init__(self):
        if not 0 <= self.memory < 1 or not self.floor > 0:
            raise ValueError(
                f"memory={self.memory}, floor={self.floor}; expected a number in [0, 1) and one above 0"
            )

    @abstractmethod
    def start(self, weights: Sequence[Tensor]) -> WeightState:
        """Return the state at the beginning."""

    @abstractmethod
    def step(
        self,
        state: WeightState,
        weights: Sequence[Tensor],
        gradient: Sequence[Tensor],
        size: float,
        noise: float,
        generator: torch.Generator,
    ) -> WeightState:
        """Move the weights in place.

        Parameters
        ----------
        gradient
            Of U / N, one tensor a weight tensor.
        size
            l.
        noise
            T / N; 0 for descent.
        """

    def learnt(self, state: WeightState, gradient: Sequence[Tensor]) -> WeightState:
        """Return the state with a gradient counted in V."""
        if not self.preconditioned:
            return state
        if not state.squares:
            return replace(state, squares=tuple(g.square() for g in gradient))
        pairs = zip(state.squares, gradient, strict=True)
        return replace(state, squares=tuple(torch.lerp(v, g.square(), 1 - self.memory) for v, g in pairs))

    def _preconditioners(self, state: WeightState, gradient: Sequence[Tensor]) -> list[Tensor]:
        if not self.preconditioned:
            return [g.new_ones(()) for g in gradient]
        if not state.squares:
            raise ValueError(
                "nothing is learnt of the preconditioner; expected exploring above 0 in the first cycle"
            )
        return [1 / (self.floor + v.sqrt()) for v in state.squares]


@dataclass(frozen=True, kw_only=True)
class SGLD(WeightKernel):
    """Stochastic gradient Langevin dynamics: a step down the minibatch's gradient, and noise.

    Examples
    --------
    >>> weight, generator = torch.zeros(1), torch.Generator().manual_seed(0)
    >>> kernel = SGLD()
    >>> state = kernel.step(kernel.start([weight]), [weight], [torch.ones(1)], 0.1, 0.0, generator)
    >>> weight
    tensor([-0.1000])
    """

    def start(self, weights: Sequence[Tensor]) -> WeightState:
        """Return a state of nothing."""
        return WeightState()

    def step(
        self,
        state: WeightState,
        weights: Sequence[Tensor],
        gradient: Sequence[Tensor],
        size: float,
        noise: float,
        generator: torch.Generator,
    ) -> WeightState:
        """Move the weights in place."""
        for w, g, scale in zip(weights, gradient, self._preconditioners(state, gradient), strict=True):
            w -= size * scale * g
            if noise:
                w += (2 * size * noise * scale).sqrt() * _normal(w, generator)
        return state


@dataclass(frozen=True, kw_only=True)
class SGHMC(WeightKernel):
    """Stochastic gradient Hamiltonian Monte Carlo: momentum, and the noise that its friction calls for.

    Parameters
    ----------
    friction
        alpha, in (0, 1]; what an optimiser calls momentum is 1 - alpha.
    preconditioned, memory, floor
        As for :class:`WeightKernel`.

    Raises
    ------
    ValueError
        For a friction outside (0, 1].

    Examples
    --------
    >>> weight, generator = torch.zeros(1), torch.Generator().manual_seed(0)
    >>> kernel = SGHMC(friction=0.1)
    >>> state = kernel.start([weight])
    >>> for _ in range(2):
    ...     state = kernel.step(state, [weight], [torch.ones(1)], 0.1, 0.0, generator)
    >>> weight
    tensor([-0.2900])
    """

    friction: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.friction <= 1:
            raise ValueError(f"friction={self.friction}; expected a number in (0, 1]")

    def start(self, weights: Sequence[Tensor]) -> WeightState:
        """Return a state at rest."""
        return WeightState(tuple(torch.zeros_like(w) for w in weights))

    def step(
        self,
        state: WeightState,
        weights: Sequence[Tensor],
        gradient: Sequence[Tensor],
        size: float,
        noise: float,
        generator: torch.Generator,
    ) -> WeightState:
        """Move momentum and weights in place."""
        scales = self._preconditioners(state, gradient)
        for w, v, g, scale in zip(weights, state.momentum, gradient, scales, strict=True):
            v *= 1 - self.friction
            v -= size * scale * g
            if noise:
                v += (2 * self.friction * size * noise * scale).sqrt() * _normal(v, generator)
            w += v
        return state


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(like).normal_(generator=generator)
