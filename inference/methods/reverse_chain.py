r"""Running the reverse diffusion once a draw: what samplers share that bend or condition each step of it."""

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
from posterior_inpainting.inference.results.convert import EXPECTED
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.densities.reverse_diffusion import noise_levels

__all__ = ["ReverseChain", "Step"]

#: The level, in spreads of pixels, at which a chain is asked for what it will end with on average.
_HALFWAY = 2.0
#: Images that are denoised at once, and their values: what a network makes of them on the way is larger.
_IMAGES, _VALUES = 512, 2**19


@dataclass(frozen=True)
class Step:
    """One step down: from level ``now`` to ``following``, for ``images`` ``(n, channel, row, column)``.

    ``target`` and ``seen`` are the observation's values and mask, one row or a row an image.
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


class ReverseChain(Method):
    """Abstract method that runs a reverse diffusion of ``steps`` steps once a draw, all of them independent."""

    steps: int
    draws_are = "independent"
    is_resumable = True
    usual_draws = 100
    usual_chains = 1

    @property
    def runs_together(self) -> bool:
        """Always: images of many posteriors are denoised side by side."""
        return True

    @abstractmethod
    def step(self, step: Step) -> Tensor:
        """Return the images at the following level."""

    def expected(self, step: Step) -> Tensor | None:
        """Return the mean of the completions that the chain may end with from here, if the method knows it."""
        return None

    def begin(self, noise: Tensor, target: Tensor, seen: Tensor) -> Tensor:
        """Return the images at the highest level: noise alone, unless a method says otherwise."""
        return noise

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run the chain once for each draw."""
        return self._run(DenoisedImages(problem, self.steps), plan)[0]

    def run_together(self, problem: Problem, groups: int, plan: Plan) -> list[Draws]:
        """Run the chain once for each draw of every posterior, in one batch."""
        return self._run(DenoisedImages(problem, self.steps, groups), plan)

    def _run(self, density: DenoisedImages, plan: Plan) -> list[Draws]:
        chains = _Chains(self, density, plan.chains * plan.draws, plan.streams)
        drive(chains, plan)
        groups = density.groups or 1
        position = chains.images.flatten(1).reshape(groups, plan.chains * plan.draws, -1)
        likelihood = density.log_likelihood(position)
        stats = {"log_likelihood_of_seen": likelihood}
        if chains.expected is not None:
            stats[EXPECTED] = chains.expected.reshape(groups, -1, *density.reverse.image_shape)
        attrs = {"gradient_evaluations": density.gradients // groups, "potential": density.route}
        shape = plan.chains, plan.draws
        return [
            Draws(
                density.keep(position[group].unflatten(0, shape)),
                {name: values[group].unflatten(0, shape) for name, values in stats.items()},
                self.draws_are,
                attrs,
            )
            for group in range(groups)
        ]


class _Chains(Process):
    """Many reverse chains side by side: a level a step, and nothing to be had before the last."""

    draws, commits_every = 0, 1
    expected: Tensor | None = None

    def __init__(self, method: ReverseChain, density: DenoisedImages, count: int, streams: Streams):
        self.method, self.density, self.streams = method, density, streams
        self.label, self.total = method.label, method.steps
        reverse = density.reverse
        self.levels = noise_levels(method.steps, reverse.highest, reverse.lowest).to(density.like)
        groups = density.groups or 1
        self.count = groups * count
        self.target, self.seen = (
            _rows(part, count).reshape(-1, *reverse.image_shape) for part in (density.target, density.seen)
        )

    @property
    def gradients(self) -> int:
        """Denoised images so far."""
        return self.density.gradients

    def start(self) -> None:
        """Draw noise alone."""
        reverse, device = self.density.reverse, self.density.like.device
        self._generator = self.streams.generator("noises", device=device)
        noise = torch.randn((self.count, *reverse.image_shape), generator=self._generator, device=device)
        noise = reverse.centre + math.hypot(reverse.highest, reverse.spread) * noise
        self.images = self.method.begin(noise, self.target, self.seen)

    def step(self) -> Row | None:
        """Go down one level."""
        now, following = self.levels[self.iteration], self.levels[self.iteration + 1]
        parts, means = [], []
        # What is left open there is the pixels' own noise: the large features are no longer those of chance, and not
        # yet those of one draw.
        halfway = following < _HALFWAY * self.density.reverse.spread <= now
        together = max(1, min(_IMAGES, _VALUES // self.images[0].numel()))
        for first in range(0, self.count, together):
            rows = slice(first, first + together)
            target, seen = (part if len(part) == 1 else part[rows] for part in (self.target, self.seen))
            one = Step(self.density, self.images[rows], now, following, target, seen, self._generator)
            parts.append(self.method.step(one).detach())
            if halfway and (mean := self.method.expected(one)) is not None:
                means.append(mean)
        self.images = torch.cat(parts)
        if means:
            self.expected = torch.cat(means)
        self.iteration += 1
        return None

    def state(self) -> dict[str, Any]:
        """Return the images and the generator's state."""
        return {
            "images": self.images,
            "expected": self.expected,
            "generator": self._generator.get_state(),
            "device": str(self._generator.device),
            "iteration": self.iteration,
            "gradients": self.gradients,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from stored images."""
        self.images, self.iteration, self.expected = state["images"], state["iteration"], state["expected"]
        self._generator = Generator(device=state["device"])
        self._generator.set_state(state["generator"])
        self.density.gradients = state["gradients"]
        spend(state["gradients"])


def _rows(part: Tensor, count: int) -> Tensor:
    """Return one row where all posteriors ``(group, 1, value)`` share it, else that of each, ``count`` times.

    A denoiser profits from one mask: what it makes of the noise levels alone is then the same for all images.
    """
    if bool((part == part[:1]).all()):
        return part[:1]
    return part.expand(-1, count, -1).flatten(0, 1)
