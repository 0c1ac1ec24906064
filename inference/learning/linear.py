"""Principal components from images with or without holes, as many as further hidden pixels ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.learning.lessons import Lessons, Part
from posterior_inpainting.inference.learning.phases import Phase
from posterior_inpainting.inference.methods.exact import Exact
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import LinearGaussian
from posterior_inpainting.models.principal_components import fit_of_seen, spectrum_of

__all__ = ["LinearLearner"]

#: Most components, of whole images and of images with holes, and validation images that choose their number.
_MOST, _MOST_WITH_HOLES, _CHOOSING = 128, 64, 100
#: Pixel values that expectation maximisation goes through, and values that the evidence holds at once.
_VALUES, _AT_ONCE = 10_000_000, 10_000_000


class LinearLearner(Learner):
    """Learner of ``linear``: in closed form, or by expectation maximisation where pixels are missing.

    The number of components doubles while the validation score rises.

    Parameters
    ----------
    lessons, streams
        As for ``Learner``.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets
    >>> from posterior_inpainting.models.images.collection import collected
    >>> lessons = Lessons.of(collected(datasets.load("digits")[:300]), Streams(0), "cpu")
    >>> learner = LinearLearner(lessons, Streams(0))
    >>> learner.model().latent in (4, 8, 16, 32), learner.score() > 0
    (True, True)
    """

    kind: ClassVar[str] = "linear"
    about: ClassVar[str] = (
        "A linear decoder with Gaussian noise, probabilistic principal components: posterior and evidence are exact."
    )

    def __init__(self, lessons: Lessons, streams: Streams):
        super().__init__(lessons, streams)
        scored = -float("inf")
        for model in self._fits():
            score = self._score_of(model, _CHOOSING)
            if score <= scored:
                break
            self.fitted, scored = model, score

    def _fits(self) -> Iterator[LinearGaussian]:
        """Fit more and more components."""
        train, shape = self.lessons.train, self.lessons.shape
        # With nearly as many as there are pixels nothing is left that would be noise.
        most = max(1, min(len(train), train.images[0].numel()) // 2)
        counts = [1, *(2**power for power in range(1, 8))]
        if train.masks is None:
            spectrum = spectrum_of(train.images)
            for latent in counts:
                if latent <= min(most, _MOST):
                    yield LinearGaussian.of(spectrum.fit(latent), shape)
            return
        part, found = train.of(slice(max(1, _VALUES // train.images[0].numel()))), None
        for latent in counts:
            if latent <= min(most, _MOST_WITH_HOLES):
                found = fit_of_seen(part.images, part.seen(), latent, found)
                yield LinearGaussian.of(found, shape)

    def phases(self) -> Sequence[Phase]:
        """Return none."""
        return ()

    def score(self) -> float:
        """Return the log density of further hidden pixels given what is still seen, a pixel: exact."""
        return self._score_of(self.fitted)

    def _score_of(self, model: LinearGaussian, most: int | None = None) -> float:
        whole, further = (part.of(slice(most)) for part in (self.lessons.validation, self.lessons.further))
        hidden = (whole.seen() & ~further.seen()).sum()
        return float((_evidence(model, whole) - _evidence(model, further)) / hidden)

    def model(self) -> LinearGaussian:
        """Return what was fitted."""
        return self.fitted

    def measured_by(self) -> tuple[Method, int]:
        """Return exact draws."""
        return Exact(), 64

    def parts(self) -> Mapping[str, Any]:
        """Return the model, which is its own network."""
        return {"linear": self.fitted}

    def architecture(self) -> dict[str, Any]:
        """Return the number of components."""
        return {"linear": {"latent": self.fitted.latent}}


def _evidence(model: LinearGaussian, part: Part) -> torch.Tensor:
    """Return the sum of the log evidences of images, a few at a time."""
    size = max(1, _AT_ONCE // model.loadings.numel())
    each = [
        model.log_evidence(some.images, some.masks).sum()
        for some in (part.of(slice(start, start + size)) for start in range(0, len(part), size))
    ]
    return torch.stack(each).sum()
