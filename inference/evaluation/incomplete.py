"""What ended a run early, in words, and what a series of runs does then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posterior_inpainting.inference.density.budget import BudgetSpentError
from posterior_inpainting.inference.methods.loop import ENDINGS

__all__ = ["ending", "go_on_only_if_whole"]


def ending(attrs: Mapping[str, Any]) -> str:
    """Return what ended a run before it was whole, ``""`` for a whole one.

    >>> ending({"draws_are": "markov"}), ending({"draws_are": "markov", "budget_spent": 1})
    ('', 'budget spent')
    """
    return ", ".join(word.replace("_", " ") for word in ENDINGS if word in attrs)


def go_on_only_if_whole(attrs: Mapping[str, Any]) -> None:
    """Raise what ended a run early, so that a series of runs ends with it.

    A method keeps what it drew and labels it, which is no use where many whole runs are summed up: without this,
    Ctrl-C would cut one of them short and the next would begin.

    Raises
    ------
    KeyboardInterrupt, BudgetSpentError, ValueError
        For a run that was interrupted, whose budget was spent, or that diverged.
    """
    words = ending(attrs)
    if "interrupted" in attrs:
        raise KeyboardInterrupt
    if "budget_spent" in attrs:
        raise BudgetSpentError(
            "the budget of gradients was spent within a run; expected enough for all of them"
        )
    if words:
        raise ValueError(f"a run ended early ({words}); expected whole runs: take smaller steps")
