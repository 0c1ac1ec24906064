"""Samplers of the field that guide a reverse diffusion towards what is seen: what they share, and what they are not.

Each runs the reverse chain once a draw, from noise alone, and bends every step towards the seen pixels by a rule of its
own. None of them draws from the posterior, however many steps there are: Zach et al. 2026 and the benchmark BIPSDA
(2025) measure by how much, and so does ``tests/benchmarks/diffusion_posteriors.py``. They are here to be compared with.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.denoised_images import DenoisedImages
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

    @abstractmethod
    def step(self, step: Step) -> Tensor:
        """Return the images at the following level."""

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run the guided chain once for each draw."""
        density = DenoisedImages(problem, self.steps)
        reverse = density.reverse
        shape = (-1, *reverse.image_shape)
        target, seen = density.target.reshape(shape), density.seen.reshape(shape)
        generator = plan.streams.generator("noises", device=density.like.device)
        levels = noise_levels(self.steps, reverse.highest, reverse.lowest).to(density.like)
        sizes = [len(part) for part in torch.arange(plan.draws * plan.chains).split(_BATCH)]
        done = []
        with tqdm(total=self.steps * len(sizes), desc=self.label, disable=not plan.progress) as bar:
            for size in sizes:
                start = torch.randn(
                    (size, *reverse.image_shape), generator=generator, device=density.like.device
                )
                images = reverse.centre + math.hypot(reverse.highest, reverse.spread) * start
                for now, following in itertools.pairwise(levels):
                    one = Step(density, images, now, following, target, seen, generator)
                    images = self.step(one).detach()
                    bar.update()
                done.append(images)
        position = torch.cat(done).flatten(1).unflatten(0, (plan.chains, plan.draws))
        stats = {"log_likelihood_of_seen": density.log_likelihood(position)}
        attrs = {"gradient_evaluations": density.gradients, "law": f"the law of {self.label}"}
        return Draws(density.keep(position), stats, self.draws_are, attrs)
