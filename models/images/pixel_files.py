"""Decode a file of pixels, of any mode and bit depth, as it is displayed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from posterior_inpainting.models.images.pixel_arrays import (
    ARRAYS,
    channels_last,
    check_values,
    in_one_line,
    open_array,
)

__all__ = ["read_pixels", "read_size"]

#: Told by content.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
#: Pillow's mode -> the one that is read. No other is: a LAB picture taken for RGB would look like one.
_MODES = {mode: mode for mode in ("L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "F")} | {
    "1": "L",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
#: Tags of EXIF and TIFF.
_ORIENTATION, _BITS, _PHOTOMETRIC, _EXTRA = 0x0112, 258, 262, 338


def read_pixels(path: Path) -> np.ndarray:
    """Return the pixels of a file, ``(row, column)`` or ``(row, column, channel)``, turned as its EXIF data say.

    Parameters
    ----------
    path
        PNG, JPEG, WebP, TIFF, BMP (the first frame of several), NPY, or NPZ of one array.

    Returns
    -------
    numpy.ndarray
        uint8, uint16, bool or floats; of NumPy's files whatever shape and type they hold.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TooLargeError
        Above 64 megapixels.
    ValueError
        If it is not an image, or a damaged one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.eye(2))
    ...     read_pixels(Path(folder) / "a.npy").tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if path.suffix.lower() in ARRAYS:
        return np.array(open_array(path, check_values))
    with _opened(path) as picture:
        orientation = picture.getexif().get(_ORIENTATION, 1)
        deep = _deep(picture, path)
        picture.load()
        if (
            deep is None or picture.format == "PNG"
        ):  # whose EXIF data may follow the pixels; a TIFF has turned itself
            orientation = picture.getexif().get(_ORIENTATION, 1)
        return _turned(_pixels(picture) if deep is None else deep, orientation)


def read_size(path: Path) -> tuple[int, int]:
    """Return rows and columns of an image as its file's head has them, before it is turned.

    Raises
    ------
    FileNotFoundError, ValueError
        As for :func:`read_pixels`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.zeros((3, 4, 6)))
    ...     read_size(Path(folder) / "a.npy")
    (4, 6)
    """
    if path.suffix.lower() in ARRAYS:
        return channels_last(open_array(path, check_values), path).shape[:2]
    with _opened(path) as picture:
        return picture.height, picture.width


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a picture whose size has been checked."""
    from PIL import Image as Pillow

    # By its name, Pillow 13 would map an uncompressed TIFF that lies on its side into memory with rows for columns.
    with in_one_line(path), path.open("rb") as file, Pillow.open(file, formats=_FORMATS) as picture:
        check_values(3 * picture.width * picture.height)
        yield picture


def _pixels(picture: Any) -> np.ndarray:
    if picture.mode not in _MODES or (picture.mode == "I" and picture.format == "TIFF"):
        raise ValueError(f"{picture.format} of mode {picture.mode}; expected grey or colours of 8 or 16 bits")
    wanted = _MODES[picture.mode]
    if picture.has_transparency_data:  # one colour, or some of a palette, can stand for transparent
        wanted = "LA" if wanted in ("L", "LA") else "RGBA"
    pixels = np.asarray(picture if picture.mode == wanted else picture.convert(wanted))
    if picture.format == "TIFF" and wanted.startswith("I;16") and picture.tag_v2.get(_PHOTOMETRIC) == 0:
        return 65535 - pixels  # 0 is white, which Pillow knows of 8 bits only
    return pixels.astype(np.uint16) if wanted == "I" else pixels


def _deep(picture: Any, path: Path) -> np.ndarray | None:
    """Return the pixels of a picture that has several channels of 16 bits, of which Pillow reads half."""
    if picture.format == "PNG":
        with path.open("rb") as file:
            bits, kind = file.read(26)[24:]
        if bits != 16 or kind == 0:
            return None
        import png

        columns, rows, values, info = png.Reader(filename=str(path)).asDirect()
        return np.stack([np.asarray(row, np.uint16) for row in values]).reshape(rows, columns, info["planes"])
    if picture.format == "TIFF":
        tags = picture.tag_v2
        straight = tags.get(_PHOTOMETRIC) == 2 and tags.get(_EXTRA, (2,)) == (
            2,
        )  # RGB, alpha not multiplied in
        if tags.get(_BITS, (8,))[0] != 16 or len(tags[_BITS]) == 1 or not straight:
            return None
        if picture.n_frames > 1:
            raise ValueError(f"{picture.n_frames} pages of 16 bits; expected one")
        from skimage.io import imread

        return imread(str(path))
    return None


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels as they are displayed, by the EXIF tag that says how the camera was held."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
