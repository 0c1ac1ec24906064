"""Recipes of the bundled networks with random weights.

Each begins with a fit of numbers and goes on with Bayes by Backprop from there: a mean that starts at a good
network needs a tenth of the passes, and the standard deviations have the rest of the time to find their size.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.distributions import kl_divergence

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes.model_card import figures_table
from posterior_inpainting.inference.recipes.recipe import Data, DatasetRecipe, Description, Written
from posterior_inpainting.inference.training.bayes_by_backprop import BayesByBackprop
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import LatentCode, observations, pretrained
from posterior_inpainting.models.bayesian_completion import BayesianCompletion, CompletionNetwork
from posterior_inpainting.models.bayesian_decoder import (
    BayesianDecoder,
    bare,
    decode_with,
    posterior_scales_of,
)
from posterior_inpainting.models.likelihoods import likelihood_of
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.random_weights.layers import BayesianModule
from posterior_inpainting.models.random_weights.weight_priors import FanIn
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["RANDOM_WEIGHT_RECIPES", "CompletionRecipe", "DecoderRecipe"]


@dataclass(frozen=True, kw_only=True)
class RandomWeightRecipe(DatasetRecipe):
    """Abstract recipe of networks with random weights.

    Parameters
    ----------
    gain
        Of the weights' prior ``FanIn(gain)``.
    posterior_scale
        Standard deviation of q(theta) to start from.
    """

    #: What the networks are.
    about: ClassVar[str]

    gain: float = 3.0
    posterior_scale: float = 0.01
    batch_size: int = 256

    def bank(self, images: Image) -> Mask:
        """Return the masks to train with."""
        count = 20_000 if len(images) > 10_000 else 4_000
        shape: Any = tuple(images.shape[1:])
        return observations.random_masks(shape, count, self.streams.number("masks"))

    @abstractmethod
    def network(self, fitted: Any) -> BayesianModule:
        """Return the part with random weights."""

    @abstractmethod
    def figures(self, fitted: Any, images: Image) -> dict[str, str]:
        """Measure on held-out images."""

    def measure(self, fitted: Any, data: Data, written: Written) -> str:
        """Measure the weights, then what they do on held-out images."""
        weights = _weight_figures(self.network(fitted), len(data.images))
        return figures_table(weights | self.figures(fitted, data.held_out[:1000]))

    def describe(self, name: str, fitted: Any, data: Data) -> Description:
        """Return the card's words."""
        return Description(
            about=(
                f"{self.about}; the weights are random, with a mean-field\n"
                "Gaussian q(theta) learnt by Bayes by Backprop. Means are stored in half precision, "
                "standard deviations in 8 bits."
            ),
            trained_on=f"the {len(data.images)} training images of `{self.dataset}`{self.chosen_on}",
            measured_on=data.measured(1000),
            limits=_LIMITS,
        )


_LIMITS = """\
A mean-field Gaussian knows nothing of how weights vary together, and that many images leave the weights little
room: see `tests/benchmarks/code_and_weights.md` for what random weights add to the posterior of a completion."""


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe(RandomWeightRecipe):
    """A decoder with random weights, from a bundled decoder on.

    Parameters
    ----------
    start
        The bundled set whose decoder and encoder it starts from.
    encoder_epochs
        Passes over masked images, of the encoder alone and under the mean weights.
    scale_factor
        What the decoder's scales are multiplied by once it is trained, as for ``AutoencoderRecipe``.
    """

    about: ClassVar[str] = "A decoder f(z) with pixel scale sigma(z) and a masked-input encoder q(z | x~)"

    start: str
    epochs: int = 14
    encoder_epochs: int = 4
    scale_factor: float = 1.0

    def fit(self, images: Image, progress: bool = True) -> BayesianDecoder:
        """Train by the recipe."""
        start: Any = pretrained.load(self.start)
        start.scale_factor = 1.0  # what is multiplied afterwards is learnt first
        model = BayesianDecoder(
            start,
            start.encoder,
            prior=FanIn(self.gain),
            posterior_scale=self.posterior_scale,
            local_reparametrisation=True,
        )
        train(model, model.guide, images, loss=BayesByBackprop(), schedule=self.schedule(progress))
        model.eval()
        mean: Any = model.decoder.mean
        mean.scale_factor = self.scale_factor
        completion = LatentCode(model.decoder.mean, encoder=model.encoder)
        schedule = self.schedule(progress, self.encoder_epochs)
        train(completion, completion.guide, images, masks=self.bank(images), schedule=schedule)
        return model

    def network(self, fitted: BayesianDecoder) -> BayesianModule:
        """Return the decoder."""
        return fitted.decoder

    def parts(self, fitted: BayesianDecoder) -> dict[str, Any]:
        """Return the means of decoder and encoder, and the decoder's standard deviations."""
        scales = posterior_scales_of(fitted.decoder)
        return {"decoder": fitted.decoder.mean, "encoder": fitted.encoder, "posterior_scales": scales}

    def figures(self, fitted: BayesianDecoder, images: Image) -> dict[str, str]:
        """Measure bounds, reconstruction error, and the spread between draws of the weights."""
        return _decoder_figures(fitted, images)


