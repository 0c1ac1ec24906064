"""Images to train on and to complete, each as one float tensor ``(n, channel, row, column)`` in [0, 1].

``fashion-mnist-samples`` travels with the package; ``digits`` and ``natural`` come with scikit-learn and scikit-image;
``photographs`` with Debian's ``lomiri-wallpapers-16.04``; ``mnist`` and ``fashion-mnist`` are read from a folder of IDX
files, from Debian's ``dataset-fashion-mnist``, or fetched once from openml.org where there is a network.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from posterior_inpainting.models.images import photographs
from posterior_inpainting.models.shapes import Image

__all__ = ["NAMES", "labels", "load", "patches", "read_idx"]

_DEBIAN = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}
_OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}


def load(name: str, split: str = "test", root: str | Path | None = None) -> Image:
    """Load a data set.

    Parameters
    ----------
    name
        ``"digits"`` (1797 of 1x8x8, the last 297 are the test split), ``"mnist"`` or
        ``"fashion-mnist"`` (60,000 and 10,000 of 1x28x28), ``"natural"`` (scikit-image photographs,
        centre square as 3x256x256), ``"photographs"`` (squares of 3x128x128 of photographs under free licences; the
        test split is eight others, of scikit-image and scikit-learn, as 3x256x256), ``"fashion-mnist-samples"`` (the
        first 64 test images, shipped with the package; test split only).
    split
        ``"train"`` or ``"test"``.
    root
        Folder with the IDX files of ``mnist`` or ``fashion-mnist``, as they are or gzipped, or with the files of
        ``photographs``.

    Returns
    -------
    Tensor
        ``(n, channel, row, column)``, float32 in [0, 1].

    Raises
    ------
    ValueError
        For an unknown name or split.
    FileNotFoundError
        For a folder with a missing file, or where there is neither a folder nor a network.

    Examples
    --------
    >>> tuple(load("fashion-mnist-samples").shape)
    (64, 1, 28, 28)
    """
    return _loader(name, split)(split, root)


def labels(name: str, split: str = "test", root: str | Path | None = None) -> Tensor:
    """Load the class of every image of ``digits``, ``mnist`` or ``fashion-mnist``, integers ``(n,)``.

    >>> labels("digits")[:3].tolist()
    [1, 7, 4]
    """
    _loader(name, split)
    if name == "digits":
        return _digits(split)[1]
    if name in _OPENML:
        return _images_and_labels(name, split, root)[1]
    raise ValueError(f"{name} has no labels; digits, mnist and fashion-mnist have")


def patches(images: Image, size: int, count: int, seed: int | Generator = 0) -> Image:
    """Cut ``count`` random ``size`` x ``size`` patches out of images ``(n, channel, row, column)``.

    >>> tuple(patches(torch.rand(2, 3, 32, 32), size=8, count=5).shape)
    (5, 3, 8, 8)
    """
    n, _, rows, columns = images.shape
    if not 1 <= size <= min(rows, columns):
        raise ValueError(f"size={size}; expected 1..{min(rows, columns)} for images of {rows} x {columns}")
    generator = seed if isinstance(seed, Generator) else torch.Generator().manual_seed(seed)
    which = torch.randint(n, (count,), generator=generator).tolist()
    tops = torch.randint(rows - size + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(columns - size + 1, (count,), generator=generator).tolist()
    return torch.stack(
        [images[i, :, t : t + size, c : c + size] for i, t, c in zip(which, tops, lefts, strict=True)]
    )


def read_idx(path: str | Path) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped or not (LeCun's format for MNIST).

    Raises
    ------
    ValueError
        If the file is not an IDX file of unsigned bytes or is truncated.
    """
    path = Path(path)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        try:
            content = file.read()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    if content[:3] != b"\x00\x00\x08" or len(content) < start:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    data = np.frombuffer(content, np.uint8)[start:]
    if data.size != math.prod(shape):
        raise ValueError(f"{path} holds {data.size} bytes where its header says {shape}")
    return torch.from_numpy(data.reshape(shape).copy())


def _digits(split: str) -> tuple[Image, Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    part = slice(0, 1500) if split == "train" else slice(1500, None)
    images = torch.from_numpy(digits.images[part]).float().div(16).unsqueeze(1)
    return images, torch.from_numpy(digits.target[part]).long()


def _images_and_labels(name: str, split: str, root: str | Path | None) -> tuple[Image, Tensor]:
    folder = Path(root) if root is not None else _DEBIAN.get(name)
    if folder is not None and (root is not None or folder.is_dir()):
        prefix = "train" if split == "train" else "t10k"
        images, classes = (
            read_idx(_existing(folder, f"{prefix}-{kind}"))
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )
        if images.dim() != 3 or classes.shape != images.shape[:1]:
            raise ValueError(
                f"{folder} holds images of shape {tuple(images.shape)} and labels of shape {tuple(classes.shape)}; "
                "expected (n, row, column) and (n,)"
            )
    else:
        images, classes = _fetch(name, split)
    return images.float().div(255).unsqueeze(1), classes.long()


def _existing(folder: Path, stem: str) -> Path:
    for candidate in (folder / stem, folder / f"{stem}.gz"):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{folder} has neither {stem} nor {stem}.gz")


def _fetch(name: str, split: str) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import fetch_openml

    try:
        table = fetch_openml(_OPENML[name], version=1, as_frame=False, parser="liac-arff")
    except OSError as error:
        hint = " or `apt-get install dataset-fashion-mnist`" if name in _DEBIAN else ""
        raise FileNotFoundError(
            f"{name} is not on this machine and openml.org cannot be reached ({error}); "
            f"give root=FOLDER with its IDX files{hint}"
        ) from None
    part = slice(0, 60_000) if split == "train" else slice(60_000, None)
    images = torch.from_numpy(np.asarray(table.data[part], np.uint8)).reshape(-1, 28, 28)
    return images, torch.from_numpy(np.asarray(table.target[part], np.int64))


def _samples(split: str) -> Image:
    if split != "test":
        raise ValueError(f"fashion-mnist-samples has a test split only; split={split!r} was given")
    with (resources.files("posterior_inpainting.models") / "samples/fashion-mnist.npz").open("rb") as file:
        return torch.from_numpy(np.load(file)["images"]).float().div(255).unsqueeze(1)


_LOADERS: dict[str, Callable[[str, str | Path | None], Image]] = {
    "digits": lambda split, root: _digits(split)[0],
    "fashion-mnist": lambda split, root: _images_and_labels("fashion-mnist", split, root)[0],
    "fashion-mnist-samples": lambda split, root: _samples(split),
    "mnist": lambda split, root: _images_and_labels("mnist", split, root)[0],
    "natural": lambda split, root: photographs.natural(split),
    "photographs": lambda split, root: (
        photographs.squares(root) if split == "train" else photographs.held_out()
    ),
}
NAMES = tuple(_LOADERS)


def _loader(name: str, split: str) -> Callable:
    if name not in _LOADERS:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}; expected 'train' or 'test'")
    return _LOADERS[name]
