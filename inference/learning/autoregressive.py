"""Pixel networks from images with or without holes: a gated PixelCNN, then the network that constrains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.learning.lessons import Lessons, Part
from posterior_inpainting.inference.learning.phases import Phase, Player
from posterior_inpainting.inference.methods.exact import Exact
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.low_precision import low_precision
from posterior_inpainting.models import PixelConstrained
from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage
from posterior_inpainting.models.autoregressive.pixel_laws import CategoricalPixels
from posterior_inpainting.models.networks import ConstraintNetwork, GatedPixelCNN
from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = ["AutoregressiveLearner", "pixel_networks_for"]

#: Levels of a grey or coloured image, and what the prior network reads where a pixel is missing.
_LEVELS, _MISSING = 16, 0.5


def pixel_networks_for(shape: ImageShape, levels: int) -> tuple[GatedPixelCNN, ConstraintNetwork]:
    """Return an untrained prior network and a constraint network that suit images of a shape.

    Parameters
    ----------
    shape
        ``(channel, row, column)``.
    levels
        Of a pixel.

    >>> prior, constraint = pixel_networks_for((1, 8, 8), levels=2)
    >>> prior.outputs == constraint.outputs == 2
    True
    """
    outputs = CategoricalPixels(levels).outputs(shape[0])
    first, kernel = (5, 3) if min(shape[1:]) < 16 else (7, 5)
    prior = GatedPixelCNN(shape, outputs, 16 if levels == 2 else 20, 4, first=first, kernel=kernel)
    return prior, ConstraintNetwork(shape, outputs, 20)


class AutoregressiveLearner(Learner):
    """Learner of ``pixels``: maximum likelihood of seen pixels, then that of hidden ones given what is seen.

    Pixels have 16 levels, or 2 where images are black and white. The networks read a missing pixel as a middle grey.

    Parameters
    ----------
    lessons, streams
        As for ``Learner``.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets
    >>> from posterior_inpainting.models.images.collection import collected
    >>> lessons = Lessons.of(collected(datasets.load("digits")[:100]), Streams(0), "cpu")
    >>> learner = AutoregressiveLearner(lessons, Streams(0))
    >>> [phase.name for phase in learner.phases()], learner.law
    (['prior network', 'constraint network'], CategoricalPixels(levels=16))
    """

    kind: ClassVar[str] = "pixels"
    test_images = 20  # a draw goes through an image pixel by pixel

    def __init__(self, lessons: Lessons, streams: Streams):
        super().__init__(lessons, streams)
        seen = lessons.train.images[lessons.train.seen()]
        self.law = CategoricalPixels(2 if bool(((seen < 0.02) | (seen > 0.98)).all()) else _LEVELS)
        with streams.seeded("networks"):
            self.prior, self.constraint = (
                one.to(self.device) for one in pixel_networks_for(lessons.shape, self.law.levels)
            )
        _, rows, columns = lessons.shape
        self.test_images = max(2, min(self.test_images, 6_000 // (rows * columns)))

    @property
    def about(self) -> str:  # type: ignore[override]
        """What it is, in a sentence, for the card."""
        return (
            f"A gated PixelCNN, each pixel of {self.law.levels} levels given those before it, and a constraint network "
            "that reads what is seen."
        )

    def phases(self) -> Sequence[Phase]:
        """Return the training of the prior network, and that of the constraint network beside it as it is stored."""
        settings: Any = {"learning_rate": 4e-3, "batch_size": 32, "validation": len(self.lessons.validation)}
        return (
            Phase(
                "prior network",
                (Player((self.prior,), self._of_seen),),
                lambda: -self._mean(self.lessons.validation, None),
                share=2.0,
                **settings,
            ),
            Phase(
                "constraint network",
                (Player((self.constraint,), self._of_hidden),),
                self.score,
                begin=lambda: _as_stored(self.prior),
                **settings,
            ),
        )

    def _of_seen(self, which: Tensor) -> Tensor:
        part = self.batch(which)
        return _mean_of(self._entropies(part, None)["prior"], part.seen())

    def _of_hidden(self, which: Tensor) -> Tensor:
        part, shown = self.batch(which), self.lessons.behind_masks(which).seen()
        return _mean_of(self._entropies(part, shown)["constrained"], part.seen() & ~shown)

    def _entropies(self, part: Part, shown: Mask | None) -> dict[str, Tensor]:
        """Return minus the log probability of each pixel, of which those that are missing say nothing."""
        missing = torch.full_like(part.images, _MISSING)
        images = part.images if part.masks is None else torch.where(part.masks, part.images, missing)
        model = PixelConstrained(self.prior, law=self.law) if shown is None else self.model()
        with low_precision(self.device, True):
            return model.cross_entropies(images, shown)

    def score(self) -> float:
        """Return the log probability of further hidden pixels given what is still seen, nats a pixel."""
        return -self._mean(self.lessons.validation, self.lessons.further)

    def _mean(self, whole: Part, further: Part | None) -> float:
        """Return the mean of minus the log probability of pixels: of all, or of further hidden ones."""
        total, count = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(whole), 100):
                some = slice(start, start + 100)
                part, shown = whole.of(some), None if further is None else further.of(some).seen()
                asked = part.seen() if shown is None else part.seen() & ~shown
                each = self._entropies(part, shown)["prior" if shown is None else "constrained"]
                total, count = total + float(each[asked].sum()), count + int(asked.sum())
        return total / count

    def model(self) -> PixelConstrained:
        """Return the model of both networks."""
        return PixelConstrained(self.prior, self.constraint, law=self.law)

    def measured_by(self) -> tuple[Method, int]:
        """Return draws of the constrained law."""
        return Exact(), 32

    def samples(self, model: Any, count: int) -> Image:
        """Return draws of the prior network, all at once."""
        return AutoregressiveImage(self.prior, self.law).sample(torch.Size((count,)))

    def settings(self) -> dict[str, Any]:
        """Return the law of pixels."""
        return {"law": self.law.to_json()}

    def parts(self) -> Mapping[str, Any]:
        """Return both networks."""
        return {"prior": self.prior, "constraint": self.constraint}


def _mean_of(each: Tensor, asked: Mask) -> Tensor:
    """Return the mean over the pixels that are asked for."""
    return torch.where(asked, each, 0.0).sum() / asked.sum().clamp(min=1)


def _as_stored(network: nn.Module) -> None:
    """Round a network's weights to half precision, in place, and let them move no more."""
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(value.half().float())
    network.requires_grad_(False)
