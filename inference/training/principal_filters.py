"""Filters that a field of experts begins with: the directions in which images vary least."""

from __future__ import annotations

import torch

from posterior_inpainting.models.networks import Experts
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["begin_with_principal_filters"]

#: Standard deviation of the first filters' responses: the largest at which they do not make images too smooth.
_SPREAD = 0.004


def begin_with_principal_filters(
    experts: Experts, images: Image, level: float, masks: Mask | None = None
) -> None:
    """Set filters to the principal components of what they see that vary least, with one spread under noise.

    What varies least says most of how pixels go together (Weiss & Freeman 2007). Components without variance, which
    are the colours of the patches, are left out, and filters beyond the others stay as they are.

    Parameters
    ----------
    experts
        Changed in place.
    images
        ``(n, channel, row, column)``.
    level
        Standard deviation of the noise.
    masks
        What is seen of each image, shaped as they are; nothing else is read.

    Examples
    --------
    >>> experts = Experts(channels=1, count=8, side=3, levels=1, gain=1 / 16)
    >>> images = torch.rand(20, 1, 8, 8)
    >>> begin_with_principal_filters(experts, images, level=0.02)
    >>> [round(float(one.detach().std()), 4) for one in experts.responses(images)]
    [0.004]
    """
    places = None if masks is None else experts.places_seen(masks)
    with torch.no_grad():
        for index, filters in enumerate(experts.filters):
            seen = experts.seen_by_filters(images, index)
            if places is not None:
                seen = seen[places[index].flatten()]
            if len(seen) < 2:
                continue
            variances, components = torch.linalg.eigh(torch.cov(seen.T))
            wanted = variances > 1e-5 * variances[-1]
            variances, components = (
                variances[wanted][: len(filters)],
                components[:, wanted][:, : len(filters)],
            )
            found = components.T * (_SPREAD / experts.gain / (variances + level**2).sqrt())[:, None]
            filters[: len(found)] = found.reshape(-1, *filters.shape[1:])
