"""Patches of photographs to train on, varied beyond the few that there are; and whose photographs they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.examples import Examples
from posterior_inpainting.models import datasets
from posterior_inpainting.models.images.photographs import PHOTOGRAPHS
from posterior_inpainting.models.shapes import Image

__all__ = ["FreshPatches", "attribution", "varied_patches"]


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
    return _varied(found, streams.generator("positions"))


@dataclass(frozen=True)
class FreshPatches(Examples):
    """Patches of photographs that are cut anew for every minibatch, by torch's global generator: none is seen twice.

    Half of the minibatches are of larger squares, made smaller: textures come at all sizes between one and a half.

    Parameters
    ----------
    data, masks
        Photographs ``(n, channel, row, column)`` in [0, 1], and a bank of masks of patches.
    side
        Of the patches, at most half of the photographs'.
    count
        How many count as an epoch.

    Examples
    --------
    >>> patches = FreshPatches(torch.rand(2, 3, 16, 16), side=8, count=100)
    >>> len(patches), tuple(patches.minibatch(torch.arange(5))[0].shape)
    (100, (5, 3, 8, 8))
    """

    side: int = 64
    count: int = 10_000

    def __len__(self) -> int:
        return self.count

    def check(self, model: Any) -> None:
        """Raise ValueError where photographs are too small, or patches are not what the model takes."""
        least = min(self.data.shape[-2:])
        if self.side > least:
            raise ValueError(f"patches of side={self.side}; expected at most the {least} of the photographs")
        Examples(self.data[:1, :, : self.side, : self.side], masks=self.masks).check(model)
        if not self.data.isfinite().all():
            raise ValueError("the photographs have values that are NaN or infinite")

    def first(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Return corners of the first photographs."""
        corners = self.data[torch.arange(count) % len(self.data), :, : self.side, : self.side]
        return corners, None if self.masks is None else self.masks[torch.arange(count) % len(self.masks)]

    def minibatch(self, which: Tensor) -> tuple[Tensor, Tensor | None]:
        """Cut as many patches as there are indices."""
        count, device = len(which), self.data.device
        largest = min(2 * self.side, *self.data.shape[-2:])
        # Of the processor's generator, which a GPU need not wait for.
        grown, extent = torch.rand(2).tolist()
        side = self.side + round(extent * (largest - self.side)) if grown < 0.5 else self.side
        rows, columns = (
            torch.randint(whole - side + 1, (count, 1), device=device) + torch.arange(side, device=device)
            for whole in self.data.shape[-2:]
        )
        photographs = torch.randint(len(self.data), (count, 1, 1), device=device)
        found = self.data.movedim(1, -1)[photographs, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
        if side > self.side:
            found = F.interpolate(found, (self.side, self.side), mode="bilinear", antialias=True)
        return _varied(found), self.some_masks(count)


def attribution() -> str:
    """Return who made the licensed photographs, and under which licences."""
    by = "; ".join(
        f"*{one.file.partition('_by_')[0]}* by {one.author}, {one.licence}" for one in PHOTOGRAPHS[:-1]
    )
    return f"The photographs, of Debian's `lomiri-wallpapers-16.04`: {by}."


def _varied(patches: Image, generator: Generator | None = None) -> Image:
    """Turn and mirror patches, and put half of them into another light."""
    for axes in ((2,), (3,)):
        patches = torch.where(_coins(patches, generator), patches.flip(axes), patches)
    patches = torch.where(_coins(patches, generator), patches.transpose(2, 3), patches)
    return torch.where(_coins(patches, generator), _in_other_light(patches, generator), patches)


def _coins(patches: Image, generator: Generator | None) -> Tensor:
    return torch.rand(len(patches), 1, 1, 1, generator=generator, device=patches.device) < 0.5


def _in_other_light(images: Image, generator: Generator | None) -> Image:
    """Scale channels and contrast, and exchange channels; values that leave [0, 1] are brought back by darkening."""
    count, channels, device = *images.shape[:2], images.device
    order = torch.rand(count, channels, generator=generator, device=device).argsort(1)[:, :, None, None]
    exchanged = images.gather(1, order.expand_as(images))
    gain = torch.exp(0.2 * torch.randn(count, channels, 1, 1, generator=generator, device=device))
    grey = exchanged.mean(1, keepdim=True)
    saturation = 0.3 + 0.9 * torch.rand(count, 1, 1, 1, generator=generator, device=device)
    lit = gain * (grey + saturation * (exchanged - grey)).clamp(0, 1)
    return lit / lit.amax((1, 2, 3), keepdim=True).clamp(min=1)
