"""Operators whose values share no pixels: masks, averages over squares of pixels, and grey films."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from posterior_inpainting.models.operators.linear_operator import LinearOperator
from posterior_inpainting.models.shapes import (
    Image,
    ImageShape,
    InputError,
    Mask,
    check_mask,
    check_shape,
    describe,
)

__all__ = ["average", "luminance", "mask"]

#: How bright red, green and blue are (ITU-R BT.709), as scikit-image's ``rgb2gray`` has it.
_BRIGHTNESS = (0.2125, 0.7154, 0.0721)


def mask(seen: Mask) -> LinearOperator:
    """Return the operator that picks the seen pixels: values ``(1, 1, seen)``.

    ``Observation`` is the faster way to say the same of one image; here it can follow another operator.

    Parameters
    ----------
    seen
        Boolean ``(channel, row, column)``, ``True`` = seen, at least one of them.

    Raises
    ------
    ValueError
        For a mask of another type or number of dimensions, or with nothing seen.

    Examples
    --------
    >>> seen = torch.tensor([[[True, False, True]]])
    >>> mask(seen)(torch.tensor([[[1.0, 2.0, 3.0]]])).tolist()
    [[[1.0, 3.0]]]
    """
    if not isinstance(seen, Tensor) or seen.dim() != 3:
        raise InputError(f"seen is {describe(seen)}; expected a boolean tensor (channel, row, column)")
    check_mask(seen, tuple(seen.shape))
    if not bool(seen.any()):
        raise InputError("nothing is seen; expected at least one pixel")
    return _Mask(seen)


def average(shape: ImageShape, factor: int) -> LinearOperator:
    """Return the mean of each square of ``factor`` x ``factor`` pixels: super-resolution as cameras do it.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the large image, rows and columns divisible by the factor.
    factor
        Side of a square in pixels.

    Raises
    ------
    ValueError
        For a factor that is below 1 or does not divide rows and columns.

    Examples
    --------
    >>> average((1, 2, 4), 2)(torch.arange(8.0).reshape(1, 2, 4)).tolist()
    [[[2.5, 4.5]]]
    """
    check_shape(shape)
    if factor < 1 or shape[1] % factor or shape[2] % factor:
        raise InputError(
            f"factor={factor} for {shape[1]} x {shape[2]} pixels; expected a number that divides both"
        )
    return _Average(shape, factor)


def luminance(shape: ImageShape) -> LinearOperator:
    """Return how bright each pixel of a colour image is: colourisation of a grey photograph.

    Parameters
    ----------
    shape
        ``(3, row, column)``; values are ``(1, row, column)``.

    Raises
    ------
    ValueError
        For other numbers of channels than 3.

    Examples
    --------
    >>> [round(v, 4) for v in luminance((3, 1, 1))(torch.eye(3).reshape(3, 3, 1, 1)).flatten().tolist()]
    [0.2125, 0.7154, 0.0721]
    """
    check_shape(shape)
    if shape[0] != len(_BRIGHTNESS):
        raise InputError(f"shape={tuple(shape)}; expected 3 channels, of whose colours there is one grey")
    return _Luminance(shape)


class _Mask(LinearOperator):
    rows_are_disjoint = True
    index: Tensor

    def __init__(self, seen: Mask):
        index = seen.flatten().nonzero().flatten()
        super().__init__(tuple(seen.shape), (1, 1, len(index)))
        self.register_buffer("index", index)

    def measured(self, image: Image) -> Tensor:
        """Return the seen pixels."""
        return image.flatten(1)[:, None, None, self.index]

    def adjoint_of(self, values: Tensor) -> Image:
        """Return images that are 0 where hidden."""
        nothing = values.new_zeros(len(values), _size(self.image_shape))
        filled = nothing.index_copy(1, self.index, values.flatten(1))
        return filled.reshape(-1, *self.image_shape)

    def squared(self, variances: Image) -> Tensor:
        """Return the variances of seen pixels."""
        return self.measured(variances)


class _Average(LinearOperator):
    rows_are_disjoint = True

    def __init__(self, shape: ImageShape, factor: int):
        super().__init__(shape, (shape[0], shape[1] // factor, shape[2] // factor))
        self.factor = factor

    def measured(self, image: Image) -> Tensor:
        """Return the means."""
        return F.avg_pool2d(image, self.factor)

    def adjoint_of(self, values: Tensor) -> Image:
        """Return each value over all pixels of its square."""
        wide = values.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
        return wide / self.factor**2

    def squared(self, variances: Image) -> Tensor:
        """Return the variances of means."""
        return F.avg_pool2d(variances, self.factor) / self.factor**2


class _Luminance(LinearOperator):
    rows_are_disjoint = True
    brightness: Tensor

    def __init__(self, shape: ImageShape):
        super().__init__(shape, (1, *shape[1:]))
        self.register_buffer("brightness", torch.tensor(_BRIGHTNESS).reshape(3, 1, 1))

    def measured(self, image: Image) -> Tensor:
        """Return the weighted sum over channels."""
        return (image * self.brightness).sum(-3, keepdim=True)

    def adjoint_of(self, values: Tensor) -> Image:
        """Return each value in all channels, by their brightness."""
        return values * self.brightness

    def squared(self, variances: Image) -> Tensor:
        """Return the variances of the sums."""
        return (variances * self.brightness.square()).sum(-3, keepdim=True)


def _size(shape: ImageShape) -> int:
    channels, rows, columns = shape
    return channels * rows * columns
