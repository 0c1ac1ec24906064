r"""One Hamiltonian trajectory for every chain of every group at once, with its Metropolis test.

In white coordinates y, q = C y, the momentum is standard normal and the leapfrog step of size eps is

.. math:: r \leftarrow r + \tfrac\epsilon2 C^\top \nabla \log p(q), \quad
          q \leftarrow q + \epsilon C r, \quad r \leftarrow r + \tfrac\epsilon2 C^\top \nabla \log p(q).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.adaptation import Preconditioner

__all__ = [
    "Point",
    "Proposal",
    "acceptance_of",
    "evaluate",
    "first_step_size",
    "follow",
    "metropolis",
    "trajectory",
]

#: A trajectory whose energy rises by more than this has left the path it should follow (Stan's bound).
DIVERGENCE = 1000.0


@dataclass(frozen=True)
class Point:
    """Where the chains are: position ``(group, chain, dim)``, gradient there, log prior, log likelihood."""

    position: Tensor
    gradient: Tensor
    log_prior: Tensor
    log_likelihood: Tensor

    def log_density(self, inverse_temperature: float | Tensor = 1.0) -> Tensor:
        """Return the tempered log density ``(group, chain)``."""
        return self.log_prior + inverse_temperature * self.log_likelihood


@dataclass(frozen=True)
class Proposal:
    """The end of a trajectory with its first and last momentum.

    Parameters
    ----------
    point
        Where it ends.
    initial, momentum
        Momenta at its start and at its end, in white coordinates.
    change
        Of the log density of place and momentum, ``(group, chain)``: zero were it followed exactly.
    acceptance
        Probability to accept it, ``(group, chain)``.
    energy
        At its start.
    """

    point: Point
    initial: Tensor
    momentum: Tensor
    change: Tensor
    acceptance: Tensor
    energy: Tensor

    @property
    def diverging(self) -> Tensor:
        """Whether it has left the path that it should follow."""
        return ~self.change.isfinite() | (self.change < -DIVERGENCE)


def evaluate(density: Density, position: Tensor, inverse_temperature: float | Tensor = 1.0) -> Point:
    """Evaluate density and gradient at ``(group, chain, dim)``."""
    log_prior, log_likelihood, gradient = density.gradient(position, inverse_temperature)
    return Point(position, gradient, log_prior, log_likelihood)


def trajectory(
    density: Density,
    start: Point,
    step_size: Tensor,
    steps: list[int],
    scales: Preconditioner,
    generator: Generator,
    inverse_temperature: float | Tensor = 1.0,
) -> Proposal:
    """Follow the leapfrog integrator from ``start`` with fresh momenta.

    Parameters
    ----------
    density
        What to move on.
    start
        Where the chains are.
    step_size
        ``(group,)`` or ``(group, chain)``.
    steps
        Leapfrog steps of each group. Groups that are done are left out of the evaluations.
    scales
        The linear map C.
    generator
        Source of the momenta.
    inverse_temperature
        Weight of the log likelihood, one number or ``(group, chain)``.
    """
    momentum = torch.randn(start.position.shape, generator=generator, device=start.position.device).to(
        start.position
    )
    return follow(density, start, momentum, step_size, steps, scales, inverse_temperature)


def follow(
    density: Density,
    start: Point,
    momentum: Tensor,
    step_size: Tensor,
    steps: list[int],
    scales: Preconditioner,
    inverse_temperature: float | Tensor = 1.0,
    which: Tensor | None = None,
) -> Proposal:
    """Follow the leapfrog integrator from given momenta.

    Parameters
    ----------
    density, start, step_size, steps, scales, inverse_temperature
        As for :func:`trajectory`.
    momentum
        In white coordinates, ``(group, chain, dim)``.
    which
        Indices of the groups that there are, which then take as many steps each; all of them by default.
    """
    energy = 0.5 * momentum.square().sum(-1) - start.log_density(inverse_temperature)
    step = step_size.reshape(*step_size.shape, *[1] * (3 - step_size.dim()))
    if which is not None or len(set(steps)) == 1:
        end, final = _leapfrog(density, start, momentum, step, steps[0], scales, inverse_temperature, which)
    else:
        end, final = _ragged(density, start, momentum, step, steps, scales, inverse_temperature)
    change = energy - 0.5 * final.square().sum(-1) + end.log_density(inverse_temperature)
    return Proposal(end, momentum, final, change, acceptance_of(change), energy)


def metropolis(start: Point, end: Point, acceptance: Tensor, generator: Generator) -> tuple[Point, Tensor]:
    """Move each chain from start to end with its probability ``(group, chain)``; return where it is, and who moved."""
    draw = torch.rand(acceptance.shape, generator=generator, device=acceptance.device)
    accepted = draw < acceptance
    wide = accepted.unsqueeze(-1)
    return (
        Point(
            torch.where(wide, end.position, start.position),
            torch.where(wide, end.gradient, start.gradient),
            torch.where(accepted, end.log_prior, start.log_prior),
            torch.where(accepted, end.log_likelihood, start.log_likelihood),
        ),
        accepted,
    )


def acceptance_of(change: Tensor) -> Tensor:
    """Return the probability of a proposal from the change in log density; what is no number is never accepted."""
    return torch.where(change.isfinite(), change, -torch.inf).clamp(max=0).exp()


def first_step_size(
    density: Density,
    start: Point,
    scales: Preconditioner,
    generator: Generator,
    inverse_temperature: float | Tensor = 1.0,
    guess: float = 1.0,
) -> Tensor:
    """Halve a guess until one step is accepted well enough by the groups' median chain: ``(group,)``."""
    step = torch.full((start.position.shape[0],), guess, device=start.position.device).to(start.position)
    ones = [1] * len(step)
    for _ in range(30):
        proposal = trajectory(density, start, step, ones, scales, generator, inverse_temperature)
        poor = proposal.acceptance.median(1).values < 0.5
        if not poor.any():
            break
        step = torch.where(poor, step / 2, step)
    return step


