r"""One image's code and the decoder's weights, both random, with a latent noise for each unit instead of the weights.

A network with random weights that one image goes through once needs no weights
(:mod:`~posterior_inpainting.models.random_weights.noisy_decoders`): the outputs of a linear layer are independent
normals, given its input, so that a noise for each stands for all weights, and no weight is met twice. This is the local
reparametrisation of Kingma, Salimans & Welling 2015 (equation 6); over a batch it is a device of training, but for
*one* image the law of (z, x) that it gives is that of :math:`\theta \sim q(\theta \mid D)` to the letter, whatever z
is. Kernels of convolutions, which an image meets at every place, keep a noise for each of their few weights. So
p(z, theta | x~, D) is had over z and thousands of numbers where there are a million weights, and the matrices of linear
layers are shared by all chains and images.
"""

from __future__ import annotations

import copy
import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from posterior_inpainting.models.abilities import JointDensity
from posterior_inpainting.models.base import ImageModel, frozen
from posterior_inpainting.models.bayesian_decoder import BayesianDecoder, posterior_scales_of
from posterior_inpainting.models.densities.pixel_density import pixels_of
from posterior_inpainting.models.latent_code import LatentCode
from posterior_inpainting.models.random_weights.noisy_decoders import noisy_decoder
from posterior_inpainting.models.shapes import Code, Image, Mask, seen_part

__all__ = ["CodeAndUnits"]


class CodeAndUnits(ImageModel):
    """Latent sites ``z``, ``units`` (noise of the hidden units, layer by layer), and what the decoder has beside them.

    That is ``pixels`` (of both heads) for a ``MultilayerDecoder``, and ``kernels`` (of the convolutions) for a
    ``ConvolutionalDecoder``. All are standard normal, so that moves which keep N(0, I) keep the prior. Each image of a
    batch has its own weights: posteriors of images that are each alone. The noise of hidden ``pixels`` is independent
    of all that is seen: of a fully connected last layer's weights an image says nothing but where it is seen.

    Parameters
    ----------
    trained
        q(theta | D) of a ``MultilayerDecoder`` with a scale head or of a ``ConvolutionalDecoder``, and the encoder;
        what it learns later is not seen here.

    Attributes
    ----------
    latent, hidden
        Length of ``z`` and of ``units``.
    rest
        Name of the third site.

    Raises
    ------
    ValueError
        For another kind of decoder.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import ConvolutionalDecoder, MaskedEncoder, MultilayerDecoder
    >>> trained = BayesianDecoder(MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,)))
    >>> model = CodeAndUnits(trained)
    >>> model.hidden, tuple(model(torch.rand(5, 1, 8, 8)).shape)  # 16 units and 64 of the scale's bottleneck
    (80, (5, 1, 8, 8))
    >>> decoder = ConvolutionalDecoder(2, (1, 8, 8), channels=(4,), widths=(16,))
    >>> CodeAndUnits(BayesianDecoder(decoder, MaskedEncoder(2, (1, 8, 8), (16,)))).rest
    'kernels'
    """

    takes_measurements = True

    def __init__(self, trained: BayesianDecoder):
        super().__init__()
        decoder = copy.deepcopy(frozen(trained.decoder, "mean"))
        self._noisy = noisy_decoder(decoder, posterior_scales_of(trained.decoder))
        self._mean_network = LatentCode(decoder, encoder=trained.encoder)
        self.encoder = trained.encoder
        self.image_shape = trained.image_shape
        self.latent, self.hidden = trained.latent, frozen(self, "_noisy").hidden
        self.rest: str = frozen(self, "_noisy").rest

    @property
    def mean_network(self) -> LatentCode:
        """The code alone, under the mean weights: all noises 0; its density may have a gradient by hand."""
        return frozen(self, "_mean_network")

    @property
    def guide_is_trained(self) -> bool:
        """Always: the encoder and q(theta | D) are."""
        return True

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw the code and the noises, then the image around the decoding."""
        with self.images_plate(image):
            z = pyro.sample("z", dist.Normal(self._zeros(self.latent), 1.0).to_event(1))
            mean, scale = (v.unflatten(-1, self.image_shape) for v in self.decode(z, *self._noises()))
            return self.observe(self.mean_network.likelihood(mean, scale), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> dict[str, Tensor]:
        """Draw z from the encoder's law and the noises from their prior: no seen pixel moves a weight."""
        shown = seen_part(image, mask, self.image_shape, self._zeros(0))
        with self.images_plate(image):
            z = pyro.sample("z", dist.Normal(*self.encoder(*shown)).to_event(1))
            units, rest = self._noises()
        return {"z": z, "units": units, self.rest: rest}

    def decode(
        self, z: Code, units: Tensor, rest: Tensor, where: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return means and scales ``(*batch, pixel)`` of all pixels, or of those ``where`` says.

        Parameters
        ----------
        z, units, rest
            ``(*batch, latent)``, ``(*batch, hidden)``, and ``(*batch, 2, pixel)`` or ``(*batch, kernel weight)``.
        where
            Indices into the flattened ``(channel, row, column)``.
        """
        return frozen(self, "_noisy")(z, units, rest, where)

    def log_densities(self, image: Image, mask: Mask | None = None) -> UnitsDensity:
        """Return the same numbers as :meth:`forward` scores, evaluated at seen pixels only."""
        return UnitsDensity(self, image, mask)

    def _noises(self) -> tuple[Tensor, Tensor]:
        shape = frozen(self, "_noisy").rest_shape
        units = pyro.sample("units", dist.Normal(self._zeros(self.hidden), 1.0).to_event(1))
        return units, pyro.sample(self.rest, dist.Normal(self._zeros(*shape), 1.0).to_event(len(shape)))

    def _zeros(self, *shape: int) -> Tensor:
        return next(frozen(self, "_noisy").buffers()).new_zeros(shape)


class UnitsDensity(JointDensity):
    """Log prior and log likelihood of a ``CodeAndUnits``, of the pixels that are seen in any of the images.

    Parameters
    ----------
    model
        A ``CodeAndUnits``.
    image, mask
        One image, or a batch ``(image, channel, row, column)``; without a mask everything is seen.
    """

    def __init__(self, model: CodeAndUnits, image: Image, mask: Mask | None = None):
        self.model = model
        self._seen = pixels_of(model.mean_network.likelihood, image, mask)

    def __call__(self, latents: dict[str, Tensor], which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, ``(..., chain)``, differentiable."""
        z, units, rest = latents["z"], latents["units"], latents[self.model.rest]
        mean, scale = self.model.decode(z, units, rest, self._seen.index)
        likelihood = self._seen.log_likelihood(mean, scale, which)
        flat = torch.cat([z, units, rest.flatten(z.dim() - 1)], -1)
        return -0.5 * (flat.square() + math.log(2 * math.pi)).sum(-1), likelihood
