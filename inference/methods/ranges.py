"""In which range each setting of the methods lies: checked once, before anything is drawn."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

from posterior_inpainting.inference.contract import Method

__all__ = ["check_ranges"]

#: Least values of whole numbers, by name.
_WHOLE = {
    "warmup": 0,
    "thin": 1,
    "steps": 0,  # a guide may be left as it is; reverse chains say themselves that they need one
    "moves": 1,
    "max_moves": 1,
    "max_steps": 1,
    "refinements": 0,
    "max_tree_depth": 1,
    "restarts": 1,
    "snapshots": 1,
    "rounds": 1,
    "repeats": 1,
    "superchains": 1,
    "temperatures": 2,
    "particles": 1,
    "proposals": 1,
}
#: Numbers strictly between 0 and 1, and those that are positive.
_SHARES = ("target_acceptance", "share", "correlation", "held_out")
_POSITIVE = ("trajectory_length", "step_size", "learning_rate", "scale", "weight")


def check_ranges(method: Method) -> None:
    """Raise ``ValueError`` for a setting that is of another type or out of its range, and for those of methods inside.

    Parameters
    ----------
    method
        Any; settings of other names are its own affair.

    Examples
    --------
    >>> from posterior_inpainting.inference import MALA
    >>> check_ranges(MALA(target_acceptance=2.0))
    Traceback (most recent call last):
    ...
    ValueError: target_acceptance=2.0; expected a number between 0 and 1
    """
    if not is_dataclass(method):
        return
    for one in fields(method):
        value = getattr(method, one.name)
        if isinstance(value, Method):
            check_ranges(value)
        elif value is not None:
            for each in value if isinstance(value, tuple) else (value,):
                _check(one.name, each)


def _check(name: str, value: Any) -> None:
    if name in _WHOLE:
        if not isinstance(value, int) or isinstance(value, bool) or value < _WHOLE[name]:
            raise ValueError(f"{name}={value!r}; expected a whole number of at least {_WHOLE[name]}")
    elif name in _SHARES:
        if not _is_number(value) or not 0 < value < 1:
            raise ValueError(f"{name}={value!r}; expected a number between 0 and 1")
    elif name in _POSITIVE and (not _is_number(value) or not 0 < value < math.inf):
        raise ValueError(f"{name}={value!r}; expected a positive number")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
