"""The U-Net of a denoiser: convolutions at several resolutions, joined across.

Ronneberger, Fischer & Brox 2015, *U-Net*, with residual blocks into which the noise level enters as a scale and a shift
(Ho, Jain & Abbeel 2020; Dhariwal & Nichol 2021, *Diffusion Models Beat GANs on Image Synthesis*).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["UNet"]


class UNet(nn.Module):
    """Fully convolutional; from channels of an image, and a vector that tells the noise level, to others.

    Parameters
    ----------
    inputs, outputs
        Channels that go in and come out.
    features, blocks, patch
        As for ``Denoiser``.
    embedding
        Length of the vector that tells the noise level.

    Examples
    --------
    >>> network = UNet(3, 2, (8, 16), embedding=32)
    >>> tuple(network(torch.rand(5, 3, 7, 9), torch.rand(5, 32)).shape)
    (5, 2, 7, 9)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        features: tuple[int, ...],
        blocks: int = 1,
        patch: int = 1,
        *,
        embedding: int,
    ):
        super().__init__()
        self.blocks, self.patch = blocks, patch
        #: Sides of images are multiples of this inside; others are padded and cut again.
        self.multiple = patch * 2 ** (len(features) - 1)
        self.first = nn.Conv2d(inputs * patch**2, features[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before, kept = features[0], [features[0]]
        for units in features:
            for _ in range(blocks):
                self.down.append(_Block(before, units, embedding))
                before = units
                kept.append(before)
        self.middle = _Block(before, before, embedding)
        for units in reversed(features):
            for _ in range(blocks):
                self.up.append(_Block(before + kept.pop(), units, embedding))
                before = units
        head = nn.Conv2d(before, outputs * patch**2, 3, padding=1)
        nn.init.zeros_(head.weight)  # at first it says nothing
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.last = nn.Sequential(nn.GroupNorm(_groups(before), before), nn.SiLU(), head)

    def forward(self, images: Tensor, embedded: Tensor) -> Tensor:
        """Return ``(n, outputs, row, column)`` of images ``(n, inputs, row, column)`` and ``(n, embedding)``."""
        rows, columns = images.shape[-2:]
        down, right = -rows % self.multiple, -columns % self.multiple
        features = F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
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


def _groups(channels: int) -> int:
    """Return how many groups of about 8 channels there are, evenly."""
    return next(count for count in range(max(1, channels // 8), 0, -1) if channels % count == 0)
