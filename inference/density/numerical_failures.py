"""A density that cannot be computed at a position is zero there, for that chain alone.

A Cholesky factor of a matrix that rounding has made indefinite, an exponential that overflows: under vmap one chain's
failure is an error of the whole batch. The batch is then halved until what fails is alone, and the others go on: to a
Metropolis test a failure is a proposal of density zero, and a trajectory that passes one is straight there, which is
as reversible as any other.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

__all__ = [
    "Tolerant",
    "at_some_draw",
    "is_numerical",
    "or_else",
    "warn_of_failures",
    "where_it_can_be_computed",
]

T = TypeVar("T")
#: Runs of a model from its prior that it is given to find one that can be computed.
_RUNS = 20
#: Share of failures above which they are worth a warning.
_SHARE = 0.01

#: From positions ``(row, dim)`` to log prior and log likelihood ``(row,)``.
Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


def is_numerical(error: BaseException) -> bool:
    """Return whether an error is one of arithmetic, such as a matrix that has no Cholesky factor.

    >>> try:
    ...     torch.linalg.cholesky(-torch.eye(2))
    ... except RuntimeError as error:
    ...     is_numerical(error)
    True
    >>> is_numerical(RuntimeError("shapes differ"))
    False
    """
    arithmetic = isinstance(error, (torch.linalg.LinAlgError, ArithmeticError))
    return arithmetic or (isinstance(error, ValueError) and "math domain error" in str(error))


def or_else(otherwise: T, run: Callable[[], T]) -> T:
    """Return what a function returns, or something else where it fails numerically.

    >>> or_else(0.0, lambda: 1 / 0)
    0.0
    """
    try:
        return run()
    except (RuntimeError, ValueError, ArithmeticError) as error:
        if not is_numerical(error):
            raise
    return otherwise


def where_it_can_be_computed(evaluate: Evaluate, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log prior and log likelihood of rows, minus infinity where they cannot be computed, and which those are.

    Parameters
    ----------
    evaluate
        Raises an error that :func:`is_numerical` for all rows where one of them fails; other errors go on.
    position
        ``(row, dim)``.

    Examples
    --------
    >>> def of_roots(position):
    ...     torch.linalg.cholesky(position[:, :, None])
    ...     return position[:, 0], position[:, 0].sqrt()
    >>> prior, likelihood, failed = where_it_can_be_computed(of_roots, torch.tensor([[4.0], [-1.0], [9.0]]))
    >>> likelihood.tolist(), failed.tolist()
    ([2.0, -inf, 3.0], [False, True, False])
    """
    found = or_else(None, lambda: evaluate(position))
    if found is not None:
        return *found, torch.zeros(len(position), dtype=torch.bool, device=position.device)
    if len(position) > 1:
        halves = [where_it_can_be_computed(evaluate, half) for half in position.chunk(2)]
        prior, likelihood, failed = (torch.cat(parts) for parts in zip(*halves, strict=True))
        return prior, likelihood, failed
    nothing = 0 * position.nan_to_num(0, 0, 0).sum(-1) - torch.inf  # with a gradient, of zero
    return nothing, nothing, torch.ones(1, dtype=torch.bool, device=position.device)


class Tolerant:
    """A density of chains that is zero where it cannot be computed, and counts where that was.

    Parameters
    ----------
    evaluate
        From positions ``([group,] chain, dim)`` and the indices of their groups to log prior and log likelihood.
    groups
        Number of groups, ``None`` for a single one without that dimension.

    Attributes
    ----------
    total
        Failures so far.
    """

    def __init__(self, evaluate: Callable[..., tuple[Tensor, Tensor]], groups: int | None):
        self.evaluate, self.groups, self.total = evaluate, groups, 0
        self._each: Tensor | None = None

    def __call__(self, position: Tensor, which: Tensor | None) -> tuple[Tensor, Tensor]:
        """Evaluate all chains at once, and where that fails all but those that fail."""
        together = or_else(None, lambda: self.evaluate(position, which))
        if together is not None:
            return together
        if self.groups is None:
            found = [where_it_can_be_computed(lambda rows: self.evaluate(rows, None), position)]
        else:
            groups = torch.arange(self.groups, device=position.device) if which is None else which
            found = [
                where_it_can_be_computed(functools.partial(self._of_one, group), chains)
                for group, chains in zip(groups.split(1), position, strict=True)
            ]
        prior, likelihood, failed = (torch.stack(parts) for parts in zip(*found, strict=True))
        self._count(failed, which)
        return (prior[0], likelihood[0]) if self.groups is None else (prior, likelihood)

    def take(self, groups: int, chains: int) -> Tensor | None:
        """Return how often each chain ``(group, chain)`` failed since this was last asked, ``None`` for never.

        Of tempered replicas all are their chain's.
        """
        failed, self._each = self._each, None
        if failed is None or failed.numel() % (groups * chains):
            return None
        return failed.reshape(groups, chains, -1).sum(-1)

    def _of_one(self, group: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        prior, likelihood = self.evaluate(position.unsqueeze(0), group)
        return prior[0], likelihood[0]

    def _count(self, failed: Tensor, which: Tensor | None) -> None:
        """Count failures ``(group, chain)`` of some groups."""
        every = failed.new_zeros(self.groups or 1, failed.shape[1], dtype=torch.int64)
        every[slice(None) if which is None or self.groups is None else which] = failed.to(torch.int64)
        before = self._each
        self._each = every if before is None or before.shape != every.shape else before + every
        self.total += int(failed.sum())


def at_some_draw(run: Callable[[], T]) -> T:
    """Run a model whose latents are drawn anew each time until it can be computed.

    Raises
    ------
    ValueError
        Where it cannot be at 20 draws of its prior.

    Examples
    --------
    >>> lengths = iter([0.0, 2.0])
    >>> at_some_draw(lambda: 1 / next(lengths))
    0.5
    """
    for _ in range(_RUNS):
        try:
            return run()
        except (RuntimeError, ValueError, ArithmeticError) as error:
            if not is_numerical(error):
                raise
            words = str(error).splitlines()[0]
    raise ValueError(f"the model cannot be computed at {_RUNS} draws of its prior: {words}")


def warn_of_failures(failures: int, evaluations: int) -> None:
    """Warn where more than one evaluation in a hundred failed: there may be draws missing beyond them.

    >>> warn_of_failures(1, 1000)
    """
    if failures > _SHARE * max(1, evaluations):
        warnings.warn(
            f"the density could not be computed at {failures} of {evaluations} positions, which count as outside the "
            "posterior; reparametrise, or compute it in double precision",
            stacklevel=2,
        )
