"""Diffusions from images with or without holes: a denoiser of every noise level, each pixel's its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.learning.lessons import Lessons
from posterior_inpainting.inference.learning.phases import Phase, Player
from posterior_inpainting.inference.methods.conditional_diffusion import ConditionalDiffusion
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.denoising_score_matching import (
    DenoisingScoreMatching,
    FillLikelihood,
)
from posterior_inpainting.models import DiffusionPrior
from posterior_inpainting.models.networks import Denoiser
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["DenoisingLearner", "denoiser_for"]

#: Values of an image beyond which a layer that sees all of them is too large.
_SEEN_WHOLE = 4096


def denoiser_for(shape: ImageShape, of_any_size: bool, centre: float = 0.5, spread: float = 0.5) -> Denoiser:
    """Return an untrained denoiser that suits images of a shape.

    Small images it sees whole, beside convolutions; large ones by convolutions alone, which correct a pyramid's fill.

    Parameters
    ----------
    shape
        ``(channel, row, column)``.
    of_any_size
        Whether it is to take images of any size.
    centre, spread
        Mean and standard deviation of pixels.

    >>> denoiser_for((3, 64, 64), of_any_size=False).size, denoiser_for((1, 28, 28), of_any_size=False).size
    (None, (28, 28))
    """
    channels, rows, columns = shape
    least = min(rows, columns)
    patch = 1 if least < 16 else 2
    if of_any_size or math.prod(shape) > _SEEN_WHOLE:
        features = (32, 64, 96)[: max(1, int(math.log2(least)) - 2)]
        levels = max(1, min(6, int(math.log2(least))))
        return Denoiser(channels, features, 1, patch, pyramid=levels, centre=centre, spread=spread)
    units, blocks = (256, 2) if least < 16 else (512, 4)
    return Denoiser(
        channels,
        (32, 32) if least < 16 else (48, 48),
        1,
        patch,
        size=(rows, columns),
        global_units=units,
        global_blocks=blocks,
        centre=centre,
        spread=spread,
    )


class DenoisingLearner(Learner):
    """Learner of ``diffusion``: denoising score matching, half the pixels or so with less noise than the others.

    A missing pixel is one of which nothing but noise of the highest level is given, and of which nothing is asked.

    Parameters
    ----------
    lessons, streams
        As for ``Learner``.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets
    >>> from posterior_inpainting.models.images.collection import collected
    >>> lessons = Lessons.of(collected(datasets.load("digits")[:100]), Streams(0), "cpu")
    >>> learner = DenoisingLearner(lessons, Streams(0))
    >>> [phase.name for phase in learner.phases()], learner.score() == learner.score()
    (['denoiser'], True)
    """

    kind: ClassVar[str] = "diffusion"
    about: ClassVar[str] = (
        "A denoiser: mean and variance of each pixel of an image given the image under noise, of which each pixel may "
        "have another level."
    )
    test_images = 20  # a posterior takes a good half of a second

    def __init__(self, lessons: Lessons, streams: Streams):
        super().__init__(lessons, streams)
        seen = lessons.train.images[lessons.train.seen()]
        told = round(float(seen.mean()), 4), round(max(float(seen.std()), 0.01), 4)
        with streams.seeded("networks"):
            self.denoiser = denoiser_for(lessons.shape, lessons.are_patches, *told).to(self.device)
        self.wide = self.denoiser.fill is not None
        # As the bundled ones are trained: details are nearly all that is to be learnt of large images.
        level, evenness = (-1.0, 0.5) if self.wide else (-0.5, 0.0)
        self.loss = DenoisingScoreMatching(
            level, 1.6, whole=0.15, most=0.1, evenness=evenness, low_precision=True
        )
        self.scored = DenoisingScoreMatching(level, 1.6, whole=0.0, most=0.05, low_precision=True)
        self.fill = FillLikelihood(level, 1.6, whole=0.15, most=0.1)
        self.fill_scored = FillLikelihood(level, 1.6, whole=0.0, most=0.05)
        self.test_images = max(2, min(self.test_images, 40_000 // math.prod(lessons.shape)))

    def phases(self) -> Sequence[Phase]:
        """Return the training of the pyramid's fill, if there is one, and that of the network."""
        validation = len(self.lessons.validation)
        network = Phase(
            "denoiser",
            (Player((self.denoiser,), lambda which: self._loss(self.loss, which)),),
            self.score,
            begin=self._freeze,
            validation=validation,
        )
        if self.denoiser.fill is None:
            return (network,)
        fill = Phase(
            "fill",
            (Player((self.denoiser.fill,), lambda which: self._loss(self.fill, which)),),
            lambda: self._score_by(self.fill_scored),
            share=0.1,
            learning_rate=1e-2,
            averaging=0.9,
            validation=validation,
        )
        return fill, network

    def _freeze(self) -> None:
        """Let the fill, which the network corrects, move no more."""
        if self.denoiser.fill is not None:
            self.denoiser.fill.requires_grad_(False)

    def _loss(self, loss: DenoisingScoreMatching, which: Tensor) -> Tensor:
        part, shown = self.batch(which), self.lessons.behind_masks(which)
        model = self.model()
        total = loss.differentiable_loss(model, model.guide, part.images, shown.masks, part.masks)
        return total / part.images.numel()

    def score(self) -> float:
        """Return minus the loss of further hidden pixels, under noise of many levels, a pixel."""
        return self._score_by(self.scored)

    def _score_by(self, loss: DenoisingScoreMatching) -> float:
        whole, further, model = self.lessons.validation, self.lessons.further, self.model()
        total = hidden = 0.0
        with torch.no_grad(), self.streams.seeded("validation"):
            for start in range(0, len(whole), 50):
                some = slice(start, start + 50)
                part, shown = whole.of(some), further.of(some).seen()
                each, _ = loss.of_pixels(model, part.images, shown, part.masks)
                asked = part.seen() & ~shown
                total += float(each[asked].sum())
                hidden += float(asked.sum())
        return -total / hidden

    def settings(self) -> dict[str, Any]:
        """Return what the reverse chain is made with: more noise where holes may be wide."""
        end = {"noise": 0.01, "highest": 30.0} if self.wide else {"noise": 0.02, "highest": 10.0}
        return {"steps": 40, "lowest": 0.005} | end

    def model(self) -> DiffusionPrior:
        """Return the reverse chain of the denoiser."""
        return DiffusionPrior(self.denoiser, self.lessons.shape, **self.settings())

    def measured_by(self) -> tuple[Method, int]:
        """Return a dozen draws in half as many steps as usual."""
        return ConditionalDiffusion(steps=16), 12

    def parts(self) -> Mapping[str, Any]:
        """Return the denoiser."""
        return {"denoiser": self.denoiser}
