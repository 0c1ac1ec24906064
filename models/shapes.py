"""Names for the shapes that cross every boundary, and the checks that hold people to them.

An *image* is a float tensor ``(channel, row, column)``; a *mask* is a boolean tensor that broadcasts
to it, ``True`` where the pixel is seen. Leading dimensions are a batch of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import constraints

if TYPE_CHECKING:  # jaxtyping serves the reader and the type checker; nothing needs it at run time
    from jaxtyping import Bool, Float

    Image = Float[Tensor, "*batch channel row column"]
    Mask = Bool[Tensor, "*batch channel row column"]
    Code = Float[Tensor, "*batch latent"]
else:
    Image = Mask = Code = Tensor

#: ``(channel, row, column)``; of any length to the type checker, which cannot count a ``torch.Size``.
ImageShape = tuple[int, ...]

__all__ = [
    "Code",
    "Image",
    "ImageShape",
    "InputError",
    "Mask",
    "check_image",
    "check_mask",
    "check_shape",
    "check_support",
    "check_values",
    "describe",
    "refuse_eight_bits",
    "seen_mask",
    "seen_part",
]


class InputError(ValueError):
    r"""A mistake in what a model was called with: an error of one line, also while Pyro traces the model.

    A handler that records a model's sites makes a ``ValueError`` anew, with the shapes of all sites below its message,
    which say nothing of an image of the wrong size. Raise this one wherever a model may be running.

    >>> raise InputError("image has 3 rows; expected 4\n Trace Shapes: ...")
    Traceback (most recent call last):
    ...
    posterior_inpainting.models.shapes.InputError: image has 3 rows; expected 4
    """

    def __init__(self, message: object = ""):
        super().__init__(str(message).partition("\n")[0])


def describe(value: object) -> str:
    """Say in a few words what was given, for an error message.

    >>> describe(torch.zeros(1, 28, 28))
    'a float32 tensor of shape (1, 28, 28)'
    >>> describe("seven")
    "a str: 'seven'"
    """
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}: {value!r:.60}"


def check_image(image: Image, expected: ImageShape | None = None) -> None:
    """Raise ``ValueError`` unless ``image`` is a float tensor ``(..., channel, row, column)``.

    Parameters
    ----------
    image
        What was given.
    expected
        The ``(channel, row, column)`` that the model was made for, if it was made for one.

    >>> check_image(torch.zeros(1, 8, 8), expected=(1, 28, 28))
    Traceback (most recent call last):
    ...
    posterior_inpainting...: image is a float32 tensor of shape (1, 8, 8); expected (1, 28, 28) as (...)
    """
    if not isinstance(image, Tensor) or not image.is_floating_point() or image.dim() < 3:
        bytes_given = isinstance(image, Tensor) and image.dtype == torch.uint8
        raise InputError(
            f"image is {describe(image)}; expected a float tensor of shape (channel, row, column)"
            f"{', in [0, 1]: divide by 255' if bytes_given else ''}"
        )
    if expected is not None and tuple(image.shape[-3:]) != tuple(expected):
        raise InputError(f"image is {describe(image)}; expected {tuple(expected)} as (channel, row, column)")


def check_values(image: Image, name: str, slack: float = 0.0) -> None:
    """Raise ``ValueError`` for values outside [0, 1], of which those of 8 bits are the commonest.

    Parameters
    ----------
    image
        What was given.
    name
        What the values are, in the plural.
    slack
        How far outside they may lie.

    >>> check_values(torch.tensor([0.0, 255.0]), "seen pixels")
    Traceback (most recent call last):
    ...
    posterior_inpainting...: seen pixels run from 0 to 255; expected [0, 1]: divide by 255
    """
    if image.numel() and not (image.min() >= -slack and image.max() <= 1 + slack):
        low, high = float(image.min()), float(image.max())
        eight_bits = low >= 0 and 2 < high <= 255
        remedy = "divide by 255" if eight_bits else "clamp them (in Python, any_values=True takes them)"
        raise InputError(f"{name} run from {low:.3g} to {high:.3g}; expected [0, 1]: {remedy}")


def refuse_eight_bits(images: Image) -> None:
    """Raise ``ValueError`` for images to learn from whose values run to 255; others may be those of any data.

    >>> refuse_eight_bits(torch.tensor([0.0, 255.0]))
    Traceback (most recent call last):
    ...
    posterior_inpainting...: images run from 0 to 255; expected [0, 1]: divide by 255
    """
    if images.numel() and images.min() >= 0 and 2 < images.max() <= 255:
        check_values(images, "images")


def check_shape(shape: ImageShape) -> ImageShape:
    """Return ``(channel, row, column)`` as it is; raise ``ValueError`` unless it is three positive numbers.

    >>> check_shape((8, 8))
    Traceback (most recent call last):
    ...
    posterior_inpainting...: shape=(8, 8); expected (channel, row, column)
    """
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape={tuple(shape)}; expected (channel, row, column)")
    return shape


def check_mask(mask: Mask, image_shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless ``mask`` is boolean and broadcasts to ``image_shape``.

    >>> check_mask(torch.ones(1, 8, 9, dtype=torch.bool), (1, 8, 8))
    Traceback (most recent call last):
    ...
    posterior_inpainting...: mask is a bool tensor of shape (1, 8, 9); expected one that broadcasts to ...(1, 8, 8)
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise InputError(f"mask is {describe(mask)}; expected a boolean tensor, True = seen")
    try:
        fits = torch.broadcast_shapes(mask.shape, image_shape) == torch.Size(image_shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise InputError(
            f"mask is {describe(mask)}; expected one that broadcasts to the image's {tuple(image_shape)}"
        )


def check_support(image: Image, support: Any) -> None:
    """Raise ``ValueError`` where seen values lie outside [0, 1] and the law of pixels is of values in it.

    Parameters
    ----------
    image
        Seen values, and something in [0, 1] where there are none.
    support
        The law's.

    >>> check_support(torch.tensor([[[0.5, 1.5]]]), torch.distributions.constraints.unit_interval)
    Traceback (most recent call last):
    ...
    posterior_inpainting...: image has seen values from 0.5 to 1.5; expected values in [0, 1] under this likelihood
    """
    if support is constraints.unit_interval and not bool(support.check(image).all()):
        low, high = float(image.min()), float(image.max())
        raise InputError(
            f"image has seen values from {low:.3g} to {high:.3g}; expected values in [0, 1] under this likelihood"
        )


def seen_mask(image: Image, mask: Mask | None = None) -> Mask:
    """Return which values of an image are seen, in its own shape: all of them where there is no mask.

    Raises
    ------
    ValueError
        For a mask that is not boolean or does not broadcast to the image.

    >>> seen_mask(torch.zeros(1, 1, 2)).tolist()
    [[[True, True]]]
    >>> seen_mask(torch.zeros(1, 1, 2), torch.tensor([[[False]]])).tolist()
    [[[False, False]]]
    """
    if mask is None:
        return torch.ones_like(image, dtype=torch.bool)
    check_mask(mask, image.shape)
    return mask.expand(image.shape)


def seen_part(
    image: Image | None, mask: Mask | None, image_shape: ImageShape, like: Tensor
) -> tuple[Image, Mask]:
    """Return what a network of a model is shown: image and mask of one shape, hidden pixels at 0.

    Parameters
    ----------
    image, mask
        As given to a model; without an image nothing is seen, without a mask all of it.
    image_shape
        What the model was made for.
    like
        A tensor of the type and device that an absent image takes.

    Raises
    ------
    ValueError
        For an image or mask of another shape or type.

    Examples
    --------
    >>> nothing = torch.full((1, 1, 2), torch.nan), torch.zeros(1, 1, 1, dtype=torch.bool)
    >>> image, mask = seen_part(*nothing, (1, 1, 2), torch.zeros(1))
    >>> image.tolist(), mask.tolist()
    ([[[0.0, 0.0]]], [[[False, False]]])
    """
    if image is None:
        image = like.new_zeros(image_shape)
        return image, torch.zeros_like(image, dtype=torch.bool)
    check_image(image, image_shape)
    mask = seen_mask(image, mask)
    return torch.where(mask, image, 0.0), mask
