r"""`ParallelTempering`: replicas between prior and posterior that exchange places, so that modes are left.

Geyer 1991; non-reversible swaps and the schedule of equal swap rates are those of Syed, Bouchard-Cote,
Deligiannidis & Doucet 2022, *Non-Reversible Parallel Tempering*. Replica k draws from

.. math:: p_k(q) \propto p(q)\, p(\tilde x \mid q)^{\beta_k}, \qquad 1 = \beta_0 > \dots > \beta_{K-1} = 0,

by ChEES moves of its own, and neighbours swap with probability
:math:`\min(1, \exp((\beta_k - \beta_{k+1})(\ell_{k+1} - \ell_k)))`, where ell is the log likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods import chees
from posterior_inpainting.inference.methods.adaptation import windows
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.kernel import Kernel
from posterior_inpainting.inference.methods.replica_exchange import evenly_spaced, exchanged
from posterior_inpainting.inference.methods.trajectory import Point, evaluate

__all__ = ["ParallelTempering"]


@dataclass(frozen=True)
class State:
    """Replicas (temperature is their group), inverse temperatures ``(temperature,)``, rejected swaps so far."""

    replicas: chees.State
    inverse_temperature: Tensor
    rejection: Tensor
    swaps: int = 0

    @property
    def iteration(self) -> int:
        """Iterations so far."""
        return self.replicas.iteration

    @property
    def point(self) -> Point:
        """Where the coldest replicas are: the draws, as one group."""
        p = self.replicas.point
        return Point(p.position[:1], p.gradient[:1], p.log_prior[:1], p.log_likelihood[:1])


@dataclass(frozen=True)
class ParallelTempering(Kernel):
    """Replica exchange; every chain is an ensemble of its own, all of them in one batch.

    Parameters
    ----------
    temperatures
        Replicas a chain. More are needed the further posterior and prior are apart; ``swap_rate`` in
        ``sample_stats`` should stay above 0.2.
    warmup
        Iterations that adapt and are thrown away.
    moves
        Settings of the moves within a temperature; its warm-up is not read.

    Examples
    --------
    >>> ParallelTempering(temperatures=8).warmup
    400
    """

    temperatures: int = 10
    warmup: int = 400
    moves: ChEES = field(default_factory=lambda: ChEES(max_steps=32))

    def __post_init__(self):
        if self.temperatures < 2:
            raise ValueError(f"temperatures={self.temperatures}; expected at least 2")

    @property
    def runs_together(self) -> bool:
        """Not: its groups are temperatures of one posterior."""
        return False

    def start(self, density: Density, position: Tensor, generator: Generator) -> State:
        """Begin with every replica at a draw of the prior; ``position`` ``(1, chain, dim)`` is the coldest's."""
        _, chains, dim = position.shape
        hotter = density.draw_prior((self.temperatures - 1) * chains).reshape(-1, chains, dim)
        # Steps of beta that shrink towards the prior, where a little data changes much.
        inverse = torch.linspace(1, 0, self.temperatures).to(position) ** 3
        replicas = self._moves().begin(
            density, torch.cat([position, hotter]), generator, inverse.unsqueeze(1)
        )
        return State(replicas, inverse, torch.zeros_like(inverse[1:]))

    def step(self, density: Density, state: State, generator: Generator) -> tuple[State, dict[str, Tensor]]:
        """Move every replica, then let alternate pairs of neighbours swap."""
        beta = state.inverse_temperature.unsqueeze(1)
        replicas, info = self._moves().step(density, state.replicas, generator, beta)
        moved = replicas.point
        (position,), rejection = exchanged(
            [moved.position], moved.log_likelihood, state.inverse_temperature, replicas.iteration, generator
        )
        # The gradient is of the tempered density: whoever changed temperature needs it anew.
        point = evaluate(density, position, beta)
        info = {name: value[:1] for name, value in info.items()}
        info["lp"] = point.log_density()[:1]
        swaps = state.swaps + 1
        total = state.rejection + rejection
        rate = 1 - (2 * total / swaps).mean()
        info["swap_rate"] = rate.expand_as(info["lp"])
        following = State(replace(replicas, point=point), state.inverse_temperature, total, swaps)
        if replicas.iteration in windows(self.warmup):
            following = self._space_evenly(density, following)
        return following, info

    def _moves(self) -> ChEES:
        return replace(self.moves, warmup=self.warmup)

    def _space_evenly(self, density: Density, state: State) -> State:
        """Put the temperatures where neighbours would reject equally often (Syed et al. 2022, section 5.1)."""
        inverse = evenly_spaced(state.inverse_temperature, state.rejection)
        point = evaluate(density, state.replicas.point.position, inverse.unsqueeze(1))
        return State(replace(state.replicas, point=point), inverse, torch.zeros_like(state.rejection))
