"""What a model is trained on: images, with a mask or a target beside each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from posterior_inpainting.models.shapes import Image, Mask, check_image, refuse_eight_bits

__all__ = ["Examples"]


@dataclass(frozen=True)
class Examples:
    """Images and what the model is called with beside them.

    Parameters
    ----------
    data
        Images ``(n, channel, row, column)``, or inputs ``(n, ...)`` of targets.
    targets
        ``(n, ...)``, one for each input.
    masks
        As many as images: what is seen of each, whose holes are never read. Any other number ``(m, channel, row,
        column)``: a bank, of which every image gets a random one in every epoch.

    Examples
    --------
    >>> images, masks = Examples(torch.rand(5, 1, 8, 8), masks=torch.ones(3, 1, 8, 8) > 0).first(2)
    >>> tuple(images.shape), tuple(masks.shape)
    ((2, 1, 8, 8), (2, 1, 8, 8))
    """

    data: Image | Tensor
    targets: Tensor | None = None
    masks: Mask | None = None

    def __len__(self) -> int:
        return len(self.data)

    def check(self, model: Callable) -> None:
        """Raise ValueError where images do not fit the model, targets not their inputs, or a value is not finite."""
        data, targets = self.data, self.targets
        if targets is None:
            check_image(data, model.image_shape)  # type: ignore[attr-defined]
            refuse_eight_bits(data)
            if data.dim() != 4 or len(data) == 0:
                raise ValueError(
                    f"data has shape {tuple(data.shape)}; expected (n, channel, row, column) with n > 0"
                )
        elif self.masks is not None:
            raise ValueError(
                "both targets and masks are given; a model takes one or the other beside its data"
            )
        elif len(data) == 0 or len(targets) != len(data):
            raise ValueError(
                f"there are {len(data)} inputs and {len(targets)} targets; expected as many, above 0"
            )
        if not data.isfinite().all():
            raise ValueError(f"data has {int((~data.isfinite()).sum())} values that are NaN or infinite")

    def first(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Return what the model is called with for the first images."""
        if self.masks is not None:
            return self.data[:count], self.masks[torch.arange(count) % len(self.masks)]
        return self.data[:count], None if self.targets is None else self.targets[:count]

    def unmasked(self) -> tuple[Tensor, ...]:
        """Return what a guide is called with for one image, wholly seen: with hidden pixels some guides are slow."""
        data, beside = self.first(1)
        return (data,) if beside is None or self.masks is not None else (data, beside)

    def minibatch(self, which: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what the model is called with for some images, ``which`` being their indices."""
        if self.masks is not None and len(self.masks) == len(self.data):
            return self.data[which], self.masks[which]
        if self.masks is not None:
            return self.data[which], self.some_masks(len(which))
        return self.data[which], None if self.targets is None else self.targets[which]

    def some_masks(self, count: int) -> Mask | None:
        """Return masks of the bank at random, ``None`` where there is none."""
        if self.masks is None:
            return None
        return self.masks[torch.randint(len(self.masks), (count,), device=self.masks.device)]
