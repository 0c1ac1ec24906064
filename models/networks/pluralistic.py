r"""Small convolutional encoder and decoder of pluralistic completion, with attention and several output scales.

Zheng, Cham & Cai 2019, *Pluralistic Image Completion*, section 3.2, made small. Images come in, and go out, as squares
of 2 x 2 pixels that are channels (Shi et al. 2016), so that no wide layer runs at full size: at 28 x 28 that is
most of the cost. Nothing normalises over a batch, so that the result for an image is its own.

The code z is a map of a quarter of the image's rows and columns, flattened.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.networks.attention import ShortLongAttention, coarse_mask
from posterior_inpainting.models.shapes import Code, Image, ImageShape, Mask

__all__ = ["PluralisticDecoder", "PluralisticEncoder"]

#: Features of a masked image ``(*batch, channel, row, column)``, at a half and at a quarter of its size.
Features = tuple[Tensor, Tensor]


class PluralisticEncoder(nn.Module):
    """Features of part of an image, and from them the laws of the code: one body, two heads.

    Both paths share the body, as published: shown the seen part it serves :math:`p(z | I_m)`, shown the hidden part
    (with the mask turned round) :math:`q(z | I_c)`.

    Parameters
    ----------
    image_shape
        ``(channel, row, column)``; rows and columns divisible by 4.
    code_channels
        Channels of the code's map.
    widths
        Channels at a half and at a quarter of the size.

    Raises
    ------
    ValueError
        For rows or columns that 4 does not divide.

    Examples
    --------
    >>> encoder = PluralisticEncoder((1, 8, 8), code_channels=3, widths=(8, 8))
    >>> fine, coarse = encoder(torch.rand(5, 1, 8, 8), torch.ones(5, 1, 8, 8, dtype=torch.bool))
    >>> tuple(fine.shape), tuple(coarse.shape), tuple(encoder.from_seen(coarse)[0].shape), encoder.latent
    ((5, 8, 4, 4), (5, 8, 2, 2), (5, 12), 12)
    """

    def __init__(self, image_shape: ImageShape, code_channels: int = 16, widths: tuple[int, int] = (24, 48)):
        super().__init__()
        self.image_shape, self.latent = _check(image_shape, code_channels)
        self.code_channels, self.widths = code_channels, tuple(widths)
        fine, coarse = widths
        self.fine = nn.Sequential(
            nn.Conv2d(8 * image_shape[0], fine, 3, padding=1), nn.SiLU(), _Residual(fine)
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1), nn.SiLU(), _Residual(coarse)
        )
        self.seen_head = nn.Sequential(_Residual(coarse), nn.Conv2d(coarse, 2 * code_channels, 1))
        self.hidden_head = nn.Sequential(_Residual(coarse), nn.Conv2d(coarse, 2 * code_channels, 1))

    def configuration(self) -> dict:
        """Return the arguments that make this encoder again."""
        return {
            "image_shape": self.image_shape,
            "code_channels": self.code_channels,
            "widths": self.widths,
        }

    def forward(self, image: Image, mask: Mask) -> Features:
        """Return features of the pixels that the mask shows; the others are never read."""
        mask = mask.expand(image.shape)
        shown = torch.where(mask, 2 * image - 1, 0.0)
        both = torch.cat([shown, mask.to(shown.dtype)], -3)
        fine = self.fine(F.pixel_unshuffle(both.reshape(-1, *both.shape[-3:]), 2))
        coarse, batch = self.coarse(fine), image.shape[:-3]
        return fine.reshape(*batch, *fine.shape[1:]), coarse.reshape(*batch, *coarse.shape[1:])

    def from_seen(self, coarse: Tensor) -> tuple[Code, Code]:
        """Return location and scale of p(z | I_m), ``(*batch, latent)``, from coarse features of the seen part."""
        return self._law(self.seen_head, coarse)

    def from_hidden(self, coarse: Tensor) -> tuple[Code, Code]:
        """Return location and scale of q(z | I_c), ``(*batch, latent)``, from those of the hidden part."""
        return self._law(self.hidden_head, coarse)

    def _law(self, head: nn.Module, coarse: Tensor) -> tuple[Code, Code]:
        loc, raw = head(coarse.reshape(-1, *coarse.shape[-3:])).chunk(2, 1)
        shape = (*coarse.shape[:-3], self.latent)
        return loc.reshape(shape), (F.softplus(raw) + 1e-3).reshape(shape)


class PluralisticDecoder(nn.Module):
    """Image from a code and the features of the seen part, at a quarter, a half and the whole of the size.

    Parameters
    ----------
    image_shape, code_channels, widths
        As for :class:`PluralisticEncoder`.
    noise
        Scale of single pixels around the decoded image, in the image's units; a buffer, to be measured.

    Examples
    --------
    >>> encoder = PluralisticEncoder((1, 8, 8), code_channels=3, widths=(8, 8))
    >>> decoder = PluralisticDecoder((1, 8, 8), code_channels=3, widths=(8, 8))
    >>> mask = torch.ones(5, 1, 8, 8, dtype=torch.bool)
    >>> scales = decoder(torch.zeros(7, 5, decoder.latent), encoder(torch.rand(5, 1, 8, 8), mask), mask)
    >>> [tuple(image.shape) for image in scales]
    [(7, 5, 1, 2, 2), (7, 5, 1, 4, 4), (7, 5, 1, 8, 8)]
    """

    noise: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        code_channels: int = 16,
        widths: tuple[int, int] = (24, 48),
        noise: float = 0.05,
    ):
        super().__init__()
        self.image_shape, self.latent = _check(image_shape, code_channels)
        self.code_channels, self.widths = code_channels, tuple(widths)
        channels, (fine, coarse) = image_shape[0], widths
        self.register_buffer("noise", torch.tensor(float(noise)))
        self.from_code = nn.Sequential(nn.Conv2d(code_channels, coarse, 1), nn.SiLU(), _Residual(coarse))
        self.middle = _Residual(coarse)
        self.up = nn.Sequential(
            nn.Conv2d(coarse, 4 * fine, 3, padding=1), nn.PixelShuffle(2), _Residual(fine)
        )
        self.attention = ShortLongAttention(fine)
        self.merge = nn.Sequential(nn.Conv2d(2 * fine, fine, 3, padding=1), nn.SiLU(), _Residual(fine))
        self.heads = nn.ModuleList([nn.Conv2d(coarse, channels, 1), nn.Conv2d(fine, channels, 1)])
        self.last = nn.Sequential(
            nn.Conv2d(fine, 32, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(8, channels, 3, padding=1),
        )

    def configuration(self) -> dict:
        """Return the arguments that make this decoder again."""
        return {
            "image_shape": self.image_shape,
            "code_channels": self.code_channels,
            "widths": self.widths,
            "noise": float(self.noise),
        }

    def forward(self, z: Code, features: Features, mask: Mask) -> list[Image]:
        """Return images of rising size, values in (0, 1), the last of them ``(*batch, channel, row, column)``.

        Parameters
        ----------
        z
            Codes ``(*batch, latent)``; the batch may have dimensions that the features do not have.
        features
            Of the seen part, as :class:`PluralisticEncoder` returns them.
        mask
            The seen pixels that they were made from.
        """
        rows, columns = self.image_shape[1] // 4, self.image_shape[2] // 4
        fine, coarse = features
        batch = torch.broadcast_shapes(z.shape[:-1], coarse.shape[:-3])
        share = coarse_mask(mask, 2)
        fine, coarse, share = (_wide(part, batch) for part in (fine, coarse, share))
        code = z.expand(*batch, self.latent).reshape(-1, self.code_channels, rows, columns)
        small = self.middle(self.from_code(code) + coarse)
        half = self.merge(self.attention(self.up(small), fine, share))
        outputs = [head(hidden) for head, hidden in zip(self.heads, (small, half), strict=True)]
        return [torch.sigmoid(out).reshape(*batch, *out.shape[1:]) for out in (*outputs, self.last(half))]


class _Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features with what the block adds to them."""
        return features + self.second(F.silu(self.first(F.silu(features))))


def _wide(features: Tensor, batch: torch.Size) -> Tensor:
    """Expand ``(*some, channel, row, column)`` to a batch, and flatten the batch."""
    return features.expand(*batch, *features.shape[-3:]).reshape(-1, *features.shape[-3:])


def _check(image_shape: ImageShape, code_channels: int) -> tuple[ImageShape, int]:
    if len(image_shape) != 3 or image_shape[1] % 4 or image_shape[2] % 4:
        raise ValueError(
            f"image_shape={tuple(image_shape)}; expected (channel, row, column), rows and columns divisible by 4"
        )
    return tuple(image_shape), code_channels * math.prod(image_shape[1:]) // 16
