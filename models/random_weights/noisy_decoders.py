r"""Decoders under random weights for one image at a time: a noise for each unit of a linear layer instead of weights.

Given the input a of a layer, its outputs under :math:`w_{jk} \sim N(\mu_{jk}, s_{jk}^2)` are independent normals,

.. math:: b_k = \sum_j \mu_{jk} a_j + \Big(\sum_j s_{jk}^2 a_j^2\Big)^{1/2} \epsilon_k, \qquad \epsilon_k \sim N(0, 1)

(Kingma, Salimans & Welling 2015, equation 6). A convolution meets its kernel at every place, so that its outputs are
not independent: there the noise is that of the kernel's own weights, :math:`w = \mu + s \epsilon`, of which there are
few. Both are the law of :math:`\theta \sim q(\theta \mid D)` to the letter, since the image goes through once.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.networks import ConvolutionalDecoder, MultilayerDecoder
from posterior_inpainting.models.random_weights.given_weights import Weights
from posterior_inpainting.models.shapes import Code

__all__ = ["NoisyConvolutional", "NoisyDecoder", "NoisyMultilayer", "noisy_decoder"]


class NoisyDecoder(nn.Module):
    """Abstract decoder of codes and noises; it keeps means and variances of weights, of which nothing is trained.

    Parameters
    ----------
    decoder
        Where weights have their means; it says what last layers mean.

    Attributes
    ----------
    hidden
        Number of noises of hidden units.
    rest
        Name of the other noises.
    rest_shape
        Their shape.
    """

    hidden: int
    rest: str
    rest_shape: tuple[int, ...]

    def __init__(self, decoder: Any):
        super().__init__()
        self.decoder = decoder

    @abstractmethod
    def forward(
        self, z: Code, units: Tensor, rest: Tensor, where: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return means and scales ``(*batch, pixel)`` of all pixels, or of those ``where`` says.

        Parameters
        ----------
        z, units, rest
            ``(*batch, latent)``, ``(*batch, hidden)``, ``(*batch, *rest_shape)``.
        where
            Indices into the flattened ``(channel, row, column)``.
        """


def noisy_decoder(decoder: nn.Module, scales: Weights) -> NoisyDecoder:
    """Return a decoder with a noise for each unit, or kernel weight.

    Parameters
    ----------
    decoder
        A ``MultilayerDecoder`` with a scale head or a ``ConvolutionalDecoder``, at the means of the weights.
    scales
        Path -> standard deviations of the random weights.

    Raises
    ------
    ValueError
        For another kind of decoder.

    Examples
    --------
    >>> decoder = ConvolutionalDecoder(2, (1, 8, 8), channels=(4,), widths=(16,))
    >>> scales = {path: torch.full_like(p, 0.1) for path, p in decoder.named_parameters()}
    >>> noisy = noisy_decoder(decoder, scales)
    >>> noisy.hidden, noisy.rest_shape  # 16 units and a map of 4 x 4 x 4; 4 x 2 kernels of 4 x 4 and 2 biases
    (80, (130,))
    """
    if isinstance(decoder, MultilayerDecoder) and decoder.scale_rank is not None:
        return NoisyMultilayer(decoder, scales)
    if isinstance(decoder, ConvolutionalDecoder):
        return NoisyConvolutional(decoder, scales)
    raise ValueError(
        f"decoder is {type(decoder).__name__}; expected a MultilayerDecoder with a scale head or a ConvolutionalDecoder"
    )


