"""Rows of a run, what is kept of its steps, and which of them are kept where a run is thinned."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["Row", "Thinned"]

#: What is kept of one step: site -> value, or a position; and statistics by name.
Row = tuple[Any, dict[str, Tensor]]


class Thinned:
    """Keeps every so manieth row; a divergence on the way to it is one of it, so that none is lost."""

    def __init__(self, every: int):
        self.every, self.passed = every, 0
        self.diverging: Tensor | None = None

    def of(self, row: Row) -> list[Row]:
        """Return the row if it is kept, with what happened since the one before it."""
        if self.every == 1:
            return [row]
        values, infos = row
        if "diverging" in infos:
            before = False if self.diverging is None else self.diverging
            self.diverging = infos["diverging"] | before
            infos = infos | {"diverging": self.diverging}
        self.passed += 1
        if self.passed % self.every:
            return []
        self.diverging = None
        return [(values, infos)]
