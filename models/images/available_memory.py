"""Refuse what does not fit into this machine's memory before it is begun."""

from __future__ import annotations

import math
import os

__all__ = ["check_memory", "memory"]


def check_memory(
    needed: float, purpose: str, side: int | None = None, available: float | None = None
) -> None:
    """Raise ``ValueError`` where more bytes are needed than the machine has.

    Parameters
    ----------
    needed
        In bytes, if proportional to the number of pixels.
    purpose
        What for.
    side
        Pixels a side of the image, to say which would fit.
    available
        Bytes, if not all that the machine has.

    >>> check_memory(1e15, "an image", side=4096)
    Traceback (most recent call last):
    ...
    ValueError: an image needs 1e+06 GB of memory, of which there are ... pixels a side fit
    """
    available = memory() if available is None else available
    if needed > available:
        fits = (
            "" if side is None else f"; at most {int(side * math.sqrt(available / needed))} pixels a side fit"
        )
        raise ValueError(
            f"{purpose} needs {needed / 1e9:.3g} GB of memory, of which there are {available / 1e9:.3g}{fits}"
        )


def memory() -> float:
    """Return this machine's memory in bytes, infinite where it cannot be asked."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf
