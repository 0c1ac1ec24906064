"""A model's training half as the callable that `train` takes: it has an image shape, and weights of the model's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["TrainingModel"]


class TrainingModel:
    """The Pyro model that is trained where it differs from the one that completes images: hidden pixels are data.

    Parameters
    ----------
    owner
        The model whose weights are trained.
    program
        Pyro model, called with ``(images, masks)``.

    Raises
    ------
    ValueError
        When called without masks: with everything seen there is no hidden pixel to learn from.
    """

    def __init__(self, owner: ImageModel, program: Callable[[Image, Mask], Any]):
        self.owner, self.program, self.image_shape = owner, program, owner.image_shape

    def __call__(self, image: Image, mask: Mask | None = None) -> Any:
        """Run the program."""
        if mask is None:
            raise ValueError(
                f"{type(self.owner).__name__} learns from hidden pixels; pass masks=random_masks(...) to train"
            )
        return self.program(image, mask)
