r"""Variational autoencoder: the model/guide pair that trains a decoder from many images.

Kingma & Welling 2014, *Auto-Encoding Variational Bayes*, equation 3; the pixel scale is learnt as in
Rybkin et al. 2021, here as a function of the code. With code z, image x, weights theta and phi:

.. math:: z \sim N(0, I), \qquad x_i \mid z \sim N(f_\theta(z)_i, \sigma_\theta(z)_i^2), \qquad
          q_\phi(z \mid x, M) = N(\mu_\phi, \mathrm{diag}\, s_\phi^2)
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor

from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.likelihoods import likelihood_of
from posterior_inpainting.models.shapes import Image, Mask, seen_part

__all__ = ["VariationalAutoencoder"]


class VariationalAutoencoder(ImageModel):
    """Decoder and encoder with weights to be trained; ``z`` is random for each image.

    Train it with ``train(vae, vae.guide, images)``; then ``LatentCode(vae.decoder, encoder=vae.encoder)``
    freezes the decoder and completes images.

    Parameters
    ----------
    decoder
        Module from z ``(*batch, latent)`` to means and scales (``mean_and_scale``), with ``latent`` and
        ``image_shape``; see :class:`~posterior_inpainting.models.networks.MultilayerDecoder`.
    encoder
        Module from image and mask to location and scale of ``q(z | x~)``; see
        :class:`~posterior_inpainting.models.networks.MaskedEncoder`.

    Examples
    --------
    >>> import torch
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> vae = VariationalAutoencoder(MultilayerDecoder(2, (1, 8, 8)), MaskedEncoder(2, (1, 8, 8)))
    >>> tuple(vae(torch.rand(5, 1, 8, 8)).shape), tuple(vae.guide(torch.rand(5, 1, 8, 8)).shape)
    ((5, 1, 8, 8), (5, 2))
    """

    takes_measurements = True

    def __init__(self, decoder: Any, encoder: Any):
        super().__init__()
        self.decoder = decoder
        self.encoder = encoder
        self.image_shape = tuple(decoder.image_shape)

    @property
    def guide_is_trained(self) -> bool:
        """Always: the encoder is."""
        return True

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw z from its prior, then the image around its decoding."""
        decoder = self.decoder
        origin = next(decoder.parameters()).new_zeros(decoder.latent)
        with self.images_plate(image):
            z = pyro.sample("z", dist.Normal(origin, 1.0).to_event(1))
            return self.observe(likelihood_of(decoder)(*decoder.mean_and_scale(z)), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Tensor:
        """Draw z from the encoder's law given the seen pixels."""
        shown = seen_part(image, mask, self.image_shape, next(self.encoder.parameters()))
        with self.images_plate(image):
            return pyro.sample("z", dist.Normal(*self.encoder(*shown)).to_event(1))
