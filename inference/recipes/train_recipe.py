"""`train_recipe`: train a bundled set by its recipe, measure it, and write weights, digests and card."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from posterior_inpainting.inference.recipes.model_card import Minutes, card
from posterior_inpainting.inference.recipes.recipe import Recipe, Written
from posterior_inpainting.inference.training.checkpoints import checkpoints_in

__all__ = ["check_device", "train_recipe"]


def train_recipe(
    name: str,
    recipe: Recipe,
    out: str | Path,
    root: str | Path | None = None,
    progress: bool = True,
    checkpoints: str | Path | None = None,
    device: str = "cpu",
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
    device
        Where to train, such as ``"cuda"``.

    Raises
    ------
    ValueError
        For a device that is not there, or another than ``"cpu"`` where the recipe knows no other.
    """
    check_device(name, recipe, device)
    written = Written(Path(out), name)
    wall, processor = time.perf_counter(), time.process_time()
    data = recipe.data(root)
    with checkpoints_in(None if checkpoints is None else Path(checkpoints) / name) as kept:
        fitted = recipe.fit(data.images.to(device), progress)
        recipe.finish(fitted, data, progress)
    minutes = Minutes(
        (time.perf_counter() - wall + kept.wall) / 60,
        (time.process_time() - processor + kept.processor) / 60,
        device,
    )
    recipe.save(fitted, written)
    text = card(
        name, recipe, recipe.describe(name, fitted, data), minutes, recipe.measure(fitted, data, written)
    )
    (written.folder / f"{name}.md").write_text(text)
    return text


def check_device(name: str, recipe: Recipe, device: str) -> None:
    """Raise ``ValueError`` for a device that is not there, or that the recipe does not train on.

    >>> from posterior_inpainting.inference.recipes import RECIPES
    >>> check_device("channels-generator", RECIPES["channels-generator"], "cuda")
    Traceback (most recent call last):
    ValueError: 'channels-generator' is trained on a processor; device='cuda' is for others
    """
    if device == "cpu":
        return
    if not recipe.follows_images:
        raise ValueError(f"{name!r} is trained on a processor; device={device!r} is for others")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={device!r} cannot be used: {str(error).splitlines()[0]}") from None
