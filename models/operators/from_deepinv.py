"""Operators of deepinv, the library of imaging physics, as ours (Tachella et al. 2025)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.models.operators.linear_operator import LinearOperator
from posterior_inpainting.models.shapes import Image, ImageShape, InputError, check_shape

__all__ = ["from_deepinv"]

#: Largest difference of the two sides of <A x, y> = <x, A' y>, relative to their lengths.
_APART = 1e-3


def from_deepinv(physics: Any, image_shape: ImageShape) -> LinearOperator:
    """Return a ``deepinv.physics.LinearPhysics`` as an operator; its noise model is not read.

    Anything else with methods ``A`` and ``A_adjoint`` on batches does as well.

    Parameters
    ----------
    physics
        Its ``A`` takes ``(n, channel, row, column)`` and returns real values of at most three dimensions an image.
    image_shape
        ``(channel, row, column)``.

    Raises
    ------
    ValueError
        For something without these methods, one that is not linear, or whose ``A_adjoint`` is not the adjoint.

    Examples
    --------
    >>> class Negative:
    ...     def A(self, image): return -image
    ...     def A_adjoint(self, values): return -values
    >>> from_deepinv(Negative(), (1, 2, 2))(torch.ones(1, 2, 2)).flatten().tolist()
    [-1.0, -1.0, -1.0, -1.0]
    """
    check_shape(image_shape)
    for name in ("A", "A_adjoint"):
        if not callable(getattr(physics, name, None)):
            raise InputError(
                f"{type(physics).__name__} has no method {name}; expected a linear physics of deepinv"
            )
    operator = _Physics(physics, image_shape)
    operator.check()
    return operator


class _Physics(LinearOperator):
    def __init__(self, physics: Any, image_shape: ImageShape):
        with torch.no_grad():
            values = physics.A(torch.zeros((1, *image_shape), device="cpu"))
        self.own_shape = tuple(values.shape[1:])
        if len(self.own_shape) > 3 or values.is_complex():
            raise InputError(
                f"{type(physics).__name__} gives {values.dtype} values of shape {self.own_shape}; expected real ones "
                "of at most three dimensions"
            )
        super().__init__(image_shape, (1,) * (3 - len(self.own_shape)) + self.own_shape)
        self.physics = physics

    def check(self) -> None:
        """Refuse what is not linear, and an adjoint that is none."""
        generator = torch.Generator("cpu").manual_seed(0)
        x, other = torch.randn((2, 1, *self.image_shape), generator=generator, device="cpu")
        y = torch.randn((1, *self.output_shape), generator=generator, device="cpu")
        with torch.no_grad():
            a, b, both = self.measured(x), self.measured(other), self.measured(x + 2 * other)
            sides = float((a * y).sum()), float((x * self.adjoint_of(y)).sum())
        length = float(a.norm() * y.norm())
        name = type(self.physics).__name__
        if not torch.allclose(both, a + 2 * b, atol=_APART * float(both.abs().max())):
            raise InputError(f"{name} is not linear: A(x + 2 y) is not A(x) + 2 A(y)")
        if abs(sides[0] - sides[1]) > _APART * length:
            raise InputError(
                f"{name}: A_adjoint is not the adjoint of A: <A x, y> = {sides[0]:.4g}, <x, A' y> = {sides[1]:.4g}"
            )

    def measured(self, image: Image) -> Tensor:
        """Return A x."""
        return self.physics.A(image).reshape(-1, *self.output_shape)

    def adjoint_of(self, values: Tensor) -> Image:
        """Return A' y."""
        return self.physics.A_adjoint(values.reshape(-1, *self.own_shape)).reshape(-1, *self.image_shape)

    def squared(self, variances: Image) -> Tensor:
        """Return the products with the squared matrix, which is written out: physics do not say it."""
        weights = self.dense(variances).square()
        return (variances.flatten(1) @ weights.T).reshape(-1, *self.output_shape)
