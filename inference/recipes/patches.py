"""Patches of photographs to train on, varied beyond the few that there are; and whose photographs they are."""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import datasets
from posterior_inpainting.models.images.photographs import PHOTOGRAPHS
from posterior_inpainting.models.shapes import Image

__all__ = ["attribution", "varied_patches"]


def varied_patches(images: Image, side: int, count: int, streams: Streams) -> Image:
    """Cut patches at random; half of them in colours of another light, all of them in one of eight positions.

    Parameters
    ----------
    images
        ``(n, channel, row, column)`` in [0, 1].
    side, count
        Of the patches, which are square.
    streams
        Of places, positions and light.

    Examples
    --------
    >>> tuple(varied_patches(torch.rand(2, 3, 16, 16), 8, 5, Streams()).shape)
    (5, 3, 8, 8)
    """
    found = datasets.patches(images, side, count, streams.generator("places"))
    generator = streams.generator("positions")
    for axes in ((2,), (3,)):
        found = torch.where(_coins(count, generator), found.flip(axes), found)
    found = torch.where(_coins(count, generator), found.transpose(2, 3), found)
    return torch.where(_coins(count, generator), _in_other_light(found, generator), found)


def attribution() -> str:
    """Return who made the licensed photographs, and under which licences."""
    by = "; ".join(
        f"*{one.file.partition('_by_')[0]}* by {one.author}, {one.licence}" for one in PHOTOGRAPHS[:-1]
    )
    return f"The photographs, of Debian's `lomiri-wallpapers-16.04`: {by}."


def _coins(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, 1, 1, 1, generator=generator) < 0.5


def _in_other_light(images: Image, generator: torch.Generator) -> Image:
    """Scale channels and contrast, and exchange channels; values that leave [0, 1] are brought back by darkening."""
    count, channels = images.shape[:2]
    order = torch.rand(count, channels, generator=generator).argsort(1)[:, :, None, None]
    exchanged = images.gather(1, order.expand_as(images))
    gain = torch.exp(0.2 * torch.randn(count, channels, 1, 1, generator=generator))
    grey = exchanged.mean(1, keepdim=True)
    saturation = 0.3 + 0.9 * torch.rand(count, 1, 1, 1, generator=generator)
    lit = gain * (grey + saturation * (exchanged - grey)).clamp(0, 1)
    return lit / lit.amax((1, 2, 3), keepdim=True).clamp(min=1)
