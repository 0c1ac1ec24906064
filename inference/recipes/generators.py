"""Recipes of the bundled generators: how each was trained, measured and described, all in one command.

Generator and discriminator play against each other on the first training images; the noise is fitted on the
last ones, which neither has seen; then the generator is frozen and a masked-input encoder learns q(z | x~).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.evaluation.quality_of_samples import (
    class_shares,
    coverage_of_real,
    frechet_distance,
)
from posterior_inpainting.inference.recipes.model_card import figures_table, machine, settings_table
from posterior_inpainting.inference.training.adversarial_losses import LOSSES
from posterior_inpainting.inference.training.noise_of_projections import FittedNoise, fit_noise, project
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.inference.training.train_gan import AdversarialTraining, train_gan
from posterior_inpainting.models import LatentCode, datasets, observations, pretrained
from posterior_inpainting.models.networks import MaskedEncoder
from posterior_inpainting.models.networks.discriminator import Discriminator
from posterior_inpainting.models.networks.generator import Generator
from posterior_inpainting.models.shapes import Image

__all__ = ["GENERATOR_RECIPES", "GeneratorRecipe", "train_generator"]


@dataclass(frozen=True)
class GeneratorRecipe:
    """Everything that determines a bundled generator.

    Parameters
    ----------
    dataset
        A name that ``datasets.load`` knows.
    latent, widths
        The generator's; see ``Generator``.
    channels, discriminator_widths
        See ``Discriminator``.
    encoder_widths
        Hidden layers of the encoder.
    loss, penalty, penalty_every, epochs, batch_size, learning_rate, averaging, seed
        As for ``train_gan``.
    noise_images, floor
        Number of held-back training images for the noise, and its smallest value.
    encoder_epochs
        Passes over masked images with the generator frozen.
    """

    dataset: str
    latent: int = 24
    widths: tuple[int, ...] = (256, 400)
    channels: tuple[int, ...] = ()
    discriminator_widths: tuple[int, ...] = (512, 256)
    encoder_widths: tuple[int, ...] = (192, 192)
    loss: str = "r1"
    penalty: float = 1.0
    penalty_every: int = 1
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 5e-4
    averaging: float = 0.999
    noise_images: int = 500
    floor: float = 0.05
    encoder_epochs: int = 6
    seed: int = 0

    def fit(self, images: Image, progress: bool) -> tuple[dict[str, Any], AdversarialTraining, FittedNoise]:
        """Train by the recipe; return the parts, the course of the game and the noise."""
        shape = tuple(images.shape[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            generator = Generator(self.latent, shape, self.widths)
            output = "logit" if self.loss == "r1" else "critic"
            discriminator = Discriminator(shape, self.channels, self.discriminator_widths, output)
            encoder = MaskedEncoder(self.latent, shape, self.encoder_widths)
        playing, held_back = images[: -self.noise_images], images[-self.noise_images :]
        training = train_gan(
            generator,
            discriminator,
            playing,
            loss=LOSSES[self.loss](penalty=self.penalty, penalty_every=self.penalty_every),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            averaging=self.averaging,
            seed=self.seed,
            progress=progress,
        )
        noise = fit_noise(generator, held_back, floor=self.floor, seed=self.seed, progress=progress)
        completion = LatentCode(generator, encoder=encoder)
        masks = observations.random_masks(shape, 10_000 if len(playing) > 10_000 else 2_000, self.seed)
        train(
            completion,
            completion.guide,
            playing,
            masks=masks,
            epochs=self.encoder_epochs,
            seed=self.seed,
            progress=progress,
        )
        return {"decoder": generator, "discriminator": discriminator, "encoder": encoder}, training, noise


GENERATOR_RECIPES: dict[str, GeneratorRecipe] = {
    "fashion-mnist-generator": GeneratorRecipe("fashion-mnist", penalty_every=4),
}


def train_generator(name: str, out: str | Path, root: str | Path | None = None, progress: bool = True) -> str:
    """Train a bundled generator by its recipe, write its parts, digests and card, and return the card.

    Parameters
    ----------
    name
        A key of ``GENERATOR_RECIPES``.
    out, root, progress
        As for ``recipes.train_bundled``.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in GENERATOR_RECIPES:
        raise ValueError(f"unknown generator {name!r}; there are recipes for {', '.join(GENERATOR_RECIPES)}")
    recipe = GENERATOR_RECIPES[name]
    images, held_out = (datasets.load(recipe.dataset, split, root) for split in ("train", "test"))
    wall, processor = time.perf_counter(), time.process_time()
    parts, training, noise = recipe.fit(images, progress)
    minutes = (time.perf_counter() - wall) / 60, (time.process_time() - processor) / 60
    out = Path(out)
    pretrained.save_parts(out, f"{name}.", parts)
    saved = pretrained.load_from(out, f"{name}.")
    labels = datasets.labels(recipe.dataset, "train", root)
    figures = _figures(saved, images, labels, held_out) | _course(training, noise)
    text = _card(name, recipe, len(images), minutes, figures)
    (out / f"{name}.md").write_text(text)
    return text


