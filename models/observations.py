"""Observations and masks: which pixels of an image are seen.

Every maker returns a boolean mask ``(channel, row, column)``, ``True`` = seen. ``box``, ``half``,
``strokes`` and ``blobs`` name what is *hidden*; ``scatter``, ``grid`` and ``channels`` name what is
*seen*. Reaching outside the image is an error. Super-resolution is a ``grid``, colourisation is
``channels``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posterior_inpainting.models.images.free_form_masks import blobs, strokes
from posterior_inpainting.models.images.mask_bank import KINDS as KINDS
from posterior_inpainting.models.images.mask_bank import random_masks
from posterior_inpainting.models.images.regular_masks import box, channels, grid, half, scatter
from posterior_inpainting.models.shapes import Image, ImageShape, Mask, check_image, check_mask, check_values

__all__ = [
    "Observation",
    "blobs",
    "box",
    "channels",
    "grid",
    "half",
    "random_masks",
    "scatter",
    "strokes",
]


@dataclass(frozen=True, eq=False)
class Observation:
    """The seen pixels of one image: what a posterior is conditioned on.

    Hidden values are set to 0 on arrival, whatever they were, so that nothing downstream can read them.

    Parameters
    ----------
    image
        Float tensor ``(channel, row, column)``, in [0, 1] and finite where seen; kept in single precision, in which
        models compute.
    mask
        Boolean, ``True`` = seen, broadcasting to the image; all hidden is legal and gives the prior.
    any_values
        Whether seen pixels may lie outside [0, 1], as simulated noise has them.

    Raises
    ------
    ValueError
        For a wrong shape or type, a seen pixel that is NaN or infinite, or one outside [0, 1].

    Examples
    --------
    >>> seen = Observation(torch.full((1, 4, 4), 0.5), half((1, 4, 4), hide="bottom"))
    >>> seen.image[0, :, 0].tolist()
    [0.5, 0.5, 0.0, 0.0]
    """

    image: Image
    mask: Mask
    any_values: bool = False

    def __post_init__(self):
        check_image(self.image)
        if self.image.dim() != 3:
            raise ValueError(f"image has shape {tuple(self.image.shape)}; expected (channel, row, column)")
        check_mask(self.mask, tuple(self.image.shape))
        mask = self.mask.expand(self.image.shape).clone()
        image = torch.where(mask, self.image, 0.0).to(torch.get_default_dtype())
        if not image.isfinite().all():
            bad = int((~image.isfinite()).sum())
            raise ValueError(f"{bad} seen pixels are NaN or infinite; expected finite values where seen")
        if not self.any_values:
            check_values(image[mask], "seen pixels")
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "mask", mask)

    @property
    def arguments(self) -> tuple[Image, Mask]:
        """What models are called with: image and mask."""
        return self.image, self.mask

    @property
    def shape(self) -> ImageShape:
        """``(channel, row, column)``."""
        return tuple(self.image.shape)  # type: ignore[return-value]
