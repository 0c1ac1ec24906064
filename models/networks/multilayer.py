"""Fully connected decoder and masked-input encoder, cheap enough for a sampler over the code.

A sampler over the code z pays one forward and one backward pass of the decoder per leapfrog step and
chain. On one CPU thread a multilayer decoder costs tens of microseconds where a small transposed
convolution costs hundreds, which is why the bundled priors are of this kind.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.networks.fully_connected import (
    FullyConnectedDecoder,
    RestrictedScale,
    hidden_layers,
)
from posterior_inpainting.models.shapes import Code, Image, ImageShape, Mask

__all__ = ["MaskedEncoder", "MultilayerDecoder"]


class MultilayerDecoder(FullyConnectedDecoder):
    r"""Decoder :math:`z \mapsto (f_\theta(z), \sigma_\theta(z))` of pixel means and pixel scales.

    The mean is a sigmoid, or any number where pixels are clipped; the scale is ``floor + softplus(.)``: bounded
    below, because a Gaussian density without a floor is unbounded where many pixels are exactly 0 (Rybkin et al.
    2021, *sigma-VAE*).

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
    scale_factor
        What scales are multiplied by: above 1 where images that the decoder was not trained on lie further from it
        than those that it was.
    likelihood
        ``"normal"``, or ``"censored_normal"`` for pixels that are exactly 0 or 1.

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
        likelihood: str = "normal",
        scale_factor: float = 1.0,
    ):
        super().__init__(latent, image_shape, widths, likelihood)
        if not scale_factor > 0:
            raise ValueError(f"scale_factor={scale_factor}; expected a positive number")
        self.scale_rank = scale_rank
        self.floor = floor
        self.scale_factor = scale_factor
        if scale_rank is None:
            self.raw_scale = nn.Parameter(torch.tensor(_inverse_softplus(0.1)))
        else:
            wide = nn.Linear(scale_rank, math.prod(image_shape))
            nn.init.constant_(wide.bias, _inverse_softplus(0.1))
            self.scale_head = nn.Sequential(nn.Linear(widths[-1], scale_rank), wide)

    def configuration(self) -> dict:
        """Return the arguments that make this decoder again, as they are stored beside its weights."""
        return super().configuration() | {
            "scale_rank": self.scale_rank,
            "floor": self.floor,
            "likelihood": self.likelihood,
            "scale_factor": self.scale_factor,
        }

    def _scale(self, hidden: Tensor) -> Image:
        if self.scale_rank is None:
            return self.positive(self.raw_scale).expand(*hidden.shape[:-1], *self.image_shape)
        return self.positive(self.scale_head(hidden)).unflatten(-1, self.image_shape)

    def positive(self, raw: Tensor) -> Tensor:
        """Return scales of what the last layer says."""
        return self.scale_factor * (self.floor + F.softplus(raw))

    def _restricted_scale(self, pixels: Tensor) -> RestrictedScale:
        if self.scale_rank is None:
            fixed = self.positive(self.raw_scale).detach()
            return lambda hidden: (fixed, None)
        narrow, wide = (head.requires_grad_(False) for head in copy.deepcopy(self.scale_head))
        wide.weight, wide.bias = (nn.Parameter(p[pixels], False) for p in (wide.weight, wide.bias))
        # Once for all calls, and not for each pixel of each.
        pulled_back = self.scale_factor * wide.weight

        def scale_of(hidden: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            """Return scales of the pixels, and their chain rule."""
            raw = wide(narrow(hidden))

            def pull_back(slope: Tensor) -> Tensor:
                """Return the slope in the hidden layer."""
                return (slope * raw.sigmoid() @ pulled_back) @ narrow.weight

            return self.positive(raw), pull_back

        return scale_of


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
        self.trunk = hidden_layers(2 * math.prod(image_shape), widths)
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


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
