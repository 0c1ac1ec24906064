"""A discriminator that judges patches: one number for every few pixels, high where they look real.

Isola et al. 2017, *Image-to-Image Translation with Conditional Adversarial Networks*, section 2.2.2; spectral
normalisation as in Miyato et al. 2018 holds its slope, so that it can be trained step by step with its opponent.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["PatchDiscriminator"]


class PatchDiscriminator(nn.Module):
    """Scores of patches, without a squashing function, and the features that they were made from.

    Parameters
    ----------
    image_shape
        ``(channel, row, column)``; rows and columns divisible by 4.
    width
        Channels at half the size; twice that at a quarter.

    Examples
    --------
    >>> import torch
    >>> scores, features = PatchDiscriminator((1, 8, 8), width=8)(torch.rand(5, 1, 8, 8))
    >>> tuple(scores.shape), [tuple(one.shape) for one in features]
    ((5, 1, 2, 2), [(5, 8, 4, 4), (5, 16, 2, 2), (5, 16, 2, 2)])
    """

    def __init__(self, image_shape: ImageShape, width: int = 24):
        super().__init__()
        self.image_shape, self.width = tuple(image_shape), width
        self.layers = nn.ModuleList(
            spectral_norm(layer)
            for layer in (
                nn.Conv2d(4 * image_shape[0], width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            )
        )
        self.head = spectral_norm(nn.Conv2d(2 * width, 1, 3, padding=1))

    def forward(self, image: Image) -> tuple[Tensor, list[Tensor]]:
        """Return scores ``(n, 1, row / 4, column / 4)`` and the features of every hidden layer."""
        hidden, features = F.pixel_unshuffle(2 * image - 1, 2), []
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
            features.append(hidden)
        return self.head(hidden), features
