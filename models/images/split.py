"""Split images into those for training, validation and test by their content alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = ["LEAST", "split"]

#: Fewer images than this are not split.
LEAST = 20


def split(
    digests: Sequence[str], shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the indices of images for training, for validation and for test.

    Each image goes where a hash of its digest says, whatever its place and whatever the others are: one that is added
    moves no other, and copies stay together. Only where a part would be empty, the image whose hash is next to it
    goes there, with its copies.

    Parameters
    ----------
    digests
        One an image, equal for what must stay together.
    shares
        Expected shares of the three parts, which sum to 1.

    Returns
    -------
    train, validation, test
        Integers, ascending, each index in one of them.

    Raises
    ------
    ValueError
        For fewer than 20 images or three different ones, or shares that are none.

    >>> parts = split([str(i) for i in range(1000)])
    >>> [len(part) for part in parts], sorted(np.concatenate(parts).tolist()) == list(range(1000))
    ([820, 85, 95], True)
    """
    if len(shares) != 3 or not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares={tuple(shares)}; expected three above 0 that sum to 1")
    if len(digests) < LEAST:
        raise ValueError(f"{len(digests)} images; expected at least {LEAST} to train, validate and test on")
    places, which = np.unique([_place(digest) for digest in digests], return_inverse=True)
    if len(places) < 3:
        raise ValueError(
            f"{len(digests)} images, but {len(places)} different; expected at least 3 to train, validate and test on"
        )
    train, validation = np.searchsorted(places, np.cumsum(shares[:2]))
    train = min(max(train, 1), len(places) - 2)
    validation = min(max(validation, train + 1), len(places) - 1)
    part = np.searchsorted([train, validation], which, side="right")
    first, second, third = (np.flatnonzero(part == one) for one in range(3))
    return first, second, third


def _place(digest: str) -> float:
    """Return a number in [0, 1) that is uniform over digests."""
    return int.from_bytes(hashlib.sha256(digest.encode()).digest()[:6]) / 2**48
