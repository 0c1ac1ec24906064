"""What there is to learn from: training and validation images, what is seen of them, and what is hidden to test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.images.collection import Collection
from posterior_inpainting.models.images.mask_bank import random_masks
from posterior_inpainting.models.images.split import split
from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = ["Lessons", "Part"]

#: Images that a validation reads at most, and random masks that there are at most.
_VALIDATED, _BANK = 300, 10_000


@dataclass(frozen=True)
class Part:
    """Images, and what is seen of each; ``masks`` is ``None`` where all is.

    Nothing can be read of what is hidden: it is 0 in ``images``.
    """

    images: Image
    masks: Mask | None

    def __len__(self) -> int:
        return len(self.images)

    def of(self, which: Tensor | slice) -> Part:
        """Return some of the images."""
        return Part(self.images[which], None if self.masks is None else self.masks[which])

    def to(self, device: torch.device | str) -> Part:
        """Return the same on a device."""
        return Part(self.images.to(device), None if self.masks is None else self.masks.to(device))

    def seen(self) -> Mask:
        """Return what is seen of each image, also where that is all."""
        return torch.ones_like(self.images, dtype=torch.bool) if self.masks is None else self.masks

    def behind(self, masks: Mask) -> Part:
        """Return the images with less seen: what their own masks and the given ones both show."""
        both = self.seen() & masks
        return Part(torch.where(both, self.images, torch.zeros_like(self.images)), both)


@dataclass(frozen=True)
class Lessons:
    """A collection in three parts, on the device of the training.

    Parameters
    ----------
    train, validation, test
        The parts; test images stay where they were read.
    further
        The validation images that are scored, with further pixels hidden.
    bank
        Masks ``(count, channel, row, column)`` to hide pixels of training images behind.
    are_patches
        Whether the images are cut out of larger ones, so that a prior of them is one of images of any size.

    Examples
    --------
    >>> images = torch.rand(40, 1, 8, 8)
    >>> digests = tuple(str(i) for i in range(40))
    >>> lessons = Lessons.of(Collection(images, None, digests, digests, ()), Streams(0), "cpu")
    >>> len(lessons.train) + len(lessons.validation) + len(lessons.test), lessons.shape
    (40, (1, 8, 8))
    """

    train: Part
    validation: Part
    test: Part
    further: Part
    bank: Mask
    are_patches: bool = False

    @classmethod
    def of(cls, collection: Collection, streams: Streams, device: torch.device | str) -> Lessons:
        """Split a collection by content, and hide further pixels of its validation images."""
        whole = Part(collection.images, collection.masks)
        train, validation, test = (whole.of(torch.from_numpy(which)) for which in split(collection.digests))
        validation = validation.of(slice(_VALIDATED))
        shape = tuple(whole.images.shape[1:])
        count = max(min(_BANK, len(train)), 100)
        bank, others = (
            random_masks(shape, number, streams.number(name))
            for number, name in ((count, "masks"), (4 * len(validation), "further masks"))
        )
        # A mask that shows all, as a tenth of the bank does, hides nothing to score.
        hiding = others[~others.flatten(1).all(1)][: len(validation)]
        return cls(
            train.to(device),
            validation.to(device),
            test,
            validation.behind(hiding).to(device),
            bank.to(device),
            bool(collection.preprocessing.get("patches")),
        )

    @property
    def shape(self) -> ImageShape:
        """``(channel, row, column)``."""
        channel, row, column = self.train.images.shape[1:]
        return channel, row, column

    @property
    def has_holes(self) -> bool:
        """Whether pixels of training images are missing."""
        return self.train.masks is not None

    def behind_masks(self, which: Tensor) -> Part:
        """Return some training images, each behind a random mask of the bank."""
        chosen = torch.randint(len(self.bank), (len(which),), device=self.bank.device)
        return self.train.of(which).behind(self.bank[chosen])
