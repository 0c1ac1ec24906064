"""Recipes of the three forms of pluralistic completion: how each was trained, measured and described.

Their trainings are of one order; the nets of the two-path form have half the weights of the others' parts, a third of a
million, because its discriminators are trained beside them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import nn

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes.model_card import figures_table, machine, settings_table
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.inference.training.two_path import TwoPathObjective
from posterior_inpainting.models import datasets, observations, pretrained
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.networks.context_encoder import ContextEncoder
from posterior_inpainting.models.networks.pluralistic import PluralisticDecoder, PluralisticEncoder
from posterior_inpainting.models.pluralistic import (
    PluralisticConditional,
    PluralisticJoint,
    PluralisticTwoPath,
)
from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = [
    "PLURALISTIC_RECIPES",
    "ConditionalRecipe",
    "JointRecipe",
    "TwoPathRecipe",
    "train_pluralistic",
]


@dataclass(frozen=True)
class TwoPathRecipe:
    """The published form, by its published loss weights.

    Parameters
    ----------
    dataset
        A name that ``datasets.load`` knows.
    images
        How many of its training images, from the first on.
    code_channels, widths
        As for ``PluralisticEncoder``.
    regulariser
        As for ``TwoPathObjective``.
    epochs, batch_size, learning_rate, seed
        As for ``train``. The published 1e-4 is for hundreds of times as many steps.
    judges_learning_rate
        Of the discriminators.
    """

    dataset: str
    images: int = 45_000
    code_channels: int = 16
    widths: tuple[int, int] = (24, 48)
    regulariser: str = "paper"
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 1e-3
    judges_learning_rate: float = 5e-4
    seed: int = 0

    def fit(self, images: Image, progress: bool) -> PluralisticTwoPath:
        """Train by the recipe, and measure the noise around the reconstructive path."""
        images = images[: self.images]
        shape = _shape(images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            encoder = PluralisticEncoder(shape, self.code_channels, self.widths)
            model = PluralisticTwoPath(encoder, PluralisticDecoder(shape, self.code_channels, self.widths))
        train(
            model.training_model,
            model.training_guide,
            images,
            masks=_bank(images, self.seed),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            optimiser=partial(torch.optim.Adam, betas=(0.0, 0.999)),
            loss=TwoPathObjective(regulariser=self.regulariser, learning_rate=self.judges_learning_rate),
            seed=self.seed,
            progress=progress,
        )
        some = images[:500]
        masks = _bank(images, self.seed)[: len(some)]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            # The mean absolute error is the likeliest scale of a Laplace law.
            error = (model.two_paths(some, masks).reconstructed[-1] - some).abs()
            model.decoder.noise.fill_(float(error[~masks].mean()))
        return model.requires_grad_(False).eval()

    def parts(self, model: PluralisticTwoPath) -> dict[str, nn.Module]:
        """Return what is saved."""
        return {"encoder": model.encoder, "decoder": model.decoder}


@dataclass(frozen=True)
class ConditionalRecipe:
    """The conditional form.

    Parameters
    ----------
    dataset, epochs, batch_size, learning_rate, seed
        As for :class:`TwoPathRecipe`.
    latent, context
        Lengths of the code and of the summary of what is seen.
    widths, scale_rank, floor
        The decoder's; see ``MultilayerDecoder``.
    encoder_widths
        Hidden layers of both encoders.
    """

    dataset: str
    latent: int = 16
    context: int = 48
    widths: tuple[int, ...] = (256, 256)
    encoder_widths: tuple[int, ...] = (192, 192)
    scale_rank: int | None = 64
    floor: float = 0.05
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0

    def fit(self, images: Image, progress: bool) -> PluralisticConditional:
        """Train by the recipe."""
        shape = _shape(images)
        twice: Any = (2 * shape[0], *shape[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = PluralisticConditional(
                ContextEncoder(self.latent, shape, self.encoder_widths, self.context),
                MultilayerDecoder(
                    self.latent + self.context, shape, self.widths, self.scale_rank, self.floor
                ),
                MaskedEncoder(self.latent, twice, self.encoder_widths),
            )
        _train(
            self,
            model.training_model,
            model.training_guide,
            images,
            self.epochs,
            _bank(images, self.seed),
            progress,
        )
        return model.requires_grad_(False).eval()

    def parts(self, model: PluralisticConditional) -> dict[str, nn.Module]:
        """Return what is saved: completion needs no posterior encoder, which is the largest part."""
        return {"prior_encoder": model.prior_encoder, "decoder": model.decoder}


@dataclass(frozen=True)
class JointRecipe:
    """The joint form: the decoder on whole images, then the guide on masked ones.

    Parameters
    ----------
    dataset, latent, widths, encoder_widths, scale_rank, floor, epochs, batch_size, learning_rate, seed
        As for :class:`ConditionalRecipe`.
    encoder_epochs
        Passes over masked images, the decoder frozen.
    """

    dataset: str
    latent: int = 16
    widths: tuple[int, ...] = (256, 256)
    encoder_widths: tuple[int, ...] = (192, 192)
    scale_rank: int | None = 64
    floor: float = 0.05
    epochs: int = 10
    encoder_epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0

    def fit(self, images: Image, progress: bool) -> PluralisticJoint:
        """Train by the recipe."""
        shape = _shape(images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            decoder = MultilayerDecoder(self.latent, shape, self.widths, self.scale_rank, self.floor)
            model = PluralisticJoint(decoder, MaskedEncoder(self.latent, shape, self.encoder_widths))
        _train(self, model, model.guide, images, self.epochs, None, progress)
        model.decoder.requires_grad_(False).eval()
        masks = _bank(images, self.seed)
        _train(self, model, model.guide, images, self.encoder_epochs, masks, progress)
        return model.eval()

    def parts(self, model: PluralisticJoint) -> dict[str, nn.Module]:
        """Return what is saved."""
        return {"decoder": model.decoder, "encoder": model.encoder}


PLURALISTIC_RECIPES: dict[str, TwoPathRecipe | ConditionalRecipe | JointRecipe] = {
    "fashion-mnist-pluralistic-two-path": TwoPathRecipe("fashion-mnist"),
    "fashion-mnist-pluralistic-conditional": ConditionalRecipe("fashion-mnist"),
    "fashion-mnist-pluralistic-joint": JointRecipe("fashion-mnist"),
}


def train_pluralistic(
    name: str, out: str | Path, root: str | Path | None = None, progress: bool = True
) -> str:
    """Train one form, write its files and card, and return the card.

    Parameters
    ----------
    name, out, root, progress
        As for ``recipes.train_bundled``.
    """
    recipe: Any = PLURALISTIC_RECIPES[name]
    images, held_out = (datasets.load(recipe.dataset, split, root) for split in ("train", "test"))
    start = time.process_time()
    model = recipe.fit(images, progress)
    minutes = (time.process_time() - start) / 60
    out = Path(out)
    pretrained.save_parts(out, f"{name}.", recipe.parts(model))
    text = _card(name, recipe, minutes, model, held_out[:200])
    (out / f"{name}.md").write_text(text)
    return text


def _train(recipe, model, guide, images: Image, epochs: int, masks: Mask | None, progress: bool) -> None:
    settings = {"batch_size": recipe.batch_size, "learning_rate": recipe.learning_rate, "seed": recipe.seed}
    train(model, guide, images, masks=masks, epochs=epochs, progress=progress, **settings)


def _bank(images: Image, seed: int) -> Mask:
    return observations.random_masks(_shape(images), min(20_000, len(images)), seed)


def _shape(images: Image) -> ImageShape:
    return tuple(images.shape[1:])


def _bound_figures(model: Any, images: Image) -> dict[str, str]:
    """Evaluate the form's own objective on held-out images, where it is a bound."""
    if isinstance(model, PluralisticJoint):
        found = bounds(model, images, samples=200)
        return {
            "ELBO, nats an image": f"{found.elbo:.1f}",
            "importance-weighted bound, 200 samples, nats an image": f"{found.importance_weighted:.1f}",
        }
    if isinstance(model, PluralisticTwoPath):
        return {"scale of pixels around the reconstructive path": f"{float(model.decoder.noise):.4f}"}
    figures = {}
    for name, mask in _masks(_shape(images)).items():
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            masks = mask.expand(images.shape)
            loss = TraceMeanField_ELBO().loss(model.training_model, model.training_guide, images, masks)
        figures[f"{name}: bound on log p(hidden given seen), nats an image"] = f"{-loss / len(images):.1f}"
    return figures