@dataclass(frozen=True, kw_only=True)
class CompletionRecipe(RandomWeightRecipe):
    """A completion network with random weights, from nothing.

    Parameters
    ----------
    latent, widths, encoder_widths, scale_rank, floor
        Of the two halves: width of the bottleneck, hidden layers, and as for ``MultilayerDecoder``.
    """

    about: ClassVar[str] = "A network from seen pixels and mask to mean and scale of every pixel"

    latent: int = 64
    widths: tuple[int, ...] = (256, 256)
    encoder_widths: tuple[int, ...] = (256, 256)
    scale_rank: int | None = 96
    floor: float = 0.05
    epochs: int = 16

    def fit(self, images: Image, progress: bool = True) -> BayesianCompletion:
        """Train by the recipe."""
        shape: Any = tuple(images.shape[1:])
        with self.streams.seeded("networks"):
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
        masks, schedule = self.bank(images), self.schedule(progress)
        train(
            model.training_model, model.guide, images, masks=masks, loss=BayesByBackprop(), schedule=schedule
        )
        return model.eval()

    def network(self, fitted: BayesianCompletion) -> BayesianModule:
        """Return the whole network."""
        return fitted.network

    def parts(self, fitted: BayesianCompletion) -> dict[str, Any]:
        """Return the means of both halves, and the standard deviations of all weights."""
        mean, scales = fitted.network.mean, posterior_scales_of(fitted.network)
        return {"decoder": mean.decoder, "encoder": mean.encoder, "posterior_scales": scales}

    def figures(self, fitted: BayesianCompletion, images: Image) -> dict[str, str]:
        """Measure the density of hidden pixels, the error of the mean, and the spread between networks."""
        return _completion_figures(fitted, images)


RANDOM_WEIGHT_RECIPES: dict[str, RandomWeightRecipe] = {
    "fashion-mnist-bayesian-decoder": DecoderRecipe(
        dataset="fashion-mnist", held_back=5_000, start="fashion-mnist-vae", scale_factor=1.4
    ),
    "fashion-mnist-bayesian-completion": CompletionRecipe(dataset="fashion-mnist"),
}


def _weight_figures(network: BayesianModule, count: int) -> dict[str, str]:
    """Say how many weights there are, and how much was learnt of them from ``count`` images."""
    with torch.no_grad():
        divergence = sum(
            kl_divergence(q, network._prior(path, network.mean)).sum()
            for path, q in network.posterior().items()
        )
    ratio = torch.cat([value.flatten() for value in network.signal_to_noise().values()])
    return {
        "random weights": f"{len(ratio):,}",
        "divergence of q(theta) from p(theta), nats a training image": f"{float(divergence) / count:.1f}",
        "weights of a signal-to-noise ratio above 1": f"{float((ratio > 1).float().mean()):.0%}",
    }


def _decoder_figures(model: BayesianDecoder, images: Image) -> dict[str, str]:
    """Bounds under the mean weights and under single draws, reconstruction error, spread between draws."""
    found = bounds(LatentCode(bare(model.decoder.mean), encoder=model.encoder), images)
    whole = torch.ones_like(images, dtype=torch.bool)
    with torch.no_grad():
        z = model.encoder(images, whole)[0]
        weights = model.decoder.draw_weights(8)
        mean: Any = model.decoder.mean
        pixels = likelihood_of(mean)
        of_draws, centre = (
            pixels(*decode_with(model.decoder, weights, z.expand(8, *z.shape))),
            pixels(*mean.mean_and_scale(z)).mean,
        )
        means, scales = of_draws.mean, of_draws.stddev
        log_likelihood = of_draws.log_prob(images).sum((-3, -2, -1))
    return {
        "ELBO under the mean weights, nats an image": f"{found.elbo:.1f}",
        f"importance-weighted bound under the mean weights, {found.samples} samples, nats an image": (
            f"{found.importance_weighted:.1f}"
        ),
        "root mean square reconstruction error, mean weights": f"{_rms(centre - images):.4f}",
        "root mean square reconstruction error, one draw of the weights": f"{_rms(means - images):.4f}",
        "sd of a pixel's mean over draws of the weights, root mean square": f"{_rms(means - means.mean(0)):.4f}",
        "sd of a pixel given z, median": f"{float(scales.median()):.3f}",
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
