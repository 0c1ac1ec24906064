"""Generative adversarial networks from images with or without holes: the game, the noise of pixels, then the guide.

Missing pixels are dealt with as in Bora, Price & Dimakis 2018, *AmbientGAN*: generated images are put behind the masks
of real ones before the discriminator sees either, so that it can tell them apart by what is seen alone. A generator
that it cannot tell from them makes whole images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from posterior_inpainting.inference.evaluation.quality_of_samples import frechet_distance
from posterior_inpainting.inference.learning.latent_learner import LatentLearner, channels_for, encoder_for
from posterior_inpainting.inference.learning.lessons import Lessons, Part
from posterior_inpainting.inference.learning.phases import Phase, Player
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.adversarial_losses import R1, r1_penalty
from posterior_inpainting.inference.training.noise_of_projections import Projection, fit_noise
from posterior_inpainting.models.networks import ConvolutionalGenerator, Discriminator, Generator
from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["AdversarialLearner", "players_for"]

#: The game's rule; the penalty is that of a part of each minibatch, which is cheaper and nearly as good.
_RULE, _PENALISED = R1(penalty=0.1), 1 / 4
#: Generated images that are compared with validation images, and principal components in which they are.
_COMPARED, _COMPONENTS = 1000, 50
#: Pixels of validation images that are projected for the noise of pixels, and how.
_PROJECTED, _SEARCH, _ROUNDS = 100_000, Projection(restarts=2, steps=150), 3
#: Where there are fewer validation images, training images stand for them.
_LEAST = 20
#: Projected images from which each pixel has a noise of its own.
_EACH_PIXEL = 50


def players_for(shape: ImageShape, latent: int) -> tuple[nn.Module, nn.Module]:
    """Return an untrained generator and discriminator that suit images of a shape.

    Parameters
    ----------
    shape
        ``(channel, row, column)``.
    latent
        Length of the code.

    >>> generator, discriminator = players_for((3, 64, 64), latent=32)
    >>> generator.channels, discriminator.channels
    ((96, 64, 32), (32, 64, 96))
    """
    channels = channels_for(shape)
    if not channels:
        return Generator(latent, shape, (256, 256)), Discriminator(shape, (), (256, 256))
    return ConvolutionalGenerator(latent, shape, channels, (256,)), Discriminator(
        shape, channels[::-1], (256,)
    )


class AdversarialLearner(LatentLearner):
    """Learner of ``gan``: generator against discriminator, the noise of held-out images, then q(z | x~).

    Parameters
    ----------
    lessons, streams
        As for ``Learner``.
    latent
        Length of the code; 64 if not given, fewer for fewer images.

    Examples
    --------
    >>> from posterior_inpainting.models.images.collection import collected
    >>> lessons = Lessons.of(collected(torch.rand(40, 1, 8, 8)), Streams(0), "cpu")
    >>> learner = AdversarialLearner(lessons, Streams(0))
    >>> [phase.name for phase in learner.phases()], sorted(learner.parts())
    (['generator against discriminator', 'guide behind masks'], ['decoder', 'discriminator', 'encoder'])
    """

    kind: ClassVar[str] = "gan"
    about: ClassVar[str] = (
        "The generator of a GAN as a decoder f(z) with one fixed noise a pixel, its discriminator, and a masked-input "
        "encoder q(z | x~)."
    )

    def __init__(self, lessons: Lessons, streams: Streams, latent: int | None = None):
        super().__init__(lessons, streams, latent or max(8, min(64, len(lessons.train) // 20)))
        with streams.seeded("networks"):
            networks = *players_for(lessons.shape, self.latent), encoder_for(lessons.shape, self.latent)
        self.decoder, self.discriminator, self.encoder = (one.to(self.device) for one in networks)
        # Moments and noise of a handful of images would be worth nothing.
        self._held_out = lessons.validation if len(lessons.validation) >= _LEAST else lessons.train
        some = lessons.train.of(slice(_COMPARED))
        self._axes = _principal_axes(_shown(some.images, some))

    def phases(self) -> Sequence[Phase]:
        """Return the game, and the training of the encoder, before which the noise is fitted."""
        return (
            Phase(
                "generator against discriminator",
                (
                    Player((self.discriminator,), self._loss_of_discriminator, betas=(0.0, 0.99)),
                    Player((self.decoder,), self._loss_of_generator, betas=(0.0, 0.99)),
                ),
                self._likeness,
                share=4.0,
                learning_rate=2e-3,
                batch_size=64,
                averaging=0.999,
                validation=_COMPARED,
                patience=15,
            ),
            self.guide_phase(self._fit_noise),
        )

    def _loss_of_discriminator(self, which: Tensor) -> Tensor:
        real = self.batch(which)
        with torch.no_grad():
            drawn = self._drawn(len(which))
        value = _RULE.discriminator(self._judged(real.images, real), self._judged(drawn, real))
        few = real.of(slice(max(1, round(_PENALISED * len(which)))))
        return value + _RULE.penalty * r1_penalty(lambda images: self._judged(images, few), few.images)

    def _loss_of_generator(self, which: Tensor) -> Tensor:
        return _RULE.generator(self._judged(self._drawn(len(which)), self.batch(which)))

    def _judged(self, images: Image, like: Part) -> Tensor:
        return self.discriminator(_shown(images, like))

    def _drawn(self, count: int) -> Image:
        return self.decoder(torch.randn(count, self.latent, device=self.device))

    def _likeness(self) -> float:
        """Return minus the Frechet distance of generated to validation images, behind the same masks."""
        part = self._held_out
        with torch.no_grad(), self.streams.seeded("validation"):
            drawn = self._drawn(_COMPARED)
            like = part.of(torch.arange(_COMPARED, device=self.device) % len(part))
            real, made = (
                (_shown(*pair).flatten(1) @ self._axes).cpu() for pair in ((part.images, part), (drawn, like))
            )
        return -frechet_distance(real, made, _COMPONENTS)

    def _fit_noise(self) -> None:
        """Fit the noise to what is left of validation images once they are projected, and freeze the generator."""
        count = max(32, _PROJECTED // self._held_out.images[0].numel())
        part = self._held_out.of(slice(count))
        fit_noise(
            self.decoder,
            part.images,
            masks=part.masks,
            per_pixel=len(part) >= _EACH_PIXEL,
            rounds=_ROUNDS,
            progress=False,
            search=_SEARCH,
        )

    def parts(self) -> Mapping[str, Any]:
        """Return decoder, encoder and discriminator."""
        return {**super().parts(), "discriminator": self.discriminator}


def _shown(images: Image, like: Part) -> Image:
    """Return images behind masks; grey stands for hidden, where 0 may well be the background."""
    return images if like.masks is None else torch.where(like.masks, images, 0.5)


def _principal_axes(images: Image) -> Tensor:
    """Return the first principal axes of images, ``(pixel, component)``."""
    centred = (images - images.mean(0)).flatten(1).cpu()
    axes = torch.linalg.svd(centred @ centred.T).U[:, :_COMPONENTS]
    return torch.linalg.qr(centred.T @ axes).Q.to(images.device)
