"""The latents of a model that has an order as a density: where particle methods move, a path at a time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.models.densities.sequential import SequentialModel

__all__ = ["SequentialPaths"]


class SequentialPaths(Density):
    """Paths of a model in its order; a position is a path, and what is counted are steps of single particles.

    Parameters
    ----------
    problem
        What the paths are of.
    model
        Its latents in their order.
    route
        How they are computed, in words.

    Raises
    ------
    ValueError
        For a problem that has no order.

    Examples
    --------
    >>> import torch
    >>> from posterior_inpainting.models import PixelConstrained
    >>> from posterior_inpainting.models.networks import GatedPixelCNN
    >>> model = PixelConstrained(GatedPixelCNN((1, 4, 4), outputs=2, features=4, layers=2))
    >>> problem = Problem(model, (torch.ones(1, 4, 4), torch.arange(4).expand(1, 4, 4) > 1))
    >>> SequentialPaths.of(problem).dim
    8
    """

    def __init__(self, problem: Problem, model: SequentialModel, route: str = "steps in order"):
        self.problem, self.model, self.dim, self.route = problem, model, model.dim, route
        self.gradients, self.groups = 0, None
        self.like = torch.empty(0, device=model.device)
        self.shapes: Mapping[str, torch.Size] = {"path": torch.Size([model.dim])}

    @classmethod
    def of(cls, problem: Problem) -> SequentialPaths:
        """Return the paths of a problem whose model declares its order."""
        model = problem.abilities.sequential(*problem.args, **problem.kwargs)
        if model is None:
            name = type(problem.model).__name__
            raise ValueError(
                f"{name} does not say in which order its latents come; use ChEES() or another method"
            )
        return cls(problem, model)

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return the sites of paths."""
        return self.model.latents(position)

    def keep(self, position: Tensor) -> dict[str, Tensor]:
        """Return what is kept of paths: completions where these are their sites, else what the model says."""
        latents = self.constrain(position)
        return latents if "completion" in latents else self.problem.abilities.kept(latents)

    def unconstrain(self, latents: Mapping[str, Tensor], batch: int = 0) -> Tensor:
        """Refuse: a run begins with particles of its own."""
        raise ValueError(
            "a path begins anew with its particles, and cannot go on from draws; ask for more draws"
        )

    def draw_prior(self, count: int) -> Tensor:
        """Refuse, as for :meth:`unconstrain`."""
        raise NotImplementedError("particles begin with no path")

    def __call__(self, position: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Refuse: paths are weighed as they grow."""
        raise NotImplementedError("paths are weighed step by step")

    def gradient(
        self, position: Tensor, inverse_temperature: float | Tensor = 1.0, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refuse, as for a call."""
        raise NotImplementedError("paths are weighed step by step")
