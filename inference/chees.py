r"""`ChEES`: Hamiltonian Monte Carlo for many chains at once, its trajectory length learnt from all of them.

Hoffman, Radul & Sountsov 2021, *An Adaptive-MCMC Scheme for Setting Trajectory Lengths in Hamiltonian
Monte Carlo*. The length T climbs the change in the estimator of the expected square,

.. math:: \mathrm{ChEES} = \tfrac14 E\big[(\lVert q' - E q' \rVert^2 - \lVert q - E q \rVert^2)^2\big],

trajectories are jittered by a Halton sequence, h_t T, and the step size is held at a harmonic-mean
acceptance of 0.651. Every chain shares them, so that a batch of chains takes the same number of steps:
no chain waits for another, as chains of a vectorised NUTS do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.adaptation import Ascent, DualAveraging, Moments, Preconditioner
from posterior_inpainting.inference.chains import run_single
from posterior_inpainting.inference.methods import Draws, DrawsAre, Problem
from posterior_inpainting.inference.potential import Potential
from posterior_inpainting.inference.trajectory import (
    Point,
    Proposal,
    evaluate,
    first_step_size,
    metropolis,
    trajectory,
)

__all__ = ["ChEES"]


@dataclass(frozen=True)
class State:
    """What the next iteration needs."""

    point: Point
    step: DualAveraging
    length: Ascent
    moments: Moments
    scales: Preconditioner
    iteration: int = 0


@dataclass(frozen=True)
class ChEES:
    """Vectorised Hamiltonian Monte Carlo with learnt trajectory length, step size and scales.

    Works best with 16 or more chains, which cost little more than one.

    Parameters
    ----------
    warmup
        Iterations that adapt and are thrown away.
    target_acceptance
        Harmonic-mean acceptance probability that the step size is adapted to.
    dense
        Whether the scales are a whole covariance, estimated across chains, rather than its diagonal.
    max_steps
        Longest trajectory in leapfrog steps.
    learning_rate
        Of Adam on the log of the trajectory length.

    Examples
    --------
    >>> ChEES(warmup=200).target_acceptance
    0.651
    """

    warmup: int = 300
    target_acceptance: float = 0.651
    dense: bool = True
    max_steps: int = 256
    learning_rate: float = 0.05

    draws_are: ClassVar[DrawsAre] = "markov"

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Run ``chains`` chains at once, each from its own draw of the prior."""
        return run_single(self, problem, draws=draws, chains=chains, seed=seed, progress=progress)

    def start(self, potential: Potential, position: Tensor, generator: Generator) -> State:
        """Begin at positions ``(group, chain, dim)``."""
        point = evaluate(potential, position)
        scales = Preconditioner.identity(position)
        step = first_step_size(potential, point, scales, generator)
        return State(
            point, DualAveraging.start(step), Ascent.start(8 * step), Moments.start(position), scales
        )

    def step(
        self, potential: Potential, state: State, generator: Generator
    ) -> tuple[State, dict[str, Tensor]]:
        """Make one iteration of every chain; adapt while warming up."""
        warming = state.iteration < self.warmup
        step_size = (state.step.log_step if warming else state.step.log_average).exp()
        length = (state.length.log_value if warming else state.length.log_average).exp()
        jitter = _halton(state.iteration)
        # The one transfer an iteration from the device: how many leapfrog steps to make.
        steps = (jitter * length / step_size).ceil().clamp(1, self._most_steps(state)).int().tolist()
        proposal = trajectory(potential, state.point, step_size, steps, state.scales, generator)
        point, _ = metropolis(state.point, proposal, generator)
        info = {
            "lp": point.log_density(),
            "energy": proposal.energy,
            "acceptance_rate": proposal.acceptance,
            "step_size": step_size.unsqueeze(1).expand_as(proposal.acceptance),
            "n_steps": torch.tensor(steps).unsqueeze(1).expand(proposal.acceptance.shape),
            "diverging": proposal.diverging,
        }
        following = replace(state, point=point, iteration=state.iteration + 1)
        if warming:
            travelled = torch.tensor(steps).to(step_size) * step_size
            following = self._adapt(potential, state, following, proposal, travelled, generator)
        return following, info

    def _most_steps(self, state: State) -> int:
        """Short trajectories while the scales are not yet known."""
        return min(self.max_steps, 32 if state.iteration < 0.15 * self.warmup else self.max_steps)

    def _adapt(
        self, potential, before: State, after: State, proposal: Proposal, travelled: Tensor, generator
    ) -> State:
        harmonic = 1 / (1 / proposal.acceptance.clamp(min=1e-3)).mean(1)
        step = before.step.update(harmonic, self.target_acceptance)
        gradient = _chees_gradient(before.point, proposal, travelled, before.scales)
        length = before.length.update(gradient, self.learning_rate)
        ceiling = (step.log_step.exp() * self.max_steps).log()
        length = replace(length, log_value=length.log_value.minimum(ceiling))
        moments = before.moments.update(after.point.position)
        after = replace(after, step=step, length=length, moments=moments)
        if after.iteration not in self._windows():
            return after
        # The scales change, and with them the units of step and length: begin both anew.
        scales = Preconditioner.from_moments(moments, self.dense)
        first = first_step_size(potential, after.point, scales, generator)
        return replace(
            after,
            step=DualAveraging.start(first),
            length=Ascent.start(torch.full_like(first, 1.5)),
            moments=Moments.start(after.point.position),
            scales=scales,
        )

    def _windows(self) -> tuple[int, ...]:
        """Return the iterations after which the scales are learnt anew: longer and longer windows."""
        return tuple(sorted({max(1, int(share * self.warmup)) for share in (0.1, 0.2, 0.4, 0.65)}))


def _chees_gradient(start: Point, proposal: Proposal, travelled: Tensor, scales: Preconditioner) -> Tensor:
    """Gradient of the criterion with respect to log T, ``(group,)`` (Hoffman et al. 2021, equation 7).

    Distances are measured in the white coordinates' metric only through the chains' own spread, as in the
    paper: q is used as it is.
    """
    position = torch.where(proposal.point.position.isfinite(), proposal.point.position, start.position)
    weight = proposal.acceptance
    total = weight.sum(1, keepdim=True).clamp(min=1e-9)
    centre_after = (weight.unsqueeze(-1) * position).sum(1, keepdim=True) / total.unsqueeze(-1)
    centred = position - centre_after
    before = start.position - start.position.mean(1, keepdim=True)
    change = centred.square().sum(-1) - before.square().sum(-1)
    velocity = scales.forward(proposal.momentum)
    slope = change * (centred * velocity).sum(-1).nan_to_num(0.0)
    return travelled * (weight * slope).sum(1) / total.squeeze(1)


def _halton(index: int) -> float:
    """Return the ``index``-th number of the Halton sequence of base 2, in (0, 1)."""
    index, fraction, result = index + 1, 0.5, 0.0
    while index:
        result += fraction * (index % 2)
        index //= 2
        fraction /= 2
    return result
