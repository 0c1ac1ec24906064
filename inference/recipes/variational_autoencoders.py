"""Recipes of the bundled variational autoencoders: decoder and encoder on whole images, then the encoder alone.

The second training freezes the decoder and goes on with the encoder on randomly masked images, so that it becomes the
guide q(z | x~).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes.model_card import figures_table, listed
from posterior_inpainting.inference.recipes.recipe import Data, DatasetRecipe, Description, Written
from posterior_inpainting.inference.training.domain_judge import learn_domain_judge
from posterior_inpainting.inference.training.law_of_codes import fit_law_of_codes
from posterior_inpainting.inference.training.loss import PyroLoss
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import LatentCode, VariationalAutoencoder, observations, pretrained
from posterior_inpainting.models.networks import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    MaskedEncoder,
    MultilayerDecoder,
)
from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["AUTOENCODER_RECIPES", "AutoencoderRecipe", "gradient_cost"]


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe(DatasetRecipe):
    """Everything that determines a bundled decoder and its encoder.

    Parameters
    ----------
    latent, widths, scale_rank, floor, likelihood
        The decoder's; see ``MultilayerDecoder``.
    channels, encoder_channels
        Of a ``ConvolutionalDecoder`` and a ``ConvolutionalEncoder``, where both are to be of that kind.
    encoder_widths
        Hidden layers of the encoder.
    encoder_epochs
        Passes over masked images, with the decoder frozen.
    warmup
        As for ``PyroLoss``.
    components
        Gaussians of the law of the codes, fitted to those of the training images; ``None`` for standard normal codes.
    scale_factor
        What the decoder's scales are multiplied by once it is trained, chosen on validation images.
    """

    follows_images: ClassVar[bool] = True

    latent: int
    widths: tuple[int, ...] = (400, 400)
    scale_rank: int | None = 64
    floor: float = 0.03
    likelihood: str = "normal"
    channels: tuple[int, ...] = ()
    encoder_channels: tuple[int, ...] = (16, 32, 32)
    encoder_widths: tuple[int, ...] = (400, 400)
    encoder_epochs: int = 40
    warmup: float = 0.0
    components: int | None = None
    scale_factor: float = 1.0
    epochs: int = 60

    def networks(self, shape: ImageShape) -> VariationalAutoencoder:
        """Make the untrained pair for images of a shape, from the recipe's seed."""
        with self.streams.seeded("networks"):
            if self.channels:
                return VariationalAutoencoder(
                    ConvolutionalDecoder(
                        self.latent, shape, self.channels, self.widths, self.floor, self.likelihood
                    ),
                    ConvolutionalEncoder(self.latent, shape, self.encoder_channels, self.encoder_widths),
                )
            decoder = MultilayerDecoder(
                self.latent, shape, self.widths, self.scale_rank, self.floor, self.likelihood
            )
            return VariationalAutoencoder(decoder, MaskedEncoder(self.latent, shape, self.encoder_widths))

    def fit(self, images: Image, progress: bool = True) -> VariationalAutoencoder:
        """Train the pair on whole images, fit the law of their codes, then train the encoder on masked images."""
        shape: Any = tuple(images.shape[1:])
        vae = self.networks(shape).to(images.device)
        train(vae, vae.guide, images, loss=PyroLoss(warmup=self.warmup), schedule=self.schedule(progress))
        if self.components is not None:
            law = fit_law_of_codes(vae.encoder, images, self.components, self.streams)
            vae.decoder.law_of_codes = law.to(images.device)
        vae.decoder.scale_factor = self.scale_factor
        completion = LatentCode(vae.decoder, encoder=vae.encoder)
        count = 20_000 if len(images) > 10_000 else 4_000
        masks = observations.random_masks(shape, count, self.streams.number("masks")).to(images.device)
        schedule = self.schedule(progress, self.encoder_epochs)
        train(completion, completion.guide, images, masks=masks, schedule=schedule)
        return vae

    def finish(self, fitted: VariationalAutoencoder, data: Data, progress: bool = True) -> None:
        """Learn to tell whether an image is of the training images' domain, beside some that were held back."""
        apart = data.held_out[:200] if data.held_back is None else data.held_back
        fitted.decoder.domain = learn_domain_judge(data.images, apart, seed=self.seed, progress=progress)

    def parts(self, fitted: VariationalAutoencoder) -> dict[str, nn.Module]:
        """Return decoder and encoder, and the law of the codes and the judge of the domain if there are such."""
        found = {"decoder": fitted.decoder, "encoder": fitted.encoder}
        more = {"prior": fitted.decoder.law_of_codes, "domain": fitted.decoder.domain}
        return found | {name: part for name, part in more.items() if part is not None}

    def measure(self, fitted: VariationalAutoencoder, data: Data, written: Written) -> str:
        """Measure the saved weights, as a user will load them."""
        decoder: Any = pretrained.load_from(written.folder, written.stem)
        some = data.held_out[:1000]
        found = bounds(LatentCode(decoder), some)
        with torch.no_grad():
            z = decoder.encoder(some, torch.ones_like(some, dtype=torch.bool))[0]
            scale = decoder.mean_and_scale(z)[1]
            error = float((LatentCode(decoder).pixel_law(z).mean - some).square().mean().sqrt())
        levels = scale.quantile(scale.new_tensor([0.05, 0.5, 0.95]))
        figures = {
            "ELBO, nats an image": f"{found.elbo:.1f}",
            f"importance-weighted bound, {found.samples} samples, nats an image": f"{found.importance_weighted:.1f}",
            "root mean square reconstruction error": f"{error:.4f}",
            "pixel scale sigma(z), 5 / 50 / 95 %": listed(levels, 3, " / "),
            "microseconds a chain-gradient, 256 chains, these threads": f"{gradient_cost(decoder):.0f}",
        }
        said = _SAID[self.likelihood]
        compared = written.folder / f"{written.stem}architectures.md"
        more = (
            f"\n\n## Architectures compared\n\n{compared.read_text().rstrip()}" if compared.is_file() else ""
        )
        return f"{figures_table(figures)}\n\n{said}{more}"

    def describe(self, name: str, fitted: VariationalAutoencoder, data: Data) -> Description:
        """Return the card's words."""
        return Description(
            about=(
                "A decoder f(z) with pixel scale sigma(z), and a masked-input encoder q(z | x~), for images of shape\n"
                f"{tuple(data.images.shape[1:])} in [0, 1]{self._codes()}. Weights are stored in half precision.\n"
                "Beside them are a network that tells images of this kind from others by any of their pixels, and "
                "images that\nnothing was trained on, among which an image to complete is ranked (`diagnostics.fit`)."
            ),
            trained_on=f"the {len(data.images)} training images of `{self.dataset}`{self.chosen_on}",
            measured_on=f"{data.measured(1000)}, weights as saved",
            limits=_LIMITS,
            remark=_ONCE if data.first else "",
        )

    def _codes(self) -> str:
        return (
            ""
            if self.components is None
            else f"; codes have the law of a mixture of {self.components} Gaussians"
        )


