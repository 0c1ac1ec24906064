"""Recipes of the bundled denoisers, which a ``DiffusionPrior`` makes images with."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from posterior_inpainting.inference.recipes.model_card import figures_table
from posterior_inpainting.inference.recipes.patches import FreshPatches, attribution
from posterior_inpainting.inference.recipes.recipe import Data, DatasetRecipe, Description, Written
from posterior_inpainting.inference.training.denoising_score_matching import (
    DenoisingScoreMatching,
    FillLikelihood,
)
from posterior_inpainting.inference.training.examples import Examples
from posterior_inpainting.inference.training.loss import Loss
from posterior_inpainting.inference.training.schedule import Schedule
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import DiffusionPrior, observations, pretrained
from posterior_inpainting.models.networks import Denoiser
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["DIFFUSION_RECIPES", "DenoiserRecipe", "Further", "denoising_errors"]


@dataclass(frozen=True, kw_only=True)
class Further:
    """A training that begins with the averaged weights of the one before it.

    Parameters
    ----------
    epochs, learning_rate
        As for ``Schedule``.
    mean_log_level, most
        As for ``DenoisingScoreMatching``.
    kinds
        As for ``observations.random_masks``.
    """

    epochs: int
    learning_rate: float
    mean_log_level: float
    most: float = 0.2
    kinds: tuple[str, ...] = observations.KINDS


@dataclass(frozen=True, kw_only=True)
class DenoiserRecipe(DatasetRecipe):
    """Everything that determines a bundled denoiser.

    Parameters
    ----------
    features, blocks, patch, global_units, global_blocks, dropout, pyramid
        As for ``Denoiser``; its centre and spread are those of the training images, and its size unless there are
        patches.
    patches
        Side of the patches that it is trained on, for images of any size, and how many are cut an epoch; ``None`` for
        whole images.
    mean_log_level, sd_log_level, whole, evenness
        As for ``DenoisingScoreMatching``.
    further
        The trainings that follow the first.
    fill_images, fill_rate
        How many images the pyramid's fill is learnt from, before the network, and at which learning rate.
    averaging
        As for ``Schedule``.
    bits
        In which a weight is stored, 8 or 16.
    limits, remark
        Of the card: what it is not good at, and whose images these are.
    """

    leave_out: ClassVar[tuple[str, ...]] = ("limits", "remark")
    follows_images: ClassVar[bool] = True

    features: tuple[int, ...] = (64, 64)
    blocks: int = 1
    patch: int = 2
    global_units: int = 512
    global_blocks: int = 4
    dropout: float = 0.1
    pyramid: int = 0
    patches: tuple[int, int] | None = None
    mean_log_level: float = -0.5
    sd_log_level: float = 1.6
    whole: float = 0.15
    evenness: float = 0.0
    further: tuple[Further, ...] = ()
    fill_images: int = 10_000
    fill_rate: float = 1e-2
    averaging: float = 0.999
    bits: int = 16
    limits: str
    remark: str = ""

    def network(self, images: Image) -> Denoiser:
        """Make the untrained network for some images, from the recipe's seed."""
        with self.streams.seeded("networks"):
            return Denoiser(
                images.shape[1],
                self.features,
                self.blocks,
                self.patch,
                size=None if self.patches else (images.shape[2], images.shape[3]),
                global_units=self.global_units,
                global_blocks=self.global_blocks,
                dropout=self.dropout,
                pyramid=self.pyramid,
                centre=round(float(images.mean()), 4),
                spread=round(float(images.std()), 4),
            )

    def schedule(self, progress: bool, epochs: int | None = None) -> Schedule:
        """Return the settings of a training, with the moving average."""
        return replace(super().schedule(progress, epochs), averaging=self.averaging)

    def fit(self, images: Image, progress: bool = True) -> Denoiser:
        """Train the fill by its likelihood, if there is one, then the network by denoising score matching.

        It is trained where the images are: on a GPU, compiled.
        """
        shape = (images.shape[1], *(self.patches[:1] * 2 if self.patches else images.shape[2:]))
        network = self.network(images).to(images.device)
        model = DiffusionPrior(network, shape, steps=1).to(images.device)
        # Of as many small operations as these, each waits for the one before it where they are not made into a few.
        if images.is_cuda:
            network.near.compile()
            if network.fill is not None:
                network.fill.compile()
        first = Further(
            epochs=self.epochs, learning_rate=self.learning_rate, mean_log_level=self.mean_log_level
        )
        for number, stage in enumerate((first, *self.further)):
            schedule = replace(self.schedule(progress, stage.epochs), learning_rate=stage.learning_rate)
            masks = self._masks(images, shape, stage.kinds)
            levels: Any = {"sd_log_level": self.sd_log_level, "whole": self.whole, "most": stage.most}
            if network.fill is not None and not number:
                loss: Loss = FillLikelihood(stage.mean_log_level, **levels)
                once = replace(schedule, epochs=1, learning_rate=self.fill_rate, averaging=0.9)
                few = self._examples(images, masks, self.fill_images)
                train(model, model.guide, few, loss=loss, schedule=once)
                network.fill.requires_grad_(False)
            loss = DenoisingScoreMatching(
                stage.mean_log_level, **levels, evenness=self.evenness, low_precision=True
            )
            train(model, model.guide, self._examples(images, masks), loss=loss, schedule=schedule)
        return network.requires_grad_(False).eval()

    def _masks(self, images: Image, shape: tuple[int, ...], kinds: tuple[str, ...]) -> Mask:
        many = self.patches[1] if self.patches else len(images)
        seed = self.streams.number("masks")
        return observations.random_masks(shape, min(20_000, 4 * many), seed, kinds).to(images.device)

    def _examples(self, images: Image, masks: Mask, most: int | None = None) -> Examples:
        """Return what a training goes through, at most so many: the images, or patches of them."""
        if self.patches is None:
            return Examples(images[:most], masks=masks)
        side, count = self.patches
        return FreshPatches(images, masks=masks, side=side, count=min(count, most or count))

    def parts(self, fitted: Denoiser) -> dict[str, Any]:
        """Return the network."""
        return {"denoiser": fitted}

    def save(self, fitted: Denoiser, written: Written) -> None:
        """Write the network in as many bits as the recipe says."""
        pretrained.save_parts(written.folder, written.stem, self.parts(fitted), bits=self.bits)

    def measure(self, fitted: Denoiser, data: Data, written: Written) -> str:
        """Measure the saved weights, as a user will load them."""
        denoiser: Any = pretrained.load_part(written.folder, written.stem, "denoiser")
        return figures_table(denoising_errors(denoiser, data.held_out[:1000]))

    def describe(self, name: str, fitted: Denoiser, data: Data) -> Description:
        """Return the card's words."""
        weights = sum(p.numel() for p in fitted.parameters())
        stored = "half precision" if self.bits == 16 else f"{self.bits} bits"
        return Description(
            about=(
                f"A denoiser of {weights:,} weights, stored in {stored}: mean and variance of each pixel of an image\n"
                "given the image under noise of any level.\n"
                f'`DiffusionPrior.load("{name}")` makes the model of it.'
            ),
            trained_on=f"the {len(data.images)} training images of `{self.dataset}`{self.chosen_on}{self._cut()}",
            measured_on=f"{data.measured(1000)}, weights as saved",
            limits=self.limits,
            remark=self.remark,
        )

    def _cut(self) -> str:
        if self.patches is None:
            return ""
        side, count = self.patches
        return (
            f",\nof which {count:,} patches of {side} x {side} pixels were cut anew for every epoch, some of them\n"
            "reduced, turned, mirrored and lit otherwise,"
        )


