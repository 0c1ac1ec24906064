"""Variational autoencoders from images with or without holes: decoder and encoder, the law of codes, then the guide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.learning.lessons import Lessons, Part
from posterior_inpainting.inference.learning.phases import Phase, Player
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.importance_bound import ImportanceBound, log_weights
from posterior_inpainting.inference.training.law_of_codes import fit_law_of_codes
from posterior_inpainting.models import LatentCode, VariationalAutoencoder
from posterior_inpainting.models.networks import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    MaskedEncoder,
    MultilayerDecoder,
)
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["AutoencoderLearner", "networks_for"]

#: Draws an image of the bound that is trained where pixels are missing, and of that which is scored.
_TRAINED, _SCORED = 5, 20
#: Images of which a Gaussian of the law of codes is fitted, at least.
_A_COMPONENT = 100


def networks_for(shape: ImageShape, latent: int, clipped: bool) -> tuple[nn.Module, nn.Module]:
    """Return an untrained decoder and encoder that suit images of a shape.

    Fully connected below 16 pixels a side; by convolutions above, on maps the first of which has 4 to 8 rows.

    Parameters
    ----------
    shape
        ``(channel, row, column)``.
    latent
        Length of the code.
    clipped
        Whether many pixels are exactly 0 or 1, which a law of censored pixels gives its due.

    >>> decoder, encoder = networks_for((3, 64, 64), latent=32, clipped=False)
    >>> type(decoder).__name__, decoder.channels
    ('ConvolutionalDecoder', (96, 64, 32))
    """
    likelihood = "censored_normal" if clipped else "normal"
    least = min(shape[1:])
    if least < 16:
        decoder: Any = MultilayerDecoder(latent, shape, (256, 256), 64, 0.03, likelihood)
        return decoder, MaskedEncoder(latent, shape, (256, 256))
    halvings = max(2, math.ceil(math.log2(least / 8)))
    channels = [64, 32] if halvings == 2 else [96, 64, 32, *[32] * (halvings - 3)]
    decoder = ConvolutionalDecoder(latent, shape, channels, (256,), 0.03, likelihood)
    encoder = ConvolutionalEncoder(latent, shape, [32, *[64] * halvings], (256,))
    return decoder, encoder


class AutoencoderLearner(Learner):
    """Learner of ``vae``: the importance-weighted bound of what is seen, then q(z | x~) behind random masks.

    Parameters
    ----------
    lessons, streams
        As for ``Learner``.
    latent
        Length of the code; 32 if not given, fewer for fewer images.
    """

    kind: ClassVar[str] = "vae"
    about: ClassVar[str] = (
        "A decoder f(z) with pixel scale sigma(z), the law of its codes, and a masked-input encoder q(z | x~): a "
        "variational autoencoder."
    )

    def __init__(self, lessons: Lessons, streams: Streams, latent: int | None = None):
        super().__init__(lessons, streams)
        seen = lessons.train.images[lessons.train.seen()]
        ends = float(((seen == 0) | (seen == 1)).float().mean())
        self.latent = latent or max(2, min(32, len(lessons.train) // 20))
        with streams.seeded("networks"):
            decoder, encoder = networks_for(lessons.shape, self.latent, clipped=ends > 0.1)
        self.vae = VariationalAutoencoder(decoder, encoder).to(self.device)
        self.bound = ImportanceBound(_TRAINED if lessons.has_holes else 1)

    def phases(self) -> Sequence[Phase]:
        """Return the training of both networks, and that of the encoder alone."""
        return (
            Phase(
                "decoder and encoder",
                (Player((self.vae.decoder, self.vae.encoder), self._bound_of_seen),),
                self._bound_of_validation,
                share=3.0,
            ),
            Phase(
                "guide behind masks",
                (Player((self.vae.encoder,), self._bound_behind_masks),),
                self.score,
                begin=self._freeze,
                share=1.0,
            ),
        )

    def _bound_of_seen(self, which: Tensor) -> Tensor:
        part = self.batch(which)
        return self._loss(self.vae, part)

    def _bound_behind_masks(self, which: Tensor) -> Tensor:
        return self._loss(self.model(), self.lessons.behind_masks(which))

    def _loss(self, model: Any, part: Part) -> Tensor:
        return self.bound.differentiable_loss(model, model.guide, part.images, part.masks) / len(part)

    def _bound_of_validation(self) -> float:
        return _bound(self.vae, self.lessons.validation, self.streams)

    def _freeze(self) -> None:
        """Fit the law of codes, and let the decoder move no more."""
        self.vae.decoder.requires_grad_(False)
        if self.vae.decoder.law_of_codes is None:
            components = min(100, len(self.lessons.train) // _A_COMPONENT)
            if components:
                train = self.lessons.train
                law = fit_law_of_codes(
                    self.vae.encoder, train.images, components, self.streams, masks=train.masks
                )
                self.vae.decoder.law_of_codes = law.to(self.device)

    def score(self) -> float:
        """Return the log density of further hidden pixels given what is still seen, a pixel.

        The difference of two bounds, whose errors largely cancel.
        """
        further, whole = self.lessons.further, self.lessons.validation
        hidden = (whole.seen() & ~further.seen()).sum()
        model = self.model()
        difference = _bound(model, whole, self.streams) - _bound(model, further, self.streams)
        return difference * len(whole) / float(hidden)

    def model(self) -> LatentCode:
        """Return ``LatentCode`` of the decoder, with the encoder as its guide."""
        return LatentCode(self.vae.decoder, encoder=self.vae.encoder)

    def parts(self) -> Mapping[str, Any]:
        """Return decoder, encoder, and the law of codes if there is one."""
        found = {"decoder": self.vae.decoder, "encoder": self.vae.encoder}
        law = self.vae.decoder.law_of_codes
        return found if law is None else found | {"prior": law}


def _bound(model: Any, part: Part, streams: Streams) -> float:
    """Return the bound of what is seen, nats an image, by the same random numbers every time."""
    with torch.no_grad(), streams.seeded("validation"):
        found = [
            torch.logsumexp(log_weights(model, model.guide, some.images, some.masks, _SCORED), 0)
            for some in (part.of(slice(start, start + 100)) for start in range(0, len(part), 100))
        ]
    return float(torch.cat(found).mean()) - math.log(_SCORED)
