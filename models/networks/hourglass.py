r"""The hourglass network of the deep image prior, its weights scaled so that wide ones approach a Gaussian process.

Ulyanov, Vedaldi & Lempitsky 2018, *Deep Image Prior*, with the scaling of Cheng, Gadelha, Maji & Sheldon
2019, *A Bayesian Perspective on the Deep Image Prior*: every convolution multiplies standard normal
weights by :math:`\sqrt{g / \mathrm{fan\ in}}`, g the gain of the nonlinearity before it, so that a unit
keeps its variance at any width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.shapes import ImageShape

__all__ = ["Hourglass", "Layers", "blurred_noise"]


class ScaledConvolution(nn.Module):
    """Convolution without bias whose weights are standard normal a priori."""

    def __init__(self, inputs: int, outputs: int, size: int, gain: float, stride: int, padding: str):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.scale = math.sqrt(gain / (inputs * size * size))
        self.stride, self.padding, self.margin = stride, padding, size // 2

    def forward(self, features: Tensor) -> Tensor:
        """Pad, then convolve with the scaled weights."""
        if self.margin:
            features = F.pad(features, [self.margin] * 4, mode=self.padding)
        return F.conv2d(features, self.weight * self.scale, stride=self.stride)


@dataclass(frozen=True)
class Layers:
    """What the layers of an :class:`Hourglass` do beside convolving.

    Parameters
    ----------
    resample
        Whether a layer down halves the size and one up doubles it, bilinearly.
    normalise
        Whether every layer's channels are brought to mean 0 and variance 1 over the image.
    padding
        ``"reflect"`` or ``"circular"``.
    slope
        Of LeakyReLU where it is negative.
    """

    resample: bool = True
    normalise: bool = True
    padding: str = "reflect"
    slope: float = 0.2

    def __post_init__(self):
        if self.padding not in ("reflect", "circular"):
            raise ValueError(f"padding={self.padding!r}; expected 'reflect' or 'circular'")


#: Of the deep image prior (Ulyanov et al. 2018).
PUBLISHED = Layers()


class Hourglass(nn.Module):
    r"""Network from a fixed input to an image: ``scales`` convolutions down, as many up, skips between.

    With ``skip=0, layers=Layers(resample=False, normalise=False, padding="circular")`` it is a plain stack of
    ``2 * scales`` convolutions, whose outputs are a stationary Gaussian process when it is wide.

    Parameters
    ----------
    image_shape
        ``(channel, row, column)`` of the output; any size.
    channels
        Units of every hidden layer.
    scales
        Layers down, and up; by default 4, or as many as a small image allows.
    skip
        Channels of each skip connection; 0 for none.
    layers
        What they do beside convolving.
    input_channels, input_blur
        The fixed input: uniform on (0, 0.1) as in the paper, or with ``input_blur`` > 0 zero-mean noise
        under a Gaussian blur of that many pixels.
    seed
        Of the fixed input.

    Raises
    ------
    ValueError
        For sizes below 1, or an image too small for that many halvings.

    Examples
    --------
    >>> network = Hourglass((1, 32, 32), channels=8, scales=3)
    >>> tuple(network().shape)
    (1, 32, 32)
    """

    input: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        channels: int = 32,
        scales: int | None = None,
        skip: int = 4,
        layers: Layers = PUBLISHED,
        input_channels: int = 32,
        input_blur: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        most = max(1, int(math.log2(min(image_shape[1:]))) - 1)
        scales = min(4, most) if scales is None else scales
        for name, value in {"channels": channels, "scales": scales, "input_channels": input_channels}.items():
            if value < 1:
                raise ValueError(f"{name}={value}; expected at least 1")
        if skip < 0:
            raise ValueError(f"skip={skip}; expected at least 0")
        if layers.resample and scales > most:
            raise ValueError(
                f"scales={scales} halve an image of {min(image_shape[1:])} pixels too often; at most {most}"
            )
        self.image_shape: ImageShape = tuple(image_shape)
        self.layers = layers
        gain = 2 / (1 + layers.slope**2)
        stride = 2 if layers.resample else 1

        def convolution(inputs: int, outputs: int, size: int = 3, gain: float = gain, stride: int = 1):
            """Make one convolution of the network."""
            return ScaledConvolution(inputs, outputs, size, gain, stride, layers.padding)

        # The input has passed no nonlinearity: gain 1.
        self.down = nn.ModuleList(
            convolution(channels, channels, stride=stride)
            if level
            else convolution(input_channels, channels, 3, 1.0, stride)
            for level in range(scales)
        )
        self.skips = nn.ModuleList(
            convolution(channels if level else input_channels, skip, 1, gain if level else 1.0)
            for level in range(scales if skip else 0)
        )
        self.up = nn.ModuleList(convolution(channels + skip, channels) for _ in range(scales))
        self.out = convolution(channels, image_shape[0], 1)
        shape = (input_channels, *image_shape[1:])
        generator = torch.Generator().manual_seed(seed)
        if input_blur > 0:
            fixed = blurred_noise(shape, input_blur, generator)
        else:
            fixed = 0.1 * torch.rand(shape, generator=generator)
        self.register_buffer("input", fixed.unsqueeze(0))

    def forward(self) -> Tensor:
        """Return the output of the fixed input, ``(channel, row, column)``, before any squashing."""
        features: Tensor = self.input
        skipped: list[Tensor] = []
        sizes: list[tuple[int, int]] = []
        for level, convolution in enumerate(self.down):
            sizes.append((features.shape[-2], features.shape[-1]))
            if self.skips:
                skipped.append(self._activate(self.skips[level](features)))
            features = self._activate(convolution(features))
        for level in reversed(range(len(self.up))):
            if self.layers.resample:
                features = F.interpolate(features, size=sizes[level], mode="bilinear", align_corners=False)
            if self.skips:
                features = torch.cat([features, skipped[level]], 1)
            features = self._activate(self.up[level](features))
        return self.out(features).squeeze(0)

    def _activate(self, features: Tensor) -> Tensor:
        if self.layers.normalise:
            features = F.instance_norm(features)
        return F.leaky_relu(features, self.layers.slope)


def blurred_noise(shape: tuple[int, ...], blur: float, generator: torch.Generator) -> Tensor:
    r"""Return white noise under a circular Gaussian blur, zero mean and unit variance in expectation.

    Its covariance at distance d is :math:`\exp(-d^2 / 4 \sigma^2)` for ``blur`` sigma, in pixels.

    Examples
    --------
    >>> noise = blurred_noise((500, 16, 16), 2.0, torch.Generator().manual_seed(0))
    >>> abs(float(noise.var()) - 1) < 0.1
    True
    """
    rows, columns = shape[-2:]
    device = generator.device
    down, across = (torch.fft.fftfreq(extent, device=device).square() for extent in (rows, columns))
    frequency = down.unsqueeze(1) + torch.fft.rfftfreq(columns, device=device).square()
    transfer = torch.exp(-2 * (math.pi * blur) ** 2 * frequency)
    # Power over all frequencies, those that rfft leaves out included.
    full = down.unsqueeze(1) + across
    power = torch.exp(-4 * (math.pi * blur) ** 2 * full).mean()
    white = torch.randn(shape, generator=generator, device=device)
    return torch.fft.irfft2(torch.fft.rfft2(white) * transfer, s=(rows, columns)) / power.sqrt()
