"""Read images and masks from files, as they are displayed."""

from __future__ import annotations

from pathlib import Path

from posterior_inpainting.models.images.pixel_arrays import as_image
from posterior_inpainting.models.images.pixel_files import read_pixels
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["marked_pixels", "read_image", "read_mask", "read_observation"]


def read_image(path: str | Path) -> tuple[Image, Mask | None]:
    """Read an image, and which of its pixels are opaque.

    Parameters
    ----------
    path
        PNG, JPEG, WebP, TIFF or BMP, 1-, 8- or 16-bit, grey, RGB, CMYK or palette, with alpha or without, turned
        as its EXIF data say; or NPY, or NPZ of one array, of shape ``(row, column)``, ``(row, column, 1|3|4)`` or
        ``(1|3, row, column)``: uint8 is divided by 255, uint16 by 65535, floats are taken as they are.

    Returns
    -------
    image, opaque
        ``(channel, row, column)`` float32, and a mask of the same shape that is ``False`` where alpha
        is 0, or ``None`` where the file has no alpha.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an image, or one of more than 64 megapixels.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.full((4, 6), 255, np.uint8))
    ...     image, opaque = read_image(f"{folder}/a.npy")
    >>> tuple(image.shape), float(image.max()), opaque
    ((1, 4, 6), 1.0, None)
    """
    return as_image(read_pixels(Path(path)), path)


def read_mask(path: str | Path, image: Image, polarity: str) -> Mask:
    """Read a mask file as large as the image.

    Parameters
    ----------
    path
        As for :func:`read_image`. With transparent pixels, opaque ones are marked; without, those above
        half of the brightest (not all above 0, because JPEG blurs; a mask of 0 and 1 is as good as 0 and 255).
    image
        ``(channel, row, column)`` that the mask is for.
    polarity
        ``"seen"`` if the marked pixels are seen, ``"missing"`` if they are missing.

    Raises
    ------
    ValueError
        If the size differs from the image's.
    """
    if polarity not in ("seen", "missing"):
        raise ValueError(f"polarity={polarity!r}; expected 'seen' or 'missing'")
    marked = marked_pixels(*read_image(path), path)
    if marked.shape[-2:] != image.shape[-2:]:
        size, expected = (" x ".join(map(str, s[-2:])) for s in (marked.shape, image.shape))
        raise ValueError(f"{path} is {size} pixels; the image is {expected}")
    marked = marked.expand(image.shape).clone()
    return marked if polarity == "seen" else ~marked


def marked_pixels(drawing: Image, opaque: Mask | None, name: str | Path) -> Mask:
    """Return what a drawing of a mask marks, ``(1, row, column)``, as told in :func:`read_mask`.

    Parameters
    ----------
    drawing, opaque
        As :func:`read_image` returns them.
    name
        Of the mask, for errors.

    Raises
    ------
    ValueError
        If the drawing has NaN, which is neither marked nor not.

    >>> import torch
    >>> marked_pixels(torch.tensor([[[0.0, 1.0]]]), None, "mask.png")
    tensor([[[False,  True]]])
    """
    if drawing.isnan().any():
        raise ValueError(f"{name} has NaN; expected a mask of numbers")
    bright = drawing.amax(0, keepdim=True)
    return opaque[:1] if opaque is not None and not opaque.all() else bright > bright.max() / 2


def read_observation(
    path: str | Path, *, seen: str | Path | None = None, missing: str | Path | None = None
) -> Observation:
    """Read an image with its mask: from a file that marks ``seen`` or ``missing`` pixels, or its own alpha.

    Raises
    ------
    ValueError
        If both files are given, or neither and the image has no transparent pixel.
    """
    image, opaque = read_image(path)
    if seen is not None and missing is not None:
        raise ValueError("seen and missing are both given; expected one")
    if seen is not None:
        return Observation(image, read_mask(seen, image, "seen"))
    if missing is not None:
        return Observation(image, read_mask(missing, image, "missing"))
    if opaque is None or opaque.all():
        raise ValueError(f"{path} has no transparent pixel; give a file of seen or missing pixels")
    return Observation(image, opaque)
