r"""Carrying a cloud of particles from the prior to the posterior, one temperature after another.

Del Moral, Doucet & Jasra 2006, *Sequential Monte Carlo Samplers*; each temperature is the one at which the effective
sample size of the reweighting keeps a given share (Jasra et al. 2011). How particles move at a temperature is for
others to say: all that is asked of the moves is that they leave the tempered posterior as it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.loop import Process, Row
from posterior_inpainting.inference.streams import Streams

__all__ = ["Annealing", "Cloud", "Moves", "check_share"]


@dataclass(frozen=True)
class Cloud:
    """Particles ``(replicate, particle, dim)`` and what each replicate ``(replicate,)`` has come to.

    ``tuned`` is whatever the moves learn of each replicate, such as a step size.
    """

    position: Tensor
    log_likelihood: Tensor
    inverse_temperature: Tensor
    log_evidence: Tensor
    tuned: Tensor


class Moves(ABC):
    """What moves particles at a temperature.

    Attributes
    ----------
    density
        Whose gradients are counted.
    first_tuned
        What a replicate's ``tuned`` is before anything is learnt.
    """

    density: Density
    first_tuned: float = 0.0

    @property
    def share_a_posterior(self) -> bool:
        """Whether all replicates are of one posterior, and learn together."""
        return self.density.groups is None

    @abstractmethod
    def start(self, count: int, streams: Streams) -> tuple[Tensor, Tensor]:
        """Return ``count`` draws of the prior, ``(count, dim)``, and their log likelihoods ``(count,)``."""

    @abstractmethod
    def move(self, cloud: Cloud, generator: Generator) -> Cloud:
        """Return the cloud after moves that leave each replicate's tempered posterior as it is."""


def check_share(share: float) -> None:
    """Raise ``ValueError`` unless it is a share of the particles."""
    if not 0 < share < 1:
        raise ValueError(f"share={share}; expected a number in (0, 1)")


class Annealing(Process):
    """A cloud on its way from prior to posterior: a temperature a step, and nothing kept before the last.

    Parameters
    ----------
    moves
        How particles start and move.
    share
        Effective sample size that a reweighting keeps, as a share of the particles.
    replicates, particles
        Clouds side by side, and particles of each.
    streams
        Of all random numbers.
    """

    label = "tempering"
    total, draws, commits_every = None, 0, 1  # how many temperatures there will be is not known

    def __init__(self, moves: Moves, share: float, replicates: int, particles: int, streams: Streams):
        self.moves, self.share, self.streams = moves, share, streams
        self.replicates, self.particles = replicates, particles

    @property
    def is_finished(self) -> bool:
        """Whether every replicate is at the posterior."""
        return bool((self.cloud.inverse_temperature >= 1).all())

    @property
    def gradients(self) -> int:
        """Gradient evaluations so far."""
        return self.moves.density.gradients

    def start(self) -> None:
        """Draw every particle from the prior."""
        drawn, likelihood = self.moves.start(self.replicates * self.particles, self.streams)
        shape = self.replicates, self.particles
        zeros = drawn.new_zeros(self.replicates)
        self._generator = self.streams.generator("momenta", device=drawn.device)
        position = drawn.reshape(*shape, -1)
        self.cloud = Cloud(position, likelihood.reshape(shape), zeros, zeros, zeros + self.moves.first_tuned)

    def step(self) -> Row | None:
        """Go down to the next temperature of each replicate."""
        self.cloud = self.moves.move(self._reweight(self.cloud), self._generator)
        self.iteration += 1
        return None

    def state(self) -> dict[str, Any]:
        """Return the cloud and the generator's state."""
        return {
            "cloud": self.cloud,
            "generator": self._generator.get_state(),
            "device": str(self._generator.device),
            "iteration": self.iteration,
            "gradients": self.gradients,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a stored cloud."""
        self.cloud, self.iteration = state["cloud"], state["iteration"]
        self._generator = Generator(device=state["device"])
        self._generator.set_state(state["generator"])
        self.moves.density.gradients = state["gradients"]
        spend(state["gradients"])

    def status(self) -> str:
        """Say how far the slowest replicate is on its way."""
        return f"{100 * float(self.cloud.inverse_temperature.min()):.3g} % of the likelihood"

    def _reweight(self, cloud: Cloud) -> Cloud:
        """Choose the next temperature of each posterior, reweight, count the evidence, resample.

        What chooses its temperatures by its own particles has an evidence that is too large: of replicates of one
        posterior each has a small part in the choice.
        """
        likelihood, now = cloud.log_likelihood, cloud.inverse_temperature
        following = _next_temperature(likelihood, now, self.share, self.moves.share_a_posterior)
        log_weight = (following - now).unsqueeze(1) * likelihood
        evidence = cloud.log_evidence + log_weight.logsumexp(1) - math.log(likelihood.shape[1])
        chosen = _systematic(log_weight.softmax(1), self._generator)
        wide = chosen.unsqueeze(-1).expand_as(cloud.position)
        return replace(
            cloud,
            position=cloud.position.gather(1, wide),
            log_likelihood=likelihood.gather(1, chosen),
            inverse_temperature=following,
            log_evidence=evidence,
        )


def _next_temperature(log_likelihood: Tensor, now: Tensor, share: float, together: bool) -> Tensor:
    """Bisect for the step at which the effective size is ``share``: of each replicate, or of all on average."""
    low, high = torch.zeros_like(now), 1 - now

    def effective(step: Tensor) -> Tensor:
        """Return the effective share of the particles after a step."""
        weight = (step.unsqueeze(1) * log_likelihood).softmax(1)
        each = 1 / weight.square().sum(1) / log_likelihood.shape[1]
        return each.mean().expand_as(each) if together else each

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
