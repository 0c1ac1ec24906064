"""Tensors on disk: safetensors in half precision, or in 8 bits where half is more than is known, with digests beside.

A weight in 8 bits is a whole number from -127 to 127 of steps, of which every row of a matrix, and every filter of a
convolution, has its own: what has one dimension stays in half precision. Standard deviations of weights are kept as
logarithms in 8 bits, evenly between the least and the largest of a tensor: they run over two or three orders of
magnitude, so that none is off by more than one part in a hundred.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["DIGESTS", "read_digests", "read_tensors", "write_tensors"]

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
    """
    if bits not in (8, 16):
        raise ValueError(f"bits={bits}; expected 8 or 16")
    digests = read_digests(path.parent) if (path.parent / DIGESTS).is_file() else {}
    if logarithmic:
        stored, ranges = {}, {}
        for name, value in tensors.items():
            stored[name], ranges[name] = _logarithms(name, value.detach())
        description = {**description, "logarithms": json.dumps(ranges)}
    else:
        stored = {}
        for name, value in tensors.items():
            stored |= (
                _in_steps(name, value.detach()) if bits == 8 and value.dim() > 1 else {name: _half(value)}
            )
    save_file(stored, path, metadata=description)
    path.chmod(0o644)  # safetensors writes for the owner only; a wheel would keep that
    digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = [f"{digest}  {file}\n" for file, digest in sorted(digests.items())]
    (path.parent / DIGESTS).write_text("".join(lines))


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
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    found, expected = hashlib.sha256(path.read_bytes()).hexdigest(), digests.get(path.name)
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
