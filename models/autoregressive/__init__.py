"""Laws of images pixel by pixel: of one pixel, and of a whole image as one distribution."""

from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage, PixelsGivenEarlier
from posterior_inpainting.models.autoregressive.pixel_laws import (
    CategoricalPixels,
    LogisticMixturePixels,
    PixelLaw,
)

__all__ = [
    "AutoregressiveImage",
    "CategoricalPixels",
    "LogisticMixturePixels",
    "PixelLaw",
    "PixelsGivenEarlier",
]
