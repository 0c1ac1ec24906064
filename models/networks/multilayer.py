"""Fully connected decoder and masked-input encoder: the cheapest networks that a sampler can afford.

A sampler over the code z pays one forward and one backward pass of the decoder per leapfrog step and
chain. On one CPU thread a multilayer decoder costs tens of microseconds where a small transposed
convolution costs hundreds, which is why the bundled priors are of this kind.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.pixel_density import PullBack, Restricted
from posterior_inpainting.models.shapes import Code, Image, ImageShape, Mask

__all__ = ["MaskedEncoder", "MultilayerDecoder"]


class MultilayerDecoder(nn.Module):
    r"""Decoder :math:`z \mapsto (f_\theta(z), \sigma_\theta(z))` of pixel means and pixel scales.

    The mean is a sigmoid, the scale ``floor + softplus(.)``: bounded below, because a Gaussian density
    without a floor is unbounded where many pixels are exactly 0 (Rybkin et al. 2021, *sigma-VAE*).

    Parameters
    ----------
    latent
        Length of z.
    image_shape
        ``(channel, row, column)`` of what is decoded.
    widths
        Units of the hidden layers, first to last.
    scale_rank
        Width of the bottleneck from the last hidden layer to the scales; ``None`` for one learnt scale
        shared by all pixels.
    floor
        Smallest pixel scale, in the image's units.

    Examples
    --------
    >>> decoder = MultilayerDecoder(latent=2, image_shape=(1, 8, 8), widths=(16,))
    >>> mean, scale = decoder.mean_and_scale(torch.zeros(5, 2))
    >>> tuple(mean.shape), tuple(scale.shape), bool((scale >= decoder.floor).all())
    ((5, 1, 8, 8), (5, 1, 8, 8), True)
    """

    scale_head: Any

    def __init__(
        self,
        latent: int,
        image_shape: ImageShape,
        widths: Sequence[int] = (400, 400),
        scale_rank: int | None = 64,
        floor: float = 0.03,
    ):
        super().__init__()
        self.latent = latent
        self.image_shape: ImageShape = tuple(image_shape)  # type: ignore[assignment]
        self.widths = tuple(widths)
        self.scale_rank = scale_rank
        self.floor = floor
        pixels = math.prod(image_shape)
        self.trunk = _hidden_layers(latent, widths)
        self.mean_head = nn.Linear(widths[-1], pixels)
        if scale_rank is None:
            self.raw_scale = nn.Parameter(torch.tensor(_inverse_softplus(0.1)))
        else:
            wide = nn.Linear(scale_rank, pixels)
            nn.init.constant_(wide.bias, _inverse_softplus(0.1))
            self.scale_head = nn.Sequential(nn.Linear(widths[-1], scale_rank), wide)

    def configuration(self) -> dict:
        """Return the arguments that make this decoder again, as they are stored beside its weights."""
        return {
            "latent": self.latent,
            "image_shape": self.image_shape,
            "widths": self.widths,
            "scale_rank": self.scale_rank,
            "floor": self.floor,
        }

    def forward(self, z: Code) -> Image:
        """Return the pixel means ``(*batch, channel, row, column)`` of codes ``(*batch, latent)``."""
        return self._mean(self.trunk(z))

    def scale(self, z: Code) -> Image:
        """Return the pixel scales ``(*batch, channel, row, column)`` of codes ``(*batch, latent)``."""
        return self._scale(self.trunk(z))

    def mean_and_scale(self, z: Code) -> tuple[Image, Image]:
        """Return means and scales with one pass through the shared hidden layers."""
        hidden = self.trunk(z)
        return self._mean(hidden), self._scale(hidden)

    def restrict(self, pixels: Tensor) -> Restricted:
        """Return a function from codes to means and scales ``(*batch, len(pixels))`` of some pixels only.

        The last layer is most of the work, and a posterior needs it only where pixels are seen. The third
        result is the chain rule by hand; the weights are those at the time of the call.

        Parameters
        ----------
        pixels
            Indices into the flattened ``(channel, row, column)``.
        """
        linear = [layer for layer in self.trunk if isinstance(layer, nn.Linear)]
        layers = [(layer.weight.detach(), layer.bias.detach()) for layer in linear]
        mean_weight, mean_bias = self.mean_head.weight[pixels].detach(), self.mean_head.bias[pixels].detach()
        if self.scale_rank is None:
            fixed = (self.floor + F.softplus(self.raw_scale)).detach()
        else:
            narrow, wide = (head.requires_grad_(False) for head in copy.deepcopy(self.scale_head))
            wide.weight, wide.bias = (nn.Parameter(p[pixels], False) for p in (wide.weight, wide.bias))

        def decode(z: Code) -> tuple[Tensor, Tensor, PullBack]:
            raw, hidden = [], z
            for weight, bias in layers:
                raw.append(F.linear(hidden, weight, bias))
                hidden = F.silu(raw[-1])
            mean = F.linear(hidden, mean_weight, mean_bias).sigmoid_()
            raw_scale = None if self.scale_rank is None else wide(narrow(hidden))
            scale = fixed if raw_scale is None else F.softplus(raw_scale).add_(self.floor)

            def pull_back(mean_slope: Tensor, scale_slope: Tensor | None) -> Tensor:
                slope = torch.ops.aten.sigmoid_backward(mean_slope, mean) @ mean_weight
                if raw_scale is not None and scale_slope is not None:
                    slope = slope + (scale_slope * raw_scale.sigmoid() @ wide.weight) @ narrow.weight
                for (weight, _), before in zip(reversed(layers), reversed(raw), strict=True):
                    slope = torch.ops.aten.silu_backward(slope, before) @ weight
                return slope

            return mean, scale, pull_back

        return decode

    def _mean(self, hidden: Tensor) -> Image:
        return torch.sigmoid(self.mean_head(hidden)).unflatten(-1, self.image_shape)

    def _scale(self, hidden: Tensor) -> Image:
        if self.scale_rank is None:
            shape = (*hidden.shape[:-1], *self.image_shape)
            return (self.floor + F.softplus(self.raw_scale)).expand(shape)
        return (self.floor + F.softplus(self.scale_head(hidden))).unflatten(-1, self.image_shape)


class MaskedEncoder(nn.Module):
    r"""Encoder :math:`(\tilde x, M) \mapsto` location and scale of :math:`q(z \mid \tilde x)`.

    The mask is an input of its own, so that a seen 0 is not a missing pixel; hidden pixels are set to
    0 here, whatever they hold. With everything seen it is the usual q(z | x).

    Parameters
    ----------
    latent
        Length of z.
    image_shape
        ``(channel, row, column)`` of what is encoded.
    widths
        Units of the hidden layers, first to last.

    Examples
    --------
    >>> encoder = MaskedEncoder(latent=2, image_shape=(1, 8, 8), widths=(16,))
    >>> mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    >>> loc, scale = encoder(torch.full((1, 8, 8), float("nan")), mask)
    >>> tuple(loc.shape), bool(loc.isfinite().all())
    ((2,), True)
    """

    def __init__(self, latent: int, image_shape: ImageShape, widths: Sequence[int] = (400, 400)):
        super().__init__()
        self.latent = latent
        self.image_shape: ImageShape = tuple(image_shape)  # type: ignore[assignment]
        self.widths = tuple(widths)
        self.trunk = _hidden_layers(2 * math.prod(image_shape), widths)
        self.head = nn.Linear(widths[-1], 2 * latent)

    def configuration(self) -> dict:
        """Return the arguments that make this encoder again, as they are stored beside its weights."""
        return {"latent": self.latent, "image_shape": self.image_shape, "widths": self.widths}

    def forward(self, image: Image, mask: Mask) -> tuple[Code, Code]:
        """Return location and scale, both ``(*batch, latent)``."""
        mask = mask.expand(image.shape)
        # 2 x - 1 puts black and white at -1 and 1, so that a hidden pixel (0) lies between them.
        seen = torch.where(mask, 2 * image - 1, 0.0)
        loc, raw = self.head(self.trunk(torch.cat([seen, mask.to(seen.dtype)], -3).flatten(-3))).chunk(2, -1)
        return loc, F.softplus(raw) + 1e-4


def _hidden_layers(width: int, widths: Sequence[int]) -> nn.Sequential:
    """SiLU layers: smooth, so that the leapfrog integrator meets no kinks."""
    layers: list[nn.Module] = []
    for units in widths:
        layers += [nn.Linear(width, units), nn.SiLU()]
        width = units
    return nn.Sequential(*layers)


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