def _completion_figures(model: Any, images: Image) -> dict[str, str]:
    """Measure how near completions come, and how much of their variance the code accounts for."""
    figures = {}
    for name, mask in _masks(_shape(images)).items():
        means, variances = [], []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for _ in range(20):
                drawn = poutine.trace(model.guide).get_trace(images, mask)
                sites = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(images, mask).nodes
                means.append(sites["completion"]["value"][..., ~mask])
                variances.append(sites["image"]["fn"].base_dist.variance[..., ~mask])
        stacked = torch.stack(means)
        between, within = float(stacked.var(0).mean()), float(torch.stack(variances).mean())
        error = float((stacked.mean(0) - images[..., ~mask]).square().mean().sqrt())
        figures[f"{name}: root mean square error of the mean of 20 completions"] = f"{error:.4f}"
        figures[f"{name}: sd of a completion over draws of the guide"] = f"{between**0.5:.4f}"
        figures[f"{name}: share of the predictive variance that the code accounts for"] = (
            f"{between / (between + within):.0%}"
        )
    return figures


def _masks(shape: ImageShape) -> dict[str, Mask]:
    return {
        "bottom half hidden": observations.half(shape, hide="bottom"),
        "70 % of pixels hidden": observations.scatter(shape, 0.3),
    }


