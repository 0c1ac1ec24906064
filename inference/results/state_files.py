"""The state of a run in a file without pickled code: what is no plain value or tensor is written as one that is."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_state", "write_state"]

#: What a file begins with, before the digest of the rest: a bit that flips on the disk is found, wherever it is.
_HEAD = b"posterior-inpainting state 1\n"
_CLASS = "__class__"
_PACKAGE = "posterior_inpainting."
_PLAIN = (bool, int, float, str, bytes, type(None))


def write_state(path: Path, saved: dict[str, Any]) -> None:
    """Replace a file of state by another one: whenever the machine stops, one of them is there, whole.

    Parameters
    ----------
    path
        The file.
    saved
        Tensors, numbers, strings, ``None``, frozen dataclasses of this package, and dicts (keys may be tuples of
        strings), lists and tuples of all these, nested as they may be.

    Raises
    ------
    ValueError
        For anything else, saying where it is.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "state.pt"
    >>> write_state(path, {("network", "3"): [1, (2.0, None)]})
    >>> read_state(path)
    {('network', '3'): [1, (2.0, None)]}
    """
    temporary = path.with_name(f"{path.name}.new")
    content = io.BytesIO()
    torch.save(_encode(saved, "the state"), content)
    with temporary.open("wb") as file:
        file.write(_sealed(content.getvalue()))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_state(path: Path) -> dict[str, Any]:
    """Return what :func:`write_state` wrote; a ``ValueError`` in a line where the file is damaged."""
    sealed = path.read_bytes()
    content = sealed[len(_sealed(b"")) :]
    if sealed != _sealed(content):
        raise ValueError(f"{path} is damaged: its checksum is not that of its content")
    try:
        saved = torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # torch raises many kinds for what it does not know
        raise ValueError(f"{path} cannot be read ({type(error).__name__})") from None
    try:
        return _decode(saved)
    except (ImportError, KeyError, TypeError) as error:  # a class that has moved, or has other fields now
        raise ValueError(f"{path} was written by another version ({type(error).__name__}: {error})") from None


def _sealed(content: bytes) -> bytes:
    return _HEAD + hashlib.sha256(content).digest() + content


def _encode(value: Any, where: str) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, list):
        return [_encode(part, f"{where}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, tuple) and type(value) in (tuple, torch.Size):
        return tuple(_encode(part, f"{where}[{i}]") for i, part in enumerate(value))
    if isinstance(value, dict):
        for key in value:
            words = key if isinstance(key, tuple) else (key,)
            if key == _CLASS or not all(isinstance(word, str | int) for word in words):
                raise ValueError(
                    f"{where} has the key {key!r}; expected a string, a number or a tuple of these"
                )
        return {key: _encode(part, f"{where}[{key!r}]") for key, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        frozen = kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        if not frozen or not kind.__module__.startswith(_PACKAGE) or "<" in kind.__qualname__:
            raise ValueError(f"{where} is a {kind.__qualname__}; expected a frozen dataclass of this package")
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        encoded = {name: _encode(part, f"{where}.{name}") for name, part in fields.items()}
        return {_CLASS: f"{kind.__module__}:{kind.__qualname__}", **encoded}
    raise ValueError(f"{where} is a {type(value).__name__}, which a store cannot keep")


def _decode(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_decode(part) for part in value)
    if not isinstance(value, dict):
        return value
    found = {key: _decode(part) for key, part in value.items() if key != _CLASS}
    if _CLASS not in value:
        return found
    module, _, name = value[_CLASS].partition(":")
    if not module.startswith(_PACKAGE):
        raise ValueError(f"the store names a class of {module}, which is not of this package")
    kind: Any = importlib.import_module(module)
    for part in name.split("."):
        kind = vars(kind)[part]
    return kind(**found)
