"""Conjugate gradients for many symmetric positive systems at once, without any matrix (Hestenes & Stiefel 1952)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posterior_inpainting.models.shapes import Image

__all__ = ["conjugate_gradients"]


def conjugate_gradients(
    product: Callable[[Image], Image],
    preconditioned: Callable[[Image], Image],
    right: Image,
    tolerance: float,
    iterations: int,
) -> Image:
    """Solve ``product(x) = right`` for every image of a batch at once.

    Parameters
    ----------
    product, preconditioned
        Multiply images ``(n, channel, row, column)`` by the matrix, and by about its inverse.
    right
        Right-hand sides.
    tolerance
        Largest residual of any of them, relative to its own length.
    iterations
        Iterations after which to give up.

    Raises
    ------
    RuntimeError
        Where the tolerance is not reached.

    Examples
    --------
    >>> right = torch.rand(5, 1, 4, 4)
    >>> solution = conjugate_gradients(lambda x: 2 * x, lambda x: x, right, 1e-4, 10)
    >>> bool(torch.allclose(solution, right / 2))
    True
    """
    bound = tolerance**2 * _dot(right, right)
    solution, residual = torch.zeros_like(right), right.clone()
    direction = step = preconditioned(residual)
    slope = _dot(residual, step)
    for _ in range(iterations):
        if (_dot(residual, residual) <= bound).all():
            return solution
        image = product(direction)
        length = slope / _dot(direction, image).clamp(min=torch.finfo(right.dtype).tiny)
        solution.addcmul_(length, direction)
        residual.addcmul_(length, image, value=-1)
        step = preconditioned(residual)
        previous, slope = slope, _dot(residual, step)
        direction = torch.addcmul(step, slope / previous.clamp(min=torch.finfo(right.dtype).tiny), direction)
    worst = float((_dot(residual, residual) / bound).max().sqrt()) * tolerance
    raise RuntimeError(
        f"conjugate gradients stopped after {iterations} iterations with a relative residual of {worst:.1g}; "
        "expected a larger noise, a larger tolerance or more iterations"
    )


def _dot(some: Image, others: Image) -> Tensor:
    """Inner products of two batches of images, ``(n, 1, 1, 1)``."""
    return torch.linalg.vecdot(some.flatten(1), others.flatten(1)).reshape(-1, 1, 1, 1)
