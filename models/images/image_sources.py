"""Where many images lie: a folder of files or a file of a stack, each with what is marked as missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posterior_inpainting.models.datasets import read_idx
from posterior_inpainting.models.images.available_memory import check_memory
from posterior_inpainting.models.images.image_files import marked_pixels, read_image, read_mask
from posterior_inpainting.models.images.pixel_arrays import ARRAYS, as_image, open_array
from posterior_inpainting.models.images.pixel_files import read_size
from posterior_inpainting.models.images.resampling import Seen
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Source", "sources"]

_STACK = "(n, row, column), (n, row, column, 1|3|4) or (n, 1|3, row, column)"


@dataclass(frozen=True)
class Source:
    """One image that can be read.

    Parameters
    ----------
    name
        For people.
    read
        Return the image ``(channel, row, column)``, 0 where hidden, and what is seen of it; raise ``ValueError`` or
        ``OSError`` where that fails.
    size
        Return its rows and columns, or columns and rows, without decoding it, and raise as ``read``.

    path
        That errors begin with, if they do.

    >>> one = Source("a.npy", lambda: (np.ones((1, 2, 3)), None), lambda: (2, 3), Path("images/a.npy"))
    >>> one.size(), one.reason(ValueError("images/a.npy has NaN"))
    ((2, 3), 'has NaN')
    """

    name: str
    read: Callable[[], tuple[np.ndarray, Seen]]
    size: Callable[[], tuple[int, int]]
    path: Path | None = None

    def reason(self, error: Exception) -> str:
        """Return what an error says, without the name of the file."""
        return str(error).removeprefix(f"{self.path} ").removeprefix("cannot be read as an image: ")


def sources(path: Path, masks: Path | None) -> tuple[list[Source], list[tuple[str, str]]]:
    """Find the images in a folder or in a file of many.

    Parameters
    ----------
    path, masks
        As for :func:`~posterior_inpainting.models.images.collection.read_collection`.

    Returns
    -------
    list, list
        The images, in the order of names or as they are stacked, and names of masks of no image, with that reason.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or file.
    ValueError
        For a folder without a file, or a file of something else.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.ones((2, 4, 6)))
    ...     [one.name for one in sources(Path(folder) / "a.npy", None)[0]]
    ['a.npy[0]', 'a.npy[1]']
    """
    for given in (path, masks):
        if given is not None and not given.exists():
            raise FileNotFoundError(f"no folder or file {given}")
    if masks is not None and masks.is_dir() != path.is_dir():
        raise ValueError(f"masks={masks} for {path}; expected two folders, or two files of stacks")
    return _in_folder(path, masks) if path.is_dir() else (_in_stack(path, masks), [])


def _in_folder(folder: Path, masks: Path | None) -> tuple[list[Source], list[tuple[str, str]]]:
    drawn = {} if masks is None else _files(masks)
    inside = (
        None if masks is None or not masks.resolve().is_relative_to(folder.resolve()) else masks.resolve()
    )
    if inside == folder.resolve():
        raise ValueError(f"masks={masks} is the folder of the images; expected another one")
    files = _files(folder)
    if inside is not None:
        files = {name: path for name, path in files.items() if not path.resolve().is_relative_to(inside)}
    stems: dict[str, list[str]] = {}
    for name in drawn:
        stems.setdefault(_stem(name), []).append(name)
    found, used = [], set()
    for name, path in files.items():
        named = [name] if name in drawn else stems.get(_stem(name), [])
        if len(named) > 1:
            raise ValueError(f"masks={masks} has {named[0]} and {named[1]} for {name}; expected one")
        used.update(named)
        found.append(_of_file(name, path, drawn[named[0]] if named else None))
    if drawn and not used:
        raise ValueError(
            f"masks={masks} has no file named as one in {folder}, such as {next(iter(files), 'a.png')}"
        )
    return found, [(f"{masks}/{name}", "a mask of no image") for name in drawn if name not in used]


def _files(folder: Path) -> dict[str, Path]:
    """Return all files of a folder and those in it by their names below it, in the order of names."""
    found = ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if not path.is_dir())
    return dict(sorted(found))


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _of_file(name: str, path: Path, mask: Path | None) -> Source:
    def read() -> tuple[np.ndarray, Seen]:
        """Decode the files."""
        image, opaque = read_image(path)
        return _seen_part(image, opaque, None if mask is None else read_mask(mask, image, "missing"))

    return Source(name, read, lambda: read_size(path), path)


def _in_stack(path: Path, masks: Path | None) -> list[Source]:
    images = _stack(path)
    drawn = None if masks is None else _stack(masks)
    if drawn is not None and drawn.shape[:3] != images.shape[:3]:
        given, expected = (" x ".join(map(str, one.shape[:3])) for one in (drawn, images))
        raise ValueError(f"masks={masks} is {given} (n, row, column); the images are {expected}")
    as_image(images[0], path)  # a type that is none is one of all
    return [_of_stack(f"{path.name}[{i}]", images, drawn, i) for i in range(len(images))]


def _of_stack(name: str, images: np.ndarray, drawn: np.ndarray | None, i: int) -> Source:
    def read() -> tuple[np.ndarray, Seen]:
        """Take one of each."""
        image, opaque = as_image(images[i], name)
        if drawn is None:
            return _seen_part(image, opaque, None)
        marked = marked_pixels(*as_image(drawn[i], name), f"the mask of {name}")
        return _seen_part(image, opaque, ~marked.expand(image.shape))

    return Source(name, read, lambda: images.shape[1:3])


def _stack(path: Path) -> np.ndarray:
    """Return stacked images as ``(n, row, column, channel)``."""
    if path.suffix.lower() in ARRAYS:
        stack = open_array(path, lambda values: _check(values, path))
    else:
        with path.open("rb") as file:
            start = file.read(3)
            values = file.seek(0, 2)
            if start[:2] == b"\x1f\x8b" and values > 4:  # gzip ends in how much there is
                file.seek(-4, 2)
                values = int.from_bytes(file.read(), "little")
        if start[:2] not in (b"\x1f\x8b", b"\x00\x00"):
            raise ValueError(
                f"{path} is no file of many images; expected a folder, or NPY, NPZ or IDX of {_STACK}"
            )
        _check(values, path)
        stack = read_idx(path).numpy()
    if stack.size and stack.ndim == 3:
        return stack[..., None]
    if stack.size and stack.ndim == 4 and stack.shape[-1] in (1, 2, 3, 4):
        return stack
    if stack.size and stack.ndim == 4 and stack.shape[1] in (1, 3):
        return np.moveaxis(stack, 1, -1)
    raise ValueError(f"{path} has shape {stack.shape}; expected {_STACK}")


def _check(values: int, path: Path) -> None:
    """Refuse more values than fit as floats, as they come and as they are stacked, with their masks."""
    check_memory(10 * values, f"{path} of {values} values", remedy="expected a smaller file")


def _seen_part(image: Image, *masks: Mask | None) -> tuple[np.ndarray, Seen]:
    """Return an image with zeros wherever one of its masks, or NaN, says that it is missing."""
    seen = ~image.isnan()
    for mask in masks:
        if mask is not None:
            seen &= mask
    if seen.all():
        return image.numpy(), None
    return image.where(seen, image.new_zeros(())).numpy(), seen.numpy()
