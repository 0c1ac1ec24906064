"""Recipes of the three forms of pluralistic completion.

Their trainings are of one order; the nets of the two-path form have half the weights of the others' parts, a third of a
million, because its discriminators are trained beside them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import nn

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes.model_card import figures_table
from posterior_inpainting.inference.recipes.recipe import Data, DatasetRecipe, Description, Written
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.inference.training.two_path import TwoPathObjective
from posterior_inpainting.models import observations
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
]


@dataclass(frozen=True, kw_only=True)
class PluralisticRecipe(DatasetRecipe):
    """Abstract recipe of a form of pluralistic completion."""

    #: What the networks are, and what they are not good at.
    about: ClassVar[str]
    limits: ClassVar[str]
    follows_images: ClassVar[bool] = True

    def bank(self, images: Image) -> Mask:
        """Return the masks to train with."""
        count = min(20_000, len(images))
        return observations.random_masks(_shape(images), count, self.streams.number("masks")).to(
            images.device
        )

    def measure(self, fitted: Any, data: Data, written: Written) -> str:
        """Measure the form's own objective, where it is a bound, and completions."""
        some = data.held_out[:200]
        return figures_table(self.objective(fitted, some) | _completion_figures(fitted, some, self.streams))

    @abstractmethod
    def objective(self, model: Any, images: Image) -> dict[str, str]:
        """Evaluate the form's own objective on held-out images."""

    def describe(self, name: str, fitted: Any, data: Data) -> Description:
        """Return the card's words."""
        return Description(
            about=f"{self.about}\nWeights are stored in half precision.",
            trained_on=f"training images of `{self.dataset}`",
            measured_on=data.measured(200),
            limits=f"{self.limits}\n`tests/benchmarks/pluralistic.md` compares the three forms.",
        )


@dataclass(frozen=True, kw_only=True)
class TwoPathRecipe(PluralisticRecipe):
    """The published form, by its published loss weights; its rate of 1e-4 is for hundreds of times as many steps.

    Parameters
    ----------
    images
        How many of its training images, from the first on.
    code_channels, widths
        As for ``PluralisticEncoder``.
    regulariser
        As for ``TwoPathObjective``.
    judges_learning_rate
        Of the discriminators.
    """

    about: ClassVar[str] = (
        "Convolutional encoder and decoder of the published two-path form, with short and long term attention. The\n"
        "discriminators that trained them are not kept."
    )
    limits: ClassVar[str] = (
        "The hole was never scored by a likelihood on the path that completes images: draws are what a discriminator\n"
        "let pass, and no density."
    )

    images: int = 45_000
    code_channels: int = 16
    widths: tuple[int, int] = (24, 48)
    regulariser: str = "paper"
    epochs: int = 2
    batch_size: int = 32
    judges_learning_rate: float = 5e-4

    def fit(self, images: Image, progress: bool = True) -> PluralisticTwoPath:
        """Train by the recipe, and measure the noise around the reconstructive path."""
        images = images[: self.images]
        shape = _shape(images)
        with self.streams.seeded("networks"):
            encoder = PluralisticEncoder(shape, self.code_channels, self.widths)
            model = PluralisticTwoPath(encoder, PluralisticDecoder(shape, self.code_channels, self.widths))
        model, masks = model.to(images.device), self.bank(images)
        train(
            model.training_model,
            model.training_guide,
            images,
            masks=masks,
            loss=TwoPathObjective(regulariser=self.regulariser, learning_rate=self.judges_learning_rate),
            schedule=self.schedule(progress),
            optimiser=partial(torch.optim.Adam, betas=(0.0, 0.999)),
        )
        some = images[:500]
        with torch.no_grad(), self.streams.seeded("noise of the reconstructive path"):
            # The mean absolute error is the likeliest scale of a Laplace law.
            error = (model.two_paths(some, masks[: len(some)]).reconstructed[-1] - some).abs()
            model.decoder.noise.fill_(float(error[~masks[: len(some)]].mean()))
        return model.requires_grad_(False).eval()

    def parts(self, model: PluralisticTwoPath) -> dict[str, nn.Module]:
        """Return what is saved."""
        return {"encoder": model.encoder, "decoder": model.decoder}

    def objective(self, model: PluralisticTwoPath, images: Image) -> dict[str, str]:
        """Return the scale of pixels: the objective is no bound on anything."""
        return {"scale of pixels around the reconstructive path": f"{float(model.decoder.noise):.4f}"}


