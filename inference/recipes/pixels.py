"""Recipes of the bundled pixel networks: a prior network, then a constraint network beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.recipes.recipe import Data, DatasetRecipe, Description, Written
from posterior_inpainting.inference.training.pixel_cross_entropy import PixelCrossEntropy
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import observations
from posterior_inpainting.models.autoregressive.pixel_laws import CategoricalPixels
from posterior_inpainting.models.networks.constraint import ConstraintNetwork
from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN
from posterior_inpainting.models.pixel_constrained import PixelConstrained

__all__ = ["PIXEL_RECIPES", "PixelRecipe", "bits"]


@dataclass(frozen=True, kw_only=True)
class PixelRecipe(DatasetRecipe):
    """What a bundled pair of prior and constraint network was made from.

    Parameters
    ----------
    levels
        Of a pixel: 2 cuts images at one half.
    images
        How many of the first training images are used.
    features, layers, first, kernel
        As for ``GatedPixelCNN``.
    constraint_features
        As for ``ConstraintNetwork``.
    masks
        Size of the bank of ``random_masks``.
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

    def fit(self, images: Tensor, progress: bool = True) -> PixelConstrained:
        """Train the prior network, then, beside it as it will be stored, the constraint network."""
        shape = tuple(images.shape[1:])
        outputs = CategoricalPixels(self.levels).outputs(shape[0])
        with self.streams.seeded("networks"):
            prior = GatedPixelCNN(
                shape, outputs, self.features, self.layers, first=self.first, kernel=self.kernel
            )
        self._train(PixelConstrained(prior), images, progress)
        return self.fit_constraint(prior, images, progress)

    def fit_constraint(self, prior: Any, images: Tensor, progress: bool = True) -> PixelConstrained:
        """Train a constraint network, from nothing, beside a prior network that stays as it is."""
        with self.streams.seeded("constraint network"):
            constraint = ConstraintNetwork(prior.image_shape, prior.outputs, self.constraint_features)
        model = PixelConstrained(_as_stored(prior), constraint)
        masks = observations.random_masks(prior.image_shape, self.masks, seed=self.streams.number("masks"))
        self._train(model, images, progress, masks)
        _as_stored(constraint)
        return model.eval()

    def _train(
        self, model: PixelConstrained, images: Tensor, progress: bool, masks: Tensor | None = None
    ) -> None:
        model.to(memory_format=torch.channels_last)  # a third faster on a processor with wide registers
        loss, schedule = PixelCrossEntropy(low_precision=True), self.schedule(progress)
        train(model, model.guide, images[: self.images], masks=masks, loss=loss, schedule=schedule)
        model.to(memory_format=torch.contiguous_format)

    def parts(self, fitted: PixelConstrained) -> dict[str, Any]:
        """Return both networks."""
        return {part: fitted._modules[part] for part in ("prior", "constraint")}

    def measure(self, fitted: PixelConstrained, data: Data, written: Written) -> str:
        """Measure bits a hidden pixel."""
        found = bits(fitted, data.held_out[:1000])
        rows = [f"| {mask} | {prior:.4f} | {both:.4f} |" for mask, (prior, both) in found.items()]
        heading = "| mask | prior network, seen pixels overwritten | constrained law |"
        return "\n".join([heading, "|---|---|---|", *rows])

    def describe(self, name: str, fitted: PixelConstrained, data: Data) -> Description:
        """Return the card's words."""
        prior, constraint = (
            sum(p.numel() for p in part.parameters()) for part in self.parts(fitted).values()
        )
        lattice = "pixels cut at one half" if self.levels == 2 else f"pixels of {self.levels} levels"
        return Description(
            about=(
                f"A gated PixelCNN ({prior:,} weights) and a constraint network ({constraint:,}) on {lattice};\n"
                f'stored in half precision. `PixelConstrained.load("{name}")` makes the model of them.'
            ),
            trained_on=f"the first {self.images} training images of `{self.dataset}`",
            measured_on=f"{data.measured(1000)}: bits a hidden pixel",
            limits=_LIMITS,
            remark=_REMARK,
        )


_REMARK = """\
First the prior network, by maximum likelihood of whole images, then the constraint network beside it, by that of
hidden pixels given the seen ones; each sees the images `epochs` times."""

_LIMITS = """The training is short; a longer one makes both networks better. Both know 28 x 28 images only. The
constrained law is not the prior network's own conditional, and on large holes its importance weights say so:
`tests/benchmarks/pixel_constrained.md` has their k-hat, the reliability of the probabilities, and the speed."""

PIXEL_RECIPES: dict[str, PixelRecipe] = {
    "fashion-mnist-pixels-binary": PixelRecipe(levels=2, images=60_000),
    "fashion-mnist-pixels-16": PixelRecipe(levels=16, images=60_000, features=20, epochs=8),
}


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
