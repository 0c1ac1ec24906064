"""The values of seen pixels in the form in which densities compare them with what chains decode."""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.models.shapes import Image, Mask, seen_mask

__all__ = ["SeenPixels"]


class SeenPixels:
    """Values at the pixels that are seen in at least one of some images: a row for each, broadcast over its chains.

    Parameters
    ----------
    image, mask
        One image, or a batch ``(image, channel, row, column)``; without a mask everything is seen.

    Attributes
    ----------
    index
        Those pixels in the flattened ``(channel, row, column)``.

    Examples
    --------
    >>> images, masks = torch.rand(2, 1, 1, 3), torch.tensor([[[[True, False, False]]], [[[True, True, False]]]])
    >>> seen = SeenPixels(images, masks)
    >>> target, weight, count = seen.of(torch.tensor([0]))
    >>> seen.index.tolist(), tuple(target.shape), weight.tolist(), count.tolist()
    ([0, 1], (1, 1, 2), [[[1.0, 0.0]]], [[1.0]])
    """

    def __init__(self, image: Image, mask: Mask | None = None):
        seen = seen_mask(image, mask).flatten(-3)
        anywhere = seen if image.dim() == 3 else seen.any(0)
        self.index = anywhere.nonzero().flatten()
        self._target = image.flatten(-3)[..., self.index].unsqueeze(-2)
        self._weight: Tensor | None = None
        if image.dim() > 3 and not bool(seen[:, self.index].all()):
            self._weight = seen[:, None, self.index].to(self._target)
            self._target = torch.where(self._weight > 0, self._target, 0.0)
        self._count: int | Tensor = len(self.index) if self._weight is None else self._weight.sum(-1)

    def of(self, which: Tensor | None = None) -> tuple[Tensor, Tensor | None, int | Tensor]:
        """Return values, weights (0 where hidden; ``None`` where nothing is) and the number of seen pixels.

        Parameters
        ----------
        which
            Indices of the images; all of them by default.

        Returns
        -------
        tuple
            ``([image, 1,] pixel)`` twice, and a number or ``(image, 1)``.
        """
        if which is None:
            return self._target, self._weight, self._count
        weight = None if self._weight is None else self._weight[which]
        count = self._count[which] if isinstance(self._count, Tensor) else self._count
        return self._target[which], weight, count
