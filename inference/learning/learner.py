"""What learning a kind of prior is: networks that suit the images, phases, and the parts that are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.learning.lessons import Lessons, Part
from posterior_inpainting.inference.learning.phases import Phase
from posterior_inpainting.inference.methods.variational import Variational
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.saved.parts import description_of
from posterior_inpainting.models.shapes import Image

__all__ = ["Learner"]


class Learner(ABC):
    """Abstract learner of one kind of prior from images, some pixels of which may be missing.

    A subclass makes its networks in ``__init__``, on the device of the lessons, from the stream ``"networks"``.

    Parameters
    ----------
    lessons
        What there is to learn from.
    streams
        Of random numbers.
    """

    #: Its name on the command line and in ``config.json``.
    kind: ClassVar[str]
    #: What it is, in a sentence, for the card.
    about: ClassVar[str]
    #: Test images that are completed behind each mask to measure it, at most.
    test_images: int = 30

    def __init__(self, lessons: Lessons, streams: Streams):
        self.lessons, self.streams = lessons, streams
        self.device = lessons.train.images.device

    @abstractmethod
    def phases(self) -> Sequence[Phase]:
        """Return the phases of the training; none where it is in closed form."""

    def know_the_domain(self, steps: int, progress: bool) -> None:  # noqa: B027 - some kinds have no use for it
        """Learn to tell images of the domain from others, once the phases have run, where posteriors can be told so.

        Parameters
        ----------
        steps
            That the phases took: a quick trial is no place for a thorough judge.
        progress
            Whether to show a bar.
        """

    @abstractmethod
    def parts(self) -> Mapping[str, Any]:
        """Return what is kept, once the phases have run: part -> network, as ``write_prior`` takes them."""

    def settings(self) -> dict[str, Any]:
        """Return further arguments of the model, as ``write_prior`` keeps them."""
        return {}

    @abstractmethod
    def model(self) -> ImageModel:
        """Return the model of the networks as they are."""

    @abstractmethod
    def score(self) -> float:
        """Return how well validation images' further hidden pixels are told, in nats a hidden pixel, or so.

        Higher is better; of one kind alone, scores of runs can be compared.
        """

    def measured_by(self) -> tuple[Method, int]:
        """Return the quickest method to draws of a posterior, and how many to score: 64 of the guide."""
        return Variational(), 64

    def sample(self, model: ImageModel) -> Image:
        """Return one image of the prior, without the noise of pixels where it knows of one."""
        return pyro.poutine.trace(model).get_trace().nodes["completion"]["value"]

    def samples(self, model: ImageModel, count: int) -> Image:
        """Return so many images of the prior, ``(count, channel, row, column)``: one after another."""
        return torch.stack([self.sample(model) for _ in range(count)])

    def architecture(self) -> dict[str, Any]:
        """Return what determines the networks, for the checkpoint's signature and the card."""
        return {name: description_of(name, part) for name, part in self.parts().items()}

    def batch(self, which: Tensor) -> Part:
        """Return some of the training images."""
        return self.lessons.train.of(which)