class NoisyMultilayer(NoisyDecoder):
    """A ``MultilayerDecoder``: noises of hidden units, layer by layer, and ``pixels`` of both heads, ``(2, pixel)``.

    Parameters
    ----------
    decoder, scales
        As for :func:`noisy_decoder`.
    """

    rest = "pixels"

    def __init__(self, decoder: MultilayerDecoder, scales: Weights):
        super().__init__(decoder)
        self._trunk = _trunk(decoder, "trunk", scales)
        self._mean, self._narrow, self._wide = (
            _NoisyLinear(decoder, name, scales) for name in ("mean_head", "scale_head.0", "scale_head.1")
        )
        self._sizes = [layer.units for layer in (*self._trunk, self._narrow)]
        self.hidden, self.rest_shape = sum(self._sizes), (2, math.prod(decoder.image_shape))

    def forward(
        self, z: Code, units: Tensor, rest: Tensor, where: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return means and scales of pixels."""
        *noises, narrow = units.split(self._sizes, -1)
        hidden = _through(self._trunk, z, noises)
        rest = rest if where is None else rest[..., where]
        mean = self.decoder.link(self._mean(hidden, rest[..., 0, :], where))
        return mean, self.decoder.positive(self._wide(self._narrow(hidden, narrow), rest[..., 1, :], where))


class NoisyConvolutional(NoisyDecoder):
    """A ``ConvolutionalDecoder``: noises of the units before the first map, and ``kernels``, weights and biases.

    Parameters
    ----------
    decoder, scales
        As for :func:`noisy_decoder`.
    """

    rest = "kernels"

    def __init__(self, decoder: ConvolutionalDecoder, scales: Weights):
        super().__init__(decoder)
        maps = decoder.maps
        self._trunk = _trunk(decoder, "maps.trunk", scales)
        self._sizes = [layer.units for layer in self._trunk]
        self._first, self._side = maps.first, maps.size
        paths = [
            f"maps.convolutions.{index}.{part}"
            for index, layer in enumerate(maps.convolutions)
            if isinstance(layer, nn.ConvTranspose2d)
            for part in ("weight", "bias")
        ]
        for index, path in enumerate(paths):
            mean, scale = _moments(decoder, path, scales)
            self.register_buffer(f"mean_{index}", mean)
            self.register_buffer(f"scale_{index}", scale)
        self._kernels = [decoder.get_parameter(path).shape for path in paths]
        self.hidden, self.rest_shape = sum(self._sizes), (sum(shape.numel() for shape in self._kernels),)

    def forward(
        self, z: Code, units: Tensor, rest: Tensor, where: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return means and scales of pixels."""
        batch = torch.broadcast_shapes(z.shape[:-1], units.shape[:-1], rest.shape[:-1])
        hidden = _through(self._trunk, z, units.split(self._sizes, -1))
        maps = hidden.expand(*batch, -1).reshape(-1, *self._first)
        kernels = self._drawn(rest.expand(*batch, -1).reshape(len(maps), -1))
        for index in range(0, len(kernels), 2):
            maps = _convolved(maps if index == 0 else F.silu(maps), *kernels[index : index + 2])
        rows, columns = self._side
        laws = self.decoder.of_maps(maps[..., :rows, :columns])
        mean, scale = (value.reshape(*batch, -1) for value in laws)
        return (mean, scale) if where is None else (mean[..., where], scale[..., where])

    def _drawn(self, noises: Tensor) -> list[Tensor]:
        """Return the kernels and biases, ``(image, *shape)`` each, of noises ``(image, rest)``."""
        buffers = dict(self.named_buffers(recurse=False))
        pieces = noises.split([shape.numel() for shape in self._kernels], -1)
        return [
            buffers[f"mean_{index}"] + buffers[f"scale_{index}"] * piece.reshape(-1, *shape)
            for index, (piece, shape) in enumerate(zip(pieces, self._kernels, strict=True))
        ]


class _NoisyLinear(nn.Module):
    """A linear layer with random weights, their noise drawn at its units; a variance is 0 where nothing is random."""

    weight: Tensor
    bias: Tensor
    weight_variance: Tensor
    bias_variance: Tensor

    def __init__(self, decoder: nn.Module, name: str, scales: Weights):
        super().__init__()
        for part in ("weight", "bias"):
            mean, scale = _moments(decoder, f"{name}.{part}", scales)
            self.register_buffer(part, mean)
            self.register_buffer(f"{part}_variance", scale.square())
        self.units = len(self.bias)

    def forward(self, inputs: Tensor, noise: Tensor, where: Tensor | None = None) -> Tensor:
        """Return the layer's units: their means and the noise of its weights."""
        parts = self.weight, self.bias, self.weight_variance, self.bias_variance
        weight, bias, weight_variance, bias_variance = (p if where is None else p[where] for p in parts)
        # The root of the variance has no slope at 0.
        variance = F.linear(inputs.square(), weight_variance, bias_variance) + 1e-20
        return F.linear(inputs, weight, bias) + variance.sqrt() * noise


def _moments(decoder: nn.Module, path: str, scales: Weights) -> tuple[Tensor, Tensor]:
    """Return copies of a parameter and of its standard deviations, which are 0 where it is not random."""
    mean = decoder.get_parameter(path).detach().clone()
    return mean, scales[path].detach().clone() if path in scales else torch.zeros_like(mean)


def _trunk(decoder: nn.Module, name: str, scales: Weights) -> Any:
    linear = [p for p, module in decoder.named_modules() if isinstance(module, nn.Linear)]
    return nn.ModuleList(_NoisyLinear(decoder, p, scales) for p in linear if p.startswith(f"{name}."))


def _through(trunk: Any, z: Code, noises: Any) -> Tensor:
    for layer, noise in zip(trunk, noises, strict=True):
        z = F.silu(layer(z, noise))
    return z


def _convolved(maps: Tensor, kernels: Tensor, biases: Tensor) -> Tensor:
    """Double the sides of maps ``(image, channel, row, column)``, each by a kernel of its own."""
    count, channels, *sides = maps.shape
    grouped = maps.reshape(1, count * channels, *sides)
    made = F.conv_transpose2d(grouped, kernels.flatten(0, 1), stride=2, padding=1, groups=count)
    return made.reshape(count, -1, *made.shape[2:]) + biases[..., None, None]
