r"""Elliptical slice sampling as a kernel, for the benchmarks: weights whose prior is standard normal.

Murray, Adams & MacKay 2010, *Elliptical Slice Sampling*. From a weight vector w and a draw v of the prior, the next one
is :math:`w \cos\theta + v \sin\theta` with an angle under which the log likelihood exceeds
:math:`\ell(w) + \log u`; a bracket around it shrinks towards w until one is found. No step size, no gradient, and
nothing is refused; what it costs is seen in how small the angles become.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.kernel import Kernel
from posterior_inpainting.inference.methods.trajectory import Point

__all__ = ["EllipticalSlice"]


@dataclass(frozen=True)
class State:
    """What the next iteration needs; the point's gradient is not used, and zero."""

    point: Point
    iteration: int = 0


@dataclass(frozen=True)
class EllipticalSlice(Kernel):
    """Moves along ellipses through draws of the prior; for densities whose latents are standard normal a priori.

    Parameters
    ----------
    warmup
        Iterations that are thrown away.
    thin
        Moves for each kept draw.
    """

    warmup: int = 100
    thin: int = 10

    @property
    def runs_together(self) -> bool:
        """Not: chains shrink their brackets by themselves."""
        return False

    def start(self, density: Density, position: Tensor, generator: Generator) -> State:
        """Begin at positions ``(1, chain, dim)``."""
        with torch.no_grad():
            log_prior, log_likelihood = density(position)
        return State(Point(position, torch.zeros_like(position), log_prior, log_likelihood))

    def step(self, density: Density, state: State, generator: Generator) -> tuple[State, dict[str, Tensor]]:
        """Make ``thin`` moves of every chain."""
        point, angles = state.point, torch.zeros_like(state.point.log_prior)
        for _ in range(self.thin):
            point, angle = moved(density, point, generator)
            angles = angles + angle.abs() / self.thin
        info = {"lp": point.log_density(), "angle": angles}
        return State(point, state.iteration + 1), info


def moved(density: Density, start: Point, generator: Generator) -> tuple[Point, Tensor]:
    """Move every chain once; return where it is, and by which angle ``(1, chain)`` it went."""

    def uniform() -> Tensor:
        """Draw a number in (0, 1) for each chain."""
        return torch.rand(start.log_prior.shape, generator=generator).to(start.position)

    other = torch.randn(start.position.shape, generator=generator).to(start.position)
    level = level_under(start.log_likelihood, uniform())
    angle = 2 * math.pi * uniform()
    low, high = angle - 2 * math.pi, angle.clone()
    position, prior, likelihood = (
        start.position.clone(),
        start.log_prior.clone(),
        start.log_likelihood.clone(),
    )
    open_ = torch.ones_like(level, dtype=torch.bool)
    while open_.any():
        turned = angle[open_].unsqueeze(-1)
        proposal = start.position[open_] * turned.cos() + other[open_] * turned.sin()
        density.count(len(proposal))
        with torch.no_grad():
            new_prior, new_likelihood = (part[0] for part in density(proposal.unsqueeze(0)))
        position[open_], prior[open_], likelihood[open_] = proposal, new_prior, new_likelihood
        open_ = likelihood < level  # at angle zero the two may be equal in single precision
        low, high = torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)
        angle = torch.where(open_, low + (high - low) * uniform(), angle)
    return Point(position, start.gradient, prior, likelihood), angle


def level_under(log_likelihood: Tensor, uniform: Tensor) -> Tensor:
    """Return the level that the next log likelihood has to exceed: that of a slice drawn under the likelihood."""
    return log_likelihood + uniform.log()
