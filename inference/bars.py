"""Progress bars: redrawn in place before eyes, a line at a time where they are read later."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tqdm.auto

__all__ = ["are_shown", "progress_bar", "shown"]

_shown: ContextVar[bool] = ContextVar("shown", default=False)


@contextmanager
def shown(wanted: bool) -> Iterator[None]:
    """Let what is called inside know whether bars are wanted, where no argument of its own says so.

    >>> with shown(True):
    ...     are_shown()
    True
    """
    token = _shown.set(wanted)
    try:
        yield
    finally:
        _shown.reset(token)


def are_shown() -> bool:
    """Whether bars are wanted; they are not, outside :func:`shown`."""
    return _shown.get()


#: Seconds between two lines.
_EVERY = 10.0


def progress_bar(*args: Any, **settings: Any) -> tqdm.std.tqdm:
    """Return a bar of tqdm's; where standard error is a file or a pipe it writes a line every ten seconds, if any.

    Parameters
    ----------
    args, settings
        As for ``tqdm.tqdm``.

    Examples
    --------
    >>> with progress_bar(total=3, desc="counting", disable=True) as bar:
    ...     for _ in range(3):
    ...         _ = bar.update()
    """
    if sys.stderr.isatty() or _in_a_notebook():
        return tqdm.auto.tqdm(*args, **settings)
    return _Lines(*args, **settings)


def _in_a_notebook() -> bool:
    """Whether this process is a notebook's; one may have imported what a notebook needs, and be none."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and kernel.IPKernelApp.initialized()


class _Lines(tqdm.std.tqdm):
    """A bar each of whose states is a line of its own, ten seconds after the one before it."""

    disable: bool

    def __init__(self, *args: Any, **settings: Any):
        self._begun = self._said = time.monotonic()
        super().__init__(*args, **(settings | {"file": sys.stderr, "mininterval": _EVERY}))

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write the state, if it is time."""
        if time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            self.fp.write(f"{self if msg is None else msg}\n")
            self.fp.flush()
        return True

    def close(self) -> None:
        """Write the last state of a bar that has written others."""
        if not self.disable and self._said > self._begun:
            self._said = 0.0
            self.display()
        self.disable = True
