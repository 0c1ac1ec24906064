"""Tensors on disk: safetensors in half precision, or in 8 bits where half is more than is known, with digests beside.

A weight in 8 bits is a whole number from -127 to 127 of steps, of which every row of a matrix, and every filter of a
convolution, has its own: what has one dimension stays in half precision, and so does what is small, where
much may depend on it and little is saved. Standard deviations of weights are kept as logarithms in 8 bits, evenly
between the least and the largest of a tensor: they run over two or three orders of magnitude, so that none is off by
more than one part in a hundred.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

__all__ = [
    "DIGESTS",
    "read_digests",
    "read_file",
    "read_tensors",
    "write_durably",
    "write_file",
    "write_tensors",
]

DIGESTS = "SHA256SUMS"


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    description: dict[str, str],
    logarithmic: bool = False,
    bits: int = 16,
) -> None:
    """Write tensors and their digest's line, in the folder's list.

    Parameters
    ----------
    path, tensors, description, logarithmic, bits
        As for :func:`write_file`.

    Raises
    ------
    ValueError
        As :func:`write_file`.
    """
    digests = read_digests(path.parent) if (path.parent / DIGESTS).is_file() else {}
    digests[path.name] = write_file(path, tensors, description, logarithmic, bits)
    lines = [f"{digest}  {file}\n" for file, digest in sorted(digests.items())]
    (path.parent / DIGESTS).write_text("".join(lines))


def write_file(
    path: Path,
    tensors: Mapping[str, Tensor],
    description: dict[str, str],
    logarithmic: bool = False,
    bits: int = 16,
) -> str:
    """Write tensors, and return the SHA-256 of their file.

    Parameters
    ----------
    path
        A safetensors file.
    tensors
        Name -> tensor.
    description
        What is kept beside them, words only.
    logarithmic
        Whether to keep positive values as logarithms in 8 bits, instead of in half precision.
    bits
        Of a weight, 8 or 16.

    Raises
    ------
    ValueError
        For values that are not positive where logarithms are kept, or another number of bits.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digest = write_file(Path(folder) / "a.safetensors", {"a": torch.ones(2)}, {"of": "two"})
    ...     read_file(Path(folder) / "a.safetensors", digest)
    ({'a': tensor([1., 1.])}, {'of': 'two'})
    """
    if bits not in (8, 16):
        raise ValueError(f"bits={bits}; expected 8 or 16")
    if logarithmic:
        stored, ranges = {}, {}
        for name, value in tensors.items():
            stored[name], ranges[name] = _logarithms(name, value.detach())
        description = {**description, "logarithms": json.dumps(ranges)}
    else:
        stored = {}
        for name, value in tensors.items():
            stored |= (
                _in_steps(name, value.detach())
                if bits == 8 and value.dim() > 1 and value.numel() >= _LARGE
                else {name: _half(value)}
            )
    content = save(stored, metadata=description)
    write_durably(path, content)
    return hashlib.sha256(content).hexdigest()


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that is on the disk when this returns; ``OSError`` where it has no room, in Python's own words.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_durably(Path(folder) / "a", b"abc")
    ...     (Path(folder) / "a").read_bytes()
    b'abc'
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_tensors(path: Path, digests: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, in single precision, and their description.

    Raises
    ------
    ValueError
        For a file that is missing, of another digest than is listed, or not readable.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scales.safetensors"
    ...     write_tensors(path, {"a": torch.tensor([0.001, 0.01, 0.1])}, {}, logarithmic=True)
    ...     read_tensors(path, read_digests(path.parent))[0]["a"]
    tensor([0.0010, 0.0099, 0.1000])
    """
    return read_file(path, digests.get(path.name))


def read_file(path: Path, expected: str | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the same of a file whose SHA-256 is known; ``None`` for one that stands in no list, which is refused."""
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is damaged or was changed: its SHA-256 is {found[:12]}..., "
            f"{f'expected {expected[:12]}...' if expected else f'and {DIGESTS} has no line for it'}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            description = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        steps = {name: tensors.pop(name) for name in list(tensors) if name.endswith(_STEP)}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
    for name, (low, high) in json.loads(description.get("logarithms", "{}")).items():
        tensors[name] = (low + tensors[name] * (high - low) / 255).exp()
    for name, step in steps.items():
        name = name.removesuffix(_STEP)
        tensors[name] = (tensors[name].flatten(1) * step[:, None]).reshape(tensors[name].shape)
    return tensors, description


def read_digests(folder: Path) -> dict[str, str]:
    """Return file -> SHA-256 of a folder's list; ``ValueError`` where there is none."""
    path = folder / DIGESTS
    if not path.is_file():
        raise ValueError(f"{folder} has no {DIGESTS}, so its weights cannot be checked")
    pairs = (line.split() for line in path.read_text().splitlines())
    return {file: digest for digest, file in pairs}


#: Numbers of a tensor from which on they are kept in 8 bits: the variances that a denoiser claims, off by up to a sixth
#: where its small last layer is in 8 bits too, are as they were.
_LARGE = 40_000

#: What follows a tensor's name in that of its rows' steps.
_STEP = ".step"


def _half(value: Tensor) -> Tensor:
    return value.detach().half().cpu().contiguous()


def _in_steps(name: str, value: Tensor) -> dict[str, Tensor]:
    """Return whole numbers and, for each row, the step that they count."""
    rows = value.float().flatten(1)
    step = rows.abs().amax(1).clamp(min=1e-12) / 127
    counts = (rows / step[:, None]).round().to(torch.int8).reshape(value.shape)
    return {name: counts.cpu().contiguous(), name + _STEP: step.cpu()}


def _logarithms(name: str, value: Tensor) -> tuple[Tensor, tuple[float, float]]:
    if not bool((value > 0).all()):
        raise ValueError(f"{name} has values that are not positive; expected standard deviations")
    logarithms = value.double().log()
    low, high = float(logarithms.min()), float(logarithms.max())
    steps = (logarithms - low) * (255 / max(high - low, 1e-12))
    return steps.round().to(torch.uint8).contiguous(), (low, high)
