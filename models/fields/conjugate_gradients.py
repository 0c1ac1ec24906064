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
    enough: Tensor | float = 0.0,
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
    enough
        A length of residuals that is small enough whatever the tolerance, ``(n, 1, 1, 1)`` or one number.

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
    bound = (tolerance**2 * _dot(right, right)).clamp(min=torch.as_tensor(enough).to(right).square())
    solution, residual = torch.zeros_like(right), right.clone()
    direction = preconditioned(residual).clone()  # which may be the residual itself, and that changes
    slope = _dot(residual, direction)
    tiny = torch.finfo(right.dtype).tiny
    for _ in range(iterations):
        if (_dot(residual, residual) <= bound).all():
            return solution
        image = product(direction)
        length = slope / _dot(direction, image).clamp(min=tiny)
        solution.addcmul_(length, direction)
        residual.addcmul_(length, image, value=-1)
        step = preconditioned(residual)
        previous, slope = slope, _dot(residual, step)
        direction = torch.addcmul(step, slope / previous.clamp(min=tiny), direction)
    worst = float((_dot(residual, residual) / bound).max().sqrt()) * tolerance
    raise RuntimeError(
        f"conjugate gradients stopped after {iterations} iterations with a relative residual of {worst:.1g}; "
        "expected a larger noise, a larger tolerance or more iterations"
    )


def _dot(some: Image, others: Image) -> Tensor:
    """Inner products of two batches of images, ``(n, 1, 1, 1)``."""
    return torch.linalg.vecdot(some.flatten(1), others.flatten(1)).reshape(-1, 1, 1, 1)
