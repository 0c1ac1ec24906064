"""A density that cannot be computed at a position is zero there, for that chain alone.

A Cholesky factor of a matrix that rounding has made indefinite, an exponential that overflows: under vmap one chain's
failure is an error of the whole batch. The batch is then halved until what fails is alone, and the others go on: to a
Metropolis test a failure is a proposal of density zero, and a trajectory that passes one is straight there, which is
as reversible as any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["at_some_draw", "is_numerical", "warn_of_failures", "where_it_can_be_computed"]

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
    try:
        prior, likelihood = evaluate(position)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        if not is_numerical(error):
            raise
        if len(position) > 1:
            halves = [where_it_can_be_computed(evaluate, half) for half in position.chunk(2)]
            prior, likelihood, failed = (torch.cat(parts) for parts in zip(*halves, strict=True))
            return prior, likelihood, failed
        nothing = 0 * position.nan_to_num(0, 0, 0).sum(-1) - torch.inf  # with a gradient, of zero
        return nothing, nothing, torch.ones(1, dtype=torch.bool, device=position.device)
    return prior, likelihood, torch.zeros(len(position), dtype=torch.bool, device=position.device)


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
