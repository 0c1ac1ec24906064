r"""A network that removes Gaussian noise of any level, pixel by pixel, and says of each how sure it is.

Karras, Aittala, Aila & Laine 2022, *Elucidating the Design Space of Diffusion-Based Generative Models*, section 5: for
:math:`u = x + t \epsilon` the network F sees inputs of unit variance at every level t, and predicts what is left of x,

.. math:: D(u, t) = c + s (u - c) + o \, F_1(i (u - c), \ln t), \qquad
          s = \frac{d^2}{t^2 + d^2}, \quad o = \frac{t d}{\sqrt{t^2 + d^2}}, \quad i = \frac{1}{\sqrt{t^2 + d^2}},

with c the centre and d the spread of pixels. A second output is the logarithm of the variance that is left,
:math:`v(u, t) = o^2 \exp F_2`: the diagonal of the covariance of x given u (Bao et al. 2022, *Estimating the Optimal
Covariance with Imperfect Mean in Diffusion Probabilistic Models*), which makes few reverse steps enough.

With a ``Pyramid`` the fill that it makes of the pixels around stands in place of :math:`c + s (u - c)`, and the root of
the variance that the fill claims in place of o: what is left of x then has one size beside an edge and in a wide hole.

The level may differ from pixel to pixel, and the network reads them all (as Chen et al. 2024, *Diffusion Forcing*, do
along a sequence): with little noise on the pixels that are seen and much on the others it denoises given what is seen.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.networks.global_branch import GlobalBranch
from posterior_inpainting.models.networks.pyramid import Pyramid
from posterior_inpainting.models.networks.u_net import UNet
from posterior_inpainting.models.shapes import Image, InputError, Mask, describe

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
    size
        ``(rows, columns)`` of the only images that it takes, which a ``GlobalBranch`` then sees whole beside the
        convolutions; ``None`` for images of any size, and no such branch.
    global_units, global_blocks, dropout
        Of the global branch.
    pyramid
        Levels of a ``Pyramid`` whose fill the network corrects; 0 for none: it corrects what each pixel says of itself.
    centre, spread
        Mean and standard deviation of pixels.

    Raises
    ------
    ValueError
        For numbers below 1, or a dropout that is no share.

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
        size: tuple[int, int] | None = None,
        global_units: int = 512,
        global_blocks: int = 4,
        dropout: float = 0.1,
        pyramid: int = 0,
        centre: float = 0.5,
        spread: float = 0.5,
    ):
        super().__init__()
        features = tuple(features)
        size = None if size is None else (size[0], size[1])
        counts = (channels, blocks, patch, *features, global_units, global_blocks, *(size or ()))
        if min(counts) < 1 or pyramid < 0 or not features or not spread > 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"channels={channels}, features={features}, blocks={blocks}, patch={patch}, size={size}, "
                f"global_units={global_units}, global_blocks={global_blocks}, dropout={dropout}, pyramid={pyramid}, "
                f"spread={spread}; "
                "expected at least 1 of each, a dropout in [0, 1) and a positive spread"
            )
        self.channels, self.features, self.blocks, self.patch = channels, features, blocks, patch
        self.size, self.global_units, self.global_blocks = size, global_units, global_blocks
        self.dropout, self.centre, self.spread = dropout, centre, spread
        width = 4 * features[0]
        self.embedding = nn.Sequential(nn.Linear(2 * _WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.fill = Pyramid(pyramid, centre, spread) if pyramid else None
        # Beside every value of the image its noise level, and what is left of it when it is denoised by itself.
        inputs, outputs, self.whole = (5 if pyramid else 3) * channels, 2 * channels, None
        if size is not None:
            self.whole = GlobalBranch(
                inputs,
                outputs,
                size,
                embedding=width,
                units=global_units,
                blocks=global_blocks,
                dropout=dropout,
            )
            inputs += outputs  # what the branch says, the convolutions read, and correct
        # Both begin with nothing to say: at first it is the best linear denoiser of a single pixel.
        self.near = UNet(inputs, outputs, features, blocks, patch, embedding=width)
        self.eval()  # whoever draws wants no dropout; the loss asks for it

    def configuration(self) -> dict[str, Any]:
        """Return what the network is made with."""
        return {
            "channels": self.channels,
            "features": self.features,
            "blocks": self.blocks,
            "patch": self.patch,
            "size": self.size,
            "global_units": self.global_units,
            "global_blocks": self.global_blocks,
            "dropout": self.dropout,
            "pyramid": 0 if self.fill is None else len(self.fill.log_variances),
            "centre": self.centre,
            "spread": self.spread,
        }

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
        left, log_variance, (guess, out) = self.residual(noisy, level)
        return guess + out * left, out.square() * log_variance.exp()

    def residual(
        self, noisy: Image, level: Tensor, known: Mask | None = None
    ) -> tuple[Image, Image, tuple[Tensor, Tensor]]:
        """Return both outputs of the network F, what they correct, and the factor o: what training compares.

        Of images in which not all pixels are ``known`` the highest level of those that are is what is told of all:
        the others, which are noise alone, would hide it.
        """
        if noisy.shape[-3] != self.channels:
            raise InputError(f"image is {describe(noisy)}; the denoiser takes {self.channels} channel(s)")
        if self.size is not None and noisy.shape[-2:] != self.size:
            raise InputError(
                f"image is {describe(noisy)}; the denoiser takes {self.size[0]} x {self.size[1]} pixels"
            )
        level = torch.as_tensor(level, dtype=noisy.dtype, device=noisy.device)
        t = level_of_pixels(noisy, level).expand(noisy.shape)
        told, guess, out = self._alone(noisy, t) if self.fill is None else self._filled(self.fill, noisy, t)
        inputs, log_level = torch.cat(told, -3), t.log()
        told_of_all = log_level if known is None else log_level.masked_fill(~known, -math.inf)
        highest = told_of_all.amax((-3, -2, -1)).clamp(min=_LOWEST).reshape(-1)
        left, log_variance = self._network(inputs.reshape(-1, *inputs.shape[-3:]), highest).chunk(2, 1)
        return left.reshape(noisy.shape), log_variance.reshape(noisy.shape), (guess, out)

    def _alone(self, noisy: Image, t: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return what the network reads, what it corrects and by how much: what each pixel says of itself."""
        total = (t.square() + self.spread**2).sqrt()
        residual = noisy - self.centre
        guess = self.centre + self.spread**2 / total.square() * residual
        told = [residual / total, t.log() / 4, (guess - self.centre) / self.spread]
        return told, guess, t * self.spread / total

    def _filled(self, fill: Pyramid, noisy: Image, t: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the same of the fill."""
        flat = noisy.reshape(-1, *noisy.shape[-3:])
        guess, variance = fill(flat, t.reshape(flat.shape))
        blurred = F.avg_pool2d(guess, 5, 1, 2, count_include_pad=False)
        guess, variance, blurred = (part.reshape(noisy.shape) for part in (guess, variance, blurred))
        out = variance.sqrt()
        told = [
            # What the pixel itself adds: little under much noise, which alone would be read otherwise.
            out / (t.square() + variance) * (noisy - guess),
            t.log() / 4,
            (guess - self.centre) / self.spread,
            (guess - blurred) * (_DETAIL / self.spread),
            (out / self.spread).log() / 2,
        ]
        return told, guess, out

    def _network(self, images: Tensor, log_level: Tensor) -> Tensor:
        embedded = self.embedding(_waves(log_level))
        if self.whole is None:
            return self.near(images, embedded)
        said = self.whole(images, embedded)
        return said + self.near(torch.cat([images, said], 1), embedded)


def level_of_pixels(noisy: Image, level: Tensor) -> Tensor:
    """Return noise levels that broadcast to images: those of pixels as they are, those of images with three dims more.

    >>> tuple(level_of_pixels(torch.zeros(5, 1, 8, 8), torch.ones(5)).shape)
    (5, 1, 1, 1)
    """
    return level if level.dim() == noisy.dim() else level[..., None, None, None]


#: Spread of pixels over that of their differences from the pixels near them.
_DETAIL = 5.0

#: Of the logarithm of a noise level, where no pixel is known.
_LOWEST = -20.0

#: Frequencies that the noise level is told by.
_WAVES = 16


def _waves(log_level: Tensor) -> Tensor:
    """Return sines and cosines of the logarithm of noise levels, ``(n, 2 * _WAVES)``."""
    frequency = torch.logspace(-1, 1, _WAVES, device=log_level.device, dtype=log_level.dtype) * math.pi
    angle = log_level[:, None] / 4 * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)