_WHAT = {
    "fashion-mnist-pluralistic-two-path": (
        "Convolutional encoder and decoder of the published two-path form, with short and long term attention. The\n"
        "discriminators that trained them are not kept."
    ),
    "fashion-mnist-pluralistic-conditional": (
        "Encoder of p(z | x~) with a summary of what is seen, and a decoder of both: a conditional VAE. The\n"
        "encoder of q(z | x), which only training needs, is not kept."
    ),
    "fashion-mnist-pluralistic-joint": (
        "Decoder f(z) with pixel scale sigma(z), and the guide q(z | x~): a joint density that MCMC over z refines."
    ),
}

_LIMITS = {
    "fashion-mnist-pluralistic-two-path": (
        "The hole was never scored by a likelihood on the path that completes images: draws are what a discriminator\n"
        "let pass, and no density."
    ),
    "fashion-mnist-pluralistic-conditional": (
        "What the code does not account for is noise, independent from pixel to pixel. And p(z | x~) is what the\n"
        "network says: there is no posterior behind it that it could be held against."
    ),
    "fashion-mnist-pluralistic-joint": (
        "The posterior over z alone takes the decoder for the truth, and is too sure of itself where an image is\n"
        "unlike the training images."
    ),
}


def _card(name: str, recipe: Any, minutes: float, model: Any, images: Image) -> str:
    figures = _bound_figures(model, images) | _completion_figures(model, images)
    return f"""# {name}

{_WHAT[name]}
Weights are stored in half precision.

Trained on training images of `{recipe.dataset}` with

    posterior-inpainting train {name} --out DIR

in {minutes:.1f} minutes of processor time on {machine()}.

{settings_table(recipe)}

## Measured on the first {len(images)} test images

{figures_table(figures)}

## Limits

{_LIMITS[name]}
`tests/benchmarks/pluralistic.md` compares the three forms.
"""
