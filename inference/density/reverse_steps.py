r"""The discrete reverse chain of a prior that denoises, step by step, for particles.

Particles go down the chain, guided as in the twisted diffusion sampler of Wu, Trippe, Naesseth, Blei & Cunningham 2023,
by the twist

.. math:: \psi_t(x_t) = N\big(\tilde x; D(x_t)_{seen}, s^2 + v(x_t)\big)

whose gradient pulls the mean of each step; the likelihood of what is seen comes with the last one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posterior_inpainting.inference.density.denoised_images import DenoisedImages
from posterior_inpainting.models.densities.reverse_diffusion import noise_levels
from posterior_inpainting.models.densities.sequential import Extended, SequentialModel

__all__ = ["ReverseSteps"]


@dataclass(frozen=True)
class Descending:
    """Law of the next step of particles ``(count, dim)``, without and with the pull of the twist on its mean."""

    mean: Tensor
    pull: Tensor
    spread: Tensor


class ReverseSteps(SequentialModel):
    """Images from the highest noise level to none, a step of the reverse diffusion each.

    Parameters
    ----------
    density
        Likelihood and denoiser, with the number of steps.

    Examples
    --------
    >>> from posterior_inpainting.inference.contract import Problem
    >>> from posterior_inpainting.models import MixtureField, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = MixtureField.fit(images, components=2)
    >>> problem = Problem(model, (images[0], observations.half(model.image_shape, hide="bottom")))
    >>> ReverseSteps(DenoisedImages(problem, steps=4)).sizes
    (64, 64, 64, 64, 64)
    """

    rest_is_cheap = True

    def __init__(self, density: DenoisedImages):
        reverse = density.reverse
        assert density.steps is not None
        self.density, self.device = density, density.like.device
        self.levels = noise_levels(density.steps, reverse.highest, reverse.lowest).to(density.like)
        self.sizes = (density.dim,) * len(self.levels)

    def start(self, count: int) -> Extended:
        """Return particles whose first step is noise alone."""
        reverse = self.density.reverse
        nothing = torch.zeros(count, self.density.dim, device=self.device)
        spread = nothing + math.hypot(reverse.highest, reverse.spread)
        zeros = nothing.new_zeros(count)
        return Extended(Descending(nothing + reverse.centre, nothing, spread), zeros, zeros)

    def propose(self, state: Descending, step: int) -> Tensor:
        """Draw from the step's law, its mean pulled towards what is seen."""
        return state.mean + state.pull + state.spread * torch.randn_like(state.mean)

    def extend(self, state: Descending, step: int, value: Tensor) -> Extended:
        """Weigh values by what the pull has changed, and find the law of the next step."""
        increment = _log_normal(value, state.mean, state.spread) - _log_normal(
            value, state.mean + state.pull, state.spread
        )
        if step + 1 == len(self.levels):
            return Extended(state, increment + self._log_likelihood(value), torch.zeros_like(increment))
        following, twist = self._judged(value, self.levels[step], self.levels[step + 1])
        return Extended(following, increment, twist)

    def select(self, state: Descending, index: Tensor) -> Descending:
        """Return the particles of an index."""
        return Descending(state.mean[index], state.pull[index], state.spread[index])

    def log_rest(self, state: Descending, step: int, rest: Tensor) -> Tensor:
        """Return how likely each particle's next step is the rest's first: the chain remembers nothing else."""
        return _log_normal(rest[:, : self.density.dim], state.mean, state.spread)

    def latents(self, path: Tensor) -> dict[str, Tensor]:
        """Return the images at the end, site ``completion``."""
        return self.density.constrain(path[..., -self.density.dim :])

    def statistics(self, path: Tensor) -> dict[str, Tensor]:
        """Return the log density of the seen pixels given the images."""
        return {"log_likelihood_of_seen": self._log_likelihood(path[..., -self.density.dim :])}

    def _log_likelihood(self, value: Tensor) -> Tensor:
        return self.density.log_likelihood(value.unsqueeze(0)).squeeze(0)

    def _judged(self, value: Tensor, level: Tensor, following: Tensor) -> tuple[Descending, Tensor]:
        """Return the law of the next step, and the twist."""
        density, reverse = self.density, self.density.reverse
        target, seen = density.target[0], density.seen[0]
        with torch.enable_grad():
            images = value.detach().unflatten(-1, reverse.image_shape).requires_grad_()
            mean, variance = (part.flatten(-3) for part in reverse.denoised(images, level))
            doubt = reverse.noise**2 + variance.detach()
            apart = torch.where(seen, target - mean, 0.0)
            log_normal = 0.5 * (apart.square() / doubt + torch.where(seen, doubt.log(), 0.0))
            twist = -log_normal.sum(-1)
            (slope,) = torch.autograd.grad(twist.sum(), images)
        mean, twist = mean.detach(), twist.detach()
        kept = (following / level).square()
        variance = following.square() * (1 - kept) + (1 - kept).square() * variance.detach()
        pull = (1 - kept) * level.square() * slope.flatten(-3)
        return Descending(mean + kept * (value - mean), pull, variance.sqrt()), twist


def _log_normal(value: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Return log densities, summed over pixels, up to a constant."""
    return -(0.5 * ((value - mean) / spread).square() + spread.log()).sum(-1)
