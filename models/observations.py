"""Observations and masks: which pixels of an image are seen.

Every maker returns a boolean mask ``(channel, row, column)``, ``True`` = seen. ``box``, ``half``,
``strokes`` and ``blobs`` name what is *hidden*; ``scatter``, ``grid`` and ``channels`` name what is
*seen*. Reaching outside the image is an error. Super-resolution is a ``grid``, colourisation is
``channels``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator

from posterior_inpainting.models.images.free_form_masks import as_generator, blobs, strokes
from posterior_inpainting.models.shapes import (
    Image,
    ImageShape,
    Mask,
    check_image,
    check_mask,
    check_shape,
    check_values,
)

__all__ = [
    "Observation",
    "blobs",
    "box",
    "channels",
    "grid",
    "half",
    "random_masks",
    "scatter",
    "strokes",
]


@dataclass(frozen=True, eq=False)
class Observation:
    """The seen pixels of one image: what a posterior is conditioned on.

    Hidden values are set to 0 on arrival, whatever they were, so that nothing downstream can read them.

    Parameters
    ----------
    image
        Float tensor ``(channel, row, column)``, in [0, 1] and finite where seen; kept in single precision, in which
        models compute.
    mask
        Boolean, ``True`` = seen, broadcasting to the image; all hidden is legal and gives the prior.
    any_values
        Whether seen pixels may lie outside [0, 1], as simulated noise has them.

    Raises
    ------
    ValueError
        For a wrong shape or type, a seen pixel that is NaN or infinite, or one outside [0, 1].

    Examples
    --------
    >>> seen = Observation(torch.full((1, 4, 4), 0.5), half((1, 4, 4), hide="bottom"))
    >>> seen.image[0, :, 0].tolist()
    [0.5, 0.5, 0.0, 0.0]
    """

    image: Image
    mask: Mask
    any_values: bool = False

    def __post_init__(self):
        check_image(self.image)
        if self.image.dim() != 3:
            raise ValueError(f"image has shape {tuple(self.image.shape)}; expected (channel, row, column)")
        check_mask(self.mask, tuple(self.image.shape))
        mask = self.mask.expand(self.image.shape).clone()
        image = torch.where(mask, self.image, 0.0).to(torch.get_default_dtype())
        if not image.isfinite().all():
            bad = int((~image.isfinite()).sum())
            raise ValueError(f"{bad} seen pixels are NaN or infinite; expected finite values where seen")
        if not self.any_values:
            check_values(image[mask], "seen pixels")
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "mask", mask)

    @property
    def shape(self) -> ImageShape:
        """``(channel, row, column)``."""
        return tuple(self.image.shape)  # type: ignore[return-value]


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
    mask = _everything(shape)
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
    mask = _everything(shape)
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
    mask = ~_everything(shape)
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
    mask = ~_everything(shape)
    mask[kept] = True
    return mask


#: The kinds of masks that :func:`random_masks` draws.
KINDS = ("box", "half", "scatter", "strokes", "blobs", "grid", "channels")


def random_masks(shape: ImageShape, count: int, seed: int = 0, kinds: Sequence[str] = KINDS) -> Mask:
    """Return a bank ``(count, channel, row, column)`` of masks of every kind, to train encoders on.

    A tenth shows everything; the others are boxes, halves, scatters (1 to 90 % seen), strokes, blobs, grids and, of
    colours, single channels in equal parts.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the images.
    count
        Number of masks.
    seed
        The same one gives the same masks.
    kinds
        Of :data:`KINDS`, those that there are to be.

    Raises
    ------
    ValueError
        For a shape that is none, or no kind or an unknown one.

    >>> tuple(random_masks((1, 28, 28), count=10).shape)
    (10, 1, 28, 28)
    """
    colours, rows, columns = check_shape(shape)
    least = min(rows, columns)
    generator = as_generator(seed)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"kinds has {unknown[0]!r}; expected some of {', '.join(KINDS)}")
    drawn = [kind for kind in KINDS if kind in kinds and (colours > 1 or kind != "channels")]
    if not drawn:
        raise ValueError(
            f"kinds={tuple(kinds)}; expected at least one that an image of {colours} channel(s) has"
        )

    def integer(low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return int(torch.randint(low, high + 1, (), generator=generator))

    def one() -> Mask:
        """Draw a mask."""
        if integer(0, 9) == 0:
            return _everything(shape)
        kind = drawn[integer(0, len(drawn) - 1)]
        if kind == "box":
            height, width = (integer(max(1, side // 4), max(1, side - 1)) for side in (rows, columns))
            return box(shape, integer(0, rows - height), integer(0, columns - width), height, width)
        if kind == "half":
            return half(shape, ("top", "bottom", "left", "right")[integer(0, 3)])
        if kind == "scatter":
            return scatter(shape, 0.01 + 0.89 * float(torch.rand((), generator=generator)), generator)
        if kind == "strokes":
            return strokes(shape, integer(1, 6), integer(1, max(1, least // 7)), generator)
        if kind == "blobs":
            return blobs(shape, integer(1, 6), generator)
        if kind == "grid":
            return grid(shape, integer(min(2, least), min(4, least)))
        return channels(shape, integer(0, colours - 1))

    return torch.stack([one() for _ in range(count)])


def _everything(shape: ImageShape) -> Mask:
    check_shape(shape)
    return torch.ones(tuple(shape), dtype=torch.bool)
