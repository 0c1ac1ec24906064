r"""A network that removes Gaussian noise of any level, pixel by pixel, and says of each how sure it is.

Karras, Aittala, Aila & Laine 2022, *Elucidating the Design Space of Diffusion-Based Generative Models*, section 5: for
:math:`u = x + t \epsilon` the network F sees inputs of unit variance at every level t, and predicts what is left of x,

.. math:: D(u, t) = c + s (u - c) + o \, F_1(i (u - c), \ln t), \qquad
          s = \frac{d^2}{t^2 + d^2}, \quad o = \frac{t d}{\sqrt{t^2 + d^2}}, \quad i = \frac{1}{\sqrt{t^2 + d^2}},

with c the centre and d the spread of pixels. A second output is the logarithm of the variance that is left,
:math:`v(u, t) = o^2 \exp F_2`: the diagonal of the covariance of x given u (Bao et al. 2022, *Estimating the Optimal
Covariance with Imperfect Mean in Diffusion Probabilistic Models*), which makes few reverse steps enough.

The level may differ from pixel to pixel, and the network reads them all (as Chen et al. 2024, *Diffusion Forcing*, do
along a sequence): with little noise on the pixels that are seen and much on the others it denoises given what is seen.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.shapes import Image, InputError, describe

__all__ = ["Denoiser", "level_of_pixels"]


class Denoiser(nn.Module):
    """Fully convolutional U-Net with the preconditioning of Karras et al. 2022: mean and variance of x given x + noise.

    Parameters
    ----------
    channels
        1 for grey images, 3 for colour.
    features
        Units at each resolution, the finest first; each is half as fine as the one before it.
    blocks
        Residual blocks at each resolution, on the way down and on the way up.
    patch
        Side of the squares of pixels that the finest resolution holds as channels: 2 costs a quarter.
    centre, spread
        Mean and standard deviation of pixels.

    Raises
    ------
    ValueError
        For numbers below 1.

    Examples
    --------
    >>> denoiser = Denoiser(features=(8, 16))
    >>> mean, variance = denoiser(torch.rand(5, 1, 28, 28), torch.tensor(0.5))
    >>> tuple(mean.shape), bool((variance > 0).all())
    ((5, 1, 28, 28), True)
    """

    #: What ``DiffusionPrior`` asks of a network, for ``ConditionalDiffusion``.
    takes_levels_of_pixels = True

    def __init__(
        self,
        channels: int = 1,
        features: tuple[int, ...] = (32, 64, 64),
        blocks: int = 1,
        patch: int = 1,
        *,
        centre: float = 0.5,
        spread: float = 0.5,
    ):
        super().__init__()
        features = tuple(features)
        if min(channels, blocks, patch, *features) < 1 or not features or not spread > 0:
            raise ValueError(
                f"channels={channels}, features={features}, blocks={blocks}, patch={patch}, spread={spread}; "
                "expected at least 1 of each, and a positive spread"
            )
        self.channels, self.features, self.blocks, self.patch = channels, features, blocks, patch
        self.centre, self.spread = centre, spread
        #: Sides of images are multiples of this inside; others are padded and cut again.
        self.multiple = patch * 2 ** (len(features) - 1)
        width = 4 * features[0]
        self.embedding = nn.Sequential(nn.Linear(2 * _WAVES, width), nn.SiLU(), nn.Linear(width, width))
        # Beside every value of the image its noise level, and what is left of it when it is denoised by itself.
        self.first = nn.Conv2d(3 * channels * patch**2, features[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before, kept = features[0], [features[0]]
        for units in features:
            for _ in range(blocks):
                self.down.append(_Block(before, units, width))
                before = units
                kept.append(before)
        self.middle = _Block(before, before, width)
        for units in reversed(features):
            for _ in range(blocks):
                self.up.append(_Block(before + kept.pop(), units, width))
                before = units
        head = nn.Conv2d(before, 2 * channels * patch**2, 3, padding=1)
        nn.init.zeros_(head.weight)  # at first it is the best linear denoiser of a single pixel
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.last = nn.Sequential(nn.GroupNorm(_groups(before), before), nn.SiLU(), head)

    def configuration(self) -> dict[str, Any]:
        """Return what the network is made with."""
        names = ("channels", "features", "blocks", "patch", "centre", "spread")
        return {name: getattr(self, name) for name in names}

    def forward(self, noisy: Image, level: Tensor) -> tuple[Image, Image]:
        """Return the mean of x given x + level * noise, and its variance in each pixel.

        Parameters
        ----------
        noisy
            ``(*batch, channel, row, column)``, of any number of rows and columns.
        level
            Standard deviation of the noise, positive; ``(*batch,)`` or of fewer dimensions, or one a pixel, shaped as
            the images.
        """
        left, log_variance, scales = self.residual(noisy, level)
        skip, out = scales
        return self.centre + skip * (noisy - self.centre) + out * left, out.square() * log_variance.exp()

    def residual(self, noisy: Image, level: Tensor) -> tuple[Image, Image, tuple[Tensor, Tensor]]:
        """Return both outputs of the network F, and the factors s and o of the mean: what training compares."""
        if noisy.shape[-3] != self.channels:
            raise InputError(f"image is {describe(noisy)}; the denoiser takes {self.channels} channel(s)")
        level = torch.as_tensor(level, dtype=noisy.dtype, device=noisy.device)
        t = level_of_pixels(noisy, level)
        total = (t.square() + self.spread**2).sqrt()
        skip, out = self.spread**2 / total.square(), t * self.spread / total
        residual, log_level = noisy - self.centre, t.log().expand(noisy.shape)
        inputs = torch.cat([residual / total, log_level / 4, skip * residual / self.spread], -3)
        highest = log_level.amax((-3, -2, -1)).reshape(-1)
        left, log_variance = self._network(inputs.reshape(-1, *inputs.shape[-3:]), highest).chunk(2, 1)
        return left.reshape(noisy.shape), log_variance.reshape(noisy.shape), (skip, out)

    def _network(self, images: Tensor, log_level: Tensor) -> Tensor:
        rows, columns = images.shape[-2:]
        down, right = -rows % self.multiple, -columns % self.multiple
        features = F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
        embedded = self.embedding(_waves(log_level))
        features = self.first(F.pixel_unshuffle(features, self.patch))
        kept = [features]
        for index, block in enumerate(self.down):
            if index and index % self.blocks == 0:
                features = F.avg_pool2d(features, 2)
            features = block(features, embedded)
            kept.append(features)
        features = self.middle(features, embedded)
        for index, block in enumerate(self.up):
            if index and index % self.blocks == 0:
                features = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = block(torch.cat([features, kept.pop()], 1), embedded)
        return F.pixel_shuffle(self.last(features), self.patch)[..., :rows, :columns]


def level_of_pixels(noisy: Image, level: Tensor) -> Tensor:
    """Return noise levels that broadcast to images: those of pixels as they are, those of images with three dims more.

    >>> tuple(level_of_pixels(torch.zeros(5, 1, 8, 8), torch.ones(5)).shape)
    (5, 1, 1, 1)
    """
    return level if level.dim() == noisy.dim() else level[..., None, None, None]


class _Block(nn.Module):
    """Two convolutions beside an identity, the noise level entering as a scale and a shift between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int):
        super().__init__()
        self.before = nn.GroupNorm(_groups(inputs), inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.level = nn.Linear(embedding, 2 * outputs)
        self.between = nn.GroupNorm(_groups(outputs), outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.beside = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, features: Tensor, embedded: Tensor) -> Tensor:
        """Return features with what the block adds to them."""
        left = self.first(F.silu(self.before(features)))
        scale, shift = self.level(embedded)[..., None, None].chunk(2, 1)
        left = self.second(F.silu(self.between(left) * (1 + scale) + shift))
        return self.beside(features) + left


#: Frequencies that the noise level is told by.
_WAVES = 16


def _waves(log_level: Tensor) -> Tensor:
    """Return sines and cosines of the logarithm of noise levels, ``(n, 2 * _WAVES)``."""
    frequency = torch.logspace(-1, 1, _WAVES, device=log_level.device, dtype=log_level.dtype) * math.pi
    angle = log_level[:, None] / 4 * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)


def _groups(channels: int) -> int:
    """Return how many groups of about 8 channels there are, evenly."""
    return next(count for count in range(max(1, channels // 8), 0, -1) if channels % count == 0)
