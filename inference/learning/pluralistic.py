"""Pluralistic completion from images with or without holes: a decoder and a guide for any mask, trained together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from posterior_inpainting.inference.learning.autoencoder import AutoencoderLearner
from posterior_inpainting.inference.learning.phases import Phase, Player
from posterior_inpainting.models import PluralisticJoint

__all__ = ["PluralisticLearner"]


class PluralisticLearner(AutoencoderLearner):
    """Learner of ``pluralistic``: decoder and q(z | x~) together, half of each minibatch behind further masks.

    As :class:`AutoencoderLearner` in its networks, and in the bound that moves them. There the decoder is trained on
    all that is seen, and the encoder goes on alone; here both are trained for completion from the start, and codes
    are standard normal.

    Parameters
    ----------
    lessons, streams, latent
        As for :class:`AutoencoderLearner`.

    Examples
    --------
    >>> from posterior_inpainting.inference.learning.lessons import Lessons
    >>> from posterior_inpainting.inference.streams import Streams
    >>> from posterior_inpainting.models.images.collection import collected
    >>> lessons = Lessons.of(collected(torch.rand(40, 1, 8, 8)), Streams(0), "cpu")
    >>> learner = PluralisticLearner(lessons, Streams(0))
    >>> [phase.name for phase in learner.phases()], sorted(learner.parts())
    (['decoder and guide'], ['decoder', 'encoder'])
    """

    kind: ClassVar[str] = "pluralistic"
    about: ClassVar[str] = (
        "A decoder f(z) with pixel scale sigma(z), and beside it a masked-input encoder q(z | x~), trained together "
        "behind random masks: the joint form of pluralistic completion."
    )

    def phases(self) -> Sequence[Phase]:
        """Return the training of both networks."""
        return (
            Phase(
                "decoder and guide",
                (Player((self.decoder, self.encoder), self._half_behind_masks),),
                self._bound_of_both,
                validation=2 * self.validation,
                batch_size=self.batch_size,
            ),
        )

    def _half_behind_masks(self, which: Tensor) -> Tensor:
        part, masked = self.batch(which), self.lessons.behind_masks(which)
        first = torch.arange(len(which), device=self.device) < len(which) // 2
        return self.loss(self.vae, part.behind(masked.seen() | first.reshape(-1, 1, 1, 1)))

    def _bound_of_both(self) -> float:
        """Return the bound of validation images, half of it of what is still seen behind further masks."""
        return sum(self.bound(self.vae, part) for part in (self.lessons.validation, self.lessons.further)) / 2

    def model(self) -> PluralisticJoint:
        """Return ``PluralisticJoint`` of both networks, the decoder frozen."""
        model = PluralisticJoint(self.decoder, self.encoder)
        model.decoder.requires_grad_(False).eval()
        return model
