"""How each model of the catalogue is made: loaded, fitted to a data set, or made for one image."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from posterior_inpainting.inference.bars import are_shown, progress_bar
from posterior_inpainting.inference.catalogue.entry import Given
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import (
    BayesianCompletion,
    BayesianDecoder,
    CodeAndUnits,
    DeepImagePrior,
    DiffusionPrior,
    EmpiricalPrior,
    ExpertField,
    GaussianProcess,
    ImageModel,
    LatentCode,
    LinearGaussian,
    MixturePrior,
    NearestMeasurement,
    PixelConstrained,
    PluralisticConditional,
    PluralisticJoint,
    PluralisticTwoPath,
    PriorLoss,
    WeightDraws,
    datasets,
    pretrained,
)
from posterior_inpainting.models.fields.channel_prior import ChannelPrior
from posterior_inpainting.models.geology.nearest_measurement import published_radius
from posterior_inpainting.models.likelihoods import laplace
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.networks import Hourglass


def code(prior: str, given: Given) -> ImageModel:
    """Load the posterior over the code of a bundled decoder."""
    return LatentCode(pretrained.load(prior))


def diffusion(prior: str, given: Given, highest: float = 10.0, noise: float = 0.02) -> ImageModel:
    """Load a bundled denoiser as a prior, of as many steps as its method takes."""
    return DiffusionPrior.load(prior, given.shape, steps=40, noise=noise, lowest=0.005, highest=highest)


def experts(prior: str, given: Given) -> ImageModel:
    """Load a bundled field of experts; what no pixel says of an image's colour is that of photographs."""
    unseen = isinstance(given.observation, Measurement) and given.shape[0] == 3
    return ExpertField.load(prior, given.shape, colours=ChannelPrior.of_photographs() if unseen else None)


def yeh(given: Given) -> ImageModel:
    """Load the generator with Yeh's devices: weights of the context, L1, the discriminator's term."""
    parts = pretrained.load_parts("fashion-mnist-generator")
    return LatentCode(
        parts["decoder"],
        likelihood=laplace,
        noise=0.1,
        context_window=7,
        # The paper's lambda, beside an error over its noise.
        prior_loss=PriorLoss(parts["discriminator"], 2**0.5 * 0.003 / 0.1),
    )


def code_and_units(given: Given) -> ImageModel:
    """Load the decoder with random weights; the noises of its units stand for them."""
    return CodeAndUnits(BayesianDecoder.load())


def weight_draws(given: Given) -> ImageModel:
    """Draw 16 networks from the decoder with random weights."""
    return WeightDraws(BayesianDecoder.load(), count=16)


def bayesian_completion(given: Given) -> ImageModel:
    """Load the completion network with random weights."""
    return BayesianCompletion.load()


def pixel_constrained(prior: str, given: Given) -> ImageModel:
    """Load a prior over pixels with its constraint network."""
    return PixelConstrained.load(prior)


def two_path(given: Given) -> ImageModel:
    """Load pluralistic completion as published."""
    return PluralisticTwoPath.load()


def conditional(given: Given) -> ImageModel:
    """Load pluralistic completion as a conditional autoencoder."""
    return PluralisticConditional.load()


def joint(given: Given) -> ImageModel:
    """Load pluralistic completion as a joint density."""
    return PluralisticJoint.load()


def river_channels(given: Given) -> ImageModel:
    """Load the decoder of river channels, under the law of its codes."""
    parts: dict[str, Any] = dict(pretrained.load_parts("channels-generator"))
    return LatentCode(parts["decoder"], prior=MixturePrior(parts["prior"]))


def nearest_measurement(given: Given) -> ImageModel:
    """Load the decoder of river channels with made-up targets, as far out as is published for 8 wells."""
    parts: dict[str, Any] = dict(pretrained.load_parts("channels-generator"))
    return NearestMeasurement(
        parts["decoder"],
        published_radius(8, parts["decoder"].image_shape),
        prior=MixturePrior(parts["prior"]),
    )


def gaussian_process(given: Given) -> ImageModel:
    """Fit a Gaussian process to the seen pixels."""
    with progress_bar(desc="fitting the Gaussian process", unit=" kernels", disable=not are_shown()) as bar:
        return GaussianProcess.fit(_observation(given), each=bar.update)


def small_hourglass(given: Given) -> ImageModel:
    """Make an untrained network small enough for chains, which need many gradients."""
    with Streams().seeded("untrained network"):
        return DeepImagePrior(given.shape, Hourglass(given.shape, channels=16, scales=2))


def full_hourglass(given: Given) -> ImageModel:
    """Make an untrained network of as many scales as the image allows."""
    with Streams().seeded("untrained network"):
        return DeepImagePrior(given.shape)


def nearest(count: int, given: Given) -> ImageModel:
    """Take the training images of Fashion-MNIST that are nearest on the seen pixels, but for the last 5,000."""
    return EmpiricalPrior(_fashion(given.root), noise=1e-3, nearest=count)


def linear_gaussian(given: Given) -> ImageModel:
    """Fit principal components to training images of Fashion-MNIST."""
    return _components("fashion-mnist", (1, 28, 28), given.root, count=10_000)


def patches_of(dataset: str, largest: int, given: Given) -> ImageModel:
    """Fit principal components to patches of a data set's training images, as large as the image is."""
    channels, rows, columns = given.shape
    images = datasets.load(dataset, split="train", root=given.root)
    if images.shape[1] != channels:
        raise ValueError(f"{dataset} has {images.shape[1]} channels; the image has {channels}")
    if rows != columns or rows > largest:
        raise ValueError(
            f"the image is {rows} x {columns}; patches of {dataset} must be square, at most {largest} pixels a side"
        )
    return _components(dataset, given.shape, given.root)


@functools.lru_cache(maxsize=1)
def _fashion(root: str | Path | None):
    return datasets.load("fashion-mnist", split="train", root=root)[:-5_000]


@functools.lru_cache(maxsize=1)
def _training_images(dataset: str, shape: tuple, root: str | Path | None, count: int | None):
    images = datasets.load(dataset, split="train", root=root)
    latent = min(100, shape[0] * shape[1] * shape[2] // 4)
    if tuple(images.shape[1:]) != tuple(shape) or len(images) <= latent:
        images = datasets.patches(images, shape[1], count=4000, seed=0)
    return images[:count], latent


def _components(dataset: str, shape: tuple, root: str | Path | None, count: int | None = None) -> ImageModel:
    images, latent = _training_images(dataset, tuple(shape), root, count)
    return LinearGaussian.fit(images, latent=latent)


def _observation(given: Given):
    if given.observation is None:
        raise ValueError("no observation is given; the model is fitted to the seen pixels of one")
    if isinstance(given.observation, Measurement):
        raise ValueError("the model is fitted to seen pixels, and a measurement has none; choose another")
    return given.observation
