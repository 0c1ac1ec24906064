"""Recipes of the bundled priors: how each was trained, measured and described, all in one command.

A recipe trains decoder and encoder on whole images, then freezes the decoder and goes on with the
encoder on randomly masked images, so that it becomes the guide q(z | x~).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes.model_card import machine, settings_table
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import LatentCode, VariationalAutoencoder, datasets, observations, pretrained
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["RECIPES", "Recipe", "gradient_cost", "train_prior"]


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a bundled prior.

    Parameters
    ----------
    dataset
        A name that ``datasets.load`` knows.
    latent, widths, scale_rank, floor
        The decoder's; see ``MultilayerDecoder``.
    encoder_widths
        Hidden layers of the encoder.
    epochs, encoder_epochs
        Passes over whole images, then over masked ones with the decoder frozen.
    batch_size, learning_rate, seed
        As for ``train``.
    """

    dataset: str
    latent: int
    widths: tuple[int, ...] = (400, 400)
    scale_rank: int | None = 64
    floor: float = 0.03
    encoder_widths: tuple[int, ...] = (400, 400)
    epochs: int = 60
    encoder_epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0

    def networks(self, shape: ImageShape) -> VariationalAutoencoder:
        """Make the untrained pair for images of a shape, from the recipe's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            decoder = MultilayerDecoder(self.latent, shape, self.widths, self.scale_rank, self.floor)
            return VariationalAutoencoder(decoder, MaskedEncoder(self.latent, shape, self.encoder_widths))


RECIPES: dict[str, Recipe] = {
    "digits-vae-2d": Recipe(
        "digits",
        latent=2,
        widths=(64, 64),
        scale_rank=16,
        floor=0.05,
        encoder_widths=(128, 128),
        epochs=500,
        encoder_epochs=500,
    ),
    "fashion-mnist-vae": Recipe(
        "fashion-mnist",
        latent=32,
        widths=(512, 512),
        scale_rank=192,
        floor=0.05,
        encoder_widths=(400, 400),
        epochs=80,
        encoder_epochs=30,
    ),
}


def train_prior(name: str, out: str | Path, root: str | Path | None = None, progress: bool = True) -> str:
    """Train a bundled prior by its recipe in ``RECIPES``; parameters as for ``recipes.train_bundled``."""
    recipe = RECIPES[name]
    images, held_out = (datasets.load(recipe.dataset, split, root) for split in ("train", "test"))
    shape = tuple(images.shape[1:])
    start = time.perf_counter()
    vae = recipe.networks(shape)
    common: dict[str, Any] = {"batch_size": recipe.batch_size, "seed": recipe.seed, "progress": progress}
    train(vae, vae.guide, images, epochs=recipe.epochs, learning_rate=recipe.learning_rate, **common)
    completion = LatentCode(vae.decoder, encoder=vae.encoder)
    masks = observations.random_masks(shape, 20_000 if len(images) > 10_000 else 4_000, recipe.seed)
    train(
        completion,
        completion.guide,
        images,
        masks=masks,
        epochs=recipe.encoder_epochs,
        learning_rate=recipe.learning_rate,
        **common,
    )
    seconds = time.perf_counter() - start
    out = Path(out)
    pretrained.save(out, vae.decoder, vae.encoder, stem=f"{name}.")
    text = _card(name, recipe, out, images, held_out, seconds)
    (out / f"{name}.md").write_text(text)
    return text


def gradient_cost(decoder: Any, chains: int = 256, repeats: int = 20) -> float:
    """Median microseconds, a chain, of one forward and backward pass to z, on the threads torch now has."""
    z = torch.randn(chains, decoder.latent, requires_grad=True)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        mean, scale = decoder.mean_and_scale(z)
        torch.autograd.grad((mean.square() / scale + scale.log()).sum(), z)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeats // 2] / chains * 1e6


def _card(name: str, recipe: Recipe, out: Path, images: Image, held_out: Image, seconds: float) -> str:
    """Measure the saved weights, as a user will load them, and say so."""
    decoder: Any = pretrained.load_from(out, f"{name}.")
    model = LatentCode(decoder)
    some = held_out[:1000]
    found = bounds(model, some)
    mask = torch.ones_like(some, dtype=torch.bool)
    with torch.no_grad():
        mean, scale = decoder.mean_and_scale(decoder.encoder(some, mask)[0])
    error = float((mean - some).square().mean().sqrt())
    low, middle, high = scale.quantile(torch.tensor([0.05, 0.5, 0.95]))
    comparison = out / f"{name}.architectures.md"
    table = f"\n## Architectures compared\n\n{comparison.read_text()}" if comparison.is_file() else ""
    return f"""# {name}

A decoder f(z) with pixel scale sigma(z), and a masked-input encoder q(z | x~), for images of shape
{tuple(images.shape[1:])} in [0, 1]. Weights are stored in half precision.

Trained on the {len(images)} training images of `{recipe.dataset}` with

    posterior-inpainting train {name} --out DIR

in {seconds / 60:.1f} minutes on {machine()}.

{settings_table(recipe)}

## Measured on the first {len(some)} test images, weights as saved

| figure | value |
|---|---|
| ELBO, nats an image | {found.elbo:.1f} |
| importance-weighted bound, {found.samples} samples, nats an image | {found.importance_weighted:.1f} |
| root mean square reconstruction error | {error:.4f} |
| pixel scale sigma(z), 5 / 50 / 95 % | {float(low):.3f} / {float(middle):.3f} / {float(high):.3f} |
| microseconds a chain-gradient, 256 chains, these threads | {gradient_cost(decoder):.0f} |

Densities are of pixel values in [0, 1], so the bounds are positive where the scale is small.
{table}
## Limits

The posterior over z alone takes the decoder for the truth. Where an image is unlike the training images,
its draws are too sure of themselves; `posterior-inpainting score` says by how much.
"""
