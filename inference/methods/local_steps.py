r"""Step sizes that suit where a chain is: a trajectory that loses its way is followed again in smaller steps.

A trajectory is *followed well* where the energy at its end is within `TOLERANCE` of that at its start. Let k(q, r) be
the least k at which that of step size :math:`4^{-k} \epsilon` is, or the largest k allowed. The chain moves along
trajectory k(q, r), to (q', r'), with probability

.. math:: \min\{1, e^{H(q, r) - H(q', r')}\} \, 1[k(q', -r') = k(q, r)],

which leaves the posterior as it is, because the way back is then the same one: Gibbs self-tuning with a step size that
place and momentum decide (Bou-Rabee, Carpenter & Marsden 2024, *GIST*; Bou-Rabee, Carpenter, Kleppe & Marsden 2024).
Being followed well is the same from either end, so only the larger steps have to be tried from there. Where the shared
step is right, nothing is computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.adaptation import Preconditioner
from posterior_inpainting.inference.methods.trajectory import Point, Proposal, follow

__all__ = ["SMALLER", "TOLERANCE", "refined"]

#: Change in energy up to which a trajectory is followed well.
TOLERANCE = 3.0
#: Times as small as the last a step is at each refinement, and times as many steps as the shared one a finer trajectory
#: has: it is shorter, as the region is narrower that asks for it.
SMALLER, _STEPS = 4, 2


def refined(
    density: Density,
    start: Point,
    proposal: Proposal,
    step_size: Tensor,
    steps: list[int],
    scales: Preconditioner,
    refinements: int,
    inverse_temperature: float | Tensor = 1.0,
) -> tuple[Proposal, Tensor]:
    """Follow trajectories again that were not followed well; return all, and how often each was refined.

    Parameters
    ----------
    density, start, scales, inverse_temperature
        As for a trajectory.
    proposal
        The trajectories of the shared step size, all groups.
    step_size, steps
        Of each group, ``(group,)``.
    refinements
        The most that a trajectory is refined.
    """
    poor = ~_followed_well(proposal)
    level = torch.zeros_like(poor, dtype=torch.int64)
    if not refinements:
        return proposal, level
    for group in poor.any(1).nonzero().flatten().tolist():
        chains, which = poor[group].nonzero().flatten(), torch.tensor([group], device=poor.device)
        beta = inverse_temperature
        if isinstance(beta, Tensor):
            beta = beta.expand(poor.shape)[group, chains].unsqueeze(0)
        few = _Chains(density, which, step_size[which], steps[group], scales.some(which), beta)
        finer, level[group, chains] = few.finer(
            _of(start, group, chains), proposal.initial[group, chains].unsqueeze(0), refinements
        )
        proposal = _with(proposal, group, chains, finer)
    return proposal, level


@dataclass(frozen=True)
class _Chains:
    """Chains of one group whose trajectories were not followed well.

    Parameters
    ----------
    density, which, step_size, steps, scales
        What to move on; index, shared step size and steps, and the map C of the group.
    inverse_temperature
        One number or ``(1, chain)``.
    """

    density: Density
    which: Tensor
    step_size: Tensor
    steps: int
    scales: Preconditioner
    inverse_temperature: float | Tensor

    def finer(self, start: Point, momentum: Tensor, refinements: int) -> tuple[Proposal, Tensor]:
        """Refine until they are followed well; what another refinement would bring back is never accepted."""
        everyone = torch.arange(momentum.shape[1], device=momentum.device)
        level = torch.ones_like(everyone)
        found = self._follow(start, momentum, 1, everyone)
        for number in range(2, refinements + 1):
            left = everyone[(level == number - 1) & ~_followed_well(found)[0]]
            if not len(left):
                break
            found = _with(found, 0, left, self._follow(_of(start, 0, left), momentum[:, left], number, left))
            level[left] = number
        return replace(found, acceptance=found.acceptance * self._comes_back(found, level)), level

    def _comes_back(self, found: Proposal, level: Tensor) -> Tensor:
        """Return for each chain whether it would be refined as often at the other end ``(chain,)``."""
        everyone = torch.arange(len(level), device=level.device)
        same = found.acceptance[0] > 0
        for number in range(int(level.max())):
            some = everyone[same & (level > number)]
            if len(some):
                back = self._follow(_of(found.point, 0, some), -found.momentum[:, some], number, some)
                same[some] &= ~_followed_well(back)[0]
        return same

    def _follow(self, start: Point, momentum: Tensor, number: int, chains: Tensor) -> Proposal:
        """Return the trajectories of some of the chains, refined so often."""
        beta = self.inverse_temperature
        return follow(
            self.density,
            start,
            momentum,
            self.step_size / SMALLER**number,
            [self.steps * (_STEPS if number else 1)],
            self.scales,
            beta[:, chains] if isinstance(beta, Tensor) else beta,
            self.which,
        )


def _followed_well(proposal: Proposal) -> Tensor:
    """Return for each trajectory whether the change in energy is small, from whichever end it is looked at."""
    return proposal.change.abs() <= TOLERANCE  # what is no number is not


def _of(point: Point, group: int, chains: Tensor) -> Point:
    """Return where some chains of a group are, as a group of its own."""
    return Point(*(value[group, chains].unsqueeze(0) for value in vars(point).values()))


def _with(proposal: Proposal, group: int, chains: Tensor, some: Proposal) -> Proposal:
    """Put the trajectories of some chains, a group of its own, among all."""

    def put(whole: Tensor, part: Tensor) -> Tensor:
        """Return a copy with the rows replaced."""
        whole = whole.clone()
        whole[group, chains] = part[0]
        return whole

    point = Point(*map(put, vars(proposal.point).values(), vars(some.point).values()))
    rest = {n: put(v, vars(some)[n]) for n, v in vars(proposal).items() if isinstance(v, Tensor)}
    return Proposal(point=point, **rest)
