"""Images of another size or number of channels than a prior of one's own takes: brought to it, and pictures back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from posterior_inpainting.inference.catalogue import Entry
    from posterior_inpainting.models.observations import Observation
    from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["at_own_size", "fitted", "shape_for"]


def shape_for(entry: Entry, shape: ImageShape) -> ImageShape:
    """Return the shape that an entry completes images of a shape at: their own, unless it brings them to its own.

    >>> from posterior_inpainting.inference.catalogue import entry
    >>> shape_for(entry("vae"), (3, 40, 60))
    (3, 40, 60)
    """
    if not entry.fits:
        return shape
    return entry.shape or (entry.channels or shape[0], *shape[1:])


def fitted(
    observation: Observation, whole: Image | None, shape: ImageShape
) -> tuple[Observation, Image | None, list[str]]:
    """Bring what is seen, and the whole image where it is known, to a shape; say so in a line, none if it has it.

    Raises ``ValueError`` where nothing seen or nothing hidden is left at that size.

    >>> import torch
    >>> from posterior_inpainting.models import Observation, observations
    >>> seen = Observation(torch.rand(3, 40, 60), observations.half((3, 40, 60), hide="bottom"))
    >>> fitted(seen, None, (1, 28, 28))[2]
    ['the image is 40 x 60 in colour; completed at 28 x 28 in grey, as are all figures, and pictures enlarged']
    """
    own = observation.shape
    if shape == own:
        return observation, whole, []
    from posterior_inpainting.models.images.fitting_sizes import fit, fit_image

    colours = own[0] != shape[0]
    pairs = [(f"{_size(one)}{f' in {_COLOURS[one[0]]}' if colours else ''}") for one in (own, shape)]
    back = "brought back" if own[1:] == shape[1:] or own[1] * own[2] < shape[1] * shape[2] else "enlarged"
    said = f"the image is {pairs[0]}; completed at {pairs[1]}, as are all figures, and pictures {back}"
    return fit(observation, shape), None if whole is None else fit_image(whole, shape), [said]


def at_own_size(pictures: dict[str, np.ndarray], observation: Observation) -> dict[str, np.ndarray]:
    """Return pictures of a fitted completion at the image's own size, seen pixels as seen; of ``sd.png``, black.

    Parameters
    ----------
    pictures
        Bytes ``(row, column[, 3])`` by file name, as ``evaluation.pictures`` makes them.
    observation
        The image itself.
    """
    import torch

    from posterior_inpainting.models.images.fitting_sizes import brought_back
    from posterior_inpainting.models.observations import Observation

    certain = Observation(torch.zeros_like(observation.image), observation.mask)
    found = {}
    for name, values in pictures.items():
        image = torch.from_numpy(np.atleast_3d(values).astype(np.float32) / 255).permute(2, 0, 1)
        back = brought_back(image, certain if name == "sd.png" else observation)
        back = back.mean(0, keepdim=True) if name == "sd.png" else back
        rounded = (255 * back.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
        found[name] = rounded[..., 0] if len(back) == 1 else rounded
    return found


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape[-2:]))


_COLOURS = {1: "grey", 3: "colour"}
