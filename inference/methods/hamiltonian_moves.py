r"""Hamiltonian moves of a cloud of particles, until they have forgotten where they were.

The step size is learnt for a whole replicate, but near the prior a cloud spans places of very different curvature: at
one step size for all, the particles in the narrow ones may never move, and the evidence be low in every replicate
alike, which their spread cannot tell. Each move of each particle therefore draws a step size of its own about the
replicate's,

.. math:: \epsilon_i = \epsilon\, e^{0.7 u_i}, \qquad u_i \sim N(0, 1),

whatever the particle's place, so that moves leave the tempered posterior as it is (Neal 2011, section
5.4.2, on step sizes that are drawn).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.starts_of_finite_density import draw_starts
from posterior_inpainting.inference.methods.adaptation import Moments, Preconditioner
from posterior_inpainting.inference.methods.annealing import Cloud, Moves, check_share
from posterior_inpainting.inference.methods.trajectory import evaluate, metropolis, trajectory
from posterior_inpainting.inference.streams import Streams

__all__ = ["AnnealingSettings", "HamiltonianMoves"]

#: Standard deviation of the log of particles' step sizes about the replicate's.
_JITTER = 0.7


@dataclass(frozen=True)
class AnnealingSettings:
    """How a cloud is cooled and moved; the fields are those of ``TemperedSMC``."""

    share: float = 0.7
    steps: int = 4
    correlation: float = 0.15
    max_moves: int = 40
    target_acceptance: float = 0.8

    def __post_init__(self):
        check_share(self.share)
        if self.steps < 1 or self.max_moves < 1:
            raise ValueError(f"steps={self.steps}, max_moves={self.max_moves}; expected at least 1 of each")


class HamiltonianMoves(Moves):
    """Leapfrog trajectories with scales of the clouds themselves, as many as it takes to forget the start."""

    first_tuned = 0.5  # the step size

    def __init__(self, settings: AnnealingSettings, density: Density):
        self.settings, self.density = settings, density

    def start(self, count: int, streams: Streams) -> tuple[Tensor, Tensor]:
        """Return draws of the prior at which the density is finite, as many for each posterior."""
        position = draw_starts(self.density, count // (self.density.groups or 1), streams)
        with torch.no_grad():
            log_likelihood = self.density(position)[1]
        return position.flatten(0, 1), log_likelihood.flatten(0, 1)

    def move(self, cloud: Cloud, generator: Generator) -> Cloud:
        """Move every particle until it has forgotten where it was."""
        settings = self.settings
        beta = cloud.inverse_temperature.unsqueeze(1)
        scales = self._scales(cloud.position)
        point = evaluate(self.density, cloud.position, beta)
        origin, step = point.position, cloud.tuned
        most, taken = settings.max_moves, 0
        while taken < most:
            taken += 1
            spread = float(torch.rand((), generator=generator, device=origin.device))
            steps = [max(1, round(settings.steps * (0.5 + 0.5 * spread)))] * len(step)
            noise = torch.randn(point.log_prior.shape, generator=generator, device=step.device).to(step)
            own = step.unsqueeze(1) * (_JITTER * noise).exp()
            proposal = trajectory(self.density, point, own, steps, scales, generator, beta)
            point, _ = metropolis(point, proposal.point, proposal.acceptance, generator)
            # Between moves, so that each move on its own leaves the tempered posterior as it is.
            step = (step * (0.5 * (proposal.acceptance.mean(1) - settings.target_acceptance)).exp()).clamp(
                1e-6, 2.0
            )
            if (
                most == settings.max_moves
                and float(_correlation(origin, point.position).max()) < settings.correlation
            ):
                # Twice as many again: what correlation is left adds up over temperatures, in all replicates alike.
                most = min(3 * taken, settings.max_moves)
        return replace(cloud, position=point.position, log_likelihood=point.log_likelihood, tuned=step)

    def _scales(self, position: Tensor) -> Preconditioner:
        """Return the scales of each replicate: those of all particles, where they are of one posterior."""
        if not self.share_a_posterior:
            return Moments.start(position).update(position).scales()
        together = position.flatten(0, 1).unsqueeze(0)
        factor = Moments.start(together).update(together).scales().factor
        return Preconditioner(factor.expand(len(position), *factor.shape[1:]))


def _correlation(origin: Tensor, now: Tensor) -> Tensor:
    """Root mean square correlation over particles of each coordinate, and of its square, with its start.

    The squares too, because a move to the mirror image forgets nothing of the distance; ``(replicate,)``.
    """

    def standard(position: Tensor) -> Tensor:
        """Return centred positions and squares, scaled to 1."""
        centred = position - position.mean(1, keepdim=True)
        features = torch.cat([centred, centred.square() - centred.square().mean(1, keepdim=True)], -1)
        return features / features.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)

    return (standard(origin) * standard(now)).mean(1).square().mean(-1).sqrt()