def denoising_errors(denoiser: Denoiser, images: Image, seed: int = 0) -> dict[str, str]:
    """Return figures of a denoiser on images that it was not trained on: errors by noise level, and its cost.

    Parameters
    ----------
    denoiser
        The network.
    images
        ``(n, channel, row, column)``.
    seed
        Of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    figures = {}
    start = time.process_time()
    for level in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0):
        noise = torch.randn(images.shape, generator=generator)
        with torch.no_grad():
            mean, variance = denoiser(images + level * noise, torch.tensor(level))
        squares = (images - mean).square()
        standardised = float((squares / variance).mean())
        figures[f"root mean square error at noise {level:g}, and its square over the variance claimed"] = (
            f"{float(squares.mean().sqrt()):.4f}, {standardised:.2f}"
        )
    cost = (time.process_time() - start) / 6 / len(images)
    return figures | {"milliseconds an image, these threads": f"{1000 * cost:.2f}"}


DIFFUSION_RECIPES: dict[str, DenoiserRecipe] = {
    "fashion-mnist-diffusion": DenoiserRecipe(
        dataset="fashion-mnist",
        held_back=5_000,
        epochs=105,
        batch_size=256,
        learning_rate=1.5e-3,
        bits=8,
        limits="It knows 28 x 28 images of clothes only.",
    ),
    "photographs-diffusion": DenoiserRecipe(
        dataset="photographs",
        held_back=60,
        features=(64, 128, 192),
        blocks=2,
        pyramid=6,
        patches=(64, 51_200),
        mean_log_level=-1.0,
        evenness=0.5,
        epochs=17,
        # Holes as photographs have them, around which nearly everything is seen nearly without noise.
        further=(
            Further(
                epochs=21,
                learning_rate=5e-4,
                mean_log_level=-1.5,
                most=0.04,
                kinds=("box", "scatter", "strokes", "blobs", "grid", "channels"),
            ),
        ),
        batch_size=256,
        fill_images=51_200,
        bits=8,
        limits=(
            "It was trained on nine photographs: it continues edges, gradients and textures, and knows no objects. It\n"
            "takes images of any size, in colour."
        ),
        remark=attribution(),
    ),
}
