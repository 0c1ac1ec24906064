"""A limit on gradients: methods of different kinds are compared at equal cost, whatever they spend it on.

A gradient is one of the log joint density of one chain. Markov chains that reach the limit end with the draws that they
have; an optimiser takes fewer steps; a method that has nothing to give by then raises :class:`BudgetSpentError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["BudgetSpentError", "Tally", "affordable", "gradient_budget", "gradients_counted", "spend"]

_left: ContextVar[list[int] | None] = ContextVar("gradients_left", default=None)


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
    ...     idata = infer(model, seen, MALA(warmup=50), draws=2000, chains=16, progress=False)
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
    affordable(1, count)
    left = _left.get()
    if left is not None:
        left[0] -= count
    for tally in _tallies.get():
        tally.count += count
