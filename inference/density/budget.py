"""A limit on gradients: methods of different kinds are compared at equal cost, whatever they spend it on. And on time.

A gradient is one of the log joint density of one chain. Markov chains that reach the limit end with the draws that they
have; an optimiser takes fewer steps; a method that has nothing to give by then raises :class:`BudgetSpentError`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = [
    "BudgetSpentError",
    "Tally",
    "affordable",
    "gradient_budget",
    "gradients_counted",
    "spend",
    "within",
]

_left: ContextVar[list[int] | None] = ContextVar("gradients_left", default=None)
#: The moment, of ``time.monotonic``, at which a run has to end, and the seconds that it had.
_deadline: ContextVar[tuple[float, float] | None] = ContextVar("deadline", default=None)
_WRITTEN = re.compile(r"\s*([0-9.]+(?:e[0-9]+)?)\s*(s|min|h|gradients)\s*")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass
class Tally:
    """Gradients of single chains that were evaluated inside a block."""

    count: int = 0


_tallies: ContextVar[tuple[Tally, ...]] = ContextVar("tallies_of_gradients", default=())


class BudgetSpentError(ValueError):
    """The next step would need more gradients than are left."""


@contextmanager
def gradient_budget(count: int | None) -> Iterator[None]:
    """Allow at most ``count`` gradients inside the block; ``None`` sets no limit.

    Parameters
    ----------
    count
        Gradients of single chains, warm-up included.

    Raises
    ------
    ValueError
        For a count below 1.

    Examples
    --------
    >>> from posterior_inpainting.inference import MALA, infer
    >>> from posterior_inpainting.models import LatentCode, Observation, datasets, observations, pretrained
    >>> image = datasets.load("digits")[0]
    >>> seen = Observation(image, observations.half(image.shape, hide="bottom"))
    >>> model = LatentCode(pretrained.load("digits-vae-2d"))
    >>> with gradient_budget(8_000):
    ...     idata = infer(model, seen, MALA(warmup=50, init="prior"), draws=2000, chains=16, progress=False)
    >>> idata.attrs["gradient_evaluations"] <= 8_000, idata.posterior.sizes["draw"] < 2000
    (True, True)
    """
    if count is not None and (not isinstance(count, int) or count < 1):
        raise ValueError(f"budget={count!r}; expected a whole number of gradients, at least 1")
    token = _left.set(None if count is None else [count])
    try:
        yield
    finally:
        _left.reset(token)


@contextmanager
def within(budget: str | None) -> Iterator[None]:
    """Allow a budget inside the block: of time, ``"60 s"``, ``"5 min"``, ``"1 h"``, or ``"2e6 gradients"``.

    Time is looked at before each gradient, that of the clock on the wall; ``None`` sets no limit.

    Raises
    ------
    ValueError
        For what is no budget.

    Examples
    --------
    >>> with within("10 gradients"):
    ...     try:
    ...         spend(20)
    ...     except BudgetSpentError as error:
    ...         print(error)
    the budget of gradients is spent: 10 are left, a step takes 20
    """
    if budget is None:
        yield
        return
    found = _WRITTEN.fullmatch(budget) if isinstance(budget, str) else None
    try:
        count = 0.0 if found is None else float(found[1])
    except ValueError:
        count = 0.0
    if found is None or not count > 0:
        raise ValueError(f"budget={budget!r}; expected one such as '60 s', '5 min' or '2e6 gradients'")
    if found[2] == "gradients":
        with gradient_budget(max(1, int(count))):
            yield
        return
    seconds = count * _SECONDS[found[2]]
    token = _deadline.set((time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


@contextmanager
def gradients_counted() -> Iterator[Tally]:
    """Count the gradients that are evaluated inside the block, those of runs that fail included.

    >>> with gradients_counted() as tally:
    ...     spend(3)
    >>> tally.count
    3
    """
    tally = Tally()
    token = _tallies.set((*_tallies.get(), tally))
    try:
        yield tally
    finally:
        _tallies.reset(token)


def affordable(steps: int, gradients: int) -> int:
    """Return how many of ``steps``, each of so many gradients, the budget allows, for methods that plan ahead.

    Raises
    ------
    BudgetSpentError
        If not even one.
    """
    left = _left.get()
    if left is None:
        return steps
    if gradients > left[0]:
        raise BudgetSpentError(
            f"the budget of gradients is spent: {left[0]} are left, a step takes {gradients}"
        )
    return min(steps, left[0] // gradients)


def spend(count: int) -> None:
    """Count some gradients; take them from the budget, if there is one, or raise :class:`BudgetSpentError`."""
    deadline = _deadline.get()
    if deadline is not None and time.monotonic() > deadline[0]:
        raise BudgetSpentError(f"the budget of {deadline[1]:g} s is spent")
    affordable(1, count)
    left = _left.get()
    if left is not None:
        left[0] -= count
    for tally in _tallies.get():
        tally.count += count
