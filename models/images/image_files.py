"""Read images and masks from PNG, JPEG and NPY files, as they are displayed."""

from __future__ import annotations

import struct
import tokenize
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["read_image", "read_mask", "read_observation"]

_PIXELS = "(row, column), (row, column, 1|3|4) or (1|3, row, column)"
_MODES = {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}  # Pillow's -> the one that is read
#: EXIF's tag, and the largest image that is read.
_ORIENTATION, _MEGAPIXELS = 0x0112, 64


def read_image(path: str | Path) -> tuple[Image, Mask | None]:
    """Read an image, and which of its pixels are opaque.

    Parameters
    ----------
    path
        PNG or JPEG, 8- or 16-bit, grey, RGB or palette, with alpha or without, turned as its EXIF data say; or
        NPY of shape ``(row, column)``, ``(row, column, 1|3|4)`` or ``(1|3, row, column)``: uint8 is divided by
        255, uint16 by 65535, floats are taken as they are.

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
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.full((4, 6), 255, np.uint8))
    ...     image, opaque = read_image(f"{folder}/a.npy")
    >>> tuple(image.shape), float(image.max()), opaque
    ((1, 4, 6), 1.0, None)
    """
    pixels = _channels_last(_read(Path(path)), Path(path))
    image = torch.from_numpy(_to_float(pixels, Path(path))).permute(2, 0, 1).contiguous()
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
    drawing, opaque = read_image(path)
    bright = drawing.amax(0, keepdim=True)
    marked = opaque[:1] if opaque is not None and not opaque.all() else bright > bright.max() / 2
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
    """Pixels ``(row, column)`` or ``(row, column, channel)`` of uint8, uint16, bool or floats."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    import png
    from PIL import Image as Pillow

    damaged = (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        ArithmeticError,
        MemoryError,
        struct.error,
        tokenize.TokenError,
        zlib.error,
        png.Error,
    )
    try:
        if path.suffix.lower() == ".npy":
            # Mapped, and not read: a header that promises more than there is must not take memory for it.
            with np.errstate(over="raise"):
                mapped = np.lib.format.open_memmap(path, mode="r")
            _check_size(mapped.size / 3)
            return np.array(mapped)
        with Pillow.open(path, formats=("PNG", "JPEG")) as picture:
            _check_size(picture.width * picture.height)
            deep = _of_16_bits(path) if picture.format == "PNG" else None
            picture.load()
            return _turned(_pixels(picture) if deep is None else deep, picture.getexif().get(_ORIENTATION, 1))
    except (*damaged, Pillow.DecompressionBombError) as error:
        reason = str(error).strip().splitlines()[0][:100] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} cannot be read as an image: {reason}") from None


def _check_size(pixels: float) -> None:
    if pixels > 1e6 * _MEGAPIXELS:
        raise ValueError(
            f"{pixels / 1e6:.0f} megapixels; expected at most {_MEGAPIXELS}: cut out what is around the holes"
        )


def _pixels(picture: Any) -> np.ndarray:
    wanted = _MODES.get(picture.mode, picture.mode)
    if picture.has_transparency_data:  # one colour, or some of a palette, can stand for transparent
        wanted = "LA" if wanted in ("L", "LA") else "RGBA"
    pixels = np.asarray(picture if picture.mode == wanted else picture.convert(wanted))
    return pixels.astype(np.uint16) if wanted == "I" else pixels


def _of_16_bits(path: Path) -> np.ndarray | None:
    """Return the pixels of a PNG that has several channels of 16 bits, of which Pillow reads half."""
    import png

    content = path.read_bytes()
    bits, kind = content[24:26]
    if bits != 16 or kind == 0:
        return None
    columns, rows, values, info = png.Reader(bytes=content).asDirect()
    return np.stack([np.asarray(row, np.uint16) for row in values]).reshape(rows, columns, info["planes"])


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels as they are displayed, by the EXIF tag that says how the camera was held."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def _channels_last(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.size and pixels.ndim == 2:
        return pixels[..., None]
    if pixels.size and pixels.ndim == 3 and pixels.shape[-1] in (1, 2, 3, 4):
        return pixels
    if pixels.size and pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        return np.moveaxis(pixels, 0, -1)
    raise ValueError(f"{path} has shape {pixels.shape}; expected {_PIXELS}")


def _to_float(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)
    if pixels.dtype == bool or np.issubdtype(pixels.dtype, np.floating):
        return pixels.astype(np.float32)
    raise ValueError(f"{path} has pixels of type {pixels.dtype}; expected uint8, uint16, bool or floats")
