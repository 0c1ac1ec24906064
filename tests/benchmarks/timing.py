"""Seconds: of one process and of the clock, and of contenders that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Stopwatch", "by_turns", "cpu_seconds"]


@dataclass
class Stopwatch:
    """CPU seconds of the process and seconds of the clock, of what runs inside a ``with`` block.

    >>> with Stopwatch() as watch:
    ...     total = sum(range(1000))
    >>> watch.cpu >= 0
    True
    """

    cpu: float = 0.0
    clock: float = 0.0
    _start: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def __enter__(self):
        self._start = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_):
        self.cpu, self.clock = time.process_time() - self._start[0], time.perf_counter() - self._start[1]

    def __str__(self):
        return f"{self.cpu:.1f} ({self.clock:.1f})"


def cpu_seconds(run: Callable[[], object]) -> float:
    """Return the CPU seconds that a call takes, which other work on the machine hardly lengthens."""
    with Stopwatch() as watch:
        run()
    return watch.cpu


def by_turns(contenders: Mapping[str, Callable], repeats: int, unmeasured: int = 0) -> dict[str, list[float]]:
    """Return the CPU seconds of each contender's calls, turn and turn about; the first turns may go unmeasured.

    >>> {name: len(times) for name, times in by_turns({"a": int, "b": str}, 3, unmeasured=1).items()}
    {'a': 3, 'b': 3}
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + unmeasured):
        for name, run in contenders.items():
            seconds = cpu_seconds(run)
            if turn >= unmeasured:
                found[name].append(seconds)
    return found
