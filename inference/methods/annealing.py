r"""Carrying a cloud of particles from the prior to the posterior, one temperature after another.

Del Moral, Doucet & Jasra 2006, *Sequential Monte Carlo Samplers*; each temperature is the one at which the effective
sample size of the reweighting keeps a given share (Jasra et al. 2011), and after each resampling Hamiltonian moves go
on until particles have forgotten where they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.starts_of_finite_density import draw_starts
from posterior_inpainting.inference.methods.adaptation import Moments
from posterior_inpainting.inference.methods.loop import Process, Row
from posterior_inpainting.inference.methods.trajectory import Point, evaluate, metropolis, trajectory
from posterior_inpainting.inference.streams import Streams

__all__ = ["Annealing", "AnnealingSettings", "Cloud"]


@dataclass(frozen=True)
class AnnealingSettings:
    """How a cloud is cooled; the fields are those of ``TemperedSMC``."""

    share: float = 0.7
    steps: int = 8
    correlation: float = 0.15
    max_moves: int = 20
    target_acceptance: float = 0.8

    def __post_init__(self):
        if not 0 < self.share < 1 or self.steps < 1 or self.max_moves < 1:
            raise ValueError(
                f"share={self.share}, steps={self.steps}, max_moves={self.max_moves}; expected a share in "
                "(0, 1) and at least 1 of the others"
            )


@dataclass(frozen=True)
class Cloud:
    """Particles ``(replicate, particle, dim)`` and what each replicate ``(replicate,)`` has come to."""

    point: Point
    inverse_temperature: Tensor
    log_evidence: Tensor
    step_size: Tensor


class Annealing(Process):
    """A cloud on its way from prior to posterior: a temperature a step, and nothing kept before the last."""

    label = "tempering"
    total, draws, commits_every = None, 0, 1  # how many temperatures there will be is not known

    def __init__(
        self, settings: AnnealingSettings, density: Density, replicates: int, particles: int, streams: Streams
    ):
        self.settings, self.density, self.streams = settings, density, streams
        self.replicates, self.particles = replicates, particles

    @property
    def is_finished(self) -> bool:
        """Whether every replicate is at the posterior."""
        return bool((self.cloud.inverse_temperature >= 1).all())

    @property
    def gradients(self) -> int:
        """Gradient evaluations so far."""
        return self.density.gradients

    def start(self) -> None:
        """Draw every particle from the prior."""
        drawn = draw_starts(self.density, self.replicates * self.particles, self.streams)
        position = drawn.reshape(self.replicates, self.particles, -1)
        zeros = position.new_zeros(self.replicates)
        self._generator = self.streams.generator("momenta", device=position.device)
        self.cloud = Cloud(evaluate(self.density, position, 0.0), zeros, zeros, zeros + 0.5)

    def step(self) -> Row | None:
        """Go down to the next temperature of each replicate."""
        self.cloud = self._move(self._reweight(self.cloud))
        self.iteration += 1
        return None

    def state(self) -> dict[str, Any]:
        """Return the cloud and the generator's state."""
        return {
            "cloud": self.cloud,
            "generator": self._generator.get_state(),
            "device": str(self._generator.device),
            "iteration": self.iteration,
            "gradients": self.density.gradients,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a stored cloud."""
        self.cloud, self.iteration = state["cloud"], state["iteration"]
        self._generator = Generator(device=state["device"])
        self._generator.set_state(state["generator"])
        self.density.gradients = state["gradients"]
        spend(state["gradients"])

    def status(self) -> str:
        """Say how far the slowest replicate is on its way."""
        return f"{100 * float(self.cloud.inverse_temperature.min()):.3g} % of the likelihood"

    def _reweight(self, cloud: Cloud) -> Cloud:
        """Choose the next temperature of each replicate, reweight, count the evidence, resample."""
        likelihood, now = cloud.point.log_likelihood, cloud.inverse_temperature
        following = _next_temperature(likelihood, now, self.settings.share)
        log_weight = (following - now).unsqueeze(1) * likelihood
        count = likelihood.shape[1]
        evidence = cloud.log_evidence + log_weight.logsumexp(1) - math.log(count)
        chosen = _systematic(log_weight.softmax(1), self._generator)
        wide = chosen.unsqueeze(-1).expand_as(cloud.point.position)
        point = Point(
            cloud.point.position.gather(1, wide),
            cloud.point.gradient.gather(1, wide),
            cloud.point.log_prior.gather(1, chosen),
            likelihood.gather(1, chosen),
        )
        return Cloud(point, following, evidence, cloud.step_size)

    def _move(self, cloud: Cloud) -> Cloud:
        """Move every particle until it has forgotten where it was."""
        beta = cloud.inverse_temperature.unsqueeze(1)
        moments = Moments.start(cloud.point.position).update(cloud.point.position)
        scales = moments.scales()
        point = evaluate(self.density, cloud.point.position, beta)  # the gradient at the new temperature
        origin, step = point.position, cloud.step_size
        for _ in range(self.settings.max_moves):
            spread = float(torch.rand((), generator=self._generator, device=origin.device))
            steps = [max(1, round(self.settings.steps * (0.5 + 0.5 * spread)))] * len(step)
            proposal = trajectory(self.density, point, step, steps, scales, self._generator, beta)
            point, _ = metropolis(point, proposal.point, proposal.acceptance, self._generator)
            # Between moves, so that each move on its own leaves the tempered posterior as it is.
            step = (
                step * (0.5 * (proposal.acceptance.mean(1) - self.settings.target_acceptance)).exp()
            ).clamp(1e-6, 2.0)
            if float(_correlation(origin, point.position).max()) < self.settings.correlation:
                break
        return Cloud(point, cloud.inverse_temperature, cloud.log_evidence, step)


def _next_temperature(log_likelihood: Tensor, now: Tensor, share: float) -> Tensor:
    """Bisect, replicate by replicate, for the step at which the effective sample size is ``share`` of all."""
    low, high = torch.zeros_like(now), 1 - now

    def effective(step: Tensor) -> Tensor:
        weight = (step.unsqueeze(1) * log_likelihood).softmax(1)
        return 1 / weight.square().sum(1) / log_likelihood.shape[1]

    whole = effective(high) >= share
    for _ in range(50):
        middle = 0.5 * (low + high)
        enough = effective(middle) >= share
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    # `low` is 0 only where a single particle has all the weight: go on all the same, by the smallest step.
    return torch.where(whole, torch.ones_like(now), (now + low.clamp(min=1e-12)).clamp(max=1.0))


def _systematic(weight: Tensor, generator: Generator) -> Tensor:
    """Resample indices ``(replicate, particle)`` in proportion to weights, with one uniform a replicate."""
    replicates, count = weight.shape
    offset = torch.rand((replicates, 1), generator=generator, device=weight.device)
    places = (torch.arange(count, device=weight.device) + offset) / count
    return torch.searchsorted(weight.double().cumsum(1), places.double()).clamp(max=count - 1)


def _correlation(origin: Tensor, now: Tensor) -> Tensor:
    """Root mean square correlation over particles of each coordinate, and of its square, with its start.

    The squares too, because a move to the mirror image forgets nothing of the distance; ``(replicate,)``.
    """

    def standard(position: Tensor) -> Tensor:
        centred = position - position.mean(1, keepdim=True)
        features = torch.cat([centred, centred.square() - centred.square().mean(1, keepdim=True)], -1)
        return features / features.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)

    return (standard(origin) * standard(now)).mean(1).square().mean(-1).sqrt()
