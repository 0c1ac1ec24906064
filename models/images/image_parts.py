"""What is taken of each image of many: all of it, scaled or not, or patches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posterior_inpainting.models.images.available_memory import check_memory
from posterior_inpainting.models.images.image_sources import Source
from posterior_inpainting.models.images.pixel_arrays import TooLargeError
from posterior_inpainting.models.images.resampling import Seen, corners, cover, in_channels

__all__ = ["Part", "Reader", "Skipped", "check_stack", "digest_of", "planned"]

#: Names of what is not used, and the reasons.
Skipped = list[tuple[str, str]]
#: Patches where their number is not given, at most; and how far outside of [0, 1] rounding may take a value.
_PATCHES, _ROUNDING = 10_000, 1e-6


@dataclass(frozen=True)
class Part:
    """An image or a patch ``(channel, row, column)``, what is seen of it, and the digest of the image.

    >>> Part("a.png", "0" * 64, np.ones((1, 2, 2)), None).name
    'a.png'
    """

    name: str
    digest: str
    image: np.ndarray
    seen: Seen


def planned(found: list[Source], side: int, count: int | None) -> tuple[list[tuple[Source, int]], Skipped]:
    """Share patches out among the images into which they fit, as evenly as whole numbers are.

    Parameters
    ----------
    found
        All images.
    side
        Of a patch, in pixels.
    count
        Number of patches; if not given, as many as fit side by side, and at most 10,000.

    Raises
    ------
    TooLargeError
        For an image with too many pixels.

    >>> one, two = (Source(name, lambda: None, lambda: (8, 9)) for name in "ab")
    >>> [(source.name, share) for source, share in planned([one, two], 4, 5)[0]]
    [('a', 2), ('b', 3)]
    """
    large, small, tiles = [], [], 0
    for one in found:
        try:
            rows, columns = one.size()
        except TooLargeError:
            raise
        except (ValueError, OSError) as error:
            small.append((one.name, one.reason(error)))
            continue
        if min(rows, columns) < side:
            small.append((one.name, f"{rows} x {columns} pixels, less than patches of {side}"))
            continue
        large.append(one)
        tiles += (rows // side) * (columns // side)
    count = min(tiles, _PATCHES) if count is None else count
    n = len(large)
    return [(one, count * (i + 1) // n - count * i // n) for i, one in enumerate(large)], small


@dataclass(frozen=True)
class Reader:
    """Read images, and take of each what the settings of ``read_collection`` ask for.

    Parameters
    ----------
    path
        Where the images lie, for errors.
    size, patches, channels, seed
        As for :func:`~posterior_inpainting.models.images.collection.read_collection`.

    >>> source = Source("a", lambda: (np.ones((3, 4, 4), np.float32), None), lambda: (4, 4))
    >>> used, skipped = Reader(Path("images"), (2, 2), None, 1, 0).read([(source, 1)])
    >>> used[0].image.shape, skipped
    ((1, 2, 2), [])
    """

    path: Path
    size: tuple[int, int] | None
    patches: int | None
    channels: int | None
    seed: int

    def read(self, plan: list[tuple[Source, int]]) -> tuple[list[Part], Skipped]:
        """Read images, as many patches of each as are planned, and say which could not be used.

        Raises
        ------
        ValueError
            For too many pixels, values outside of [0, 1], parts of several sizes, or more than fit into memory.
        """
        used: list[Part] = []
        skipped = []
        for one, share in plan:
            if share == 0:
                continue
            try:
                image, seen = one.read()
            except TooLargeError:
                raise
            except (ValueError, OSError) as error:
                skipped.append((one.name, one.reason(error)))
                continue
            parts = self._parts(one.name, image, seen, share)
            if not parts:
                skipped.append((one.name, "no pixel of it is seen"))
                continue
            if not used:
                check_stack(sum(share for _, share in plan), parts[0].image.shape)
            self._check_size(parts[0], used[0] if used else parts[0])
            used += parts
        return used, skipped

    def _parts(self, name: str, image: np.ndarray, seen: Seen, share: int) -> list[Part]:
        low, high = float(image.min()), float(image.max())
        if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:
            raise ValueError(f"{self.path}: {name} has values from {low:.6g} to {high:.6g}; expected 0 to 1")
        digest = digest_of(image, seen)
        image = image.clip(0, 1)
        if self.channels is not None:
            image, seen = in_channels(image, seen, self.channels)
        if self.size is not None:
            image, seen = cover(image, seen, self.size)
        if seen is not None and not seen.any():
            return []
        if self.patches is None:
            return [Part(name, digest, image, seen)]
        side = self.patches
        generator = np.random.default_rng([self.seed, int(digest[:16], 16)])
        return [
            Part(
                f"{name}[{top}:{top + side}, {left}:{left + side}]",
                digest,
                image[
                    :, top : top + side, left : left + side
                ].copy(),  # a view would keep the image in memory
                None if seen is None else seen[:, top : top + side, left : left + side].copy(),
            )
            for top, left in corners(image.shape[1:], seen, side, share, generator)
        ]

    def _check_size(self, one: Part, first: Part) -> None:
        (a, b), (c, d) = first.image.shape[1:], one.image.shape[1:]
        if (a, b) != (c, d):
            raise ValueError(
                f"{self.path} has images of {a} x {b} pixels ({first.name}) and {c} x {d} ({one.name}); "
                "expected one size, or give size or patches"
            )


def check_stack(n: int, shape: tuple[int, ...]) -> None:
    """Refuse more images than fit as floats with their masks, once as they are read and once as they are stacked.

    Raises
    ------
    ValueError
        With the memory that is needed and there is.

    >>> check_stack(10**9, (3, 1000, 1000))
    Traceback (most recent call last):
    ...
    ValueError: a stack of 1000000000 images of 3 x 1000 x 1000 needs 3e+07 GB of memory, of which there are ...
    """
    check_memory(
        10.0 * n * np.prod(shape, dtype=float),
        f"a stack of {n} images of {' x '.join(map(str, shape))}",
        remedy="expected fewer, or smaller ones by size or patches",
    )


def digest_of(image: np.ndarray, seen: Seen) -> str:
    """Return SHA-256 of shape, mask and seen values.

    Not of the file: its bytes would tell of hidden pixels, and the split, and so all weights, would depend on them.

    >>> digest_of(np.zeros((1, 2, 2), np.float32), None)[:8]
    '027e110e'
    """
    found = hashlib.sha256(f"{image.shape} {'whole' if seen is None else 'masked'}\n".encode())
    found.update(b"" if seen is None else np.packbits(seen).tobytes())
    found.update(np.ascontiguousarray(image, "<f4").tobytes())
    return found.hexdigest()
