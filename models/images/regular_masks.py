"""Masks in straight lines: a rectangle, a half, single pixels, a grid, whole channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator

from posterior_inpainting.models.images.free_form_masks import as_generator
from posterior_inpainting.models.shapes import ImageShape, Mask, check_shape

__all__ = ["box", "channels", "everything", "grid", "half", "scatter"]


def box(shape: ImageShape, top: int, left: int, height: int, width: int) -> Mask:
    """Hide a rectangle.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the image.
    top, left
        First hidden row and column, counted from 0.
    height, width
        Number of hidden rows and columns, at least 1.

    Raises
    ------
    ValueError
        For a rectangle that is empty or reaches outside the image, or a shape that is none.

    >>> int((~box((1, 28, 28), top=8, left=8, height=12, width=12)).sum())
    144
    """
    _, rows, columns = check_shape(shape)
    if height < 1 or width < 1 or top < 0 or left < 0 or top + height > rows or left + width > columns:
        raise ValueError(
            f"box top={top}, left={left}, height={height}, width={width} reaches outside the image's "
            f"{rows} rows and {columns} columns"
        )
    mask = everything(shape)
    mask[:, top : top + height, left : left + width] = False
    return mask


def half(shape: ImageShape, hide: str) -> Mask:
    """Hide one half of the image.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the image.
    hide
        ``"top"``, ``"bottom"``, ``"left"`` or ``"right"``. Of an odd number of rows or columns the middle one stays
        seen.

    Raises
    ------
    ValueError
        For another word, or a shape that is none.

    >>> half((1, 4, 2), hide="top")[0, :, 0].tolist()
    [False, False, True, True]
    """
    _, rows, columns = check_shape(shape)
    r, c = rows // 2, columns // 2
    regions = {
        "top": (slice(0, r), slice(None)),
        "bottom": (slice(rows - r, None), slice(None)),
        "left": (slice(None), slice(0, c)),
        "right": (slice(None), slice(columns - c, None)),
    }
    if hide not in regions:
        raise ValueError(f"hide={hide!r}; expected one of {', '.join(regions)}")
    mask = everything(shape)
    mask[(slice(None), *regions[hide])] = False
    return mask


def scatter(shape: ImageShape, keep: float, seed: int | Generator = 0) -> Mask:
    """See each pixel (all its channels) with one probability, independently.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the image.
    keep
        Probability that a pixel is seen, from 0 to 1.
    seed
        An integer, or a ``torch.Generator`` to go on with.

    Raises
    ------
    ValueError
        For a probability outside [0, 1], or a shape that is none.

    >>> round(float(scatter((1, 100, 100), keep=0.3, seed=0).float().mean()), 1)
    0.3
    """
    _, rows, columns = check_shape(shape)
    if not 0 <= keep <= 1:
        raise ValueError(f"scatter keep={keep}; expected a share of pixels in [0, 1]")
    return (torch.rand((1, rows, columns), generator=as_generator(seed)) < keep).expand(shape).clone()


def grid(shape: ImageShape, factor: int) -> Mask:
    """See every ``factor``-th pixel of every ``factor``-th row: super-resolution as a mask.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the image.
    factor
        Distance between seen pixels, in pixels, along rows and columns; 1 sees everything. The first pixel is seen.

    Raises
    ------
    ValueError
        For a factor below 1 or above the shorter side, or a shape that is none.

    >>> int(grid((1, 28, 28), factor=2).sum())
    196
    """
    _, rows, columns = check_shape(shape)
    if not 1 <= factor <= min(rows, columns):
        raise ValueError(
            f"grid factor={factor}; expected 1..{min(rows, columns)} for {rows} x {columns} pixels"
        )
    mask = ~everything(shape)
    mask[:, ::factor, ::factor] = True
    return mask


def channels(shape: ImageShape, keep: int | Sequence[int]) -> Mask:
    """See whole channels and hide the others: colourisation as a mask.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the image.
    keep
        Index of the seen channel, or of each of several, counted from 0; an empty list hides everything.

    Raises
    ------
    ValueError
        For a channel that the image does not have, or a shape that is none.

    >>> channels((3, 2, 2), keep=1)[:, 0, 0].tolist()
    [False, True, False]
    """
    count, _, _ = check_shape(shape)
    kept = [keep] if isinstance(keep, int) else list(keep)
    if any(not 0 <= k < count for k in kept):
        raise ValueError(f"channels keep={kept}; the image has channels 0..{count - 1}")
    mask = ~everything(shape)
    mask[kept] = True
    return mask


def everything(shape: ImageShape) -> Mask:
    """See all of an image.

    >>> bool(everything((1, 2, 2)).all())
    True
    """
    check_shape(shape)
    return torch.ones(tuple(shape), dtype=torch.bool)