_ONCE = """\
The floor of the scale, and the sizes that the comparison of decoders began with, go back to recipes that were chosen on
test images 0 to 499."""

#: What the bounds are of.
_SAID = {
    "normal": "Densities are of pixel values in [0, 1], so the bounds are positive where the scale is small.",
    "censored_normal": (
        "Of pixels that are exactly 0 or 1 the bounds hold probabilities, of the others densities, which are above 1 "
        "where\nthe scale is small: they compare with those of decoders of censored pixels alone."
    ),
}

_LIMITS = """\
The posterior over z alone takes the decoder for the truth. Where an image is unlike the training images,
its draws are too sure of themselves; `posterior-inpainting score` says by how much."""

AUTOENCODER_RECIPES: dict[str, AutoencoderRecipe] = {
    "digits-vae-2d": AutoencoderRecipe(
        dataset="digits",
        latent=2,
        widths=(64, 64),
        scale_rank=16,
        floor=0.05,
        encoder_widths=(128, 128),
        epochs=500,
        encoder_epochs=500,
    ),
    "fashion-mnist-vae": AutoencoderRecipe(
        dataset="fashion-mnist",
        held_back=5_000,
        latent=32,
        widths=(768, 768),
        scale_rank=192,
        floor=0.03,
        likelihood="censored_normal",
        encoder_widths=(512, 512),
        components=100,
        scale_factor=1.4,
        epochs=120,
        encoder_epochs=30,
    ),
}


def gradient_cost(decoder: Any, chains: int = 256, repeats: int = 20) -> float:
    """Return the median microseconds, a chain, of the gradient of the posterior of a whole image, on these threads."""
    z = torch.randn(chains, decoder.latent)
    with torch.no_grad():
        image = LatentCode(decoder).pixel_law(z[0]).sample().clamp(0, 1)
    density: Any = LatentCode(decoder).log_densities(image)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        density.gradient({"z": z}, 1.0)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeats // 2] / chains * 1e6
