"""The generator of a generative adversarial network as a decoder with a fixed noise for each pixel, in two kinds.

Goodfellow et al. 2014, *Generative Adversarial Nets*, train a network to turn standard normal codes into
images that a second network cannot tell from real ones. Nothing in that game says how far an image is from
what the generator can draw, so the noise is fitted afterwards, to the residuals of held-out images
(``inference.training.noise_of_projections``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from posterior_inpainting.models.networks.decoder import Decoder
from posterior_inpainting.models.networks.fully_connected import FullyConnectedDecoder, RestrictedScale
from posterior_inpainting.models.networks.upsampling import Upsampling
from posterior_inpainting.models.shapes import Code, Image, ImageShape

__all__ = ["ConvolutionalGenerator", "FixedNoise", "Generator"]


class FixedNoise(Decoder):
    """Abstract decoder with one fixed scale for each pixel, which is saved with the weights."""

    pixel_scale: Tensor

    def _begin_with(self, noise: float | Image) -> None:
        weight = next(self.parameters())
        self.register_buffer("pixel_scale", weight.new_empty(self.image_shape))
        self.set_noise(noise)

    def set_noise(self, scale: float | Image) -> None:
        """Set the pixel scale: one value, or one for each pixel ``(channel, row, column)``; saved with the weights.

        Raises
        ------
        ValueError
            If it does not broadcast to the image, or is not positive and finite everywhere.

        >>> Generator(2, (1, 8, 8)).set_noise(0.0)
        Traceback (most recent call last):
        ValueError: the noise has values from 0 to 0; expected positive, finite ones
        """
        value = torch.as_tensor(scale).to(self.pixel_scale)
        try:
            value = value.expand(self.image_shape).clone()
        except RuntimeError:
            raise ValueError(
                f"the noise has shape {tuple(value.shape)}; expected one that broadcasts to {self.image_shape}"
            ) from None
        if not bool(value.isfinite().all()) or float(value.min()) <= 0:
            raise ValueError(
                f"the noise has values from {float(value.min()):g} to {float(value.max()):g}; "
                "expected positive, finite ones"
            )
        self.pixel_scale.copy_(value)


class Generator(FixedNoise, FullyConnectedDecoder):
    r"""Generator :math:`z \mapsto f_\theta(z)` in (0, 1) with one fixed scale for each pixel.

    SiLU layers without batch normalisation: an image never depends on the others of its batch, and the
    density over z has no kinks.

    Parameters
    ----------
    latent
        Length of z, standard normal.
    image_shape
        ``(channel, row, column)`` of what is generated.
    widths
        Units of the hidden layers, first to last.
    noise
        Pixel scale until :meth:`set_noise` gives another, in the image's units.

    Examples
    --------
    >>> generator = Generator(latent=2, image_shape=(1, 8, 8), widths=(16,))
    >>> generator.set_noise(torch.full((1, 8, 8), 0.2))
    >>> mean, scale = generator.mean_and_scale(torch.zeros(5, 2))
    >>> tuple(mean.shape), round(float(scale.mean()), 3)
    ((5, 1, 8, 8), 0.2)
    """

    def __init__(
        self, latent: int, image_shape: ImageShape, widths: Sequence[int] = (256, 512), noise: float = 0.1
    ):
        super().__init__(latent, image_shape, widths)
        self._begin_with(noise)

    def _scale(self, hidden: Tensor) -> Image:
        return self.pixel_scale.expand(*hidden.shape[:-1], *self.image_shape)

    def _restricted_scale(self, pixels: Tensor) -> RestrictedScale:
        fixed = self.pixel_scale.flatten()[pixels]
        return lambda hidden: (fixed, None)


class ConvolutionalGenerator(FixedNoise):
    r"""Generator by transposed convolutions (Radford, Metz & Chintala 2016), without their batch normalisation.

    Parameters
    ----------
    latent, image_shape, channels, widths
        As for ``Upsampling``; z is standard normal.
    noise
        As for :class:`Generator`.

    Examples
    --------
    >>> generator = ConvolutionalGenerator(latent=2, image_shape=(3, 8, 8), channels=(8, 4))
    >>> mean, scale = generator.mean_and_scale(torch.zeros(5, 2))
    >>> tuple(mean.shape), tuple(scale.shape)
    ((5, 3, 8, 8), (5, 3, 8, 8))
    """

    def __init__(
        self,
        latent: int,
        image_shape: ImageShape,
        channels: Sequence[int] = (64, 32),
        widths: Sequence[int] = (256,),
        noise: float = 0.1,
    ):
        super().__init__(latent, image_shape)
        self.channels, self.widths = tuple(channels), tuple(widths)
        self.maps = Upsampling(latent, image_shape, channels, widths, outputs=image_shape[0])
        self._begin_with(noise)

    def configuration(self) -> dict:
        """Return the arguments that make this generator again; the noise is among its weights."""
        return {
            "latent": self.latent,
            "image_shape": self.image_shape,
            "channels": self.channels,
            "widths": self.widths,
        }

    def forward(self, z: Code) -> Image:
        """Return images ``(*batch, channel, row, column)`` in (0, 1) of codes ``(*batch, latent)``."""
        return self.maps(z).sigmoid()

    def mean_and_scale(self, z: Code) -> tuple[Image, Image]:
        """Return images, and the noise of their pixels."""
        mean = self(z)
        return mean, self.pixel_scale.expand(mean.shape)
