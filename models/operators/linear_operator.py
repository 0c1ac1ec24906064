"""What every linear operator is: a map from images to values, its adjoint, and what independent pixels vary in it."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from posterior_inpainting.models.shapes import Image, ImageShape, InputError, check_image

__all__ = ["LinearOperator"]

#: Entries of a matrix, beyond which an operator is not written out as one: half a gigabyte in double precision.
_MOST_ENTRIES = 2**26


class LinearOperator(nn.Module):
    """Abstract linear map A from images to values.

    A subclass writes :meth:`measured`, :meth:`adjoint` and :meth:`squared`. Values have three dimensions as images
    have, whatever they are of, so that a batch of measurements is a batch of such tensors.

    Parameters
    ----------
    image_shape
        ``(channel, row, column)`` of the images that it takes.
    output_shape
        Three sizes of what it gives.
    """

    #: Whether no pixel enters two values: those of independent pixels are independent then.
    rows_are_disjoint: bool = False

    def __init__(self, image_shape: ImageShape, output_shape: ImageShape):
        super().__init__()
        self.image_shape, self.output_shape = tuple(image_shape), tuple(output_shape)

    @abstractmethod
    def measured(self, image: Image) -> Tensor:
        """Return A x, ``(n, *output_shape)``, of images ``(n, channel, row, column)``."""

    @abstractmethod
    def adjoint_of(self, values: Tensor) -> Image:
        """Return A' y, ``(n, channel, row, column)``, of values ``(n, *output_shape)``."""

    @abstractmethod
    def squared(self, variances: Image) -> Tensor:
        """Return the variances of values of independent pixels, ``(n, *output_shape)``: A with squared entries.

        Of a product of operators whose rows are not disjoint it leaves out what paths between a pixel and a value have
        in common; nothing exact asks for it there.
        """

    def forward(self, image: Image) -> Tensor:
        """Return A x, ``(*batch, *output_shape)``.

        Raises
        ------
        ValueError
            For images of another shape.
        """
        check_image(image, self.image_shape)
        return self._flatly(self.measured, image)

    def adjoint(self, values: Tensor) -> Image:
        """Return A' y, ``(*batch, channel, row, column)``, of values ``(*batch, *output_shape)``.

        Raises
        ------
        ValueError
            For values of another shape.
        """
        if tuple(values.shape[-3:]) != self.output_shape:
            raise InputError(f"values have shape {tuple(values.shape)}; expected {self.output_shape} last")
        return self._flatly(self.adjoint_of, values)

    def variances(self, variances: Image) -> Tensor:
        """Return :meth:`squared` of ``(*batch, channel, row, column)``, ``(*batch, *output_shape)``."""
        return self._flatly(self.squared, variances)

    def diagonal(self, like: Tensor) -> Image:
        """Return about the diagonal of A' A, ``(channel, row, column)``: the squares of each pixel's weights.

        Exact but for the products that :meth:`squared` speaks of.

        Parameters
        ----------
        like
            A tensor of the type and on the device that it shall have.
        """
        nothing = like.new_zeros((1, *self.image_shape))
        ones = like.new_ones((1, *self.output_shape))
        # The adjoint of a linear map, by its derivative.
        return torch.func.vjp(self.squared, nothing)[1](ones)[0].squeeze(0)

    def dense(self, like: Tensor) -> Tensor:
        """Return the matrix ``(value, pixel)``, both flattened.

        Raises
        ------
        ValueError
            If it has more entries than fit.
        """
        values, pixels = math.prod(self.output_shape), math.prod(self.image_shape)
        if values * pixels > _MOST_ENTRIES:
            raise InputError(
                f"{values} values of {pixels} pixels are a matrix of {values * pixels:.2g} entries; expected at most "
                f"{_MOST_ENTRIES:.2g}: a smaller image, or an operator whose values share no pixels"
            )
        unit = torch.eye(pixels, dtype=like.dtype, device=like.device).reshape(pixels, *self.image_shape)
        return self.measured(unit).flatten(1).T.contiguous()

    def __matmul__(self, first: LinearOperator) -> LinearOperator:
        """Return the operator that is ``first`` and then this one.

        >>> from posterior_inpainting.models import operators
        >>> small_and_grey = operators.luminance((3, 4, 4)) @ operators.average((3, 8, 8), 2)
        >>> tuple(small_and_grey(torch.rand(5, 3, 8, 8)).shape)
        (5, 1, 4, 4)
        """
        if not isinstance(first, LinearOperator):
            return NotImplemented
        return _Product(self, first)

    @staticmethod
    def _flatly(function, values: Tensor) -> Tensor:
        found = function(values.reshape(-1, *values.shape[-3:]))
        return found.reshape(*values.shape[:-3], *found.shape[1:])


class _Product(LinearOperator):
    """One operator after another."""

    def __init__(self, last: LinearOperator, first: LinearOperator):
        if last.image_shape != first.output_shape:
            raise InputError(
                f"{type(last).__name__} takes images of shape {last.image_shape}, and {type(first).__name__} gives "
                f"{first.output_shape}; in `last @ first` the one on the right comes first"
            )
        super().__init__(first.image_shape, last.output_shape)
        self.last, self.first = last, first
        self.rows_are_disjoint = last.rows_are_disjoint and first.rows_are_disjoint

    def measured(self, image: Image) -> Tensor:
        """Return A B x."""
        return self.last.measured(self.first.measured(image))

    def adjoint_of(self, values: Tensor) -> Image:
        """Return B' A' y."""
        return self.first.adjoint_of(self.last.adjoint_of(values))

    def squared(self, variances: Image) -> Tensor:
        """Return variances; exact where the rows of both are disjoint, as there is one path from pixel to value."""
        return self.last.squared(self.first.squared(variances))
