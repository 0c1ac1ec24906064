"""Samplers of the field that guide a reverse diffusion towards what is seen: what they share, and what they are not.

Each runs the reverse chain once a draw, from noise alone, and bends every step towards the seen pixels by a rule of its
own. None of them draws from the posterior, however many steps there are: Zach et al. 2026 and the benchmark BIPSDA
(2025) measure by how much, and so does ``tests/benchmarks/diffusion_posteriors.py``. They are here to be compared with.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.density.denoised_images import DenoisedImages
from posterior_inpainting.inference.methods.loop import Process, Row, drive
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.densities.reverse_diffusion import noise_levels

__all__ = ["GuidedDiffusion", "Step"]

#: Images that are denoised at once.
_BATCH = 512


@dataclass(frozen=True)
class Step:
    """One step down: from level ``now`` to ``following``, for ``images`` ``(n, channel, row, column)``.

    ``target`` and ``seen`` are the observation's values and mask, ``(1, channel, row, column)``.
    """

    density: DenoisedImages
    images: Tensor
    now: Tensor
    following: Tensor
    target: Tensor
    seen: Tensor
    generator: Generator

    def noise(self) -> Tensor:
        """Return standard normal noise, shaped as the images."""
        like = self.images
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype, device=like.device)

    def denoised(self, images: Tensor) -> Tensor:
        """Return the mean of whole images given noisy ones; counted."""
        self.density.count(len(images))
        return self.density.reverse.denoised(images, self.now)[0]

    def towards(self, mean: Tensor, images: Tensor) -> Tensor:
        """Draw images at the following level whose mean at level 0 is ``mean`` (Ho et al. 2020, in these levels)."""
        kept = (self.following / self.now).square()
        spread = (self.following.square() * (1 - kept)).sqrt()
        return mean + kept * (images - mean) + spread * self.noise()


class GuidedDiffusion(Method):
    """Abstract method that bends a reverse diffusion of ``steps`` steps; its draws are independent, and approximate."""

    steps: int
    draws_are = "independent"
    is_approximate = True
    is_resumable = True

    @abstractmethod
    def step(self, step: Step) -> Tensor:
        """Return the images at the following level."""

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run the guided chain once for each draw."""
        density = DenoisedImages(problem, self.steps)
        guided = _Guided(self, density, plan.chains * plan.draws, plan.streams)
        drive(guided, plan)
        position = guided.images.flatten(1).unflatten(0, (plan.chains, plan.draws))
        stats = {"log_likelihood_of_seen": density.log_likelihood(position)}
        attrs = {"gradient_evaluations": density.gradients, "potential": density.route}
        return Draws(density.keep(position), stats, self.draws_are, attrs)


class _Guided(Process):
    """Many guided chains side by side: a level a step, and nothing to be had before the last."""

    draws, commits_every = 0, 1

    def __init__(self, method: GuidedDiffusion, density: DenoisedImages, count: int, streams: Streams):
        self.method, self.density, self.count, self.streams = method, density, count, streams
        self.label, self.total = method.label, method.steps
        reverse = density.reverse
        self.levels = noise_levels(method.steps, reverse.highest, reverse.lowest).to(density.like)
        shape = (-1, *reverse.image_shape)
        self.target, self.seen = density.target.reshape(shape), density.seen.reshape(shape)

    @property
    def gradients(self) -> int:
        """Denoised images so far."""
        return self.density.gradients

    def start(self) -> None:
        """Draw noise alone."""
        reverse, device = self.density.reverse, self.density.like.device
        self._generator = self.streams.generator("noises", device=device)
        noise = torch.randn((self.count, *reverse.image_shape), generator=self._generator, device=device)
        self.images = reverse.centre + math.hypot(reverse.highest, reverse.spread) * noise

    def step(self) -> Row | None:
        """Go down one level."""
        now, following = self.levels[self.iteration], self.levels[self.iteration + 1]
        parts = []
        for images in self.images.split(_BATCH):
            one = Step(self.density, images, now, following, self.target, self.seen, self._generator)
            parts.append(self.method.step(one).detach())
        self.images = torch.cat(parts)
        self.iteration += 1
        return None

    def state(self) -> dict[str, Any]:
        """Return the images and the generator's state."""
        return {
            "images": self.images,
            "generator": self._generator.get_state(),
            "device": str(self._generator.device),
            "iteration": self.iteration,
            "gradients": self.gradients,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from stored images."""
        self.images, self.iteration = state["images"], state["iteration"]
        self._generator = Generator(device=state["device"])
        self._generator.set_state(state["generator"])
        self.density.gradients = state["gradients"]
        spend(state["gradients"])
