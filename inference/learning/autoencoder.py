"""Variational autoencoders from images with or without holes: decoder and encoder, the law of codes, then the guide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from posterior_inpainting.inference.learning.latent_learner import LatentLearner, channels_for, encoder_for
from posterior_inpainting.inference.learning.lessons import Lessons
from posterior_inpainting.inference.learning.phases import Phase, Player
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.law_of_codes import fit_law_of_codes
from posterior_inpainting.models import VariationalAutoencoder
from posterior_inpainting.models.networks import ConvolutionalDecoder, MultilayerDecoder
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["AutoencoderLearner", "networks_for"]

#: Draws an image of the second bound.
_CLOSER = 5
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
    channels = channels_for(shape)
    if channels:
        decoder: Any = ConvolutionalDecoder(latent, shape, channels, (256,), 0.03, likelihood)
    else:
        decoder = MultilayerDecoder(latent, shape, (256, 256), 64, 0.03, likelihood)
    return decoder, encoder_for(shape, latent)


class AutoencoderLearner(LatentLearner):
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
        super().__init__(lessons, streams, latent or max(2, min(32, len(lessons.train) // 20)))
        seen = lessons.train.images[lessons.train.seen()]
        ends = float(((seen == 0) | (seen == 1)).float().mean())
        with streams.seeded("networks"):
            decoder, encoder = networks_for(lessons.shape, self.latent, clipped=ends > 0.1)
        self.decoder, self.encoder = decoder.to(self.device), encoder.to(self.device)
        self.vae = VariationalAutoencoder(self.decoder, self.encoder)

    def phases(self) -> Sequence[Phase]:
        """Return the training of both networks, and that of the encoder alone.

        Where pixels are missing, a bound of one draw an image, the ELBO, is followed by one of several: closer to the
        density (Mattei & Frellsen 2019), and so dear that it had led nowhere in the same time from the beginning.
        """
        first = self._phase("decoder and encoder", 1)
        closer = [self._phase("both, importance-weighted", _CLOSER)] if self.lessons.has_holes else []
        return first, *closer, self.guide_phase(self._freeze)

    def _phase(self, name: str, samples: int) -> Phase:
        return Phase(
            name,
            (Player((self.decoder, self.encoder), partial(self._bound_of_seen, samples)),),
            lambda: self.bound(self.vae, self.lessons.validation),
            share=3.0 if samples == 1 else 1.0,
            learning_rate=1e-3 if samples == 1 else 3e-4,
            validation=self.validation,
            batch_size=self.batch_size,
        )

    def _bound_of_seen(self, samples: int, which: Tensor) -> Tensor:
        return self.loss(self.vae, self.batch(which), samples)

    def _freeze(self) -> None:
        """Fit the law of codes, and let the decoder move no more."""
        self.decoder.requires_grad_(False)
        if self.decoder.law_of_codes is None:
            components = min(100, len(self.lessons.train) // _A_COMPONENT)
            if components:
                train = self.lessons.train
                law = fit_law_of_codes(
                    self.encoder, train.images, components, self.streams, masks=train.masks
                )
                self.decoder.law_of_codes = law.to(self.device)

    def parts(self) -> Mapping[str, Any]:
        """Return decoder, encoder, and the law of codes if there is one."""
        law = self.decoder.law_of_codes
        return {**super().parts(), **({} if law is None else {"prior": law})}
