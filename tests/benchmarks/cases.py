"""Images and masks on which the benchmarks measure: each is said here once, by name."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

with warnings.catch_warnings():  # ArviZ announces its next version
    warnings.simplefilter("ignore", FutureWarning)
    from posterior_inpainting.inference.catalogue import mask as mask_named
from posterior_inpainting.models import (
    BayesianDecoder,
    CodeAndUnits,
    LatentCode,
    Observation,
    WeightDraws,
    datasets,
    pretrained,
)
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = [
    "DIGIT",
    "GARMENT",
    "HALF",
    "STANDARD",
    "half_seen",
    "mask_named",
    "masks",
    "photograph",
    "test_garments",
    "tiny_models",
]

GARMENT: ImageShape = (1, 28, 28)
DIGIT: ImageShape = (1, 8, 8)
HALF = "half:bottom"
#: The masks that every comparison on Fashion-MNIST uses, as the command line writes them.
STANDARD = (HALF, "scatter:0.3", "box:8,8,12,12")


def masks(*names: str, shape: ImageShape = GARMENT) -> dict[str, Mask]:
    """Make masks by name, the standard ones if none is given.

    >>> list(masks("grid:2", shape=(1, 8, 8)))
    ['grid:2']
    """
    return {name: mask_named(name, shape) for name in names or STANDARD}


def half_seen(image: Image, seed: int = 0) -> Observation:
    """Hide half the values of an image, at random."""
    return Observation(image, mask_named(f"scatter:0.5,{seed}", tuple(image.shape)))


def test_garments(numbers: range) -> Image:
    """Load test images of Fashion-MNIST, ``(image, 1, 28, 28)``."""
    return datasets.load("fashion-mnist", "test")[numbers.start : numbers.stop]


def photograph(file: str, side: int, colour: bool = False) -> Image:
    """Load the centre square of a photograph that travels with scikit-image, grey unless asked otherwise."""
    import skimage
    from skimage.color import rgb2gray
    from skimage.io import imread
    from skimage.transform import resize

    pixels = imread(Path(skimage.__file__).parent / "data" / file)
    pixels = pixels if colour or pixels.ndim == 2 else rgb2gray(pixels[..., :3])
    extent = min(pixels.shape[:2])
    top, left = ((size - extent) // 2 for size in pixels.shape[:2])
    square = resize(pixels[top : top + extent, left : left + extent], (side, side), anti_aliasing=True)
    image = torch.from_numpy(square).float().clamp(0, 1)
    return image.permute(2, 0, 1) if colour else image[None]


def tiny_models(networks: int = 3) -> dict:
    """Make small models of digits, on which every method is quick.

    ``code`` has two numbers, ``units`` and ``networks`` have random weights beside them.
    """
    torch.manual_seed(0)
    decoder, encoder = MultilayerDecoder(2, DIGIT, (4,), scale_rank=2), MaskedEncoder(2, DIGIT, (4,))
    trained = BayesianDecoder(decoder, encoder, posterior_scale=0.1).eval()
    return {
        "code": LatentCode(pretrained.load("digits-vae-2d")),
        "units": CodeAndUnits(trained),
        "networks": WeightDraws(trained, networks),
    }
