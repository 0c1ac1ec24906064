"""Encoder of images by convolutions: it learns shapes from fewer images than a fully connected one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from posterior_inpainting.models.networks.fully_connected import hidden_layers
from posterior_inpainting.models.shapes import Code, Image, ImageShape, Mask

__all__ = ["ConvolutionalEncoder"]


class ConvolutionalEncoder(nn.Module):
    r"""Encoder :math:`(\tilde x, M) \mapsto` location and scale of :math:`q(z \mid \tilde x)`, by convolutions.

    As ``MaskedEncoder``: the mask is an input of its own, and hidden pixels are set to 0 here, whatever they hold.

    Parameters
    ----------
    latent
        Length of z.
    image_shape
        ``(channel, row, column)`` of what is encoded.
    channels
        Channels of the convolutions (5 x 5, stride 2), first to last.
    widths
        Units of the fully connected layers, first to last.

    Examples
    --------
    >>> encoder = ConvolutionalEncoder(2, (1, 8, 8), channels=(4,), widths=(16,))
    >>> image, mask = torch.full((3, 1, 8, 8), float("nan")), torch.zeros(1, 8, 8, dtype=torch.bool)
    >>> loc, scale = encoder(image, mask)
    >>> tuple(loc.shape), bool(loc.isfinite().all())
    ((3, 2), True)
    """

    def __init__(
        self,
        latent: int,
        image_shape: ImageShape,
        channels: Sequence[int] = (16, 32, 32),
        widths: Sequence[int] = (256,),
    ):
        super().__init__()
        self.latent = latent
        self.image_shape: ImageShape = tuple(image_shape)
        self.channels = tuple(channels)
        self.widths = tuple(widths)
        depth, rows, columns = 2 * image_shape[0], *image_shape[1:]
        layers: list[nn.Module] = []
        for more in channels:
            layers += [nn.Conv2d(depth, more, 5, stride=2, padding=2), nn.SiLU()]
            depth, rows, columns = more, (rows + 1) // 2, (columns + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        self.trunk = hidden_layers(depth * rows * columns, widths)
        self.head = nn.Linear(([depth * rows * columns, *widths])[-1], 2 * latent)

    def configuration(self) -> dict:
        """Return the arguments that make this encoder again, as they are stored beside its weights."""
        return {
            "latent": self.latent,
            "image_shape": self.image_shape,
            "channels": self.channels,
            "widths": self.widths,
        }

    def forward(self, image: Image, mask: Mask) -> tuple[Code, Code]:
        """Return location and scale, both ``(*batch, latent)``."""
        mask = mask.expand(image.shape)
        seen = torch.cat([torch.where(mask, 2 * image - 1, 0.0), mask.to(image.dtype)], -3)
        features = self.convolutions(seen.reshape(-1, *seen.shape[-3:])).flatten(1)
        loc, raw = self.head(self.trunk(features)).chunk(2, -1)
        batch = image.shape[:-3]
        return loc.reshape(*batch, -1), (F.softplus(raw) + 1e-4).reshape(*batch, -1)
