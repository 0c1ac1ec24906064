"""Masks without straight edges: brush strokes and blobs, which look more like what people hide."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from posterior_inpainting.models.shapes import ImageShape, Mask, check_shape

__all__ = ["as_generator", "blobs", "strokes"]

#: Strokes or blobs of one mask: each costs as much as the image has pixels.
_MOST = 1000


def as_generator(seed: int | Generator) -> Generator:
    """Return a generator on the CPU that starts at a seed, or the one that is given, to go on with.

    >>> as_generator(3).initial_seed()
    3
    """
    return seed if isinstance(seed, Generator) else torch.Generator("cpu").manual_seed(seed)


def strokes(shape: ImageShape, count: int, width: int, seed: int | Generator = 0) -> Mask:
    """Hide free-form brush strokes: polylines of a random walk with slowly turning direction.

    The free-form masks of Yu et al. 2019, *Free-Form Image Inpainting with Gated Convolution*.

    Parameters
    ----------
    shape
        ``(channel, row, column)``.
    count, width
        Number of strokes, and their width in pixels.
    seed
        An integer, or a ``torch.Generator`` to go on with.

    Raises
    ------
    ValueError
        For no stroke or more than 1,000, a width below 1 or above the shorter side, or a shape that is none.

    >>> mask = strokes((1, 28, 28), count=2, width=3, seed=0)
    >>> tuple(mask.shape), 0 < int((~mask).sum()) < 28 * 28
    ((1, 28, 28), True)
    """
    _, rows, columns = check_shape(shape)
    if not 1 <= count <= _MOST or not 1 <= width <= min(rows, columns):
        raise ValueError(
            f"strokes count={count}, width={width}; expected count in 1..{_MOST} and width in "
            f"1..{min(rows, columns)}"
        )
    generator = as_generator(seed)
    size = torch.tensor([rows, columns])
    grid_points = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    hidden = torch.zeros(rows * columns, dtype=torch.bool)
    for _ in range(count):
        at = torch.rand(2, generator=generator) * (size - 1)
        angle = 2 * torch.pi * torch.rand((), generator=generator)
        for _ in range(int(torch.randint(3, 7, (), generator=generator))):
            step = (0.1 + 0.2 * torch.rand((), generator=generator)) * min(rows, columns)
            to = torch.minimum((at + step * torch.stack([angle.sin(), angle.cos()])).clamp(min=0), size - 1)
            hidden |= _distance_to_segment(grid_points, at, to) <= width / 2
            at, angle = to, angle + (torch.rand((), generator=generator) - 0.5) * torch.pi
    return (~hidden).reshape(1, rows, columns).expand(shape).clone()


def blobs(shape: ImageShape, count: int, seed: int | Generator = 0) -> Mask:
    """Hide random blobs: squares that grow by random neighbours (Dupont & Suresha 2019, section 4).

    Each blob starts at one pixel and grows for 2 to 7 steps, every neighbour joining with
    probability 1/2 a step.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the image.
    count
        Number of blobs, which may overlap.
    seed
        An integer, or a ``torch.Generator`` to go on with.

    Raises
    ------
    ValueError
        For no blob or more than 1,000, or a shape that is none.

    >>> mask = blobs((3, 28, 28), count=4, seed=1)
    >>> bool((mask[0] == mask[2]).all()), bool((~mask).any())
    (True, True)
    """
    _, rows, columns = check_shape(shape)
    if not 1 <= count <= _MOST:
        raise ValueError(f"blobs count={count}; expected 1..{_MOST}")
    generator = as_generator(seed)
    hidden = torch.zeros(1, 1, rows, columns)
    for _ in range(count):
        blob = torch.zeros(1, 1, rows, columns)
        row = int(torch.randint(rows, (), generator=generator))
        blob[..., row, int(torch.randint(columns, (), generator=generator))] = 1
        for _ in range(int(torch.randint(2, 8, (), generator=generator))):
            around = torch.nn.functional.max_pool2d(blob, 3, stride=1, padding=1)
            joins = torch.rand(blob.shape, generator=generator) < 0.5
            blob = torch.where(joins, around, blob)
        hidden = torch.maximum(hidden, blob)
    return (hidden[0] == 0).expand(shape).clone()


def _distance_to_segment(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    along = end - start
    share = ((points - start) @ along / along.dot(along).clamp(min=1e-12)).clamp(0, 1)
    return torch.linalg.vector_norm(points - start - share[:, None] * along, dim=-1)
