"""Simulated data sets: a truth and an image from the model, its posterior, and where the truth lies in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Method, Plan, Problem
from posterior_inpainting.inference.density.tracing import plate_nesting
from posterior_inpainting.inference.evaluation.scores import LEVELS, in_the_middle
from posterior_inpainting.inference.evaluation.thinning import independent_draws
from posterior_inpainting.inference.results.convert import pixels_of_draws
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["MOST", "Batch", "figures_of_batch"]

#: Draws ranked among: more would sharpen nothing, as the truths are few.
MOST = 127
_REFERENCES = 16


@dataclass(frozen=True)
class Batch:
    """Some simulated data sets.

    Parameters
    ----------
    whole, images
        ``(data set, channel, row, column)``, as simulated, and with hidden pixels at 0.
    latents
        Those behind each image.
    mask
        ``(channel, row, column)``, of all of them.
    """

    whole: Tensor
    images: Tensor
    latents: list[dict[str, Tensor]]
    mask: Mask

    @classmethod
    def of(cls, simulated: list[tuple[Image, dict[str, Tensor]]], mask: Mask) -> Batch:
        """Return the batch of images and the latents behind them."""
        whole = torch.stack([image for image, _ in simulated])
        images = torch.where(mask, whole, torch.zeros_like(whole))
        return cls(whole, images, [latents for _, latents in simulated], mask)

    def problem(self, model: ImageModel) -> Problem:
        """Return what all posteriors are of, drawn together."""
        return Problem(model, (self.images, self.mask.expand(self.images.shape)), guide=model.guide)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Observation:
        return Observation(self.images[index], self.mask, any_values=True)


def figures_of_batch(
    problem: Problem, method: Method, batch: Batch, chosen: Tensor, plan: Plan
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Draw and rank some data sets.

    Parameters
    ----------
    problem
        Of the batch.
    method
        As for ``calibrate``.
    batch
        The data sets.
    chosen
        Indices among the hidden pixels of those that are ranked.
    plan
        Draws and chains of each data set, and the batch's own streams.

    Returns
    -------
    tuple of str, list of dict
        Names of what is ranked before the pixels; one row a data set: ``ranks``, ``counts``, ``truth``, ``reference``,
        ``draws``, ``covered``, ``rhat``, each as a row of ``Calibration``.
    """
    space, found = independent_draws(problem, len(batch), method, plan, MOST)
    with torch.no_grad():
        truth = torch.stack([space.truth(latents) for latents in batch.latents])
    padded = truth.new_full((len(batch), MOST, space.dim), torch.nan)
    for row, one in zip(padded, found, strict=True):
        row[: len(one.position)] = one.position
    with plan.streams.seeded("references"), torch.no_grad():
        # The likeliest of a few prior draws depends on the data and not on the truth.
        candidates = space.prior(len(batch), _REFERENCES)
        best = space.densities(candidates)[..., 0].argmax(1)
        densities = space.densities(torch.cat([truth.unsqueeze(1), padded.nan_to_num(0.0)], 1)).cpu().numpy()
    random = plan.streams.numpy("ties")
    rows = []
    for i, one in enumerate(found):
        count = len(one.position)
        with plan.streams.seeded("pixel noise", i):
            hidden = _ranks_of_pixels(problem, batch, i, space.kept(one.position), random)
        u = (hidden + random.random(hidden.shape)) / (count + 1)
        drawn, true = (space.components(points).cpu().numpy() for points in (one.position, truth[i]))
        ranks = (
            _rank(drawn, true, random),
            _rank(densities[i, 1 : 1 + count], densities[i, 0], random),
            hidden[chosen],
        )
        rows.append(
            {
                "ranks": np.concatenate(ranks),
                "counts": count,
                "truth": truth[i].cpu().numpy(),
                "reference": candidates[i, best[i]].cpu().numpy(),
                "draws": padded[i].cpu().numpy(),
                "covered": np.array([in_the_middle(u, level).mean() for level in LEVELS]),
                "rhat": one.rhat,
            }
        )
    return space.names(batch.latents[0]), rows


def _ranks_of_pixels(
    problem: Problem, batch: Batch, index: int, latents: dict[str, Tensor], random: np.random.Generator
) -> np.ndarray:
    """Predict the hidden pixels of one data set from draws of its latents; return the ranks of the true ones."""
    seen = batch[index]
    one = replace(problem, args=(seen.image, batch.mask))
    _, predicted, _ = pixels_of_draws(latents, one, seen, plate_nesting(one))
    hidden = ~batch.mask
    return _rank(predicted[:, hidden].cpu().numpy(), batch.whole[index][hidden].cpu().numpy(), random)


def _rank(draws: np.ndarray, truth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws ``(draw, quantity)`` below the truth ``(quantity,)``, ties broken at random."""
    ties = (draws == truth).sum(0)
    return (draws < truth).sum(0) + np.floor(random.random(ties.shape) * (ties + 1)).astype(int)
