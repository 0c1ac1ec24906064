"""A method's settings as JSON: what a result says that it was made with."""

from __future__ import annotations

import functools
import json
import types
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["settings"]


def settings(method: Any) -> str:
    """Return a method's settings as JSON; a method inside it names its class as ``method``.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Steps:
    ...     count: int
    ...     within: object = None
    >>> settings(Steps(3, within=Steps(4)))
    '{"count": 3, "within": {"method": "Steps", "count": 4, "within": null}}'
    """
    values = _fields(method) if is_dataclass(method) else vars(method)
    return json.dumps({name: _readable(value) for name, value in values.items()})


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _readable(value: Any) -> Any:
    """Return what JSON can say of a setting."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return value.__name__
    if is_dataclass(value):
        return {"method": type(value).__name__, **{k: _readable(v) for k, v in _fields(value).items()}}
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _readable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(part) for part in value]
    if isinstance(value, functools.partial):
        return {"function": _readable(value.func), "args": _readable(value.args), **_readable(value.keywords)}
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist() if value.ndim < 2 else f"{type(value).__name__} of shape {tuple(value.shape)}"
    return type(value).__name__ if type(value).__repr__ is object.__repr__ else repr(value)
