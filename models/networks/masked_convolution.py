r"""Gated PixelCNN: an image's pixels in raster order, each from all that come before it and nothing else.

Van den Oord et al. 2016, *Conditional Image Generation with PixelCNN Decoders*. Two stacks of convolutions make the
receptive field without the blind spot of a single masked kernel. The vertical one holds at (row, column) what the
rows *above* say; the horizontal one what is to the *left* in the same row, and what the vertical one has to tell.
Only the first layer is strict (it leaves its own pixel, or row, out); those above it see strict features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.shapes import Code, Image, ImageShape

__all__ = ["GatedLayer", "GatedPixelCNN", "LeftConvolution", "UpwardConvolution", "gate"]


class UpwardConvolution(nn.Conv2d):
    """Convolution over ``rows`` rows up to the own one, or up to the one above where ``strict``.

    >>> strict = UpwardConvolution(1, 1, rows=2, columns=3, strict=True)
    >>> with torch.no_grad():
    ...     [strict(row)[0, 0, 1, 0].item() == strict(0 * row)[0, 0, 1, 0].item()
    ...      for row in torch.eye(3)[:, None, None, :, None]]
    [False, True, True]
    """

    def __init__(self, inputs: int, outputs: int, rows: int, columns: int, strict: bool):
        super().__init__(inputs, outputs, (rows, columns))
        self.strict = strict
        self.beside = columns // 2

    @property
    def above(self) -> int:
        """Rows of the input above the own one that the kernel reaches."""
        return self.kernel_size[0] - (0 if self.strict else 1)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(n, inputs, row, column)`` to ``(n, outputs, row, column)``."""
        padded = F.pad(input, (self.beside, self.beside, self.above, -1 if self.strict else 0))
        return super().forward(padded)


class LeftConvolution(nn.Conv2d):
    """Convolution over ``columns`` columns of the same row up to the own one, or up to its left where ``strict``."""

    def __init__(self, inputs: int, outputs: int, columns: int, strict: bool):
        super().__init__(inputs, outputs, (1, columns))
        self.strict = strict

    @property
    def left(self) -> int:
        """Columns of the input left of the own one that the kernel reaches."""
        return self.kernel_size[1] - (0 if self.strict else 1)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(n, inputs, row, column)`` to ``(n, outputs, row, column)``."""
        return super().forward(F.pad(input, (self.left, -1 if self.strict else 0, 0, 0)))


class GatedLayer(nn.Module):
    """One layer of both stacks; see :class:`GatedPixelCNN`."""

    def __init__(self, inputs: int, features: int, kernel: int, strict: bool):
        super().__init__()
        reach = kernel // 2 + (0 if strict else 1)
        self.vertical = UpwardConvolution(inputs, 2 * features, reach, kernel, strict)
        self.horizontal = LeftConvolution(inputs, 2 * features, reach, strict)
        self.link = nn.Conv2d(2 * features, 2 * features, 1, bias=False)
        self.output = nn.Conv2d(features, features, 1)
        self.residual = not strict

    def forward(self, above: Tensor, left: Tensor, bias: Tensor | None, beside: Tensor | None):
        """Return what both stacks hold after this layer; the biases are a code's, or a place's."""
        rows = self.vertical(above)
        if bias is not None:
            rows = rows + bias
        columns = self.horizontal(left) + self.link(rows)
        if beside is not None:
            columns = columns + beside
        new = self.output(gate(columns))
        return gate(rows), left + new if self.residual else new


class GatedPixelCNN(nn.Module):
    r"""From an image to the parameters of each pixel's law given the pixels before it.

    The first layer also knows where it is, by a learnt bias of every row and of every column: a small network's
    receptive field does not reach the borders. A code z, where there is one, is a bias of every layer
    (equation 4 of the paper).

    Parameters
    ----------
    image_shape
        ``(channel, row, column)``.
    outputs
        Parameters of a pixel's law, over all channels.
    features, layers
        Width and number of gated layers.
    first, kernel
        Sides, odd, of the kernels of the first layer and of the others.
    code
        Length of the conditioning code; 0 for none.

    Raises
    ------
    ValueError
        For an even kernel.

    Examples
    --------
    >>> network = GatedPixelCNN((1, 8, 8), outputs=2, features=4, layers=2)
    >>> tuple(network(torch.rand(5, 1, 8, 8)).shape)
    (5, 2, 8, 8)
    """

    def __init__(
        self,
        image_shape: ImageShape,
        outputs: int,
        features: int = 24,
        layers: int = 5,
        first: int = 5,
        kernel: int = 3,
        code: int = 0,
    ):
        super().__init__()
        if first % 2 == 0 or kernel % 2 == 0 or min(first, kernel) < 3:
            raise ValueError(f"first={first}, kernel={kernel}; expected odd sides of at least 3")
        self.image_shape = tuple(image_shape)
        self.outputs, self.features, self.code = outputs, features, code
        self.first, self.kernel = first, kernel
        channels, rows, columns = self.image_shape
        self.layers = nn.ModuleList(
            GatedLayer(features if i else channels, features, kernel if i else first, strict=i == 0)
            for i in range(layers)
        )
        self.row_bias = nn.Parameter(torch.zeros(2 * features, rows, 1))
        self.column_bias = nn.Parameter(torch.zeros(2 * features, 1, columns))
        self.code_bias = nn.Linear(code, layers * 4 * features, bias=False) if code else None
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(features, 2 * features, 1), nn.ReLU(), nn.Conv2d(2 * features, outputs, 1)
        )

    def configuration(self) -> dict:
        """Return the arguments that make this network again, as they are stored beside its weights."""
        return {
            "image_shape": list(self.image_shape),
            "outputs": self.outputs,
            "features": self.features,
            "layers": len(self.layers),
            "first": self.first,
            "kernel": self.kernel,
            "code": self.code,
        }

    def biases(self, code: Code | None) -> list[tuple[Tensor | None, Tensor | None]]:
        """Return for every layer the biases of the vertical and of the horizontal stack."""
        place = self.row_bias + self.column_bias
        if self.code_bias is None:
            return [(place, None), *[(None, None)] * (len(self.layers) - 1)]
        assert code is not None
        both = self.code_bias(code)[..., None, None].chunk(2 * len(self.layers), dim=-3)
        pairs: list[Any] = list(zip(both[::2], both[1::2], strict=True))
        return [(pairs[0][0] + place, pairs[0][1]), *pairs[1:]]

    def forward(self, image: Image, code: Code | None = None) -> Tensor:
        """Return ``(n, outputs, row, column)`` for images ``(n, channel, row, column)`` in [0, 1]."""
        above = left = 2 * image - 1
        for layer, (bias, beside) in zip(self.layers, self.biases(code), strict=True):
            above, left = layer(above, left, bias, beside)
        return self.head(left)


def gate(features: Tensor) -> Tensor:
    """Return tanh(a) sigmoid(b) of the two halves of the channels."""
    signal, share = features.chunk(2, dim=1)
    return torch.tanh(signal) * torch.sigmoid(share)
