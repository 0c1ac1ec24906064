"""Convolutional decoder, for images of 28 to 128 pixels a side, grey or in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from posterior_inpainting.models.networks.decoder import Decoder
from posterior_inpainting.models.networks.fully_connected import link_of
from posterior_inpainting.models.networks.upsampling import Upsampling
from posterior_inpainting.models.shapes import Code, Image, ImageShape

__all__ = ["ConvolutionalDecoder"]


class ConvolutionalDecoder(Decoder):
    r"""Decoder :math:`z \mapsto (f_\theta(z), \sigma_\theta(z))` of pixel means and pixel scales, by convolutions.

    As ``MultilayerDecoder``, whose last layers alone have as many weights as pixels times units. At 28 x 28 grey pixels
    the gradient of the default costs about as much as that of the bundled fully connected decoder.

    Parameters
    ----------
    latent, image_shape, channels, widths
        As for ``Upsampling``.
    floor
        Smallest pixel scale, in the image's units.
    likelihood
        ``"normal"``, or ``"censored_normal"`` for pixels that are exactly 0 or 1.
    scale_factor
        What scales are multiplied by; see ``MultilayerDecoder``.

    Raises
    ------
    ValueError
        For another likelihood, or a factor that is not positive.

    Examples
    --------
    >>> decoder = ConvolutionalDecoder(latent=2, image_shape=(3, 8, 8), channels=(8, 4), widths=(16,))
    >>> mean, scale = decoder.mean_and_scale(torch.zeros(5, 2))
    >>> tuple(mean.shape), bool((scale >= decoder.floor).all())
    ((5, 3, 8, 8), True)
    """

    def __init__(
        self,
        latent: int,
        image_shape: ImageShape,
        channels: Sequence[int] = (64, 32),
        widths: Sequence[int] = (256,),
        floor: float = 0.03,
        likelihood: str = "normal",
        scale_factor: float = 1.0,
    ):
        super().__init__(latent, image_shape)
        link_of(likelihood)
        if not scale_factor > 0:
            raise ValueError(f"scale_factor={scale_factor}; expected a positive number")
        self.channels, self.widths = tuple(channels), tuple(widths)
        self.floor, self.likelihood, self.scale_factor = floor, likelihood, scale_factor
        self.maps = Upsampling(latent, image_shape, channels, widths, outputs=2 * image_shape[0])
        last: Any = self.maps.convolutions[-1]
        with torch.no_grad():
            # A tenth of the grey scale is what a decoder begins by being unsure of.
            last.bias[image_shape[0] :] = -2.25

    def configuration(self) -> dict:
        """Return the arguments that make this decoder again, as they are stored beside its weights."""
        return {
            "latent": self.latent,
            "image_shape": self.image_shape,
            "channels": self.channels,
            "widths": self.widths,
            "floor": self.floor,
            "likelihood": self.likelihood,
            "scale_factor": self.scale_factor,
        }

    def forward(self, z: Code) -> Image:
        """Return pixel means ``(*batch, channel, row, column)`` of codes ``(*batch, latent)``."""
        return link_of(self.likelihood)(self.maps(z)[..., : self.image_shape[0], :, :])

    def scale(self, z: Code) -> Tensor:
        """Return pixel scales ``(*batch, channel, row, column)`` of codes ``(*batch, latent)``."""
        return self.mean_and_scale(z)[1]

    def mean_and_scale(self, z: Code) -> tuple[Image, Image]:
        """Return means and scales, which share all layers."""
        return self.of_maps(self.maps(z))

    def of_maps(self, maps: Tensor) -> tuple[Image, Image]:
        """Return means and scales of the last maps ``(*batch, 2 * channel, row, column)``."""
        mean, raw = maps.chunk(2, -3)
        return link_of(self.likelihood)(mean), self.scale_factor * (self.floor + F.softplus(raw))
