"""An image brought to the size and channels that a prior takes, missing pixels counted, and its completion back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = ["brought_back", "fit", "fit_image"]

#: Luminance of red, green and blue, by ITU-R Recommendation BT.601.
_LUMINANCE = (0.299, 0.587, 0.114)


def fit(observation: Observation, shape: ImageShape) -> Observation:
    """Bring what is seen of an image to a shape: each pixel is the mean of the seen pixels under it.

    It is missing where most of its area is missing. A colour image becomes grey by luminance, where all of its channels
    are seen; a grey one becomes three equal channels. Rows and columns are scaled each by its own factor, so that all
    of the image is kept.

    Parameters
    ----------
    observation
        Image ``(1|3, row, column)`` with its mask.
    shape
        ``(1|3, row, column)`` to bring it to.

    Raises
    ------
    ValueError
        For other numbers of channels, and where nothing seen or nothing hidden is left at that size.

    Examples
    --------
    >>> image = torch.tensor([[[0.0, 1.0, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]]])
    >>> seen = torch.tensor([[[True, False, True, False], [True, True, False, False]]])
    >>> small = fit(Observation(image, seen), (1, 1, 2))
    >>> [round(value, 4) for value in small.image[0, 0].tolist()], small.mask[0, 0].tolist()
    ([0.3333, 0.0], [True, False])
    """
    image, mask = _with_channels(observation.image, observation.mask, shape[0])
    rows, columns = (
        _overlaps(source, target, image) for source, target in zip(image.shape[1:], shape[1:], strict=True)
    )
    share = rows @ mask.double() @ columns.T
    mean = rows @ torch.where(mask, image, 0.0).double() @ columns.T / share.clamp(min=1e-12)
    seen = share > 0.5 - 1e-9
    size = " x ".join(map(str, shape[1:]))
    if not seen.any():
        raise ValueError(
            f"nothing is seen of the image at {size}, the size of the prior; expected more seen pixels"
        )
    if seen.all() and not mask.all():
        raise ValueError(
            f"no hole is as large as a pixel at {size}, the size of the prior; expected larger holes"
        )
    return Observation(mean.to(image), seen, observation.any_values)


def fit_image(image: Image, shape: ImageShape) -> Image:
    """Bring a whole image to a shape, as :func:`fit` does.

    >>> fit_image(torch.tensor([[[0.0, 1.0], [0.5, 0.5]]]), (1, 1, 1)).item()
    0.5
    """
    return fit(Observation(image, torch.ones_like(image, dtype=torch.bool), any_values=True), shape).image


def brought_back(completions: Image, observation: Observation) -> Image:
    """Bring completions to an image's own size and channels: seen pixels exactly as seen, hidden ones interpolated.

    Parameters
    ----------
    completions
        ``(*batch, channel, row, column)`` of what :func:`fit` made of the observation.
    observation
        The image itself.

    Examples
    --------
    >>> image = torch.tensor([[[0.3, 0.0, 0.0, 0.0]]])
    >>> completed = torch.tensor([[[0.2, 0.6]]])
    >>> [round(value, 4) for value in brought_back(completed, Observation(image, image > 0)).flatten().tolist()]
    [0.3, 0.3, 0.5, 0.6]
    """
    batch = completions.shape[:-3]
    flat = completions.reshape(-1, *completions.shape[-3:])
    channels, *size = observation.shape
    flat, _ = _with_channels(flat, torch.ones_like(flat, dtype=torch.bool), channels)
    if list(flat.shape[-2:]) != size:
        flat = F.interpolate(flat, size, mode="bilinear", align_corners=False, antialias=True)
    return torch.where(observation.mask, observation.image.to(flat), flat).reshape(*batch, *observation.shape)


def _with_channels(image: Image, mask: Mask, channels: int) -> tuple[Image, Mask]:
    """Return an image, or several, in grey or in colour."""
    given = image.shape[-3]
    if given == channels:
        return image, mask
    if {given, channels} != {1, 3}:
        raise ValueError(f"the image has {given} channel(s) and the prior {channels}; expected 1 or 3")
    if given == 1:
        repeats = (*image.shape[:-3], 3, *image.shape[-2:])
        return image.expand(repeats), mask.expand(repeats)
    weights = image.new_tensor(_LUMINANCE)[:, None, None]
    # Between its colours but for rounding, which may not carry it beyond white.
    grey = (weights * image).sum(-3, keepdim=True).clamp(image.amin(-3, True), image.amax(-3, True))
    return grey, mask.all(-3, keepdim=True)


def _overlaps(source: int, target: int, like: Tensor) -> Tensor:
    """Return which share of each new pixel lies over each old one, ``(target, source)`` in double precision."""
    edges = torch.arange(target + 1, device=like.device, dtype=torch.float64) * source / target
    old = torch.arange(source, device=like.device, dtype=torch.float64)
    common = torch.minimum(edges[1:, None], old + 1) - torch.maximum(edges[:-1, None], old)
    return common.clamp(min=0) * target / source