def _leapfrog(density, start, momentum, step, steps, scales, inverse_temperature, which):
    """Take ``steps`` leapfrog steps; neighbouring half steps of the momentum are one."""
    position, gradient = start.position, start.gradient
    momentum = momentum + 0.5 * step * scales.pull_back(gradient)
    for index in range(steps):
        position = position + step * scales.forward(momentum)
        log_prior, log_likelihood, gradient = density.gradient(position, inverse_temperature, which)
        share = step if index < steps - 1 else 0.5 * step
        momentum = momentum + share * scales.pull_back(gradient)
    return Point(position, gradient, log_prior, log_likelihood), momentum


def _ragged(density, start, momentum, step, steps, scales, inverse_temperature):
    """Take a number of steps of its own in each group, evaluating only the groups still under way."""
    order = sorted(range(len(steps)), key=lambda group: -steps[group])
    position, gradient = start.position.clone(), start.gradient.clone()
    log_prior, log_likelihood = start.log_prior.clone(), start.log_likelihood.clone()
    momentum = momentum + 0.5 * step * scales.pull_back(gradient)
    active = len(order)
    which = None
    for index in range(steps[order[0]]):
        while steps[order[active - 1]] <= index:
            active -= 1
            which = None
        if which is None:
            which = torch.tensor(sorted(order[:active]), device=position.device)
            last = torch.tensor([steps[group] for group in which.tolist()], device=position.device)
            part = scales.some(which)
            some_step = step[which]
            beta = (
                inverse_temperature[which] if isinstance(inverse_temperature, Tensor) else inverse_temperature
            )
        moved = position[which] + some_step * part.forward(momentum[which])
        prior, likelihood, slope = density.gradient(moved, beta, which)
        share = torch.where(last == index + 1, 0.5, 1.0).reshape(-1, 1, 1).to(some_step) * some_step
        momentum[which] += share * part.pull_back(slope)
        position[which], gradient[which] = moved, slope
        log_prior[which], log_likelihood[which] = prior, likelihood
    return Point(position, gradient, log_prior, log_likelihood), momentum
