"""A digest of a model, its settings or its data: stored numbers are taken up again only by what made them."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["fingerprint"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
#: What every module holds for torch's and Pyro's own sake.
_INTERNAL = frozenset(vars(PyroModule()))


def fingerprint(value: Any) -> str:
    """Return a short digest: equal for what computes the same, different for what does not.

    Tensors count by value, modules by their weights, settings, laws and functions, functions by their code and what it
    closes over, and other objects by type and public attributes. Names that a function looks up in its module
    are not followed.

    Parameters
    ----------
    value
        Tensors, arrays, modules, distributions, functions, plain values, other objects, and containers of them.

    Examples
    --------
    >>> fingerprint(torch.zeros(2)) == fingerprint(torch.zeros(2)), fingerprint(0.1) == fingerprint(0.2)
    (True, False)
    >>> def adding(number):
    ...     return lambda value: value + number
    >>> fingerprint(adding(1)) == fingerprint(adding(1)), fingerprint(adding(1)) == fingerprint(adding(2))
    (True, False)
    """
    digest = hashlib.sha256()
    for piece in _pieces(value, ()):
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()[:16]


def _pieces(value: Any, above: tuple[int, ...]) -> Iterator[bytes]:
    """Yield bytes that tell ``value`` apart; ``above`` are the objects that hold it, and may be held by it."""
    if id(value) in above:
        yield b"above"
        return
    above = (*above, id(value))
    if isinstance(value, Tensor | np.ndarray):
        array = value.detach().cpu() if isinstance(value, Tensor) else value
        yield f"{array.dtype}{tuple(array.shape)}".encode()
        # NumPy has no bfloat16; as bytes, every tensor has a place in it.
        raw = array.contiguous().reshape(-1).view(torch.uint8).numpy() if isinstance(array, Tensor) else array
        yield raw.tobytes()
        return
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__}{value!r}".encode()
        return
    parts, name = _parts(value)
    yield f"{name}[{len(parts)}]".encode()
    for part in parts:
        yield from _pieces(part, above)


def _parts(value: Any) -> tuple[list, str]:
    """Return what an object is made of, in an order that does not depend on the run, and the name of its kind."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, dict):
        return [part for pair in value.items() for part in pair], kind
    if isinstance(value, list | tuple):
        return list(value), kind
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value)), kind
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, value.co_consts], kind
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, cells], value.__qualname__
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__], kind
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords], kind
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        return (
            [],
            f"{value.__module__ if isinstance(value, type) else ''}.{getattr(value, '__qualname__', value)}",
        )
    if isinstance(value, Distribution):
        return _law(value), kind
    if isinstance(value, nn.Module):
        own = {
            name: part for name, part in vars(value).items() if name not in _INTERNAL or name == "training"
        }
        weights = {**value._parameters, **value._buffers}
        return [_attributes(own), weights, dict(value._modules)], kind
    if hasattr(value, "__dict__"):
        return [_attributes(vars(value))], kind
    plain = type(value).__repr__ is not object.__repr__  # the other one holds an address
    return [repr(value)] if plain else [], kind


def _attributes(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out private attributes but plain ones and tensors: caches, which come and go."""
    return {
        name: part
        for name, part in sorted(found.items())
        if not name.startswith("_") or isinstance(part, (*_PLAIN, tuple, Tensor))
    }


def _law(law: Distribution) -> list:
    """Return parameters and inner laws; other attributes of a distribution appear as they are first asked for."""
    parameters = [getattr(law, name) for name in sorted(law.arg_constraints)]
    inner = [part for _, part in sorted(vars(law).items()) if isinstance(part, Distribution)]
    shapes = [tuple(law.batch_shape), tuple(law.event_shape)]
    return [parameters, inner, shapes, list(getattr(law, "transforms", ()))]
