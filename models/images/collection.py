"""Read a person's own images, with pixels missing or not, as one tensor to learn from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posterior_inpainting.models.images.image_parts import (
    Part,
    Reader,
    Skipped,
    check_stack,
    digest_of,
    planned,
)
from posterior_inpainting.models.images.image_sources import sources
from posterior_inpainting.models.shapes import (
    Image,
    Mask,
    check_image,
    check_mask,
    describe,
    refuse_eight_bits,
)

__all__ = ["Collection", "collected", "read_collection"]


@dataclass(frozen=True, eq=False)
class Collection:
    """Images of one size, what is seen of them, and what they are.

    Parameters
    ----------
    images
        ``(n, channel, row, column)`` float32 in [0, 1], 0 where hidden.
    masks
        Boolean, of the same shape, ``True`` where seen; ``None`` if everything is.
    names
        Of the files below their folder, or the place in a stack; of a patch with its top row and left column.
    digests
        SHA-256 of each image as it was decoded: its shape, its mask and its seen values. Patches have their image's.
    skipped
        Name of each file that is not used, and the reason.
    preprocessing
        How images were brought to this form: ``size`` ``[row, column]`` or ``None``, ``patches``, ``channels``.

    >>> read = Collection(torch.ones(1, 1, 2, 2), None, ("a.png",), ("0" * 64,), (("notes.txt", "no image"),))
    >>> len(read), read.digest[:8], read
    (1, '60e05bd1', Collection(names=('a.png',), skipped=(('notes.txt', 'no image'),)))
    """

    images: Image = field(repr=False)
    masks: Mask | None = field(repr=False)
    names: tuple[str, ...]
    digests: tuple[str, ...] = field(repr=False)
    skipped: tuple[tuple[str, str], ...]
    preprocessing: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """SHA-256 of the digests in their order: of all that is seen."""
        return hashlib.sha256("\n".join(self.digests).encode()).hexdigest()


def read_collection(
    source: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    patches: int | None = None,
    channels: int | None = None,
    masks: str | Path | None = None,
    seed: int = 0,
    count: int | None = None,
) -> Collection:
    """Read images to learn from; nothing of what is hidden in them reaches the result.

    Parameters
    ----------
    source
        A folder, which is read with all that are in it in the order of names: PNG, JPEG, WebP, TIFF, BMP, NPY, and NPZ
        of one array. Or a file of many images: NPY or NPZ of shape ``(n, row, column)``, ``(n, row, column, 1|3|4)`` or
        ``(n, 1|3, row, column)``, or IDX, gzipped or not. Transparent pixels and NaN are missing.
    size
        Rows and columns, or one number for both, in pixels: each image is scaled to cover it and its centre is taken.
    patches
        Instead, the side of squares in pixels, cut at random places at the images' own scale, as many of each image.
    channels
        1 or 3; if not given, 1 where all images are grey.
    masks
        A folder of files that are named as the images are, but for the suffix, or a file of as many masks as there are
        images: what is marked, as in :func:`~posterior_inpainting.models.image_files.read_mask`, is missing too.
    seed
        Of the places of patches; those of an image depend on it and on what is seen of the image.
    count
        Number of patches; if not given, as many as fit side by side, and at most 10,000.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or file.
    ValueError
        If no image can be used, or one has too many pixels or values outside of [0, 1]; for images of several sizes
        without ``size`` or ``patches``, more images than fit into memory, or settings that are none.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.full((4, 6), 0.5))
    ...     np.save(f"{folder}/b.npy", np.array([[0.5, np.nan], [0.5, 0.5]]))
    ...     read = read_collection(folder, size=2)
    >>> tuple(read.images.shape), read.images[1].tolist(), read.masks[1].tolist()
    ((2, 1, 2, 2), [[[0.5, 0.0], [0.5, 0.5]]], [[[True, False], [True, True]]])
    """
    reader = Reader(Path(source), _checked(size, patches, channels, count), patches, channels, seed)
    found, skipped = sources(Path(source), None if masks is None else Path(masks))
    while True:
        plan, small = ([(one, 1) for one in found], []) if patches is None else planned(found, patches, count)
        used, lost = reader.read(plan)
        skipped += lost
        if patches is None or not lost:
            break
        gone = {name for name, _ in lost}  # what was to be cut out of them is cut out of the others
        found = [one for one in found if one.name not in gone]
    skipped = sorted(skipped + small)
    if not used:
        first = ": ".join(skipped[0]) if skipped else "it has no file"
        raise ValueError(f"{source} has no image that can be used; {first}")
    stacked = _stacked(used, skipped)
    pair = None if reader.size is None else list(reader.size)
    done = {"size": pair, "patches": patches, "channels": stacked.images.shape[1]}
    return replace(stacked, preprocessing=done)


def collected(images: Image, masks: Mask | None = None) -> Collection:
    """Return images that are there already as a collection; nothing of what is hidden in them reaches it.

    Parameters
    ----------
    images
        ``(n, channel, row, column)`` in [0, 1]; NaN is missing.
    masks
        Boolean, broadcast to the images, ``True`` where seen; all that is not NaN if not given.

    Raises
    ------
    ValueError
        For another shape, seen values outside of [0, 1], or an image of which nothing is seen.

    >>> read = collected(torch.tensor([[[[0.5, float("nan")]]]]))
    >>> read.images.tolist(), read.masks.tolist()
    ([[[[0.5, 0.0]]]], [[[[True, False]]]])
    """
    check_image(images)
    refuse_eight_bits(images)
    if images.dim() != 4 or not len(images):
        raise ValueError(f"images is {describe(images)}; expected (n, channel, row, column) with n > 0")
    seen = ~images.isnan()
    if masks is not None:
        check_mask(masks, tuple(images.shape))
        seen = seen & masks
    values = torch.where(seen, images, torch.zeros_like(images)).float()
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"images has values from {values.min():g} to {values.max():g}; expected 0 to 1")
    if not bool((found := seen.flatten(1).any(1)).all()):
        raise ValueError(f"nothing is seen of image {int((~found).nonzero()[0])}; expected a pixel at least")
    whole = bool(seen.all())
    pairs = zip(values.numpy(), [None] * len(values) if whole else seen.numpy(), strict=True)
    digests = tuple(digest_of(*pair) for pair in pairs)
    names = tuple(map(str, range(len(values))))
    return Collection(values, None if whole else seen, names, digests, ())


def _checked(
    size: int | tuple[int, int] | None, patches: int | None, channels: int | None, count: int | None
) -> tuple[int, int] | None:
    """Return the size as rows and columns, and raise for settings that are none."""
    if size is not None and patches is not None:
        raise ValueError(f"size={size} and patches={patches} are both given; expected one")
    if count is not None and patches is None:
        raise ValueError(f"count={count} without patches; expected patches=SIDE with it")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels={channels!r}; expected 1 or 3")
    for name, value in (("patches", patches), ("count", count)):
        if value is not None and not _is_positive(value):
            raise ValueError(f"{name}={value!r}; expected a whole number above 0")
    if size is None:
        return None
    shape = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(shape) != 2 or not all(_is_positive(one) for one in shape):
        raise ValueError(f"size={size!r}; expected rows and columns above 0")
    return shape[0], shape[1]


def _is_positive(value: object) -> bool:
    return type(value) is int and value > 0


def _stacked(used: list[Part], skipped: Skipped) -> Collection:
    """Return parts as one tensor, in colours if one of them is."""
    channels = max(len(part.image) for part in used)
    shape = (channels, *used[0].image.shape[1:])
    check_stack(len(used), shape)
    images, masks = np.empty((len(used), *shape), np.float32), None
    if any(part.seen is not None for part in used):
        masks = np.ones(images.shape, bool)
    for i, part in enumerate(used):
        images[i] = part.image  # grey goes into every channel
        if masks is not None and part.seen is not None:
            masks[i] = part.seen
    return Collection(
        images=torch.from_numpy(images),
        masks=None if masks is None else torch.from_numpy(masks),
        names=tuple(part.name for part in used),
        digests=tuple(part.digest for part in used),
        skipped=tuple(skipped),
    )
