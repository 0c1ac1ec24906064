"""A gated PixelCNN evaluated row by row and pixel by pixel, each feature once.

The vertical stack of a row depends on the rows above alone: it is computed for the whole row once those are known.
The horizontal stack of a pixel depends on that and on what is to its left: it is computed for one pixel, or for a run
of known ones. A pixel then costs the same in an image of any size, where the whole network costs all pixels each time.
(Ramachandran et al. 2017, *Fast Generation for Convolutional Autoregressive Models*, cache in the same spirit.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN, gate
from posterior_inpainting.models.shapes import Code, Image

__all__ = ["IncrementalPixelCNN"]


class IncrementalPixelCNN:
    """What a network has computed so far for ``count`` images that are being filled in raster order.

    Parameters
    ----------
    network
        The network; its weights must not change meanwhile.
    count
        Images at once.
    code
        Conditioning codes ``(count, code)``, for a network that takes one.

    Examples
    --------
    >>> network = GatedPixelCNN((1, 4, 4), outputs=2, features=4, layers=2)
    >>> image = torch.rand(3, 1, 4, 4)
    >>> filling = IncrementalPixelCNN(network, count=3)
    >>> with torch.no_grad():
    ...     for row in range(3):
    ...         filling.begin_row(image, row)
    ...     found = filling.advance(image, stop=2)
    ...     bool((found - network(image)[:, :, 2, 1]).abs().max() < 1e-5)
    True
    """

    def __init__(self, network: GatedPixelCNN, count: int, code: Code | None = None):
        self.network: Any = network  # torch's own annotations do not know what a module list holds
        self.count = count
        self.code_biases: Any = network.biases(code)
        self.row = self.column = -1
        width = network.image_shape[-1]
        layers: Any = network.layers
        weights = [layer.vertical.weight for layer in layers]
        empty = weights[0].new_zeros
        self.above = [
            empty(count, weight.shape[1], weight.shape[2], width + weight.shape[3] - 1) for weight in weights
        ]
        self.left: list[Tensor] = []
        self.links: list[Tensor] = []

    def begin_row(self, image: Image, row: int) -> None:
        """Compute the vertical stack of ``row``; rows come one by one from 0, those above must be known.

        Parameters
        ----------
        image
            ``(count, channel, row, column)`` in [0, 1], of which only the row above is read.
        row
            The next row.
        """
        if row != self.row + 1:
            raise ValueError(f"row={row}; expected row {self.row + 1}, the one after the last")
        network, width = self.network, self.network.image_shape[-1]
        self.row, self.column = row, 0
        self.left = []
        self.links = []
        features = 2 * image[:, :, row - 1] - 1 if row else torch.zeros_like(image[:, :, 0])
        for i, (layer, (bias, _)) in enumerate(zip(network.layers, self.code_biases, strict=True)):
            window = self.above[i].roll(-1, dims=2)
            beside = layer.vertical.beside
            window[:, :, -1, beside : beside + width] = features
            self.above[i] = window
            rows = F.conv2d(window, layer.vertical.weight, layer.vertical.bias)
            if bias is not None:
                rows = rows + (bias if bias.shape[-2] == 1 else bias[..., row : row + 1, :])
            # Features last: a pixel's share of them is then one piece of memory.
            self.links.append(layer.link(rows)[:, :, 0].transpose(1, 2).contiguous())
            horizontal = layer.horizontal
            inputs = horizontal.weight.shape[1]
            self.left.append(rows.new_zeros(self.count, width + horizontal.left, inputs))
            features = gate(rows)[:, :, 0]

    def advance(self, image: Image, stop: int) -> Tensor:
        """Compute the horizontal stack of the row up to column ``stop`` (left out); return its last pixel's output.

        Parameters
        ----------
        image
            As for :meth:`begin_row`; of the row only the columns before ``stop - 1`` are read.
        stop
            Above that of the last call.

        Returns
        -------
        Tensor
            ``(count, outputs)`` for column ``stop - 1``.
        """
        return self._head(self._horizontal(image, stop)[:, -1])

    def advance_all(self, image: Image, stop: int) -> Tensor:
        """Compute as :meth:`advance` does; return the outputs of all columns on the way, ``(count, outputs, column)``.

        The first of them is the one at which the last call stopped.
        """
        return self._head(self._horizontal(image, stop)).transpose(1, 2)

    def select(self, index: Tensor) -> None:
        """Go on with the images of an index ``(count,)`` in place of those that there are; the same one may come twice.

        Parameters
        ----------
        index
            Of any length, which is the new count.
        """
        self.count = len(index)
        self.above, self.left, self.links = (
            [part.index_select(0, index) for part in parts] for parts in (self.above, self.left, self.links)
        )
        if self.network.code_bias is not None:
            self.code_biases = [
                (bias.index_select(0, index), beside.index_select(0, index))
                for bias, beside in self.code_biases
            ]

    def _horizontal(self, image: Image, stop: int) -> Tensor:
        """Return the horizontal stack's last features ``(count, column, feature)`` of the columns up to ``stop``."""
        start, network = self.column, self.network
        if not start < stop <= network.image_shape[-1]:
            raise ValueError(f"stop={stop}; expected {start + 1} to {network.image_shape[-1]}")
        known = max(start - 1, 0)
        features = 2 * image[:, :, self.row, known : stop - 1].transpose(1, 2) - 1
        at = known + network.layers[0].horizontal.left
        for i, (layer, (_, bias)) in enumerate(zip(network.layers, self.code_biases, strict=True)):
            left, horizontal = self.left[i], layer.horizontal
            if i:
                at = start + horizontal.left
            left[:, at : at + features.shape[1]] = features
            reach = horizontal.kernel_size[1]
            windows = left[:, start : stop + reach - 1].unfold(1, reach, 1).flatten(2)
            columns = F.linear(windows, horizontal.weight.flatten(1), horizontal.bias)
            columns = columns + self.links[i][:, start:stop]
            if bias is not None:
                columns = columns + bias.flatten(-3)[:, None]
            signal, share = columns.chunk(2, dim=-1)
            gated = torch.tanh(signal) * torch.sigmoid(share)
            new = F.linear(gated, layer.output.weight.flatten(1), layer.output.bias)
            features = features + new if layer.residual else new
        self.column = stop
        return features

    def _head(self, features: Tensor) -> Tensor:
        """Return the outputs, features last."""
        first, last = self.network.head[1], self.network.head[3]
        hidden = F.relu(F.linear(F.relu(features), first.weight.flatten(1), first.bias))
        return F.linear(hidden, last.weight.flatten(1), last.bias)
