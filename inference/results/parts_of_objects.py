"""What an object is made of, as far as it can change what is computed: the same before and after it was used.

Left out is what comes and goes with use: lazily made attributes of laws, torch's and Pyro's bookkeeping in modules,
and the caches that are named below. What shows nothing of itself is refused.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dis
import functools
import inspect
import io
import logging
import random
import sys
import sysconfig
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.distributions.transforms import _InverseTransform
from torch.distributions.utils import lazy_property

from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage
from posterior_inpainting.models.base import ImageModel

__all__ = ["PLAIN", "parts_of"]

#: What is told by how it is written.
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), range)

#: A step of the way to a part, and the part.
_Part = tuple[str, Any]

#: Attributes that are made from the others, or that only the outside reads, by class.
_CACHES: dict[type, frozenset[str]] = {
    # Torch's and Pyro's own, but what declares Pyro parameters and sites.
    nn.Module: frozenset(vars(PyroModule())) - {"training", "_pyro_params", "_pyro_samples"},
    Distribution: frozenset({"_validate_args"}),
    # The last value that a flow saw.
    Transform: frozenset(
        {
            "_cached_x_y",
            "_cached_log_scale",
            "_cached_logDetJ",
            "_cached_log_df_inv_dx",
            "_intermediates_cache",
        }
    ),
    # Made and fitted at the first call of the guide.
    ImageModel: frozenset({"automatic_guide"}),
    # The last image that was scored.
    AutoregressiveImage: frozenset({"_last"}),
}
#: What moves on as it is read, or stands for something outside.
_MOVING = (
    collections.abc.Iterator,
    io.IOBase,
    torch.Generator,
    np.random.Generator,
    np.random.RandomState,
    random.Random,
)
_CONTAINERS = (list, tuple, dict, set, frozenset)
_INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def parts_of(value: Any, where: str) -> tuple[str, list[_Part], bool]:
    """Return the name of an object's kind, its parts, each with the step that leads to it, and whether order counts.

    Parameters
    ----------
    value
        Anything that is not ``PLAIN``.
    where
        Where it is, for the message.

    Raises
    ------
    ValueError
        For what does not show what it holds.
    """
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, set | frozenset):
        return name, [("{}", part) for part in value], False
    if isinstance(value, Tensor | np.ndarray):
        return "array", _of_array(value, where), True
    if isinstance(value, type):
        return f"class {value.__module__}.{value.__qualname__}", list(_of_class(value)), True
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__}", list(_of_function(value)), True
    if isinstance(value, types.CodeType):
        return "code", [("", part) for part in (value.co_code, value.co_names, value.co_consts)], True
    if isinstance(value, types.ModuleType | logging.Logger):
        return f"{name} {value.__name__ if isinstance(value, types.ModuleType) else value.name}", [], True
    if isinstance(value, Enum | PurePath):
        return name, [("", value.name if isinstance(value, Enum) else str(value))], True
    if isinstance(value, _MOVING):
        raise _refusal(value, where)
    return name, list(_of_instance(value, where)), True


def _of_instance(value: Any, where: str) -> Iterator[_Part]:
    """Yield the contents of a container, what a law or a module declares, and attributes."""
    kind = type(value)
    handled = True
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", pair) for key, item in value.items() for pair in (key, item))
    elif isinstance(value, list | tuple):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from (
            (f".{n}", p)
            for n, p in (("func", value.func), ("args", value.args), ("keywords", value.keywords))
        )
    elif isinstance(value, types.MethodType):
        yield from ((".__func__", value.__func__), (".__self__", value.__self__))
    elif isinstance(value, nn.Module):
        yield from _of_module(value)
    elif isinstance(value, Distribution):
        yield from _of_law(value)
    else:
        handled = False
    caches = _caches(value)
    attributes = {name: part for name, part in _attributes(value).items() if name not in caches}
    yield from ((f".{name}", part) for name, part in sorted(attributes.items()))
    if not handled:
        yield from _of_compiled(value, bool(attributes), where)
    if _is_own(kind):
        yield "", kind


def _of_array(value: Tensor | np.ndarray, where: str) -> list[_Part]:
    if isinstance(value, np.ndarray):
        numbers: Any = value.tolist() if value.dtype.hasobject else value.tobytes()
        return [("", (str(value.dtype), *value.shape)), ("[...]", numbers)]
    if value.is_meta or value.is_quantized:
        raise _refusal(value, where)
    dense = (value.detach() if value.layout == torch.strided else value.detach().to_dense()).cpu()
    # NumPy has no bfloat16; as bytes, every tensor has a place in it.
    flat = dense.resolve_conj().resolve_neg().flatten().clone(memory_format=torch.contiguous_format)
    return [("", (str(value.dtype), *value.shape)), ("", flat.view(torch.uint8).numpy().tobytes())]


def _of_module(module: nn.Module) -> Iterator[_Part]:
    """Yield weights, buffers and modules in their order, which counts, and what is done at each call."""
    caches = _caches(module)
    for held in (module._parameters, module._buffers, module._modules):
        yield from ((f".{n}", pair) for n, part in held.items() if n not in caches for pair in (n, part))
    yield from (
        ("'s hook", hook)
        for hooks in (module._forward_pre_hooks, module._forward_hooks)
        for hook in hooks.values()
    )


def _of_law(law: Distribution) -> Iterator[_Part]:
    """Yield the parameters that are made lazily, one of another, whichever was given."""
    for name in sorted(law.arg_constraints):
        if _is_lazy(type(law), name):
            yield f".{name}", getattr(law, name)


def _of_compiled(value: Any, has_attributes: bool, where: str) -> Iterator[_Part]:
    """Yield what an object that is not made of attributes gives to be pickled, or refuse it."""
    kind = type(value)
    is_default = kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__
    is_compiled = not isinstance(kind.__reduce__, types.FunctionType)
    if has_attributes and not is_default and not is_compiled:
        return
    try:
        # By default this fails for state that compiled code holds and does not show.
        reduced = value.__reduce_ex__(2)
    except Exception:
        raise _refusal(value, where) from None
    if not is_default:
        yield "", [list(part) if isinstance(part, collections.abc.Iterator) else part for part in reduced]


def _of_class(kind: type) -> Iterator[_Part]:
    """Yield the code and the settings of a class that is not installed; of others the name is enough."""
    if not _is_own(kind):
        return
    yield from (("", base) for base in kind.__bases__ if _is_own(base))
    for name, part in sorted(vars(kind).items()):
        if isinstance(part, staticmethod | classmethod):
            part = part.__func__
        accessors = (part.fget, part.fset) if isinstance(part, property) else (part,)
        is_internal = name.startswith("__") and not isinstance(part, types.FunctionType)
        if not is_internal and all(_counts(one) for one in accessors):
            yield f".{name}", (name, *accessors)


def _of_function(function: types.FunctionType) -> Iterator[_Part]:
    module = sys.modules.get(function.__module__)
    if _is_installed(function.__module__) and vars(module or types).get(function.__name__) is function:
        yield "", function.__module__
        return
    code = function.__code__
    yield from (("", part) for part in (code, function.__defaults__, function.__kwdefaults__))
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"'s {name}", cell.cell_contents
        except ValueError:  # not assigned yet
            yield "", name
    if _is_own(function):
        found = function.__globals__
        yield from (
            (f"'s {name}", (name, found[name] if _counts(found[name]) else None))
            for name in sorted(_global_names(code))
            if name in found
        )


def _global_names(code: types.CodeType) -> set[str]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (_global_names(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return names.union(*inner)


def _counts(value: Any) -> bool:
    """Whether what a function or class finds by name is data or code, and not the world outside."""
    if isinstance(value, dict):
        return all(_counts(part) for pair in value.items() for part in pair)
    if isinstance(value, _CONTAINERS):
        return all(_counts(part) for part in value)
    code = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type, functools.partial)
    return isinstance(value, (*PLAIN, Tensor, np.ndarray, np.generic, nn.Module, Distribution, *code))


def _attributes(value: Any) -> dict[str, Any]:
    """Return attributes as they are kept, in slots too, without those that are made when first asked for."""
    kind = type(value)
    slots: dict[str, Any] = {}
    for base in kind.__mro__:
        for name, member in vars(base).items():
            if _is_own_slot(base, name, member):
                with contextlib.suppress(AttributeError):  # not set
                    slots[name] = member.__get__(value)
    try:
        held = vars(value)
    except TypeError:  # nothing but slots
        held = {}
    return slots | {name: part for name, part in held.items() if not _is_lazy(kind, name)}


def _is_own_slot(base: type, name: str, member: Any) -> bool:
    slots = vars(base).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return name in names and isinstance(member, types.MemberDescriptorType)


def _is_lazy(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name, None), lazy_property | functools.cached_property)


def _caches(value: Any) -> frozenset[str]:
    found = frozenset[str]().union(*(names for kind, names in _CACHES.items() if isinstance(value, kind)))
    # A transform refers to its inverse, weakly, once that was asked for; an inverse is made of nothing else.
    back = isinstance(value, Transform) and not isinstance(value, _InverseTransform)
    return found | {"_inv"} if back else found


def _is_own(value: Any) -> bool:
    """Whether a class or function is a script's, a notebook's or another project's, whose code may change."""
    return not (value.__module__ or "builtins").startswith("posterior_inpainting.") and not _is_installed(
        value.__module__
    )


@functools.cache
def _is_installed(module: str | None) -> bool:
    top = (module or "builtins").partition(".")[0]
    if top == "__main__" or top in sys.stdlib_module_names:
        return top != "__main__"
    file = vars(sys.modules[top]).get("__file__") if top in sys.modules else None
    return file is not None and file.startswith(_INSTALLED)


def _refusal(value: Any, where: str) -> ValueError:
    kind = type(value)
    return ValueError(
        f"the {f'part {where}' if where else 'object'} is a {kind.__module__}.{kind.__qualname__}, which does not show "
        "what it computes; expected tensors, modules, laws, functions, numbers and containers of them"
    )
