"""`train_recipe`: train a bundled set by its recipe, measure it, and write weights, digests and card."""

from __future__ import annotations

import time
from pathlib import Path

from posterior_inpainting.inference.recipes.model_card import Minutes, card
from posterior_inpainting.inference.recipes.recipe import Recipe, Written
from posterior_inpainting.inference.training.checkpoints import checkpoints_in
from posterior_inpainting.models import pretrained

__all__ = ["train_recipe"]


def train_recipe(
    name: str,
    recipe: Recipe,
    out: str | Path,
    root: str | Path | None = None,
    progress: bool = True,
    checkpoints: str | Path | None = None,
) -> str:
    """Train by a recipe, write the networks, their digests and their card, and return the card.

    Parameters
    ----------
    name
        Name of the set, with which its files begin.
    recipe
        The recipe.
    out
        Folder for ``NAME.PART.safetensors``, ``NAME.md`` and ``SHA256SUMS``.
    root
        Folder of the data set, where it is not found by itself.
    progress
        Whether to show progress bars.
    checkpoints
        Folder in which trainings by minibatches are kept epoch by epoch, in one of their own under the set's name:
        killed, the same call goes on there. A game of two networks begins anew.
    """
    written = Written(Path(out), name)
    wall, processor = time.perf_counter(), time.process_time()
    data = recipe.data(root)
    with checkpoints_in(None if checkpoints is None else Path(checkpoints) / name) as kept:
        fitted = recipe.fit(data.images, progress)
    minutes = Minutes(
        (time.perf_counter() - wall + kept.wall) / 60,
        (time.process_time() - processor + kept.processor) / 60,
    )
    pretrained.save_parts(written.folder, written.stem, recipe.parts(fitted))
    text = card(
        name, recipe, recipe.describe(name, fitted, data), minutes, recipe.measure(fitted, data, written)
    )
    (written.folder / f"{name}.md").write_text(text)
    return text
