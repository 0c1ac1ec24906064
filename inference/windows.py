"""Where holes of a large image are completed: in rectangles with a margin around what is hidden.

What is far from a hole says next to nothing of it. For a prior that sees as far as a margin, hidden pixels are drawn
given the pixels of that margin instead of the whole image; two holes further apart than twice that are independent. A
hole that is as wide as the image is drawn as before. A long thin one, a scratch, is cut into pieces, drawn one after
another: p(first | seen) p(second | first, seen), where a piece is given the earlier ones within its own margin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Mask

__all__ = ["Window", "windows"]

#: A hole is cut where its pieces, with their margins, are at most this share of the rectangle around it.
_WORTH_IT = 0.75


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, and which of its pixels ``(row, column)`` it answers for; its ``hole`` is a number."""

    rows: slice
    columns: slice
    own: np.ndarray
    hole: int = 0

    @property
    def pixels(self) -> int:
        """Number of pixels of the rectangle."""
        return self.own.size

    def of(self, observation: Observation) -> Observation:
        """Return what is seen of it."""
        image, mask = (part[:, self.rows, self.columns] for part in (observation.image, observation.mask))
        return replace(observation, image=image, mask=mask)


def windows(mask: Mask, margin: int, least: int = 1, side: int | None = None) -> list[Window]:
    """Return the windows of a mask's holes, the whole image where they would be no smaller.

    Parameters
    ----------
    mask
        ``(channel, row, column)``, ``True`` = seen.
    margin
        Pixels around each hole that it is given; holes whose margins touch share a window.
    least
        Pixels that a window has a side at least, if the image has them.
    side
        Of the squares into which a long hole is cut, where that leaves clearly less to work on; ``None`` for never.

    Raises
    ------
    ValueError
        For a margin below 0, or a side below 1.

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 40, 40, dtype=torch.bool)
    >>> mask[0, 5, 5] = mask[0, 30, 30] = False
    >>> [(window.rows, window.columns) for window in windows(mask, margin=2)]
    [(slice(3, 8, None), slice(3, 8, None)), (slice(28, 33, None), slice(28, 33, None))]
    """
    from scipy import ndimage

    if margin < 0 or (side is not None and side < 1):
        raise ValueError(f"margin={margin}, side={side}; expected at least 0 and 1")
    hidden = (~mask).any(0).numpy()
    square = np.ones((3, 3), bool)
    near = ndimage.binary_dilation(hidden, square, iterations=margin) if margin else hidden
    labels, _ = ndimage.label(near, square)
    found: list[Window] = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        whole = _window(labels, number, place, least)
        pieces = [] if side is None else _pieces(whole, labels, hidden, margin, least, side)
        cut = pieces and sum(piece.pixels for piece in pieces) < _WORTH_IT * whole.pixels
        found += pieces if cut else [whole]
    if sum(window.pixels for window in found) >= hidden.size:
        return [Window(slice(0, hidden.shape[0]), slice(0, hidden.shape[1]), np.ones_like(hidden))]
    return found


def _window(labels: np.ndarray, hole: int, place: tuple[slice, ...], least: int) -> Window:
    """Return the window of a hole at a place of the image, of at least so many pixels a side."""
    rows, columns = (_widened(part, least, extent) for part, extent in zip(place, labels.shape, strict=True))
    return Window(rows, columns, labels[rows, columns] == hole, hole)


def _pieces(
    whole: Window, labels: np.ndarray, hidden: np.ndarray, margin: int, least: int, side: int
) -> list[Window]:
    """Return windows around what is hidden in each square of a hole's rectangle, row by row."""
    places = np.argwhere(whole.own & hidden[whole.rows, whole.columns]) + (
        whole.rows.start,
        whole.columns.start,
    )
    squares = places // side
    found = []
    for square in np.unique(squares, axis=0):
        there = places[(squares == square).all(1)]
        first, beyond = there.min(0) - margin, there.max(0) + margin + 1
        place = tuple(
            slice(max(0, start), min(stop, extent))
            for start, stop, extent in zip(first, beyond, hidden.shape, strict=True)
        )
        window = _window(labels, whole.hole, place, least)
        inside = np.zeros_like(window.own)
        top, left = square * side - (window.rows.start, window.columns.start)
        inside[max(0, top) : top + side, max(0, left) : left + side] = True
        found.append(replace(window, own=window.own & inside))
    return found


def _widened(part: slice, least: int, extent: int) -> slice:
    """Return a range of at least so many pixels around another, inside the image."""
    missing = max(0, min(least, extent) - (part.stop - part.start))
    start = min(max(0, part.start - missing // 2), extent - (part.stop - part.start) - missing)
    return slice(start, start + part.stop - part.start + missing)
