r"""The last layer of a decoder as linear regressions: one table of inputs for all its outputs, weights for each.

With the layers below as they are, what the last one says before the link is :math:`o_{rg} = w_g^\top \phi_r`: output g
of a fully connected layer is a pixel and row r an image; of a convolution, output g is a channel and row r a pixel of
an image, with the maps under its kernel as inputs. A 1 for the bias comes last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.networks.convolutional_decoder import ConvolutionalDecoder
from posterior_inpainting.models.networks.fully_connected import FullyConnectedDecoder
from posterior_inpainting.models.random_weights.given_weights import Weights
from posterior_inpainting.models.shapes import Code, Image

__all__ = ["LastConvolution", "LastLayer", "MeanHead", "last_layer_of"]


class LastLayer(ABC):
    """Abstract last layer, of the pixel means alone: weights of the scales are never in its tables.

    Attributes
    ----------
    paths
        Of weight and bias, in the decoder.
    rows
        Rows of an image.
    """

    paths: tuple[str, str]
    rows: int

    @abstractmethod
    def inputs(self, z: Code) -> Tensor:
        """Return the inputs ``(row, feature)`` of codes ``(image, latent)``, the rows of an image together."""

    @abstractmethod
    def arrange(self, values: Image) -> Tensor:
        """Return values ``(image, channel, row, column)`` of the pixels as ``(row, output)``."""

    @abstractmethod
    def table(self, values: Weights) -> Tensor:
        """Return values of every weight, path -> ``shape``, as ``(output, feature)``."""

    @abstractmethod
    def weights(self, table: Tensor) -> Weights:
        """Return tables ``(*draws, output, feature)`` as path -> ``(*draws, *shape)``."""


class MeanHead(LastLayer):
    """Last layer of a fully connected decoder, such as ``MultilayerDecoder``: an output is a pixel.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MultilayerDecoder
    >>> tuple(MeanHead(MultilayerDecoder(2, (1, 8, 8), (16,))).inputs(torch.zeros(5, 2)).shape)
    (5, 17)
    """

    paths = ("mean_head.weight", "mean_head.bias")
    rows = 1

    def __init__(self, decoder: FullyConnectedDecoder):
        self.decoder = decoder

    def inputs(self, z: Code) -> Tensor:
        """Return the last hidden units and a 1: ``(image, unit + 1)``."""
        return _with_one(self.decoder.trunk(z))

    def arrange(self, values: Image) -> Tensor:
        """Return ``(image, pixel)``."""
        return values.flatten(1)

    def table(self, values: Weights) -> Tensor:
        """Return ``(pixel, unit + 1)``."""
        weight, bias = (values[path] for path in self.paths)
        return torch.cat([weight, bias[:, None]], 1)

    def weights(self, table: Tensor) -> Weights:
        """Return the weights of tables ``(*draws, pixel, unit + 1)``."""
        return dict(zip(self.paths, (table[..., :-1], table[..., -1]), strict=True))


class LastConvolution(LastLayer):
    """Last layer of a ``ConvolutionalDecoder``: an output is a channel, and an image has a row for each pixel.

    Examples
    --------
    >>> layer = LastConvolution(ConvolutionalDecoder(2, (3, 8, 8), channels=(8, 4), widths=(16,)))
    >>> tuple(layer.inputs(torch.zeros(5, 2)).shape)  # 4 maps of 4 x 4 under the kernel
    (320, 65)
    """

    def __init__(self, decoder: ConvolutionalDecoder):
        self.decoder = decoder
        maps = decoder.maps
        self.layer: Any = maps.convolutions[-1]
        path = f"maps.convolutions.{len(maps.convolutions) - 1}"
        self.paths = (f"{path}.weight", f"{path}.bias")
        self.channels = decoder.image_shape[0]
        self.rows = decoder.image_shape[1] * decoder.image_shape[2]

    def inputs(self, z: Code) -> Tensor:
        """Return what each weight is multiplied by, pixel by pixel, and a 1: ``(image * pixel, weight + 1)``."""
        maps, weight = self.decoder.maps, self.layer.weight
        below: Tensor = maps.convolutions[:-1](maps.trunk(z).reshape(-1, *maps.first))
        taps = weight[0, 0].numel()
        # A kernel for each tap, which says what alone it would say.
        kernels = torch.eye(taps, dtype=weight.dtype, device=weight.device).reshape(
            1, taps, *weight.shape[2:]
        )
        spread = F.conv_transpose2d(
            below,
            kernels.expand(len(weight), -1, -1, -1),
            stride=self.layer.stride,
            padding=self.layer.padding,
            groups=len(weight),
        )[..., : maps.size[0], : maps.size[1]]
        return _with_one(spread.movedim(1, -1).flatten(0, 2))

    def arrange(self, values: Image) -> Tensor:
        """Return ``(image * pixel, channel)``."""
        return values.movedim(1, -1).flatten(0, 2)

    def table(self, values: Weights) -> Tensor:
        """Return ``(channel, weight + 1)``."""
        weight, bias = (values[path] for path in self.paths)
        means = weight[:, : self.channels].movedim(1, 0).flatten(1)
        return torch.cat([means, bias[: self.channels, None]], 1)

    def weights(self, table: Tensor) -> Weights:
        """Return the weights of tables ``(*draws, channel, weight + 1)``; those of the scales as they are."""
        made = []
        for whole, axis, means in (
            (self.layer.weight, 1, self._kernels(table[..., :-1])),
            (self.layer.bias, 0, table[..., -1]),
        ):
            draws = table.shape[:-2]
            scales = whole.detach().narrow(axis, self.channels, whole.shape[axis] - self.channels)
            made.append(torch.cat([means, scales.expand(*draws, *scales.shape)], len(draws) + axis))
        return dict(zip(self.paths, made, strict=True))

    def _kernels(self, flat: Tensor) -> Tensor:
        shape = self.layer.weight.shape
        return flat.reshape(*flat.shape[:-1], shape[0], *shape[2:]).movedim(-4, -3)


def last_layer_of(decoder: nn.Module) -> LastLayer:
    """Return the last layer of a decoder.

    Raises
    ------
    ValueError
        For a decoder that is neither fully connected nor a ``ConvolutionalDecoder``.

    >>> last_layer_of(nn.Linear(2, 3))
    Traceback (most recent call last):
    ValueError: Linear is the decoder; expected a MultilayerDecoder, a Generator or a ConvolutionalDecoder
    """
    if isinstance(decoder, FullyConnectedDecoder):
        return MeanHead(decoder)
    if isinstance(decoder, ConvolutionalDecoder):
        return LastConvolution(decoder)
    raise ValueError(
        f"{type(decoder).__name__} is the decoder; expected a MultilayerDecoder, a Generator or a ConvolutionalDecoder"
    )


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, features.new_ones(len(features), 1)], 1)
