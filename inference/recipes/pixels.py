"""Recipes of the bundled pixel networks: how each pair was trained, measured and described."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.recipes.model_card import machine, settings_table
from posterior_inpainting.inference.training.pixel_cross_entropy import PixelCrossEntropy
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import datasets, observations, pretrained
from posterior_inpainting.models.autoregressive.pixel_laws import CategoricalPixels
from posterior_inpainting.models.networks.constraint import ConstraintNetwork
from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN
from posterior_inpainting.models.pixel_constrained import PixelConstrained

__all__ = ["PIXEL_RECIPES", "PixelRecipe", "bits", "fit", "fit_constraint", "train_pixels"]


@dataclass(frozen=True)
class PixelRecipe:
    """What a bundled pair of prior and constraint network was made from.

    Parameters
    ----------
    levels
        Of a pixel: 2 cuts images at one half.
    dataset, images
        A name that ``datasets.load`` knows, and how many of its first training images are used.
    features, layers, first, kernel
        As for ``GatedPixelCNN``.
    constraint_features
        As for ``ConstraintNetwork``.
    masks
        Size of the bank of ``random_masks``.
    epochs, batch_size, learning_rate, seed
        As for ``train``.
    """

    levels: int
    dataset: str = "fashion-mnist"
    images: int = 19_200
    features: int = 16
    layers: int = 4
    first: int = 7
    kernel: int = 5
    constraint_features: int = 20
    masks: int = 4096
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 4e-3
    seed: int = 0


PIXEL_RECIPES = {
    "fashion-mnist-pixels-binary": PixelRecipe(levels=2, images=60_000),
    "fashion-mnist-pixels-16": PixelRecipe(levels=16, images=60_000, features=20, epochs=8),
}


def train_pixels(name: str, out: str | Path, root: str | Path | None = None, progress: bool = True) -> str:
    """Train a bundled pair of pixel networks, write its files and card, and return the card.

    Parameters
    ----------
    name
        A key of ``PIXEL_RECIPES``.
    out, root, progress
        As for ``recipes.train_bundled``.
    """
    recipe = PIXEL_RECIPES[name]
    images, held_out = (datasets.load(recipe.dataset, split, root) for split in ("train", "test"))
    start = time.perf_counter(), time.process_time()
    model = fit(recipe, images, progress)
    minutes = (time.perf_counter() - start[0]) / 60, (time.process_time() - start[1]) / 60
    networks = {part: model._modules[part] for part in ("prior", "constraint")}
    pretrained.save_parts(out, f"{name}.", networks)
    text = _card(name, recipe, minutes, model, bits(model, held_out[:1000]))
    (Path(out) / f"{name}.md").write_text(text)
    return text


def fit(recipe: PixelRecipe, images: Tensor, progress: bool = True) -> PixelConstrained:
    """Train the prior network, then, beside it as it will be stored, the constraint network.

    Parameters
    ----------
    images
        ``(n, channel, row, column)`` in [0, 1].
    """
    shape = tuple(images.shape[1:])
    torch.manual_seed(recipe.seed)
    outputs = CategoricalPixels(recipe.levels).outputs(shape[0])
    prior = GatedPixelCNN(
        shape, outputs, recipe.features, recipe.layers, first=recipe.first, kernel=recipe.kernel
    )
    _train(recipe, PixelConstrained(prior), images, progress)
    return fit_constraint(recipe, prior, images, progress)


def fit_constraint(
    recipe: PixelRecipe, prior: Any, images: Tensor, progress: bool = True
) -> PixelConstrained:
    """Train a constraint network, from nothing, beside a prior network that stays as it is."""
    torch.manual_seed(recipe.seed + 1)
    constraint = ConstraintNetwork(prior.image_shape, prior.outputs, recipe.constraint_features)
    model = PixelConstrained(_as_stored(prior), constraint)
    masks = observations.random_masks(prior.image_shape, recipe.masks, seed=recipe.seed)
    _train(recipe, model, images, progress, masks)
    _as_stored(constraint)
    return model.eval()


def _train(
    recipe: PixelRecipe, model: PixelConstrained, images: Tensor, progress: bool, masks: Tensor | None = None
) -> None:
    model.to(memory_format=torch.channels_last)  # a third faster on a processor with wide registers
    train(
        model,
        model.guide,
        images[: recipe.images],
        masks=masks,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        loss=PixelCrossEntropy(low_precision=True),  # type: ignore[arg-type]
        seed=recipe.seed,
        progress=progress,
    )
    model.to(memory_format=torch.contiguous_format)


def _as_stored(network: Any) -> Any:
    """Round a network's weights to half precision, in place, and freeze it."""
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(value.half().float())
    return network.requires_grad_(False).eval()


def bits(model: PixelConstrained, images: Tensor) -> dict[str, tuple[float, float]]:
    """Return bits a hidden pixel under the overwritten prior and under the constrained law, mask by mask.

    Parameters
    ----------
    images
        Complete images ``(n, channel, row, column)``, cut to the model's levels.
    """
    shape = model.image_shape
    rows, columns = shape[1:]
    middle = rows * 2 // 7, columns * 2 // 7, rows * 3 // 7, columns * 3 // 7
    masks = {
        "nothing seen": torch.zeros(shape, dtype=torch.bool),
        "bottom half hidden": observations.half(shape, hide="bottom"),
        "70 % of pixels hidden": observations.scatter(shape, 0.3),
        "box in the middle hidden": observations.box(shape, *middle),
    }
    found = {}
    for name, mask in masks.items():
        total = torch.zeros(2)
        for batch in images.split(100):
            with torch.no_grad():
                entropies = model.cross_entropies(batch, mask.expand(batch.shape))
            both = torch.stack([entropies["prior"], entropies["constrained"]])
            total += both[:, :, ~mask].mean(-1).sum(-1)
        found[name] = tuple((total / len(images) / math.log(2)).tolist())
    return found


def _card(
    name: str,
    recipe: PixelRecipe,
    minutes: tuple[float, float],
    model: PixelConstrained,
    figures: dict[str, tuple[float, float]],
) -> str:
    sizes = {
        part: sum(p.numel() for p in model._modules[part].parameters())  # type: ignore[union-attr]
        for part in ("prior", "constraint")
    }
    measured = "\n".join(f"| {mask} | {prior:.4f} | {both:.4f} |" for mask, (prior, both) in figures.items())
    lattice = "pixels cut at one half" if recipe.levels == 2 else f"pixels of {recipe.levels} levels"
    return f"""# {name}

A gated PixelCNN ({sizes["prior"]:,} weights) and a constraint network ({sizes["constraint"]:,}) on {lattice};
stored in half precision. `PixelConstrained.load("{name}")` makes the model of them.

Trained on the first {recipe.images} training images of `{recipe.dataset}` with

    posterior-inpainting train {name} --out DIR

in {minutes[0]:.1f} minutes ({minutes[1]:.1f} of processor time) on {machine()}:
first the prior network, by maximum likelihood of whole images, then the constraint network beside it, by that of
hidden pixels given the seen ones; each sees the images `epochs` times.

{settings_table(recipe)}

## Measured on the first 1000 test images: bits a hidden pixel

| mask | prior network, seen pixels overwritten | constrained law |
|---|---|---|
{measured}

## Limits

The training is short; a longer one makes both networks better. Both know 28 x 28 images only. The
constrained law is not the prior network's own conditional, and on large holes its importance weights say so:
`tests/benchmarks/pixel_constrained.md` has their k-hat, the reliability of the probabilities, and the speed.
"""
