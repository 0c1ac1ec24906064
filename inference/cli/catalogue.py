"""What the command line calls things: models, methods, masks and images by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.exact import Exact
from posterior_inpainting.inference.methods.hmc import HMC, NUTS
from posterior_inpainting.inference.methods.langevin import MALA
from posterior_inpainting.inference.methods.optimum import MAP
from posterior_inpainting.inference.methods.smc import TemperedSMC
from posterior_inpainting.inference.methods.tempering import ParallelTempering
from posterior_inpainting.inference.methods.two_stage import TwoStage
from posterior_inpainting.inference.methods.variational import Variational
from posterior_inpainting.models import (
    BayesianDecoder,
    CodeAndUnits,
    DeepImagePrior,
    GaussianProcess,
    ImageModel,
    LatentCode,
    LinearGaussian,
    MixturePrior,
    Observation,
    PixelConstrained,
    PluralisticConditional,
    PluralisticJoint,
    PluralisticTwoPath,
    datasets,
    geology,
    image_files,
    observations,
    pretrained,
)
from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = [
    "FITTED",
    "METHODS",
    "MODELS",
    "SETTINGS",
    "image_named",
    "mask_named",
    "method_named",
    "model_for",
    "model_named",
]

METHODS: dict[str, Callable[[], Method]] = {
    "chees": ChEES,
    "langevin": lambda: MALA(
        warmup=100, thin=10, metric="identity", init="optimum"
    ),  # for weights of networks
    "tempered-chees": lambda: ChEES(init="tempered"),
    "tempering": ParallelTempering,
    "smc": TemperedSMC,
    "mala": MALA,
    "nuts": NUTS,
    "hmc": HMC,
    "amortised": Variational,
    "normal": lambda: Variational(guide="normal"),
    "multivariate-normal": lambda: Variational(guide="multivariate_normal"),
    "iaf": lambda: Variational(guide="iaf"),
    "map": MAP,
    "exact": Exact,
    "two-stage": TwoStage,
}


def _linear(dataset: str) -> Callable[[ImageShape], ImageModel]:
    """Fit principal components to a data set's images, or to its patches of the size that is asked for."""

    def build(shape: ImageShape) -> ImageModel:
        images = datasets.load(dataset, split="train")
        if images.shape[1] != shape[0]:
            raise ValueError(f"{dataset} has {images.shape[1]} channels; the image has {shape[0]}")
        latent = min(100, shape[0] * shape[1] * shape[2] // 4)
        if tuple(images.shape[1:]) != tuple(shape) or len(images) <= latent:
            if shape[1] != shape[2] or shape[1] > 32 or shape[1] > images.shape[2]:
                raise ValueError(
                    f"the image is {shape[1]} x {shape[2]}; patches of {dataset} must be square, at most "
                    f"{min(32, images.shape[2])} pixels a side"
                )
            images = datasets.patches(images, shape[1], count=4000, seed=0)
        return LinearGaussian.fit(images, latent=latent)

    return build


def _code(prior: str) -> Callable[[ImageShape], ImageModel]:
    """Load a bundled prior; it has a shape of its own, which `infer` compares with the image's."""
    return lambda shape: LatentCode(pretrained.load(prior))


def _channels(shape: ImageShape) -> ImageModel:
    """Load the generator of river channels, under the law of its codes."""
    parts: dict[str, Any] = dict(pretrained.load_parts("channels-generator"))
    return LatentCode(parts["decoder"], prior=MixturePrior(parts["prior"]))


MODELS: dict[str, Callable[[ImageShape], ImageModel]] = {
    **{name: _code(name) for name in pretrained.NAMES},
    "bayesian-decoder": lambda shape: CodeAndUnits(BayesianDecoder.load()),
    "gan": _code("fashion-mnist-generator"),
    "pixel-constrained": lambda shape: PixelConstrained.load(),
    "pluralistic-two-path": lambda shape: PluralisticTwoPath.load(),
    "pluralistic-conditional": lambda shape: PluralisticConditional.load(),
    "pluralistic-joint": lambda shape: PluralisticJoint.load(),
    "river-channels": _channels,
    "digits-linear": _linear("digits"),
    "natural-linear": _linear("natural"),
}

#: Models that need the observation itself, and no training data: fitted to what is seen.
FITTED: dict[str, Callable[[Observation], ImageModel]] = {
    "gp": GaussianProcess.fit,
    "dip": lambda observation: DeepImagePrior(observation.shape),
}

#: Method, draws and chains of a model where the caller names none.
SETTINGS: dict[str, tuple[str, int, int]] = {
    "gp": ("exact", 100, 4),
    "dip": ("langevin", 100, 4),
    "bayesian-decoder": ("two-stage", 200, 16),
    "gan": ("tempered-chees", 200, 16),
    "river-channels": ("smc", 256, 2),
    "pixel-constrained": ("exact", 100, 4),
    "pluralistic-two-path": ("exact", 100, 4),
    "pluralistic-conditional": ("exact", 100, 4),
}

_MASKS: dict[str, tuple[Callable, tuple[type, ...], str]] = {
    # name: maker, types of its arguments, how it is written
    "box": (observations.box, (int, int, int, int), "box:TOP,LEFT,HEIGHT,WIDTH (hidden)"),
    "half": (observations.half, (str,), "half:top|bottom|left|right (hidden)"),
    "strokes": (observations.strokes, (int, int, int), "strokes:COUNT,WIDTH[,SEED] (hidden)"),
    "blobs": (observations.blobs, (int, int), "blobs:COUNT[,SEED] (hidden)"),
    "scatter": (observations.scatter, (float, int), "scatter:SHARE[,SEED] (seen)"),
    "grid": (observations.grid, (int,), "grid:FACTOR (seen)"),
    "wells": (geology.wells, (int, int), "wells:COUNT[,SEED] (seen)"),
    "columns": (geology.columns, (int, int), "columns:COUNT[,SEED] (seen)"),
    "channels": (
        lambda shape, *keep: observations.channels(shape, keep),
        (int, int, int),
        "channels:C[,C] (seen)",
    ),
}


def model_named(name: str, shape: ImageShape) -> ImageModel:
    """Make the model of a name, for images of a shape.

    >>> model_named("digits-vae-2d", (1, 8, 8)).latent
    2
    """
    if name in FITTED:
        raise ValueError(f"{name} is made for one image; only `complete` takes it")
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are {', '.join([*MODELS, *FITTED])}")
    return MODELS[name](shape)


def model_for(name: str, observation: Observation) -> ImageModel:
    """Make the model of a name for one observation, fitted to its seen pixels if it is one of ``FITTED``.

    >>> from posterior_inpainting.models import datasets
    >>> image = datasets.load("digits")[0]
    >>> type(model_for("dip", Observation(image, image > 0.5))).__name__
    'DeepImagePrior'
    """
    if name in FITTED:
        return FITTED[name](observation)
    return model_named(name, observation.shape)


def method_named(name: str) -> Method:
    """Make the method of a name, with its default settings.

    >>> method_named("nuts").target_acceptance
    0.8
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]()


def mask_named(spec: str, shape: ImageShape) -> Mask:
    """Make a mask from a specification such as ``box:14,0,14,28`` or ``half:bottom``.

    >>> int(mask_named("grid:2", (1, 8, 8)).sum())
    16
    """
    name, _, rest = spec.partition(":")
    if name not in _MASKS:
        raise ValueError(
            f"unknown mask {spec!r}; there are {'; '.join(usage for _, _, usage in _MASKS.values())}"
        )
    maker, types, usage = _MASKS[name]
    words = rest.split(",") if rest else []
    try:
        arguments = [kind(word) for kind, word in zip(types, words, strict=False)]
        if len(words) > len(types) or not words:
            raise ValueError
    except ValueError:
        raise ValueError(f"mask {spec!r} is not understood; expected {usage}") from None
    try:
        return maker(shape, *arguments)
    except TypeError:
        raise ValueError(f"mask {spec!r} has too few numbers; expected {usage}") from None


def image_named(name: str) -> tuple[Image, Mask | None]:
    """Read an image from a path, or from a data set as ``sample:DATASET/NUMBER``.

    ``sample:fashion-mnist/N`` with N below 64 needs nothing but the package.

    >>> tuple(image_named("sample:fashion-mnist/7")[0].shape)
    (1, 28, 28)
    """
    if not name.startswith("sample:"):
        return image_files.read_image(Path(name))
    dataset, _, number = name.removeprefix("sample:").partition("/")
    if not number.isdigit():
        raise ValueError(f"{name!r} is not understood; expected sample:DATASET/NUMBER")
    bundled = dataset == "fashion-mnist" and int(number) < 64
    images = datasets.load("fashion-mnist-samples" if bundled else dataset)
    if int(number) >= len(images):
        raise ValueError(f"{name!r}: {dataset} has images 0..{len(images) - 1}")
    return images[int(number)], None


def check_seen(image: Image, mask: Mask) -> None:
    """Hold what comes from outside to more than a model needs: values in [0, 1], something seen and hidden."""
    if not mask.any():
        raise ValueError("the mask hides every pixel; expected at least one seen pixel")
    if mask.all():
        raise ValueError("the mask hides nothing, so that there is nothing to complete")
    check_values(image[mask], "seen pixels")


def check_values(values: Tensor, name: str) -> None:
    """Raise ``ValueError`` unless every value lies in [0, 1].

    >>> import torch
    >>> check_values(torch.tensor([0.5, 2.0]), "seen pixels")
    Traceback (most recent call last):
    ...
    ValueError: seen pixels run from 0.5 to 2; expected [0, 1]
    """
    if not values.isfinite().all():
        raise ValueError(
            f"{int((~values.isfinite()).sum())} {name} are NaN or infinite; expected values in [0, 1]"
        )
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"{name} run from {float(values.min()):.3g} to {float(values.max()):.3g}; expected [0, 1]"
        )
