r"""One image's code and the decoder's weights, both random, with a latent noise for each unit instead of the weights.

A network with random weights that one image goes through once needs no weights. Given the input a of a layer, its
outputs under :math:`w_{jk} \sim N(\mu_{jk}, s_{jk}^2)` are independent normals, unit by unit,

.. math:: b_k = \sum_j \mu_{jk} a_j + \Big(\sum_j s_{jk}^2 a_j^2\Big)^{1/2} \epsilon_k, \qquad \epsilon_k \sim N(0, 1),

and no weight is met twice. This is the local reparametrisation of Kingma, Salimans & Welling 2015 (equation 6); over
a batch it is a device of training, but for *one* image the law of (z, x) that it gives is that of :math:`\theta \sim
q(\theta \mid D)` to the letter, whatever z is. So p(z, theta | x~, D) is had over z and a noise for each unit:
thousands of numbers where there are a million weights, and matrices that all chains and images share.
"""

from __future__ import annotations

import copy
import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.abilities import JointDensity
from posterior_inpainting.models.base import ImageModel, frozen
from posterior_inpainting.models.bayesian_decoder import BayesianDecoder
from posterior_inpainting.models.densities.pixel_density import PIXELS
from posterior_inpainting.models.latent_code import LatentCode
from posterior_inpainting.models.networks import MultilayerDecoder
from posterior_inpainting.models.shapes import Code, Image, Mask, seen_part

__all__ = ["CodeAndUnits"]


