"""Fields of experts from images with or without holes: score matching, then maximum likelihood by Gibbs draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.learning.lessons import Lessons, Part
from posterior_inpainting.inference.learning.phases import Phase, Player
from posterior_inpainting.inference.methods.gibbs import Gibbs
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.expert_losses import ExpertLikelihood, ExpertScoreMatching
from posterior_inpainting.inference.training.principal_filters import begin_with_principal_filters
from posterior_inpainting.models import ExpertField
from posterior_inpainting.models.networks import Experts
from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["ExpertsLearner", "experts_for"]

#: Side of the filters, and of the squares cut out of larger images that a step is made with.
_SIDE, _CUT = 3, 32
#: Images that filters begin with, and share of the places of a filter that must be seen whole for it to be learnt.
_FIRST, _SHARE = 2000, 1e-3
#: Of the validation: images of which a pixel is scored, and values that it might have.
_SCORED, _VALUES = 100, 41
#: Of the solver in training: its error is far below the draws' own spread.
_TOLERANCE = 1e-2


def experts_for(shape: ImageShape, levels: int = 3, centre: float = 0.5) -> Experts:
    """Return untrained experts that suit images of a shape: as many levels as the image has room for, at most three.

    Parameters
    ----------
    shape
        ``(channel, row, column)``.
    levels
        At most so many.
    centre
        Mean of pixels.

    >>> experts = experts_for((1, 8, 8))
    >>> experts.levels, experts.count
    (2, 8)
    """
    room = int(math.log2(min(shape[1:]) / _SIDE)) + 1
    count = shape[0] * (_SIDE**2 - 1)  # all that there are without a mean
    return Experts(shape[0], count, _SIDE, max(1, min(levels, room)), centre=centre, gain=1 / 16)


class ExpertsLearner(Learner):
    """Learner of ``experts``: what filters say of seen pixels, where they see nothing that is missing.

    Parameters
    ----------
    lessons, streams
        As for ``Learner``.

    Raises
    ------
    ValueError
        For holes so near to each other that hardly a filter sees none.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets
    >>> from posterior_inpainting.models.images.collection import collected
    >>> lessons = Lessons.of(collected(datasets.load("digits")[:100]), Streams(0), "cpu")
    >>> learner = ExpertsLearner(lessons, Streams(0))
    >>> [phase.name for phase in learner.phases()], learner.score() == learner.score()
    (['score matching', 'likelihood'], True)
    """

    kind: ClassVar[str] = "experts"
    test_images = 10  # a posterior takes a second
    about: ClassVar[str] = (
        "A field of experts: filters, and the heavy-tailed laws of what they say at every place of an image."
    )

    def __init__(self, lessons: Lessons, streams: Streams):
        super().__init__(lessons, streams)
        some = lessons.train.of(slice(_FIRST))
        centre = round(float(some.images[some.seen()].mean()), 4)
        experts = experts_for(lessons.shape, centre=centre)
        if some.masks is not None:
            shares = [float(seen.float().mean()) for seen in experts.places_seen(some.masks.cpu())]
            levels = sum(share > _SHARE for share in shares)
            if not levels:
                raise ValueError(
                    f"a share of {shares[0]:.2g} of the squares of {_SIDE} x {_SIDE} pixels is seen whole; experts are "
                    f"learnt where more than {_SHARE:g} are: expected another kind"
                )
            experts = experts_for(lessons.shape, levels, centre)
        with streams.seeded("networks"):
            torch.nn.init.normal_(experts.filters, std=1 / _SIDE)
        self.experts = experts.to(self.device)
        self.matching = ExpertScoreMatching(0.02)
        self.likelihood = ExpertLikelihood(chains=16)
        begin_with_principal_filters(self.experts, some.images, self.matching.level, some.masks)
        self.cut = min(_CUT, lessons.shape[1]), min(_CUT, lessons.shape[2])
        self.test_images = max(2, min(self.test_images, 8_000 // math.prod(lessons.shape)))

    def phases(self) -> Sequence[Phase]:
        """Return score matching, which is fast, and maximum likelihood, which looks at the whole density."""
        return (
            Phase(
                "score matching",
                (Player((self.experts,), lambda which: self._loss(self.matching, which)),),
                self.score,
                learning_rate=3e-2,
                batch_size=64,
                validation=_VALUES * _SCORED,
            ),
            Phase(
                "likelihood",
                (Player((self.experts,), lambda which: self._loss(self.likelihood, which)),),
                self.score,
                learning_rate=3e-3,
                batch_size=64,
                averaging=0.99,
                # A step costs what ten do in score matching, by its sweep.
                validation=_VALUES * _SCORED // 10,
            ),
        )

    def _loss(self, loss: Any, which: Tensor) -> Tensor:
        """Return the mean loss of a minibatch, of squares out of the same place of each image."""
        top, left = (
            int(torch.randint(whole - extent + 1, (), device="cpu"))
            for whole, extent in zip(self.lessons.shape[1:], self.cut, strict=True)
        )
        part = self._square(self.batch(which), top, left)
        return loss.differentiable_loss(self._field(), None, part.images, known=part.masks) / len(part)

    def _square(self, part: Part, top: int, left: int) -> Part:
        """Return the squares of images that begin at a row and a column."""
        rows, columns = slice(top, top + self.cut[0]), slice(left, left + self.cut[1])
        masks = None if part.masks is None else part.masks[..., rows, columns]
        return Part(part.images[..., rows, columns], masks)

    def _field(self) -> ExpertField:
        """Return the field of squares that training knows."""
        shape = self.lessons.shape[0], *self.cut
        return ExpertField(self.experts, shape, tolerance=_TOLERANCE, **self.settings())

    def score(self) -> float:
        """Return the log density of further hidden pixels, one an image, given all others that are known: in nats.

        The density of images has no constant that is known; that of one pixel given the others is summed up.
        """
        whole, further = self.lessons.validation, self.lessons.further
        hidden = whole.seen() & ~further.seen()
        generator, found = self.streams.generator("scored pixels"), []
        values = torch.linspace(0, 1, _VALUES, device=self.device)
        for index in hidden.flatten(1).any(1).nonzero()[:_SCORED, 0].tolist():
            places = hidden[index].nonzero()
            channel, *place = places[
                int(torch.randint(len(places), (), generator=generator, device="cpu"))
            ].tolist()
            corner = [
                min(max(at - cut // 2, 0), extent - cut)
                for at, cut, extent in zip(place, self.cut, self.lessons.shape[1:], strict=True)
            ]
            part = self._square(whole.of(slice(index, index + 1)), *corner)
            row, column = place[0] - corner[0], place[1] - corner[1]
            images = part.images.repeat(_VALUES, 1, 1, 1)
            images[:, channel, row, column] = values
            with torch.no_grad():
                weights = self.experts.log_density(images, part.masks).log_softmax(0)
            seen = torch.distributions.Normal(values, 1 / _VALUES).log_prob(
                part.images[0, channel, row, column]
            )
            found.append(torch.logsumexp(weights + seen, 0))
        return float(torch.stack(found).mean())

    def settings(self) -> dict[str, Any]:
        """Return the noise of a seen pixel."""
        return {"noise": 0.02}

    def model(self) -> ExpertField:
        """Return the field of the experts."""
        return ExpertField(self.experts, self.lessons.shape, **self.settings())

    def measured_by(self) -> tuple[Method, int]:
        """Return draws by few sweeps."""
        return Gibbs(warmup=5), 10

    def samples(self, model: Any, count: int) -> Image:
        """Return draws where nothing is seen, all at once, by sweeps the fewer the larger they are."""
        shape = self.lessons.shape
        nothing = torch.zeros(shape, dtype=torch.bool, device=self.experts.filters.device)
        field = ExpertField(self.experts, shape, tolerance=_TOLERANCE, **self.settings())
        conditionals = field.conditionals(nothing.float(), nothing)
        generator = self.streams.generator("samples", device=nothing.device)
        latents = conditionals.start(count, generator)
        for _ in range(max(3, min(10, 20_000 // math.prod(shape)))):
            latents = conditionals.sweep(latents, generator)
        return latents["pixels"]

    def parts(self) -> Mapping[str, Any]:
        """Return the experts."""
        return {"experts": self.experts}
