"""Simulated data sets: a truth and an image from the model, its posterior, and where the truth lies in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from posterior_inpainting.inference.contract import Method, Plan, Problem
from posterior_inpainting.inference.density.tracing import latent_sites, plate_nesting
from posterior_inpainting.inference.evaluation.scores import LEVELS
from posterior_inpainting.inference.evaluation.thinning import independent_draws
from posterior_inpainting.inference.results.convert import pixels_of_draws
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["MOST", "figures_of_batch", "simulate"]

#: Draws ranked among: more would sharpen nothing, as the truths are few.
MOST = 127
_REFERENCES = 16


def simulate(model: ImageModel) -> tuple[Image, dict[str, Tensor]]:
    """Draw an image and the latents behind it.

    >>> from posterior_inpainting.models import LatentCode, pretrained
    >>> image, latents = simulate(LatentCode(pretrained.load("digits-vae-2d")))
    >>> tuple(image.shape), list(latents)
    ((1, 8, 8), ['z'])
    """
    with torch.no_grad():
        trace = poutine.trace(model).get_trace()
    latents = {name: trace.nodes[name]["value"] for name in latent_sites(trace) if name != "image"}
    return trace.nodes["image"]["value"], latents


def figures_of_batch(
    model: ImageModel,
    method: Method,
    simulated: list[tuple[Image, dict[str, Tensor]]],
    mask: Mask,
    chosen: Tensor,
    plan: Plan,
) -> list[dict[str, Any]]:
    """Draw and rank some data sets.

    Parameters
    ----------
    model, method, mask
        As for ``calibrate``.
    simulated
        Images and the latents behind them.
    chosen
        Indices among the hidden pixels of those that are ranked.
    plan
        Draws and chains of each data set, and the batch's own streams.

    Returns
    -------
    list of dict
        One a data set: ``ranks``, ``counts``, ``truth``, ``reference``, ``draws``, ``covered``, ``rhat``,
        each as a row of ``Calibration``.
    """
    images = torch.where(mask, torch.stack([image for image, _ in simulated]), 0.0)
    together = Problem(model, (images, mask.expand(images.shape)), guide=model.guide)
    potential, found = independent_draws(together, len(images), method, plan, MOST)
    with plan.streams.seeded("ranking"):
        return _ranked(model, potential, found, simulated, images, mask, chosen, plan)


def _ranked(model, potential, found, simulated, images, mask, chosen, plan) -> list[dict[str, Any]]:
    random = plan.streams.numpy("ties")
    count, dim = len(images), potential.dim
    truth = torch.stack([potential.unconstrain(latents) for _, latents in simulated])
    padded = torch.full((count, MOST, dim), torch.nan)
    for row, one in zip(padded, found, strict=True):
        row[: len(one.position)] = one.position
    with torch.no_grad():
        # The likeliest of a few prior draws depends on the data and not on the truth.
        candidates = potential.draw_prior(count * _REFERENCES).reshape(count, _REFERENCES, dim)
        best = potential(candidates)[1].argmax(1)
        everything = torch.cat([truth.unsqueeze(1), padded.nan_to_num(0.0)], 1)
        prior, likelihood = potential(everything)
    densities = torch.stack([likelihood, prior + likelihood], -1).numpy()
    nesting = plate_nesting(Problem(model, (images[0], mask)))
    rows = []
    for i, ((image, _), one) in enumerate(zip(simulated, found, strict=True)):
        drawn, kept = one.position.numpy(), len(one.position)
        problem, seen = Problem(model, (images[i], mask)), Observation(images[i], mask)
        _, predicted, _ = pixels_of_draws(potential.constrain(one.position), problem, seen, nesting)
        hidden = _rank(predicted[:, ~mask].numpy(), image[~mask].numpy(), random)
        u = (hidden + random.random(hidden.shape)) / (kept + 1)
        ranks = (
            _rank(drawn, truth[i].numpy(), random),
            _rank(densities[i, 1 : 1 + kept], densities[i, 0], random),
            hidden[chosen],
        )
        rows.append(
            {
                "ranks": np.concatenate(ranks),
                "counts": kept,
                "truth": truth[i].numpy(),
                "reference": candidates[i, best[i]].numpy(),
                "draws": padded[i].numpy(),
                "covered": np.array([(np.abs(u - 0.5) <= level / 2).mean() for level in LEVELS]),
                "rhat": one.rhat,
            }
        )
    return rows


def _rank(draws: np.ndarray, truth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws ``(draw, quantity)`` below the truth ``(quantity,)``, ties broken at random."""
    ties = (draws == truth).sum(0)
    return (draws < truth).sum(0) + np.floor(random.random(ties.shape) * (ties + 1)).astype(int)
