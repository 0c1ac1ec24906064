"""Recipes of all bundled sets: how each was trained, measured and described, in one table and by one command."""

from __future__ import annotations

from pathlib import Path

from posterior_inpainting.inference.recipes.diffusion import DIFFUSION_RECIPES
from posterior_inpainting.inference.recipes.experts import EXPERT_RECIPES
from posterior_inpainting.inference.recipes.generators import GENERATOR_RECIPES
from posterior_inpainting.inference.recipes.geology import GEOLOGY_RECIPES
from posterior_inpainting.inference.recipes.pixels import PIXEL_RECIPES
from posterior_inpainting.inference.recipes.pluralistic import PLURALISTIC_RECIPES
from posterior_inpainting.inference.recipes.random_weights import RANDOM_WEIGHT_RECIPES
from posterior_inpainting.inference.recipes.recipe import Recipe
from posterior_inpainting.inference.recipes.train_recipe import train_recipe
from posterior_inpainting.inference.recipes.variational_autoencoders import AUTOENCODER_RECIPES

__all__ = ["RECIPES", "train_bundled", "train_recipe"]

#: Name of a bundled set -> what determines its training.
RECIPES: dict[str, Recipe] = {
    **AUTOENCODER_RECIPES,
    **DIFFUSION_RECIPES,
    **EXPERT_RECIPES,
    **RANDOM_WEIGHT_RECIPES,
    **GENERATOR_RECIPES,
    **PIXEL_RECIPES,
    **PLURALISTIC_RECIPES,
    **GEOLOGY_RECIPES,
}


def train_bundled(
    name: str,
    out: str | Path,
    root: str | Path | None = None,
    progress: bool = True,
    checkpoints: str | Path | None = None,
    device: str = "cpu",
) -> str:
    """Train what is bundled under a name by its recipe, write its files and its card, and return the card.

    Parameters
    ----------
    name
        A key of ``RECIPES``.
    out, root, progress, checkpoints, device
        As for :func:`train_recipe`.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown bundled set {name!r}; there are recipes for {', '.join(RECIPES)}")
    return train_recipe(name, RECIPES[name], out, root, progress, checkpoints, device)
