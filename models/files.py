"""Read images and masks from PNG, JPEG and NPY files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["read_image", "read_mask", "read_observation"]

_PIXELS = "(row, column), (row, column, 1|3|4) or (1|3, row, column)"


def read_image(path: str | Path) -> tuple[Image, Mask | None]:
    """Read an image, and which of its pixels are opaque.

    Parameters
    ----------
    path
        PNG or JPEG, 8- or 16-bit, grey, RGB, either with alpha; or NPY of shape ``(row, column)``,
        ``(row, column, 1|3|4)`` or ``(1|3, row, column)``: integers are scaled by their type's
        largest value, floats are taken as they are. (16-bit colour PNGs come at 8-bit precision.)

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
        If it is not an image.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.full((4, 6), 255, np.uint8))
    ...     image, opaque = read_image(f"{folder}/a.npy")
    >>> tuple(image.shape), float(image.max()), opaque
    ((1, 4, 6), 1.0, None)
    """
    pixels = _channels_last(_read(Path(path)), Path(path))
    image = torch.from_numpy(_to_float(pixels)).permute(2, 0, 1).contiguous()
    channels = image.shape[0]
    if channels in (2, 4):
        colours, alpha = image[:-1], image[-1:]
        return colours.contiguous(), (alpha > 0).expand(colours.shape).clone()
    return image, None


def read_mask(path: str | Path, image: Image, polarity: str) -> Mask:
    """Read a mask file as large as the image.

    Parameters
    ----------
    path
        As for :func:`read_image`. With an alpha channel, opaque pixels are marked; without, non-zero
        ones (the brightest half of the range, for JPEG's sake).
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
    drawing, opaque = read_image(path)
    marked = opaque[:1] if opaque is not None and not opaque.all() else (drawing.amax(0, keepdim=True) >= 0.5)
    if marked.shape[-2:] != image.shape[-2:]:
        size, expected = (" x ".join(map(str, s[-2:])) for s in (marked.shape, image.shape))
        raise ValueError(f"{path} is {size} pixels; the image is {expected}")
    marked = marked.expand(image.shape).clone()
    return marked if polarity == "seen" else ~marked


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


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        from skimage.io import imread

        return imread(path)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        reason = str(error).strip().splitlines()[0][:100] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} cannot be read as an image: {reason}") from None


def _channels_last(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.ndim == 3 and pixels.shape[-1] in (1, 2, 3, 4):
        return pixels
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        return np.moveaxis(pixels, 0, -1)
    raise ValueError(f"{path} has shape {pixels.shape}; expected {_PIXELS}")


def _to_float(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == bool:
        return pixels.astype(np.float32)
    if np.issubdtype(pixels.dtype, np.integer):
        # PNG readers widen 16-bit grey to 32-bit integers.
        largest = 65535 if pixels.dtype.itemsize > 1 else np.iinfo(pixels.dtype).max
        return (pixels / largest).astype(np.float32)
    if np.issubdtype(pixels.dtype, np.floating):
        return pixels.astype(np.float32)
    raise ValueError(f"pixels of type {pixels.dtype}; expected integers or floats")
