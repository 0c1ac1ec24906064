"""Images of no domain in particular, made up to tell those of one domain from: shapes, textures and altered images.

Hendrycks et al. 2019, *Deep Anomaly Detection with Outlier Exposure*, show a detector images of other domains; where
there are none, some are made: level sets of smooth random fields (as Zavrtanik et al. 2021, *DRAEM*), alone or within a
window on black, noise, and the domain's own images turned, inverted, cut up, enlarged or made small.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from posterior_inpainting.models.shapes import Image

__all__ = ["made_up"]

#: Share of shapes and textures; the others are altered images and noise.
_SHAPES = 0.65


def made_up(images: Image, generator: Generator) -> Image:
    """Return as many images of no domain as are given of one, of the same shape and in [0, 1].

    Parameters
    ----------
    images
        ``(n, channel, row, column)`` in [0, 1], of the domain; some are altered, none is returned as it is.
    generator
        On the images' device.

    Raises
    ------
    ValueError
        For images that are no batch, or smaller than 4 x 4.

    Examples
    --------
    >>> found = made_up(torch.rand(6, 1, 8, 8), torch.Generator().manual_seed(0))
    >>> tuple(found.shape), bool((found >= 0).all() and (found <= 1).all())
    ((6, 1, 8, 8), True)
    """
    if images.dim() != 4 or min(images.shape[2:]) < 4:
        raise ValueError(
            f"images have shape {tuple(images.shape)}; expected (n, channel, 4 or more, 4 or more)"
        )
    draw = _Draw(images, generator)
    return torch.where(draw.uniform(0, 1) < _SHAPES, _shapes(draw), _altered(images, draw))


class _Draw:
    """Random numbers, a value an image, and smooth fields, of the shape, type and device of some images."""

    def __init__(self, images: Image, generator: Generator):
        self.images, self.generator = images, generator
        self.count, _, self.rows, self.columns = images.shape

    def uniform(self, low: float, high: float) -> Tensor:
        """Draw ``(n, 1, 1, 1)``."""
        drawn = self.images.new_empty(self.count, 1, 1, 1).uniform_(generator=self.generator)
        return low + (high - low) * drawn

    def number(self, low: int, high: int) -> int:
        """Draw a whole number for all images, both ends included."""
        return int(
            self.images.new_empty(()).uniform_(low, high + 1, generator=self.generator).clamp(max=high)
        )

    def field(self, points: int) -> Image:
        """Draw smooth fields, of mean 0 and standard deviation 1, through random values at ``points`` squared."""
        coarse = self.images.new_empty(self.count, self.images.shape[1], points, points)
        coarse.normal_(generator=self.generator)
        fine = F.interpolate(coarse, size=(self.rows, self.columns), mode="bicubic", align_corners=False)
        return (fine - fine.mean((1, 2, 3), True)) / fine.std((1, 2, 3), keepdim=True).clamp(min=1e-3)


def _shapes(draw: _Draw) -> Image:
    """Return ramps (blobs) and bands (strokes) of smooth fields, most of them within a window on black."""
    field = draw.field(draw.number(2, max(draw.rows, draw.columns)))
    ramp = (draw.uniform(-0.2, 1) + 0.3 * draw.uniform(-1.5, 2).exp() * field).clamp(0, 1)
    band = draw.uniform(0.5, 1.5) - (field - draw.uniform(-1, 1)).abs() / draw.uniform(-2.5, 0).exp()
    drawn = torch.where(draw.uniform(0, 1) < 0.4, ramp, band.clamp(0, 1) * draw.uniform(0.4, 1))
    return torch.where((draw.uniform(0, 1) < 0.75) & ~_window(draw), 0.0, drawn)


def _window(draw: _Draw) -> Tensor:
    """Draw windows between an ellipse and a rectangle, ``(n, 1, row, column)``, true inside."""
    power = 2 * draw.uniform(0, 2).exp()
    distance = draw.images.new_zeros(draw.count, 1, draw.rows, draw.columns)
    for size, dim in ((draw.rows, -2), (draw.columns, -1)):
        place = torch.linspace(-1, 1, size, dtype=distance.dtype, device=distance.device)
        place = place.view([size if one == dim else 1 for one in (-2, -1)])
        distance = distance + ((place - draw.uniform(-0.3, 0.3)) / draw.uniform(0.3, 1)).abs() ** power
    return distance < 1


def _altered(images: Image, draw: _Draw) -> Image:
    """Return the domain's own images, each altered in one of several ways, or noise instead."""
    rows, columns = draw.rows, draw.columns
    partner = images.roll(1, 0)
    height, width = draw.number(rows // 3, rows - 1), draw.number(columns // 3, columns - 1)
    top, left = draw.number(0, rows - height), draw.number(0, columns - width)
    small = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
    part = images[..., top : top + height, left : left + width]
    altered = torch.stack(
        [
            1 - images,
            images.flip(2),
            images.transpose(2, 3) if rows == columns else images.flip(2, 3),
            F.pad(small, (left, columns - width - left, top, rows - height - top)),
            F.interpolate(part, size=(rows, columns), mode="bilinear", align_corners=False),
            torch.where(draw.field(draw.number(2, 8)) > 0, images, partner),
            (3 * (images - F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)).abs()).clamp(0, 1),
            torch.empty_like(images).uniform_(generator=draw.generator),
        ]
    )
    which = (draw.uniform(0, len(altered)).long().flatten()).clamp(max=len(altered) - 1)
    return altered[which, torch.arange(len(images), device=images.device)]
