"""Recipes of the bundled networks with random weights: how each was trained, measured and described.

Each begins with a fit of numbers and goes on with Bayes by Backprop from there: a mean that starts at a good
network needs a tenth of the passes, and the standard deviations have the rest of the time to find their size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributions import kl_divergence

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes.model_card import figures_table, machine, settings_table
from posterior_inpainting.inference.training.bayes_by_backprop import BayesByBackprop
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import LatentCode, datasets, observations, pretrained
from posterior_inpainting.models.bayesian_completion import BayesianCompletion, CompletionNetwork
from posterior_inpainting.models.bayesian_decoder import (
    BayesianDecoder,
    decode_with,
    posterior_scales_of,
    without_encoder,
)
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.random_weights.layers import BayesianModule
from posterior_inpainting.models.random_weights.weight_priors import FanIn
from posterior_inpainting.models.shapes import Image

__all__ = ["WEIGHT_RECIPES", "CompletionRecipe", "DecoderRecipe", "train_weights"]


@dataclass(frozen=True)
class DecoderRecipe:
    """A decoder with random weights, from a bundled prior on.

    Parameters
    ----------
    dataset
        A name that ``datasets.load`` knows.
    start
        The bundled prior whose decoder and encoder it starts from.
    gain
        Of the weights' prior ``FanIn(gain)``.
    posterior_scale
        Standard deviation of q(theta) to start from.
    epochs, encoder_epochs
        Passes over whole images, then, for the encoder alone and under the mean weights, over masked ones.
    batch_size, learning_rate, seed
        As for ``train``.
    """

    dataset: str
    start: str
    gain: float = 3.0
    posterior_scale: float = 0.01
    epochs: int = 14
    encoder_epochs: int = 4
    batch_size: int = 256
    learning_rate: float = 1e-3
    seed: int = 0

    def fit(self, images: Image, progress: bool) -> BayesianDecoder:
        """Train by the recipe."""
        start: Any = pretrained.load(self.start)
        model = BayesianDecoder(
            start,
            start.encoder,
            prior=FanIn(self.gain),
            posterior_scale=self.posterior_scale,
            local_reparametrisation=True,
        )
        _train(self, model, model.guide, images, self.epochs, BayesByBackprop(), progress)
        model.eval()
        completion = LatentCode(model.decoder.mean, encoder=model.encoder)
        _train(self, completion, completion.guide, images, self.encoder_epochs, None, progress, masked=True)
        return model


@dataclass(frozen=True)
class CompletionRecipe:
    """A completion network with random weights, from nothing.

    Parameters
    ----------
    dataset, gain, posterior_scale, batch_size, learning_rate, seed
        As for :class:`DecoderRecipe`.
    latent, widths, encoder_widths, scale_rank, floor
        Of the two halves: width of the bottleneck, hidden layers, and as for ``MultilayerDecoder``.
    """

    dataset: str
    latent: int = 64
    widths: tuple[int, ...] = (256, 256)
    encoder_widths: tuple[int, ...] = (256, 256)
    scale_rank: int | None = 96
    floor: float = 0.05
    gain: float = 3.0
    posterior_scale: float = 0.01
    epochs: int = 16
    batch_size: int = 256
    learning_rate: float = 1e-3
    seed: int = 0

    def fit(self, images: Image, progress: bool) -> BayesianCompletion:
        """Train by the recipe."""
        shape: Any = tuple(images.shape[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = CompletionNetwork(
                MaskedEncoder(self.latent, shape, self.encoder_widths),
                MultilayerDecoder(self.latent, shape, self.widths, self.scale_rank, self.floor),
            )
        model = BayesianCompletion(
            network,
            prior=FanIn(self.gain),
            posterior_scale=self.posterior_scale,
            local_reparametrisation=True,
        )
        loss = BayesByBackprop()
        _train(self, model.training_model, model.guide, images, self.epochs, loss, progress, masked=True)
        return model.eval()


WEIGHT_RECIPES: dict[str, DecoderRecipe | CompletionRecipe] = {
    "fashion-mnist-bayesian-decoder": DecoderRecipe("fashion-mnist", start="fashion-mnist-vae"),
    "fashion-mnist-bayesian-completion": CompletionRecipe("fashion-mnist"),
}


def train_weights(name: str, out: str | Path, root: str | Path | None = None, progress: bool = True) -> str:
    """Train a bundled network with random weights, write its files and card, and return the card.

    Parameters
    ----------
    name, out, root, progress
        As for ``recipes.train_bundled``.
    """
    recipe = WEIGHT_RECIPES[name]
    images, held_out = (datasets.load(recipe.dataset, split, root) for split in ("train", "test"))
    start = time.perf_counter()
    model = recipe.fit(images, progress)
    minutes = (time.perf_counter() - start) / 60
    out = Path(out)
    describe: Callable[..., dict[str, str]]
    decoder: Any
    encoder: Any
    if isinstance(model, BayesianDecoder):
        network, decoder, encoder = model.decoder, model.decoder.mean, model.encoder
        describe = _decoder_figures
    else:
        network, describe = model.network, _completion_figures
        decoder, encoder = network.mean.decoder, network.mean.encoder
    pretrained.save(out, decoder, encoder, f"{name}.", posterior_scales_of(network))
    text = _card(name, recipe, len(images), minutes, network, describe(model, held_out[:1000]))
    (out / f"{name}.md").write_text(text)
    return text


def _train(recipe, model, guide, images, epochs, loss, progress, masked=False) -> None:
    shape = tuple(images.shape[1:])
    masks = observations.random_masks(shape, 20_000 if len(images) > 10_000 else 4_000, recipe.seed)
    train(
        model,
        guide,
        images,
        masks=masks if masked else None,
        epochs=epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        loss=loss,
        seed=recipe.seed,
        progress=progress,
    )


def _decoder_figures(model: BayesianDecoder, images: Image) -> dict[str, str]:
    """Bounds under the mean weights and under single draws, reconstruction error, spread between draws."""
    found = bounds(LatentCode(without_encoder(model.decoder.mean), encoder=model.encoder), images)
    whole = torch.ones_like(images, dtype=torch.bool)
    with torch.no_grad():
        z = model.encoder(images, whole)[0]
        weights = model.decoder.draw_weights(8)
        means, scales = decode_with(model.decoder, weights, z.expand(8, *z.shape))
        centre = model.decoder.mean(z)
        log_likelihood = torch.distributions.Normal(means, scales).log_prob(images).sum((-3, -2, -1))
    return {
        "ELBO under the mean weights, nats an image": f"{found.elbo:.1f}",
        f"importance-weighted bound under the mean weights, {found.samples} samples, nats an image": (
            f"{found.importance_weighted:.1f}"
        ),
        "root mean square reconstruction error, mean weights": f"{_rms(centre - images):.4f}",
        "root mean square reconstruction error, one draw of the weights": f"{_rms(means - images):.4f}",
        "sd of a pixel's mean over draws of the weights, root mean square": f"{_rms(means - means.mean(0)):.4f}",
        "pixel scale sigma(z), median": f"{float(scales.median()):.3f}",
        "sd over draws of the weights, the log density of x given z and theta, mean over images, nats": (
            f"{float(log_likelihood.std(0).mean()):.1f}"
        ),
    }


def _completion_figures(model: BayesianCompletion, images: Image) -> dict[str, str]:
    """Density of hidden pixels, error of the mean and spread between networks, behind three masks."""
    shape: Any = tuple(images.shape[1:])
    figures = {}
    masks = {
        "bottom half hidden": observations.half(shape, hide="bottom"),
        "70 % of pixels hidden": observations.scatter(shape, 0.3),
    }
    for name, mask in masks.items():
        with torch.no_grad():
            weights = model.network.draw_weights(8)
            means, scales = model.network.forward_with(
                weights, torch.where(mask, images, 0.0), mask.expand(images.shape)
            )
            density = torch.distributions.Normal(means, scales).log_prob(images)[..., ~mask].sum(-1)
        hidden = (means - images)[..., ~mask]
        between = (means - means.mean(0))[..., ~mask]
        mixture = float((density.logsumexp(0) - torch.tensor(8.0).log()).mean())
        figures[f"{name}: log density of hidden pixels, 8 networks, nats an image"] = f"{mixture:.1f}"
        figures[f"{name}: root mean square error of one network's mean"] = f"{_rms(hidden):.4f}"
        figures[f"{name}: sd of a pixel's mean over networks, root mean square"] = f"{_rms(between):.4f}"
    return figures


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def _card(name, recipe, count: int, minutes: float, network: BayesianModule, figures: dict[str, str]) -> str:
    with torch.no_grad():
        divergence = sum(
            kl_divergence(q, network._prior(path, network.mean)).sum()
            for path, q in network.posterior().items()
        )
    ratio = torch.cat([value.flatten() for value in network.signal_to_noise().values()])
    figures = {
        "random weights": f"{len(ratio):,}",
        "divergence of q(theta) from p(theta), nats a training image": f"{float(divergence) / count:.1f}",
        "weights of a signal-to-noise ratio above 1": f"{float((ratio > 1).float().mean()):.0%}",
        **figures,
    }
    what = (
        "A decoder f(z) with pixel scale sigma(z) and a masked-input encoder q(z | x~)"
        if isinstance(recipe, DecoderRecipe)
        else "A network from seen pixels and mask to mean and scale of every pixel"
    )
    return f"""# {name}

{what}; the weights are random, with a mean-field
Gaussian q(theta) learnt by Bayes by Backprop. Means are stored in half precision, standard deviations in 8 bits.

Trained on the {count} training images of `{recipe.dataset}` with

    posterior-inpainting train {name} --out DIR

in {minutes:.1f} minutes on {machine()}.

{settings_table(recipe)}

## Measured on the first 1000 test images

{figures_table(figures)}

## Limits

A mean-field Gaussian knows nothing of how weights vary together, and that many images leave the weights little
room: see `tests/benchmarks/code_and_weights.md` for what random weights add to the posterior of a completion.
"""
