"""What learners of a code z share: networks that suit the images, the guide behind masks, and the validation score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.learning.lessons import Lessons, Part
from posterior_inpainting.inference.learning.phases import Phase, Player
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.domain_judge import LEAST, learn_domain_judge
from posterior_inpainting.inference.training.importance_bound import ImportanceBound, log_weights
from posterior_inpainting.models import LatentCode
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.networks import ConvolutionalEncoder, MaskedEncoder
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["LatentLearner", "channels_for", "encoder_for"]

#: Draws an image of the bound that is scored.
_SCORED = 20
#: Images that are scored at once.
_TOGETHER = 100


def channels_for(shape: ImageShape) -> list[int]:
    """Return channels of a decoder's maps, first to last, the first of 4 to 8 rows; none below 16 pixels a side.

    >>> channels_for((1, 8, 8)), channels_for((1, 28, 28)), channels_for((3, 128, 128))
    ([], [64, 32], [96, 64, 32, 32])
    """
    least = min(shape[1:])
    if least < 16:
        return []
    halvings = max(2, math.ceil(math.log2(least / 8)))
    return [64, 32] if halvings == 2 else [96, 64, 32, *[32] * (halvings - 3)]


def encoder_for(shape: ImageShape, latent: int) -> nn.Module:
    """Return an untrained masked-input encoder that suits images of a shape.

    >>> type(encoder_for((1, 8, 8), 2)).__name__, encoder_for((3, 64, 64), 2).channels
    ('MaskedEncoder', (16, 32, 32, 32))
    """
    halvings = len(channels_for(shape))
    if not halvings:
        return MaskedEncoder(latent, shape, (256, 256))
    return ConvolutionalEncoder(latent, shape, [16, *[32] * halvings], (256,))


class LatentLearner(Learner):
    """Abstract learner of a decoder and of a masked-input encoder, the guide q(z | x~).

    Parameters
    ----------
    lessons, streams
        As for ``Learner``.
    latent
        Length of the code.

    Attributes
    ----------
    decoder, encoder
        Networks on the device of the lessons, which a subclass makes.
    """

    decoder: Any
    encoder: Any

    def __init__(self, lessons: Lessons, streams: Streams, latent: int):
        super().__init__(lessons, streams)
        self.latent = latent

    def model(self) -> ImageModel:
        """Return ``LatentCode`` of the decoder, which is frozen, with the encoder as its guide."""
        return LatentCode(self.decoder, encoder=self.encoder)

    def parts(self) -> Mapping[str, Any]:
        """Return decoder and encoder, and the judge of the domain if there is one."""
        found = {"decoder": self.decoder, "encoder": self.encoder}
        return found if self.decoder.domain is None else found | {"domain": self.decoder.domain}

    def know_the_domain(self, steps: int, progress: bool) -> None:
        """Keep a judge of the domain beside the decoder, where enough validation images are whole."""
        whole = self.lessons.validation.seen().flatten(1).all(1)
        if int(whole.sum()) < LEAST:
            return
        train = self.lessons.train
        self.decoder.domain = learn_domain_judge(
            train.images,
            self.lessons.validation.images[whole],
            masks=train.masks,
            steps=min(4000, max(200, steps)),
            seed=self.streams.number("domain"),
            progress=progress,
        )

    def guide_phase(self, begin: Callable[[], None]) -> Phase:
        """Return the phase in which the encoder of a frozen decoder becomes q(z | x~), behind random masks.

        Parameters
        ----------
        begin
            What is done before it, at the end of which the decoder moves no more.
        """
        return Phase(
            "guide behind masks",
            (Player((self.encoder,), self._loss_behind_masks),),
            lambda: self.bound(self.model(), self.lessons.further),
            begin=begin,
            validation=self.validation,
            batch_size=self.batch_size,
        )

    @property
    def validation(self) -> int:
        """Images that the networks go through for a bound of the validation images."""
        return _SCORED * len(self.lessons.validation)

    @property
    def batch_size(self) -> int:
        """Images a step: fewer of large ones, of which a step of many would take seconds."""
        return max(32, min(128, 100_000 // math.prod(self.lessons.shape)))

    def _loss_behind_masks(self, which: Tensor) -> Tensor:
        return self.loss(self.model(), self.lessons.behind_masks(which))

    def loss(self, model: Any, part: Part, samples: int = 1) -> Tensor:
        """Return minus the bound of what is seen, nats an image, of so many draws of the guide."""
        bound = ImportanceBound(samples)
        return bound.differentiable_loss(model, model.guide, part.images, part.masks) / len(part)

    def bound(self, model: Any, part: Part) -> float:
        """Return the importance-weighted bound of what is seen, nats an image, of the same random numbers always."""
        with torch.no_grad(), self.streams.seeded("validation"):
            found = [
                torch.logsumexp(log_weights(model, model.guide, some.images, some.masks, _SCORED), 0)
                for some in _pieces(part)
            ]
        return float(torch.cat(found).mean()) - math.log(_SCORED)

    def score(self) -> float:
        r"""Return the log density of further hidden pixels x_h given what is still seen, nats a hidden pixel.

        Of the mixture that reweighted draws of the guide predict, a proper score of decoder and guide together:

        .. math:: \log \sum_k w_k\, p(x_h \mid z_k) / \sum_k w_k, \qquad z_k \sim q(z \mid \tilde x), \qquad
                  w_k = p(\tilde x, z_k) / q(z_k \mid \tilde x).

        A difference of two bounds would gain by a guide that is bad at what is still seen.
        """
        further, whole = self.lessons.further, self.lessons.validation
        hidden = (whole.seen() & ~further.seen()).sum()
        model = self.model()
        with torch.no_grad(), self.streams.seeded("validation"):
            told = [_predicted(model, *pair) for pair in zip(_pieces(further), _pieces(whole), strict=True)]
        return float(torch.cat(told).sum() / hidden)


def _pieces(part: Part) -> list[Part]:
    return [part.of(slice(start, start + _TOGETHER)) for start in range(0, len(part), _TOGETHER)]


def _predicted(model: Any, further: Part, whole: Part) -> Tensor:
    """Return the log density of what is seen of the whole alone given what is seen of both, ``(n,)``."""
    images, masks = _repeated(further)
    drawn = poutine.trace(model.guide).get_trace(images, masks)
    joint, joint_of_all = (
        _log_joint(poutine.replay(model, trace=drawn), *_repeated(part)) for part in (further, whole)
    )
    drawn.compute_log_prob()
    weights = joint - sum(site["log_prob"] for site in drawn.nodes.values() if "log_prob" in site)
    told = torch.stack([weights + joint_of_all - joint, weights]).reshape(2, _SCORED, -1).logsumexp(1)
    return told[0] - told[1]


def _repeated(part: Part) -> tuple[Tensor, Tensor]:
    return part.images.repeat(_SCORED, 1, 1, 1), part.seen().repeat(_SCORED, 1, 1, 1)


def _log_joint(model: Any, images: Tensor, masks: Tensor) -> Tensor:
    trace = poutine.trace(model).get_trace(images, masks)
    trace.compute_log_prob()
    total = images.new_zeros(len(images))
    for site in trace.nodes.values():
        if site["type"] == "sample" and "log_prob" in site:
            total = total + site["log_prob"]
    return total
