"""What a network of a conditional model is shown: the seen pixels, and which they are."""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.models.shapes import Image, ImageShape, Mask, check_image, check_mask

__all__ = ["seen_part"]


def seen_part(
    image: Image | None, mask: Mask | None, image_shape: ImageShape, like: Tensor
) -> tuple[Image, Mask]:
    """Return image and mask of one shape, hidden pixels at 0 whatever they held.

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
    if mask is None:
        return image, torch.ones_like(image, dtype=torch.bool)
    check_mask(mask, image.shape)
    mask = mask.expand(image.shape)
    return torch.where(mask, image, 0.0), mask