def _figures(generator: Any, images: Image, labels: torch.Tensor, held_out: Image) -> dict[str, str]:
    """Measure the saved weights on test images, beside what real images get."""
    some = held_out[:1000]
    found = bounds(LatentCode(generator), some)
    codes = project(generator, some[:200])
    apart = min(5000, len(images) // 2)
    real, other = held_out[:5000], images[:apart]
    known = slice(apart, apart + 10_000)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = generator(torch.randn(len(real), generator.latent))
        residual = (generator(codes) - some[:200]).square()
    shares, true = (class_shares(x, images[known], labels[known]) for x in (drawn, real))
    return {
        "root mean square error of a projection, 200 images, 4 restarts": f"{float(residual.mean().sqrt()):.4f}",
        "squared length of a projection's code over its size, mean (1 under the prior)": (
            f"{float(codes.square().mean()):.2f}"
        ),
        "ELBO of the encoder, nats an image": f"{found.elbo:.1f}",
        f"importance-weighted bound, {found.samples} samples, nats an image": f"{found.importance_weighted:.1f}",
        "test images (5000) nearer to one of as many generated than to their 5th test neighbour": (
            f"{coverage_of_real(real, drawn):.3f} (training images instead: {coverage_of_real(real, other):.3f})"
        ),
        "squared Frechet distance to test images, 50 principal components": (
            f"{frechet_distance(real, drawn):.2f} (training images: {frechet_distance(real, other):.2f})"
        ),
        "share of each class by the nearest training image, generated": _list(shares),
        "the same, test images": _list(true),
    }


def _course(training: AdversarialTraining, noise: FittedNoise) -> dict[str, str]:
    low, middle, high = noise.scale.flatten().quantile(torch.tensor([0.05, 0.5, 0.95]))
    distances = [
        training.distances[0],
        training.distances[len(training.distances) // 2],
        training.distances[-1],
    ]
    return {
        "pixel noise, 5 / 50 / 95 % of pixels": f"{float(low):.3f} / {float(middle):.3f} / {float(high):.3f}",
        "root mean square error of the projections it was fitted to, by round": _list(noise.error, 4),
        "discriminator's estimate of the distance, first, middle and last epoch": _list(distances, 3),
    }


def _list(values: Any, digits: int = 2) -> str:
    return " ".join(f"{float(value):.{digits}f}" for value in values)


def _card(
    name: str, recipe: GeneratorRecipe, count: int, minutes: tuple[float, float], figures: dict[str, str]
) -> str:
    return f"""# {name}

The generator of a GAN as a decoder f(z) with one fixed noise a pixel, its discriminator for Yeh's prior loss, and a
masked-input encoder q(z | x~). Weights are stored in half precision.

Trained on the {count} training images of `{recipe.dataset}`, the last {recipe.noise_images} of them held back to fit
the noise, with

    posterior-inpainting train {name} --out DIR

in {minutes[0]:.1f} minutes ({minutes[1]:.1f} of the processor) on {machine()}.

{settings_table(recipe)}

## Measured on the first 1000 test images unless another number is given, weights as saved

{figures_table(figures)}

Densities are of pixel values in [0, 1], so the bounds are positive where the noise is small.

## Limits

A GAN is trained to draw what looks real, not to be able to draw every real image: what it cannot draw is noise to
the posterior over z, the same in every image. Where an image is unlike what it draws, the posterior is too sure of
itself; see `tests/benchmarks/generator.md` for coverage.
"""
