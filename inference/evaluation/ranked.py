"""What of a draw calibration ranks: the latents that are kept, or the completion where a model keeps that alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Unit
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.tracing import latent_sites
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.shapes import Image

__all__ = ["Ranked", "RankedCompletions", "RankedLatents", "ranked", "simulate"]


def simulate(model: ImageModel) -> tuple[Image, dict[str, Tensor]]:
    """Draw an image and the latents behind it.

    Raises ``ValueError`` for a model that weighs what it draws by factors: unweighted, they are draws of another law.

    >>> from posterior_inpainting.models import LatentCode, pretrained
    >>> image, latents = simulate(LatentCode(pretrained.load("digits-vae-2d")))
    >>> tuple(image.shape), list(latents)
    ((1, 8, 8), ['z'])
    """
    with torch.no_grad():
        trace = poutine.trace(model).get_trace()
    latents = {name: trace.nodes[name]["value"] for name in latent_sites(trace) if name != "image"}
    weights = [name for name, site in trace.nodes.items() if isinstance(site.get("fn"), Unit)]
    if weights:
        raise ValueError(
            f"{type(model).__name__} weighs its draws (factor {', '.join(weights)}), so that calling it draws no data "
            "of its own law; rank draws of a long chain of the prior instead"
        )
    return trace.nodes["image"]["value"], latents


class Ranked(ABC):
    """Points ``(..., dim)`` that stand for draws and truths, of several data sets ("groups") at once.

    Attributes
    ----------
    dim
        Numbers of a point.
    """

    dim: int

    @abstractmethod
    def names(self, latents: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return the names of the components that are ranked one by one, and of :meth:`densities`."""

    @abstractmethod
    def points(self, kept: Mapping[str, Tensor], batch: int) -> Tensor:
        """Return the points of what a run kept, with ``batch`` leading dimensions."""

    @abstractmethod
    def truth(self, latents: dict[str, Tensor]) -> Tensor:
        """Return the point of simulated latents."""

    @abstractmethod
    def kept(self, points: Tensor) -> dict[str, Tensor]:
        """Return what a run would have kept at points."""

    @abstractmethod
    def prior(self, groups: int, each: int) -> Tensor:
        """Return ``each`` draws of the prior for every data set, ``(group, each, dim)``."""

    @abstractmethod
    def densities(self, points: Tensor) -> Tensor:
        """Return data-dependent quantities at points ``(group, draw, dim)``, ``(group, draw, quantity)``."""

    @abstractmethod
    def components(self, points: Tensor) -> Tensor:
        """Return those numbers of points that are ranked one by one."""


class RankedLatents(Ranked):
    """Unconstrained latents, each number of them; log likelihood and log joint."""

    def __init__(self, problem: Problem, groups: int):
        self.density = Potential(problem, groups=groups)
        self.dim = self.density.dim

    def names(self, latents: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return the latents' names, with indices, and those of the two densities."""
        components = [
            f"{name}[{i}]" if value.numel() > 1 else name
            for name, value in latents.items()
            for i in range(value.numel())
        ]
        return (*components, "log likelihood", "log joint")

    def points(self, kept: Mapping[str, Tensor], batch: int) -> Tensor:
        """Return unconstrained positions.

        Raises ``ValueError`` where some of the latents were not kept.
        """
        if missing := set(self.density.shapes) - set(kept):
            raise ValueError(
                f"the draws keep {', '.join(kept)} and not {', '.join(sorted(missing))}; "
                "latents that are not kept cannot be ranked"
            )
        return self.density.unconstrain(kept, batch)

    def truth(self, latents: dict[str, Tensor]) -> Tensor:
        """Return the latents' position."""
        return self.density.unconstrain(latents)

    def kept(self, points: Tensor) -> dict[str, Tensor]:
        """Return the latents."""
        return self.density.constrain(points)

    def prior(self, groups: int, each: int) -> Tensor:
        """Draw from the prior."""
        return self.density.draw_prior(groups * each).reshape(groups, each, -1)

    def densities(self, points: Tensor) -> Tensor:
        """Return log likelihood and log joint."""
        prior, likelihood = self.density(points)
        return torch.stack([likelihood, prior + likelihood], -1)

    def components(self, points: Tensor) -> Tensor:
        """Return all of them."""
        return points


class RankedCompletions(Ranked):
    """Completions, flattened; their mean over the hidden pixels stands for single ones, and the log likelihood."""

    def __init__(self, problem: Problem):
        self.model: Any = problem.model
        self.images, self.masks = problem.args
        self.dim = math.prod(self.images.shape[1:])

    def names(self, latents: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return the mean's and the likelihood's: nothing else is known of a completion's density."""
        return ("mean of hidden pixels", "log likelihood")

    def points(self, kept: Mapping[str, Tensor], batch: int) -> Tensor:
        """Return completions."""
        return kept["completion"].flatten(-3)

    def truth(self, latents: dict[str, Tensor]) -> Tensor:
        """Return the completion that the model makes of the latents."""
        return self.points(self.model.kept(latents), 0)

    def kept(self, points: Tensor) -> dict[str, Tensor]:
        """Return completions as images."""
        return {"completion": points.unflatten(-1, self.model.image_shape)}

    def prior(self, groups: int, each: int) -> Tensor:
        """Draw from the prior, the same images for every data set: one may cost what many latents do."""
        drawn = torch.stack([self.truth(simulate(self.model)[1]) for _ in range(each)])
        return drawn.expand(groups, each, -1)

    def densities(self, points: Tensor) -> Tensor:
        """Return the log likelihood of the seen pixels."""
        law = self.model.law_of_kept(self.kept(points))
        scored = torch.where(self.masks.unsqueeze(1), law.log_prob(self.images.unsqueeze(1)), 0.0)
        return scored.flatten(2).sum(-1, keepdim=True)

    def components(self, points: Tensor) -> Tensor:
        """Return the mean over the hidden pixels, of which every data set has the same."""
        return points[..., ~self.masks[0].flatten()].mean(-1, keepdim=True)


def ranked(problem: Problem, groups: int, drawn: Draws) -> Ranked:
    """Return what is ranked of draws: completions where they were kept, else latents.

    Parameters
    ----------
    problem
        A model, with images and masks ``(group, channel, row, column)`` as its arguments.
    groups
        Number of data sets.
    drawn
        Of one of them.
    """
    return RankedCompletions(problem) if "completion" in drawn.latents else RankedLatents(problem, groups)
