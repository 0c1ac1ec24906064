"""Recipes of fields of experts: score matching first, then maximum likelihood by Gibbs draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Plan, Problem
from posterior_inpainting.inference.methods.gibbs import Gibbs
from posterior_inpainting.inference.recipes.model_card import table
from posterior_inpainting.inference.recipes.patches import attribution, varied_patches
from posterior_inpainting.inference.recipes.recipe import Data, DatasetRecipe, Description, Written
from posterior_inpainting.inference.training.expert_losses import ExpertLikelihood, ExpertScoreMatching
from posterior_inpainting.inference.training.principal_filters import begin_with_principal_filters
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import ExpertField, pretrained
from posterior_inpainting.models.networks import Experts
from posterior_inpainting.models.shapes import Image

__all__ = ["EXPERT_RECIPES", "ExpertRecipe", "marginals"]


@dataclass(frozen=True, kw_only=True)
class ExpertRecipe(DatasetRecipe):
    """Everything that determines experts.

    Parameters
    ----------
    filters, side, levels, components, gain
        As for ``Experts``.
    patches
        Side and number of the patches that they are trained on.
    level
        Of the noise of ``ExpertScoreMatching``.
    chains, likelihood_epochs, likelihood_rate
        Draws that follow the parameters, passes with them, and their learning rate.
    """

    filters: int = 24
    side: int = 3
    levels: int = 3
    components: int = 8
    gain: float = 1 / 16
    patches: tuple[int, int] = (32, 10_000)
    level: float = 0.02
    chains: int = 16
    likelihood_epochs: int = 2
    likelihood_rate: float = 3e-3

    def experts(self, images: Image) -> Experts:
        """Make the experts to begin with: principal components of what the filters of a level see of images."""
        with self.streams.seeded("experts"):
            experts = Experts(
                images.shape[1],
                self.filters,
                self.side,
                self.levels,
                self.components,
                centre=round(float(images.mean()), 4),
                gain=self.gain,
            )
        begin_with_principal_filters(experts, images, self.level)
        return experts

    def fit(self, images: Image, progress: bool = True) -> Experts:
        """Train by score matching, then by likelihood."""
        patches = varied_patches(images, *self.patches, self.streams)
        experts = self.experts(patches)
        shape: Any = tuple(patches.shape[1:])
        model = ExpertField(experts, shape)
        schedule = self.schedule(progress)
        train(model, model.guide, patches, loss=ExpertScoreMatching(self.level), schedule=schedule)
        train(
            model,
            model.guide,
            patches,
            loss=ExpertLikelihood(self.chains),
            schedule=self.schedule(progress, self.likelihood_epochs),
            learning_rate=self.likelihood_rate,
            averaging=0.99,
        )
        return experts.requires_grad_(False).eval()

    def parts(self, fitted: Experts) -> dict[str, Any]:
        """Return the experts."""
        return {"experts": fitted}

    def measure(self, fitted: Experts, data: Data, written: Written) -> str:
        """Measure the saved experts, as a user will load them: what their filters say of photographs and of draws."""
        experts: Any = pretrained.load_part(written.folder, written.stem, "experts")
        photographs = varied_patches(data.held_out, self.patches[0], 500, self.streams.child("held out"))
        return table("responses of the filters", marginals(experts, photographs, self.streams.child("draws")))

    def describe(self, name: str, fitted: Experts, data: Data) -> Description:
        """Return the card's words."""
        weights = sum(p.numel() for p in fitted.parameters())
        side, count = self.patches
        return Description(
            about=(
                f"A field of experts of {weights:,} parameters, stored in half precision, for images of any size.\n"
                f'`ExpertField.load("{name}", shape)` makes the model of it, and `Gibbs()` draws.'
            ),
            trained_on=(
                f"the {len(data.images)} training images of `{self.dataset}`, of which {count:,} patches of\n"
                f"{side} x {side} pixels were cut, turned, mirrored and lit"
            ),
            measured_on=f"{len(data.held_out)} test images, parameters as saved",
            limits=_LIMITS,
            remark=attribution(),
        )


_LIMITS = """\
It knows how neighbouring pixels go together, and nothing that is wider than its filters: holes that are wider are
filled with what its edges say, and with texture of no direction."""


def marginals(experts: Experts, photographs: Image, streams: Any, warmup: int = 80) -> dict[str, str]:
    """Return how filters respond to photographs and to draws of the prior: spread and kurtosis, means over filters.

    Parameters
    ----------
    experts
        The experts.
    photographs
        ``(n, channel, row, column)``, of the size that draws will have.
    streams
        Of the draws.
    warmup
        Sweeps of the Gibbs sampler before the draws are taken.
    """
    shape: Any = tuple(photographs.shape[1:])
    model = ExpertField(experts, shape)
    nothing = torch.zeros(shape, dtype=torch.bool)
    problem = Problem(model, (torch.zeros(shape), nothing))
    drawn = Gibbs(warmup=warmup, thin=20).run(problem, Plan(2, 24, streams)).latents["completion"]
    found = {}
    with torch.no_grad():
        both = {"photographs": photographs, "draws": drawn.flatten(0, 1)}
        for level in range(experts.levels):
            for name, images in both.items():
                spread, kurtosis = _moments(experts.responses(images)[level])
                found[f"level {level}, {name}: standard deviation, kurtosis"] = (
                    f"{spread:.4f}, {kurtosis:.1f}"
                )
    return found


def _moments(responses: Tensor) -> tuple[float, float]:
    each = responses.transpose(0, 1).flatten(1)
    squares = (each - each.mean(1, keepdim=True)).square()
    variance = squares.mean(1)
    return float(variance.sqrt().mean()), float((squares.square().mean(1) / variance.square()).mean())


EXPERT_RECIPES: dict[str, ExpertRecipe] = {
    "photographs-experts": ExpertRecipe(
        dataset="photographs", held_back=60, epochs=3, batch_size=64, learning_rate=3e-2
    ),
}
