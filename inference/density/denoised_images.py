r"""Seen pixels under normal noise, for a prior that is known by its denoising alone: where noise-matched samplers move.

With noise of standard deviation s, the posterior at inverse temperature beta is :math:`p(x) N(\tilde x; x, \rho^2)`
with :math:`\rho = s / \sqrt\beta`, up to a constant. Give every pixel a noisy copy u, normal around x with that same
:math:`\rho`, and fix the copies of seen pixels to what was seen. Then

1. :math:`u_{hidden} \sim N(x_{hidden}, \rho^2)`, and
2. :math:`x \sim p(x \mid u)`, the reverse diffusion that starts at u from noise level :math:`\rho`,

leave p(x, u given what is seen) as it is, and so the posterior, exactly: the observation's noise *is* diffusion noise.
Split Gibbs samplers for diffusion priors (Xu & Chi 2024, *Provably Robust Score-Based Diffusion Posterior Sampling for
Plug-and-Play Image Reconstruction*; Vono, Dobigeon & Chainais 2019) add the noise of the copy to that of the
observation instead, and so draw from a posterior under more noise. What error is left is that of the reverse steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.models.shapes import seen_part

__all__ = ["DenoisedImages"]


class DenoisedImages(Density):
    """The likelihood of whole images and the moves that denoising makes; positions are images, flattened.

    Parameters
    ----------
    problem
        Of a model that says its ``reverse_diffusion``.
    steps
        Of the reverse diffusion from the highest noise level; a lower one takes fewer, in proportion to its logarithm.
        ``None`` for a prior that draws without steps.
    groups
        Number of images, ``None`` for a single one.

    Raises
    ------
    ValueError
        For a model that does not denoise, no step, or noise below the smallest level that the prior knows.

    Examples
    --------
    >>> from posterior_inpainting.models import MixtureField, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = MixtureField.fit(images, components=2)
    >>> mask = observations.half(model.image_shape, hide="bottom")
    >>> density = DenoisedImages(Problem(model, (images[0], mask)), steps=None)
    >>> generator = torch.Generator().manual_seed(0)
    >>> position = density.move(torch.zeros(1, 5, 64), torch.ones(1), generator)
    >>> tuple(position.shape), tuple(density.log_likelihood(position).shape)
    ((1, 5, 64), (1, 5))
    """

    route = "denoising"

    def __init__(self, problem: Problem, steps: int | None, groups: int | None = None):
        reverse = problem.abilities.reverse_diffusion()
        if reverse is None:
            raise ValueError(
                f"{type(problem.model).__name__} does not denoise; use ChEES() or another method of its own"
            )
        if steps is not None and steps < 1:
            raise ValueError(f"steps={steps}; expected at least 1")
        if reverse.noise < reverse.lowest:
            raise ValueError(
                f"noise={reverse.noise:g} is below the smallest level that the denoiser knows, {reverse.lowest:g}"
            )
        self.problem, self.reverse, self.steps, self.groups = problem, reverse, steps, groups
        self.gradients, self.dim = 0, math.prod(reverse.image_shape)
        self.shapes: Mapping[str, torch.Size] = {"completion": torch.Size(reverse.image_shape)}
        arguments = dict(zip(("image", "mask"), problem.args, strict=False)) | problem.kwargs
        self.like = torch.empty(0, device=reverse.device)
        image, mask = seen_part(arguments.get("image"), arguments.get("mask"), reverse.image_shape, self.like)
        # One row of pixels for each image, broadcast over its chains.
        self.target, self.seen = (part.reshape(-1, 1, self.dim) for part in (image, mask))
        self._constant = self.seen.sum(-1) * math.log(reverse.noise * math.sqrt(2 * math.pi))

    def log_likelihood(self, position: Tensor) -> Tensor:
        """Return the log density of the seen pixels ``(group, chain)`` given images ``(group, chain, dim)``."""
        residual = torch.where(self.seen, position - self.target, 0.0) / self.reverse.noise
        return -0.5 * residual.square().sum(-1) - self._constant

    def move(self, position: Tensor, inverse_temperature: Tensor, generator: Generator) -> Tensor:
        """Return images after one round of noise on hidden pixels and denoising of all.

        Parameters
        ----------
        position
            ``(group, chain, dim)``.
        inverse_temperature
            Of each group, or of each replica in its place, ``(group,)``.
        generator
            Of all noises.
        """
        level = self.levels(inverse_temperature).unsqueeze(-1)
        noise = torch.randn(position.shape, generator=generator, dtype=position.dtype, device=position.device)
        noisy = torch.where(self.seen, self.target, position + level.unsqueeze(-1) * noise)
        images = noisy.unflatten(-1, self.reverse.image_shape)
        return self._draw(images, level.expand(images.shape[:2]), generator)

    def levels(self, inverse_temperature: Tensor) -> Tensor:
        """Return the noise levels of inverse temperatures, the prior's highest where they are higher."""
        return (self.reverse.noise * inverse_temperature.clamp(min=1e-30).rsqrt()).clamp(
            max=self.reverse.highest
        )

    def draw_from_prior(self, count: int, generator: Generator) -> Tensor:
        """Return ``count`` images of the prior, ``(count, dim)``."""
        steps = self._steps(self.reverse.highest)
        self.count(count * (steps or 1))
        with torch.no_grad():
            return self.reverse.draw_prior(count, steps, generator).flatten(1)

    def draw_prior(self, count: int) -> Tensor:
        """Return ``count`` images of the prior, with numbers from torch's global generator."""
        seed = int(torch.randint(2**62, (), device="cpu"))
        return self.draw_from_prior(count, torch.Generator(device=self.like.device).manual_seed(seed))

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return the images."""
        return {"completion": position.unflatten(-1, self.reverse.image_shape)}

    def keep(self, position: Tensor) -> dict[str, Tensor]:
        """Return the images: there is no other latent."""
        return self.constrain(position)

    def unconstrain(self, latents: Mapping[str, Tensor], batch: int = 0) -> Tensor:
        """Return images, flattened."""
        return latents["completion"].flatten(-3)

    def __call__(self, position: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Refuse: the prior's density is not known."""
        raise NotImplementedError("the density of a prior that is known by its denoising is not known")

    def gradient(
        self, position: Tensor, inverse_temperature: float | Tensor = 1.0, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refuse, as for a call."""
        raise NotImplementedError("the density of a prior that is known by its denoising is not known")

    def _draw(self, images: Tensor, level: Tensor, generator: Generator) -> Tensor:
        steps = self._steps(float(level.max()))
        self.count(math.prod(level.shape) * (steps or 1))
        with torch.no_grad():
            return self.reverse.draw(images, level, steps, generator).flatten(-3)

    def _steps(self, level: float) -> int | None:
        """Return the steps from a level down to 0."""
        if self.steps is None:
            return None
        reverse: Any = self.reverse
        share = math.log(level / reverse.lowest) / math.log(reverse.highest / reverse.lowest)
        return max(1, math.ceil(self.steps * share))