class CodeAndUnits(ImageModel):
    """Latent sites ``z``, ``units`` (noise of the hidden units, layer by layer) and ``pixels`` (of both heads).

    All are standard normal, so that moves which keep N(0, I) keep the prior. Each image of a batch has its own
    weights: posteriors of images that are each alone. The noise of hidden pixels is independent of all that is
    seen: of the last layer's weights an image says nothing but where it is seen.

    Parameters
    ----------
    trained
        q(theta | D) of a ``MultilayerDecoder`` with a scale head, and the encoder; what it learns later is not
        seen here.

    Attributes
    ----------
    latent, hidden
        Length of ``z`` and of ``units``.

    Raises
    ------
    ValueError
        For another kind of decoder.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MaskedEncoder
    >>> trained = BayesianDecoder(MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,)))
    >>> model = CodeAndUnits(trained)
    >>> model.hidden, tuple(model(torch.rand(5, 1, 8, 8)).shape)  # 16 units and 64 of the scale's bottleneck
    (80, (5, 1, 8, 8))
    """

    def __init__(self, trained: BayesianDecoder):
        super().__init__()
        decoder = frozen(trained.decoder, "mean")
        if not isinstance(decoder, MultilayerDecoder) or decoder.scale_rank is None:
            raise ValueError(
                f"decoder is {type(decoder).__name__}; expected a MultilayerDecoder with a scale head"
            )
        laws = {path: law.scale.detach() for path, law in trained.decoder.posterior().items()}

        def layer(name: str) -> _RandomLinear:
            """Return a layer with its means and variances."""
            means = [decoder.get_parameter(f"{name}.{part}").detach().clone() for part in ("weight", "bias")]
            scales = [laws.get(f"{name}.{part}") for part in ("weight", "bias")]
            zero = (torch.zeros_like(mean) for mean in means)
            return _RandomLinear(
                *means, *(z if s is None else s.square() for s, z in zip(scales, zero, strict=True))
            )

        linear = [name for name, module in decoder.named_modules() if isinstance(module, nn.Linear)]
        self._trunk = nn.ModuleList(layer(name) for name in linear if name.startswith("trunk"))
        self._mean, self._narrow, self._wide = map(layer, ("mean_head", "scale_head.0", "scale_head.1"))
        self._mean_network = LatentCode(copy.deepcopy(decoder), encoder=trained.encoder)
        self._sizes = [len(one.bias) for one in (*self._trunk, self._narrow)]
        self.encoder = trained.encoder
        self.image_shape = trained.image_shape
        self.latent, self.hidden = trained.latent, sum(self._sizes)

    @property
    def mean_network(self) -> LatentCode:
        """The code alone, under the mean weights: all noises 0; its density has a gradient by hand."""
        return frozen(self, "_mean_network")

    @property
    def guide_is_trained(self) -> bool:
        """Always: the encoder and q(theta | D) are."""
        return True

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw the code and the units' noises, then the image around the decoding."""
        zeros = self._zeros
        with self.images_plate(image):
            z = pyro.sample("z", dist.Normal(zeros(self.latent), 1.0).to_event(1))
            units = pyro.sample("units", dist.Normal(zeros(self.hidden), 1.0).to_event(1))
            pixels = pyro.sample(
                "pixels", dist.Normal(zeros(2, math.prod(self.image_shape)), 1.0).to_event(2)
            )
            mean, scale = (v.unflatten(-1, self.image_shape) for v in self.decode(z, units, pixels))
            return self.observe(self.mean_network.likelihood(mean, scale), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> dict[str, Tensor]:
        """Draw z from the encoder's law and the noises from their prior: no seen pixel moves a weight."""
        shown = seen_part(image, mask, self.image_shape, self._zeros(0))
        with self.images_plate(image):
            z = pyro.sample("z", dist.Normal(*self.encoder(*shown)).to_event(1))
            units = pyro.sample("units", dist.Normal(self._zeros(self.hidden), 1.0).to_event(1))
            law = dist.Normal(self._zeros(2, math.prod(self.image_shape)), 1.0)
            return {"z": z, "units": units, "pixels": pyro.sample("pixels", law.to_event(2))}

    def decode(
        self, z: Code, units: Tensor, pixels: Tensor, where: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return means and scales ``(*batch, pixel)`` of all pixels, or of those ``where`` says.

        Parameters
        ----------
        z, units, pixels
            ``(*batch, latent)``, ``(*batch, hidden)``, ``(*batch, 2, pixel)``.
        where
            Indices into the flattened ``(channel, row, column)``.
        """
        *noises, narrow = units.split(self._sizes, -1)
        hidden = z
        trunk, mean_head, narrow_head, wide_head = (
            frozen(self, name) for name in ("_trunk", "_mean", "_narrow", "_wide")
        )
        for layer, noise in zip(trunk, noises, strict=True):
            hidden = F.silu(layer(hidden, noise))
        pixels = pixels if where is None else pixels[..., where]
        decoder = frozen(self.mean_network, "decoder")
        mean = decoder.link(mean_head(hidden, pixels[..., 0, :], where))
        raw = wide_head(narrow_head(hidden, narrow), pixels[..., 1, :], where)
        return mean, decoder.positive(raw)

    def log_densities(self, image: Image, mask: Mask | None = None) -> UnitsDensity:
        """Return the same numbers as :meth:`forward` scores, evaluated at seen pixels only."""
        return UnitsDensity(self, image, mask)

    def _zeros(self, *shape: int) -> Tensor:
        return frozen(self, "_mean").bias.new_zeros(shape)


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
        self._seen = PIXELS[model.mean_network.likelihood](image, mask)

    def __call__(self, latents: dict[str, Tensor], which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, ``(..., chain)``, differentiable."""
        z, units, pixels = latents["z"], latents["units"], latents["pixels"]
        mean, scale = self.model.decode(z, units, pixels, self._seen.index)
        likelihood = self._seen.log_likelihood(mean, scale, which)
        flat = torch.cat([z, units, pixels.flatten(-2)], -1)
        return -0.5 * (flat.square() + math.log(2 * math.pi)).sum(-1), likelihood


class _RandomLinear(nn.Module):
    """A linear layer with random weights, their noise drawn at its units; a variance is 0 where nothing is random."""

    weight: Tensor
    bias: Tensor
    weight_variance: Tensor
    bias_variance: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, weight_variance: Tensor, bias_variance: Tensor):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("weight_variance", weight_variance)
        self.register_buffer("bias_variance", bias_variance)

    def forward(self, inputs: Tensor, noise: Tensor, where: Tensor | None = None) -> Tensor:
        """Return the layer's units: their means and the noise of its weights."""
        parts = self.weight, self.bias, self.weight_variance, self.bias_variance
        weight, bias, weight_variance, bias_variance = (p if where is None else p[where] for p in parts)
        # The root of the variance has no slope at 0.
        variance = F.linear(inputs.square(), weight_variance, bias_variance) + 1e-20
        return F.linear(inputs, weight, bias) + variance.sqrt() * noise
