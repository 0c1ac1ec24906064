"""Arrays of pixels: opened from NPY and NPZ files, checked, and made images in [0, 1]."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from posterior_inpainting.models.shapes import Image, Mask

__all__ = [
    "ARRAYS",
    "TooLargeError",
    "as_image",
    "channels_last",
    "check_values",
    "in_one_line",
    "open_array",
]

#: Suffixes of files of arrays.
ARRAYS = (".npy", ".npz")
_PIXELS, _MEGAPIXELS = "(row, column), (row, column, 1|3|4) or (1|3, row, column)", 64


class TooLargeError(ValueError):
    """A file promises more pixels than are read, by mistake or to exhaust the memory of who opens it.

    >>> raise TooLargeError("a.png cannot be read as an image: 81 megapixels; expected at most 64")
    Traceback (most recent call last):
    ...
    posterior_inpainting.models.images.pixel_arrays.TooLargeError: a.png cannot be read ...
    """


def open_array(path: Path, check: Callable[[int], None]) -> np.ndarray:
    """Open the array of an NPY file, mapped, or the only one of an NPZ file.

    Parameters
    ----------
    path
        The file.
    check
        Called with the number of values before any is read, to refuse too many of them.

    Raises
    ------
    ValueError
        For a damaged file, one of Python objects, or another number of arrays than one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez_compressed(f"{folder}/a.npz", images=np.eye(2))
    ...     open_array(Path(folder) / "a.npz", print).shape
    4
    (2, 2)
    """
    with in_one_line(path):
        if path.suffix.lower() == ".npy":
            # Mapped, and not read: a header that promises more than there is must not take memory for it.
            with np.errstate(over="raise"):
                mapped = np.lib.format.open_memmap(path, mode="r")
            check(mapped.size)
            return mapped
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise ValueError(f"{len(members)} arrays; expected one")
            with archive.open(members[0]) as file:
                first = np.lib.format.read_magic(file) == (1, 0)
                read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                check(math.prod(read(file)[0]))
            with archive.open(members[0]) as file:
                return np.lib.format.read_array(file, allow_pickle=False)


def as_image(pixels: np.ndarray, name: str | Path) -> tuple[Image, Mask | None]:
    """Return pixels as an image in [0, 1], channels first, and which of them are opaque.

    Parameters
    ----------
    pixels
        ``(row, column)``, ``(row, column, 1|2|3|4)`` or ``(1|3, row, column)``: uint8 is divided by 255, uint16 by
        65535, floats are taken as they are. A second or fourth channel is alpha.
    name
        Of the file, for errors.

    Raises
    ------
    ValueError
        For another shape or type.

    >>> as_image(np.array([[[255, 0], [51, 9]]], np.uint8), "a.png")
    (tensor([[[1.0000, 0.2000]]]), tensor([[[False,  True]]]))
    """
    image = torch.from_numpy(_to_float(channels_last(pixels, name), name)).permute(2, 0, 1).contiguous()
    if len(image) not in (2, 4):
        return image, None
    colours, alpha = image[:-1].contiguous(), image[-1:]
    return colours, (alpha > 0).expand(colours.shape).clone()


def channels_last(pixels: np.ndarray, name: str | Path) -> np.ndarray:
    """Return pixels as ``(row, column, channel)``.

    Raises
    ------
    ValueError
        For the shape of no image.

    >>> channels_last(np.zeros((3, 4, 6)), "a.npy").shape
    (4, 6, 3)
    """
    if pixels.size and pixels.ndim == 2:
        return pixels[..., None]
    if pixels.size and pixels.ndim == 3 and pixels.shape[-1] in (1, 2, 3, 4):
        return pixels
    if pixels.size and pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        return np.moveaxis(pixels, 0, -1)
    raise ValueError(f"{name} has shape {pixels.shape}; expected {_PIXELS}")


def _to_float(pixels: np.ndarray, name: str | Path) -> np.ndarray:
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return np.divide(pixels, np.iinfo(pixels.dtype).max, dtype=np.float32)
    if pixels.dtype == bool or np.issubdtype(pixels.dtype, np.floating):
        with np.errstate(over="ignore"):  # infinite, which is refused wherever it is seen
            return pixels.astype(np.float32)
    raise ValueError(f"{name} has pixels of type {pixels.dtype}; expected uint8, uint16, bool or floats")


def check_values(values: int) -> None:
    """Refuse an image of more than 64 megapixels of three values.

    Raises
    ------
    TooLargeError
        With the number of megapixels.

    >>> check_values(3 * 8000 * 9000)
    Traceback (most recent call last):
    ...
    posterior_inpainting.models.images.pixel_arrays.TooLargeError: 72 megapixels; expected at most 64: cut out ...
    """
    if values > 3e6 * _MEGAPIXELS:
        raise TooLargeError(
            f"{values / 3e6:.0f} megapixels; expected at most {_MEGAPIXELS}: cut out what is around the holes"
        )


@contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """Raise one line with the file's name for whatever a decoder answers to a damaged file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TooLargeError
        If it promises too many pixels.
    ValueError
        For everything else.

    >>> with in_one_line(Path("absent.png")):
    ...     pass
    Traceback (most recent call last):
    ...
    FileNotFoundError: no file absent.png
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    bombs = (TooLargeError, Pillow.DecompressionBombError, Pillow.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            yield
    except Exception as error:  # decoders raise anything, from struct.error to IndexError
        lines = str(error).strip().splitlines()
        reason = lines[0][:100] if lines else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "expected PNG, JPEG, WebP, TIFF, BMP, NPY or NPZ"
        kind = TooLargeError if isinstance(error, bombs) else ValueError
        raise kind(f"{path} cannot be read as an image: {reason}") from None
