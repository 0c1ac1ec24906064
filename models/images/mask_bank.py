"""Many masks of every kind, to train on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from posterior_inpainting.models.images.free_form_masks import as_generator, blobs, strokes
from posterior_inpainting.models.images.regular_masks import box, channels, everything, grid, half, scatter
from posterior_inpainting.models.shapes import ImageShape, Mask, check_shape

__all__ = ["KINDS", "random_masks"]

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
            return everything(shape)
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
