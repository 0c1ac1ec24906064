r"""`FewStepDecoder`: a denoiser as the decoder of a code, by a few deterministic steps from noise to image.

Song, Meng & Ermon 2021, *Denoising Diffusion Implicit Models*: without noise between the steps the reverse diffusion is
a map from the noise that it begins with,

.. math:: x_T = c + \sqrt{t_T^2 + d^2}\, z, \qquad
          x_s = D(x_t, t) + \frac{s}{t} \big( x_t - D(x_t, t) \big), \qquad f(z) = x_0,

and z a code with a standard normal prior. ``LatentCode(FewStepDecoder(...))`` has a density with a gradient, so that
ChEES and every other gradient-based method draws from its posterior: a route to the posterior of the same network that
shares nothing with the samplers that denoise. Its law is that of the map in so many steps, which is another one than
that of the chain with noise.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.models.densities.reverse_diffusion import noise_levels
from posterior_inpainting.models.diffusion.diffusion_prior import check_denoiser
from posterior_inpainting.models.networks.decoder import Decoder
from posterior_inpainting.models.shapes import Code, Image, ImageShape, check_shape

__all__ = ["FewStepDecoder"]


class FewStepDecoder(Decoder):
    """Decoder z -> image whose code is as long as the image has values.

    Parameters
    ----------
    denoiser
        ``Denoiser``, or a network that is called as it is and has its ``centre``, ``spread`` and ``channels``.
    image_shape
        ``(channel, row, column)``.
    steps
        Evaluations of the denoiser; a gradient costs as many forward and backward.
    noise
        Standard deviation of a pixel around the image.
    highest, lowest
        As for ``DiffusionPrior``.

    Raises
    ------
    ValueError
        For no step, noise that is not positive, levels out of order, or a network of other channels.

    Examples
    --------
    >>> from posterior_inpainting.models import LatentCode
    >>> from posterior_inpainting.models.networks import Denoiser
    >>> decoder = FewStepDecoder(Denoiser(features=(8, 16)), (1, 8, 8), steps=3)
    >>> model = LatentCode(decoder)
    >>> decoder.latent, tuple(model().shape)
    (64, (1, 8, 8))
    """

    levels: Tensor

    def __init__(
        self,
        denoiser: Any,
        image_shape: ImageShape,
        *,
        steps: int = 5,
        noise: float = 0.05,
        highest: float = 10.0,
        lowest: float = 0.01,
    ):
        super().__init__(math.prod(check_shape(image_shape)), image_shape)
        check_denoiser(denoiser, self.image_shape, noise)
        self.denoiser, self.noise = denoiser, noise
        self.register_buffer("levels", noise_levels(steps, highest, lowest), persistent=False)

    def forward(self, z: Code) -> Image:
        """Return the image at the end of the steps."""
        denoiser = self.denoiser
        start = torch.sqrt(self.levels[0].square() + denoiser.spread**2)
        x = denoiser.centre + start * z.unflatten(-1, self.image_shape)
        for level, following in itertools.pairwise(self.levels):
            mean, _ = denoiser(x, level)
            x = mean + following / level * (x - mean)
        return x

    def mean_and_scale(self, z: Code) -> tuple[Image, Image]:
        """Return the image, and the noise around it."""
        mean = self(z)
        return mean, mean.new_tensor(self.noise)
