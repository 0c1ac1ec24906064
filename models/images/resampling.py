"""Images of one size from images of any: scaled to cover it, or cut into patches; missing pixels count for nothing.

Here an image is an array ``(channel, row, column)`` of float32, 0 where it is hidden, and with it goes the boolean
array of what is seen, or ``None`` where everything is.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["Seen", "corners", "cover", "in_channels"]

#: What is seen of an image; ``None`` for all of it.
Seen = np.ndarray | None
#: Rec. 601: the share of red, green and blue in luminance.
_LUMINANCE = (0.299, 0.587, 0.114)
#: Of the area of a pixel, what rounding may take from exactly half.
_ROUNDING = 1e-5


def in_channels(image: np.ndarray, seen: Seen, channels: int) -> tuple[np.ndarray, Seen]:
    """Return an image in grey (luminance of Rec. 601, missing where a colour is) or in colours.

    Parameters
    ----------
    image, seen
        ``(1|3, row, column)``.
    channels
        1 or 3.

    >>> in_channels(np.ones((3, 1, 2), np.float32), np.array([[[True, True]], [[True, False]], [[True, True]]]), 1)
    (array([[[1., 0.]]], dtype=float32), array([[[ True, False]]]))
    """
    if len(image) == channels:
        return image, seen
    if channels == 3:
        return np.repeat(image, 3, 0), None if seen is None else np.repeat(seen, 3, 0)
    grey = np.tensordot(np.asarray(_LUMINANCE, np.float32), image, 1)[None].clip(0, 1)
    if seen is None:
        return grey, None
    seen = np.asarray(seen.all(0, keepdims=True))
    return np.where(seen, grey, np.float32(0)), seen


def cover(image: np.ndarray, seen: Seen, size: tuple[int, int]) -> tuple[np.ndarray, Seen]:
    """Scale an image so that it just covers a size, and cut its centre out.

    A pixel of the result is the mean of the seen pixels in its area, each as far as it lies in it; it is missing where
    more than half of its area is.

    Parameters
    ----------
    image, seen
        ``(channel, row, column)``.
    size
        Rows and columns of the result.

    >>> image, seen = np.array([[[0.2, 0.4, 0.9, 0.0]]], np.float32), np.array([[[True, True, True, False]]])
    >>> smaller, left = cover(np.repeat(image, 2, 1), np.repeat(seen, 2, 1), (1, 2))
    >>> smaller.round(3), left
    (array([[[0.3, 0.9]]], dtype=float32), array([[[ True,  True]]]))
    """
    rows, columns = image.shape[1:]
    if (rows, columns) == size:
        return image, seen
    scale = min(rows / size[0], columns / size[1])
    down, across = (_areas(length, scale, parts) for length, parts in ((rows, size[0]), (columns, size[1])))

    def mean(values: np.ndarray) -> np.ndarray:
        """Return the mean over the area of each pixel."""
        return np.stack([(across @ (down @ channel).T).T for channel in values])

    if seen is None:
        return mean(image).clip(0, 1), None
    share = mean(seen.astype(np.float32))
    left = share >= 0.5 - _ROUNDING
    return np.where(left, mean(image) / np.maximum(share, _ROUNDING), 0).clip(0, 1).astype(np.float32), left


def corners(
    size: tuple[int, int], seen: Seen, side: int, count: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw top rows and left columns of square patches, uniformly among those in which something is seen.

    Parameters
    ----------
    size
        Rows and columns of the image, at least ``side``.
    seen
        ``(channel, row, column)``, not empty.
    side
        Of a patch, in pixels.
    count
        Number of patches.
    generator
        Where chance comes from.

    >>> seen = np.zeros((1, 5, 5), bool)
    >>> seen[0, 0, 0] = True
    >>> corners((5, 5), seen, 2, 3, np.random.default_rng(0))
    [(0, 0), (0, 0), (0, 0)]
    """
    places = (size[0] - side + 1, size[1] - side + 1)
    if seen is None:
        drawn = generator.integers(places[0] * places[1], size=count)
    else:
        total = np.pad(seen.any(0), ((1, 0), (1, 0))).cumsum(0, np.int64).cumsum(1)
        within = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
        drawn = generator.choice(np.flatnonzero(within), size=count)
    return [divmod(int(place), places[1]) for place in drawn]


@lru_cache(maxsize=64)
def _areas(length: int, scale: float, parts: int):
    """Return the share of each of ``length`` pixels in each of ``parts`` areas ``scale`` long in their centre."""
    from scipy.sparse import csr_array

    edges = (length - parts * scale) / 2 + scale * np.arange(parts + 1)
    pixels = np.arange(length)
    shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return csr_array((shares.clip(0) / scale).astype(np.float32))
