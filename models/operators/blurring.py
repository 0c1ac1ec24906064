"""Blurring by a lens: a Gaussian kernel over each channel, at the places where all of it lies in the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from posterior_inpainting.models.operators.linear_operator import LinearOperator
from posterior_inpainting.models.shapes import Image, ImageShape, InputError, check_shape

__all__ = ["blur", "reach_of"]

#: Standard deviations after which a kernel is cut off.
_REACH = 3.0


def blur(shape: ImageShape, width: float) -> LinearOperator:
    """Return each channel blurred by a Gaussian kernel.

    Nothing is made up beyond the border: values are those of the pixels that are farther from it than the kernel
    reaches, 3 of its standard deviations, so that what is measured is smaller than the image.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the sharp image.
    width
        Standard deviation of the kernel in pixels.

    Raises
    ------
    ValueError
        For a width that is not positive, or whose kernel is larger than the image.

    Examples
    --------
    >>> lens = blur((1, 9, 9), width=1.0)
    >>> lens.output_shape, round(float(lens(torch.ones(1, 9, 9)).max()), 4)
    ((1, 3, 3), 1.0)
    """
    check_shape(shape)
    reach = reach_of(width)
    if not width > 0 or 2 * reach + 1 > min(shape[1:]):
        raise InputError(
            f"width={width:g} for {shape[1]} x {shape[2]} pixels; expected a positive number, and a kernel of "
            f"{2 * reach + 1} x {2 * reach + 1} pixels that fits into the image"
        )
    return _Blur(shape, width, reach)


def reach_of(width: float) -> int:
    """Return how many pixels a kernel reaches to each side.

    >>> reach_of(2.0)
    6
    """
    return math.ceil(_REACH * width) if width > 0 else 0


class _Blur(LinearOperator):
    kernel: Tensor

    def __init__(self, shape: ImageShape, width: float, reach: int):
        super().__init__(shape, (shape[0], shape[1] - 2 * reach, shape[2] - 2 * reach))
        places = torch.arange(-reach, reach + 1, device="cpu") / width
        along = torch.exp(-0.5 * places.square())
        self.register_buffer("kernel", along / along.sum())

    def measured(self, image: Image) -> Tensor:
        """Return blurred channels, by rows and then by columns."""
        return self._along(image, self.kernel, F.conv2d)

    def adjoint_of(self, values: Tensor) -> Image:
        """Return each value spread over the pixels that it is of."""
        return self._along(values, self.kernel, F.conv_transpose2d)

    def squared(self, variances: Image) -> Tensor:
        """Return the variances of sums of independent pixels."""
        return self._along(variances, self.kernel.square(), F.conv2d)

    @staticmethod
    def _along(image: Tensor, kernel: Tensor, convolution) -> Tensor:
        kernel = kernel.to(image)
        flat = image.reshape(-1, 1, *image.shape[-2:])
        found = convolution(convolution(flat, kernel.reshape(1, 1, -1, 1)), kernel.reshape(1, 1, 1, -1))
        return found.reshape(*image.shape[:-2], *found.shape[-2:])
