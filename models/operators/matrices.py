"""Any matrix as an operator, and that of a tomograph: sums along parallel rays at some angles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from posterior_inpainting.models.operators.linear_operator import LinearOperator
from posterior_inpainting.models.shapes import Image, ImageShape, InputError, check_shape, describe

__all__ = ["matrix", "radon"]


def matrix(
    weights: Tensor, image_shape: ImageShape, output_shape: ImageShape | None = None
) -> LinearOperator:
    """Return the operator of a matrix.

    Parameters
    ----------
    weights
        ``(value, pixel)``, dense or sparse, pixels in the order ``(channel, row, column)``.
    image_shape
        Of the images that it takes.
    output_shape
        Three sizes of what it gives, ``(1, 1, value)`` if not given.

    Raises
    ------
    ValueError
        If the shapes do not belong together, or an entry is not finite.

    Examples
    --------
    >>> total = matrix(torch.ones(1, 4), (1, 2, 2))
    >>> total(torch.ones(1, 2, 2)).tolist(), total.adjoint(torch.ones(1, 1, 1)).flatten().tolist()
    ([[[4.0]]], [1.0, 1.0, 1.0, 1.0])
    """
    check_shape(image_shape)
    pixels = math.prod(image_shape)
    if not isinstance(weights, Tensor) or weights.dim() != 2 or weights.shape[1] != pixels:
        raise InputError(f"weights is {describe(weights)}; expected (value, {pixels})")
    shape = (1, 1, len(weights)) if output_shape is None else check_shape(output_shape)
    if math.prod(shape) != len(weights):
        raise InputError(
            f"output_shape={tuple(shape)} for {len(weights)} rows of the matrix; expected as many values"
        )
    entries = weights.coalesce().values() if weights.is_sparse else weights
    if not bool(entries.isfinite().all()):
        raise InputError("weights has entries that are NaN or infinite; expected finite ones")
    return _Matrix(weights, image_shape, shape)


def radon(shape: ImageShape, angles: Sequence[float]) -> LinearOperator:
    """Return the sums along parallel rays, as scikit-image's ``radon`` has them (``circle=True``).

    The image is turned about its pixel ``side // 2``, interpolated linearly, and summed over rows. Values are
    ``(1, side, angle)``, one detector pixel an image pixel.

    Parameters
    ----------
    shape
        ``(1, side, side)``; what lies outside the circle in it is not seen from all angles.
    angles
        In degrees.

    Raises
    ------
    ValueError
        For an image that is not square and grey, or no angle.

    Examples
    --------
    >>> rays = radon((1, 8, 8), angles=[0.0, 90.0])
    >>> spot = torch.zeros(1, 8, 8)
    >>> spot[0, 2, 5] = 1.0
    >>> rays(spot)[0, :, 0].round(decimals=4).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """
    check_shape(shape)
    if shape[0] != 1 or shape[1] != shape[2]:
        raise InputError(f"shape={tuple(shape)}; expected (1, side, side)")
    if not len(angles):
        raise InputError("angles is empty; expected at least one, in degrees")
    side = shape[1]
    y, x = (
        one.flatten()
        for one in torch.meshgrid(*[torch.arange(side, device="cpu").double()] * 2, indexing="ij")
    )
    pieces = [_rotated(math.radians(angle), x, y, side) for angle in angles]
    pixels, weights = (torch.stack(parts) for parts in zip(*pieces, strict=True))
    # Value (detector, angle) gets what lands in its column; four neighbours a place.
    detector = x.long().repeat(4).expand(len(angles), -1)
    rows = detector * len(angles) + torch.arange(len(angles), device="cpu").unsqueeze(-1)
    kept = weights != 0
    index = torch.stack([rows[kept], pixels[kept]])
    size = (side * len(angles), side * side)
    whole = torch.sparse_coo_tensor(index, weights[kept].float(), size, check_invariants=False).coalesce()
    return _Matrix(whole, shape, (1, side, len(angles)))


def _rotated(angle: float, x: Tensor, y: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the pixels that places of the turned image are made of, four each, and their weights."""
    cos, sin, centre = math.cos(angle), math.sin(angle), side // 2
    columns = cos * x + sin * y - centre * (cos + sin - 1)
    rows = -sin * x + cos * y - centre * (cos - sin - 1)
    pixels, weights = [], []
    for down in (0, 1):
        for right in (0, 1):
            row, column = rows.floor() + down, columns.floor() + right
            weight = (1 - (rows - row).abs()) * (1 - (columns - column).abs())
            inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
            weights.append(torch.where(inside, weight, 0.0))
            pixels.append((row.clamp(0, side - 1) * side + column.clamp(0, side - 1)).long())
    return torch.cat(pixels), torch.cat(weights)


class _Matrix(LinearOperator):
    weights: Tensor

    def __init__(self, weights: Tensor, image_shape: ImageShape, output_shape: ImageShape):
        super().__init__(image_shape, output_shape)
        self.register_buffer("weights", weights.coalesce() if weights.is_sparse else weights)
        self.rows_are_disjoint = (
            bool(((weights != 0).sum(0).to_dense() <= 1).all()) if not weights.is_sparse else False
        )

    def measured(self, image: Image) -> Tensor:
        """Return the products with rows."""
        return _times(self.weights, image.flatten(1)).reshape(-1, *self.output_shape)

    def adjoint_of(self, values: Tensor) -> Image:
        """Return the products with columns."""
        return _times(self.weights.T, values.flatten(1)).reshape(-1, *self.image_shape)

    def squared(self, variances: Image) -> Tensor:
        """Return the products with squared rows."""
        return _times(self.weights.square(), variances.flatten(1)).reshape(-1, *self.output_shape)


def _times(weights: Tensor, rows: Tensor) -> Tensor:
    """Multiply rows ``(n, column)`` by a matrix."""
    weights = weights.to(rows.dtype)
    return torch.sparse.mm(weights, rows.T).T if weights.is_sparse else rows @ weights.T
