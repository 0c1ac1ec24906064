"""Recipes of everything that is bundled: how each was trained, measured and described, all in one command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from posterior_inpainting.inference.recipes.generators import GENERATOR_RECIPES, train_generator
from posterior_inpainting.inference.recipes.geology import GEOLOGY_RECIPES, train_geology
from posterior_inpainting.inference.recipes.pixels import PIXEL_RECIPES, train_pixels
from posterior_inpainting.inference.recipes.pluralistic import PLURALISTIC_RECIPES, train_pluralistic
from posterior_inpainting.inference.recipes.random_weights import WEIGHT_RECIPES, train_weights
from posterior_inpainting.inference.recipes.variational_autoencoders import RECIPES, train_prior

__all__ = ["TRAINERS", "train_bundled"]

#: Name of what is bundled -> what trains it, by the recipe of that name.
TRAINERS: dict[str, Callable[..., str]] = {
    **dict.fromkeys(RECIPES, train_prior),
    **dict.fromkeys(WEIGHT_RECIPES, train_weights),
    **dict.fromkeys(GENERATOR_RECIPES, train_generator),
    **dict.fromkeys(PIXEL_RECIPES, train_pixels),
    **dict.fromkeys(PLURALISTIC_RECIPES, train_pluralistic),
    **dict.fromkeys(GEOLOGY_RECIPES, train_geology),
}


def train_bundled(name: str, out: str | Path, root: str | Path | None = None, progress: bool = True) -> str:
    """Train what is bundled under a name by its recipe, write its files and its card, and return the card.

    Parameters
    ----------
    name
        A key of ``TRAINERS``.
    out
        Folder for ``NAME.PART.safetensors``, ``NAME.md`` and ``SHA256SUMS``.
    root
        Folder of the data set, where it is not found by itself.
    progress
        Whether to show progress bars.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in TRAINERS:
        raise ValueError(f"unknown prior {name!r}; there are recipes for {', '.join(TRAINERS)}")
    return TRAINERS[name](name, out, root, progress)
