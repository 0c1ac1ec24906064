"""Refuse what does not fit into this machine's memory before it is begun."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["check_memory", "memory"]


def check_memory(
    needed: float,
    purpose: str,
    side: int | None = None,
    available: float | None = None,
    remedy: str = "",
) -> None:
    """Raise ``ValueError`` where more bytes are needed than the machine has free.

    Parameters
    ----------
    needed
        In bytes, if proportional to the number of pixels.
    purpose
        What for.
    side
        Pixels a side of the image, to say which would fit.
    available
        Bytes, if not all that are free.
    remedy
        What else to do.

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
            f"{remedy and f'; {remedy}'}"
        )


def memory() -> float:
    """Return the memory that is free on this machine, in bytes, infinite where it cannot be asked.

    What the system lends to files and takes back at once counts as free; a limit of the container is one.
    """
    return min(_of_the_machine(), _of_the_container())


def _of_the_machine() -> float:
    try:
        for line in _MACHINE.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _of_the_container() -> float:
    try:
        most, used = (float((_CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
        return most - used
    except (OSError, ValueError):  # no container, or "max"
        return math.inf


#: Where Linux tells of its memory, and of that of a container.
_MACHINE, _CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