@dataclass(frozen=True, kw_only=True)
class ConditionalRecipe(PluralisticRecipe):
    """The conditional form.

    Parameters
    ----------
    latent, context
        Lengths of the code and of the summary of what is seen.
    widths, scale_rank, floor
        The decoder's; see ``MultilayerDecoder``.
    encoder_widths
        Hidden layers of both encoders.
    """

    about: ClassVar[str] = (
        "Encoder of p(z | x~) with a summary of what is seen, and a decoder of both: a conditional VAE. The\n"
        "encoder of q(z | x), which only training needs, is not kept."
    )
    limits: ClassVar[str] = (
        "What the code does not account for is noise, independent from pixel to pixel. And p(z | x~) is what the\n"
        "network says: there is no posterior behind it that it could be held against."
    )

    latent: int = 16
    context: int = 48
    widths: tuple[int, ...] = (256, 256)
    encoder_widths: tuple[int, ...] = (192, 192)
    scale_rank: int | None = 64
    floor: float = 0.05
    epochs: int = 12

    def fit(self, images: Image, progress: bool = True) -> PluralisticConditional:
        """Train by the recipe."""
        shape = _shape(images)
        twice: Any = (2 * shape[0], *shape[1:])
        with self.streams.seeded("networks"):
            model = PluralisticConditional(
                ContextEncoder(self.latent, shape, self.encoder_widths, self.context),
                MultilayerDecoder(
                    self.latent + self.context, shape, self.widths, self.scale_rank, self.floor
                ),
                MaskedEncoder(self.latent, twice, self.encoder_widths),
            ).to(images.device)
        pair = model.training_model, model.training_guide
        train(*pair, images, masks=self.bank(images), schedule=self.schedule(progress))
        return model.requires_grad_(False).eval()

    def parts(self, model: PluralisticConditional) -> dict[str, nn.Module]:
        """Return what is saved: completion needs no posterior encoder, which is the largest part."""
        return {"prior_encoder": model.prior_encoder, "decoder": model.decoder}

    def objective(self, model: PluralisticConditional, images: Image) -> dict[str, str]:
        """Return bounds on the density of hidden pixels given seen ones."""
        figures = {}
        for name, mask in _masks(_shape(images)).items():
            with torch.no_grad(), self.streams.seeded("figures"):
                masks = mask.expand(images.shape)
                loss = TraceMeanField_ELBO().loss(model.training_model, model.training_guide, images, masks)
            figures[f"{name}: bound on log p(hidden given seen), nats an image"] = (
                f"{-loss / len(images):.1f}"
            )
        return figures


@dataclass(frozen=True, kw_only=True)
class JointRecipe(PluralisticRecipe):
    """The joint form: the decoder on whole images, then the guide on masked ones.

    Parameters
    ----------
    latent, widths, encoder_widths, scale_rank, floor
        As for :class:`ConditionalRecipe`.
    encoder_epochs
        Passes over masked images, the decoder frozen.
    """

    about: ClassVar[str] = (
        "Decoder f(z) with pixel scale sigma(z), and the guide q(z | x~): a joint density that MCMC over z refines."
    )
    limits: ClassVar[str] = (
        "The posterior over z alone takes the decoder for the truth, and is too sure of itself where an image is\n"
        "unlike the training images."
    )

    latent: int = 16
    widths: tuple[int, ...] = (256, 256)
    encoder_widths: tuple[int, ...] = (192, 192)
    scale_rank: int | None = 64
    floor: float = 0.05
    epochs: int = 10
    encoder_epochs: int = 6

    def fit(self, images: Image, progress: bool = True) -> PluralisticJoint:
        """Train by the recipe."""
        shape = _shape(images)
        with self.streams.seeded("networks"):
            decoder = MultilayerDecoder(self.latent, shape, self.widths, self.scale_rank, self.floor)
            encoder = MaskedEncoder(self.latent, shape, self.encoder_widths)
        model = PluralisticJoint(decoder, encoder).to(images.device)
        train(model, model.guide, images, schedule=self.schedule(progress))
        model.decoder.requires_grad_(False).eval()
        schedule = self.schedule(progress, self.encoder_epochs)
        train(model, model.guide, images, masks=self.bank(images), schedule=schedule)
        return model.eval()

    def parts(self, model: PluralisticJoint) -> dict[str, nn.Module]:
        """Return what is saved."""
        return {"decoder": model.decoder, "encoder": model.encoder}

    def objective(self, model: PluralisticJoint, images: Image) -> dict[str, str]:
        """Return bounds on the density of whole images."""
        found = bounds(model, images, samples=200)
        return {
            "ELBO, nats an image": f"{found.elbo:.1f}",
            "importance-weighted bound, 200 samples, nats an image": f"{found.importance_weighted:.1f}",
        }


PLURALISTIC_RECIPES: dict[str, PluralisticRecipe] = {
    "fashion-mnist-pluralistic-two-path": TwoPathRecipe(dataset="fashion-mnist"),
    "fashion-mnist-pluralistic-conditional": ConditionalRecipe(dataset="fashion-mnist"),
    "fashion-mnist-pluralistic-joint": JointRecipe(dataset="fashion-mnist"),
}


def _shape(images: Image) -> ImageShape:
    return tuple(images.shape[1:])


def _completion_figures(model: Any, images: Image, streams: Streams) -> dict[str, str]:
    """Measure how near completions come, and how much of their variance the code accounts for."""
    figures = {}
    for name, mask in _masks(_shape(images)).items():
        means, variances = [], []
        with torch.no_grad(), streams.seeded("figures"):
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
