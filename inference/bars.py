"""Progress bars: redrawn in place before eyes, a line at a time where they are read later.

In a notebook a bar is a line of text that is gone when it is done: without ipywidgets, and nothing of it is saved.
"""

from __future__ import annotations

import html
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tqdm.std

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
    if _in_a_notebook():
        return _InPlace(*args, **settings)
    if sys.stderr.isatty():
        return tqdm.std.tqdm(*args, **settings)
    return _Lines(*args, **settings)


def _in_a_notebook() -> bool:
    """Whether this process is a notebook's; one may have imported what a notebook needs, and be none."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and kernel.IPKernelApp.initialized()


class _InPlace(tqdm.std.tqdm):
    """A bar that is an output of a notebook's cell, and empty in the end."""

    disable: bool
    _output: Any = None

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **({"ncols": 100} | settings | {"file": io.StringIO(), "mininterval": 0.5}))

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write the state over the one before it."""
        self._show(html.escape(str(self) if msg is None else msg))
        return True

    def close(self) -> None:
        """Leave nothing."""
        if not self.disable:
            self._show("")
        self.disable = True

    def _show(self, text: str) -> None:
        from IPython.display import HTML, display

        shown = HTML(text and f"<pre>{text}</pre>")
        if self._output is None:
            self._output = display(shown, display_id=True)
        else:
            self._output.update(shown)


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
