"""Recipes of the bundled generators, which play against a discriminator.

Generator and discriminator play against each other on the first training images; the noise is fitted on the
last ones, which neither has seen; then the generator is frozen and a masked-input encoder learns q(z | x~).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.evaluation.quality_of_samples import (
    class_shares,
    coverage_of_real,
    frechet_distance,
)
from posterior_inpainting.inference.recipes.model_card import figures_table, listed
from posterior_inpainting.inference.recipes.recipe import Data, DatasetRecipe, Description, Written
from posterior_inpainting.inference.training.adversarial_losses import LOSSES
from posterior_inpainting.inference.training.noise_of_projections import FittedNoise, fit_noise, project
from posterior_inpainting.inference.training.schedule import Schedule
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.inference.training.train_gan import GAN_SCHEDULE, AdversarialTraining, train_gan
from posterior_inpainting.models import LatentCode, datasets, observations, pretrained
from posterior_inpainting.models.networks import MaskedEncoder
from posterior_inpainting.models.networks.discriminator import Discriminator
from posterior_inpainting.models.networks.generator import Generator
from posterior_inpainting.models.shapes import Image

__all__ = ["GENERATOR_RECIPES", "GeneratorRecipe"]


class FittedGenerator(NamedTuple):
    """The networks, the course of the game, and the noise."""

    parts: dict[str, Any]
    training: AdversarialTraining
    noise: FittedNoise


@dataclass(frozen=True, kw_only=True)
class GeneratorRecipe(DatasetRecipe):
    """Everything that determines a bundled generator.

    Parameters
    ----------
    latent, widths
        The generator's; see ``Generator``.
    channels, discriminator_widths
        See ``Discriminator``.
    encoder_widths
        Hidden layers of the encoder.
    loss, penalty, penalty_every, averaging
        As for ``train_gan`` and its losses.
    noise_images, floor
        Number of held-back training images for the noise, and its smallest value.
    encoder_epochs
        Passes over masked images with the generator frozen.
    """

    follows_images: ClassVar[bool] = True

    latent: int = 24
    widths: tuple[int, ...] = (256, 400)
    channels: tuple[int, ...] = ()
    discriminator_widths: tuple[int, ...] = (512, 256)
    encoder_widths: tuple[int, ...] = (192, 192)
    loss: str = "r1"
    penalty: float = 1.0
    penalty_every: int = 1
    averaging: float = 0.999
    noise_images: int = 500
    floor: float = 0.05
    encoder_epochs: int = 6
    epochs: int = 30
    learning_rate: float = 5e-4

    def data(self, root: str | Path | None = None) -> Data:
        """Load both splits of the data set, and the classes of the first."""
        return replace(super().data(root), labels=datasets.labels(self.dataset, self.splits[0], root))

    def fit(self, images: Image, progress: bool = True) -> FittedGenerator:
        """Play, fit the noise to images held back from the game, and train the encoder of the frozen generator."""
        shape: Any = tuple(images.shape[1:])
        loss = LOSSES[self.loss](penalty=self.penalty, penalty_every=self.penalty_every)
        with self.streams.seeded("networks"):
            generator = Generator(self.latent, shape, self.widths)
            discriminator = Discriminator(shape, self.channels, self.discriminator_widths, loss.output)
            encoder = MaskedEncoder(self.latent, shape, self.encoder_widths)
        playing, held_back = images[: -self.noise_images], images[-self.noise_images :]
        schedule = replace(self.schedule(progress), optimiser=GAN_SCHEDULE.optimiser)
        players = generator.to(images.device), discriminator.to(images.device)
        training = train_gan(*players, playing, loss=loss, averaging=self.averaging, schedule=schedule)
        noise = fit_noise(generator, held_back, floor=self.floor, seed=self.seed, progress=progress)
        completion = LatentCode(generator, encoder=encoder.to(images.device))
        count = 10_000 if len(playing) > 10_000 else 2_000
        masks = observations.random_masks(shape, count, self.streams.number("masks")).to(images.device)
        encoding = Schedule(epochs=self.encoder_epochs, seed=self.seed, progress=progress)
        train(completion, completion.guide, playing, masks=masks, schedule=encoding)
        parts = {"decoder": generator, "discriminator": discriminator, "encoder": encoder}
        return FittedGenerator(parts, training, noise)

    def parts(self, fitted: FittedGenerator) -> dict[str, Any]:
        """Return decoder, discriminator and encoder."""
        return fitted.parts

    def measure(self, fitted: FittedGenerator, data: Data, written: Written) -> str:
        """Measure the saved weights on test images, beside what real images get."""
        saved = pretrained.load_from(written.folder, written.stem)
        figures = (
            self._bounds(saved, data) | self._likeness(saved, data) | _course(fitted.training, fitted.noise)
        )
        said = "Densities are of pixel values in [0, 1], so the bounds are positive where the noise is small."
        return f"{figures_table(figures)}\n\n{said}"

    def _bounds(self, generator: Any, data: Data) -> dict[str, str]:
        some = data.held_out[:1000]
        found = bounds(LatentCode(generator), some)
        codes = project(generator, some[:200])
        with torch.no_grad():
            residual = (generator(codes) - some[:200]).square()
        return {
            "root mean square error of a projection, 200 images, 4 restarts": f"{float(residual.mean().sqrt()):.4f}",
            "squared length of a projection's code over its size, mean (1 under the prior)": (
                f"{float(codes.square().mean()):.2f}"
            ),
            "ELBO of the encoder, nats an image": f"{found.elbo:.1f}",
            f"importance-weighted bound, {found.samples} samples, nats an image": f"{found.importance_weighted:.1f}",
        }

    def _likeness(self, generator: Any, data: Data) -> dict[str, str]:
        real = data.held_out[:5000]
        apart = min(len(real), len(data.images) // 2)
        other = data.images[:apart]
        known = slice(apart, apart + 10_000)
        with torch.no_grad(), self.streams.seeded("figures"):
            drawn = generator(torch.randn(len(real), generator.latent))
        assert data.labels is not None
        labels = data.labels[known]
        shares, true = (class_shares(x, data.images[known], labels) for x in (drawn, real))
        return {
            f"test images ({len(real)}) nearer to one of as many generated than to their 5th test neighbour": (
                f"{coverage_of_real(real, drawn):.3f} (training images instead: {coverage_of_real(real, other):.3f})"
            ),
            "squared Frechet distance to test images, 50 principal components": (
                f"{frechet_distance(real, drawn):.2f} (training images: {frechet_distance(real, other):.2f})"
            ),
            "share of each class by the nearest training image, generated": listed(shares),
            "the same, test images": listed(true),
        }

    def describe(self, name: str, fitted: FittedGenerator, data: Data) -> Description:
        """Return the card's words."""
        return Description(
            about=_ABOUT,
            trained_on=(
                f"the {len(data.images)} training images of `{self.dataset}`, the last {self.noise_images} of them "
                "held back to fit\nthe noise,"
            ),
            measured_on=f"{data.measured(1000)} unless another number is given, weights as saved",
            limits=_LIMITS,
        )


_ABOUT = """\
The generator of a GAN as a decoder f(z) with one fixed noise a pixel, its discriminator for Yeh's prior loss, and a
masked-input encoder q(z | x~). Weights are stored in half precision."""

_LIMITS = """\
A GAN is trained to draw what looks real, not to be able to draw every real image: what it cannot draw is noise to
the posterior over z, the same in every image. Where an image is unlike what it draws, the posterior is too sure of
itself; see `tests/benchmarks/generator.md` for coverage."""

GENERATOR_RECIPES: dict[str, GeneratorRecipe] = {
    "fashion-mnist-generator": GeneratorRecipe(dataset="fashion-mnist", penalty_every=4),
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
        "root mean square error of the projections it was fitted to, by round": listed(noise.error, 4),
        "discriminator's estimate of the distance, first, middle and last epoch": listed(distances, 3),
    }
