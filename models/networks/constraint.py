"""Constraint network: from the seen pixels and the mask to a correction of every pixel's law.

Dupont & Suresha 2019, *Probabilistic Semantic Inpainting with Pixel Constrained CNNs*, section 3. The mask is a
channel of its own, since a seen 0 is not a missing pixel. Unlike the published stack of residual blocks this one
looks at the whole image at a quarter of the resolution: it has no order to respect, and costs a tenth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = ["ConstraintNetwork"]


class ConstraintNetwork(nn.Module):
    """Two steps down, dilated convolutions that see everything, two steps up, with what was seen on the way.

    Parameters
    ----------
    image_shape
        ``(channel, row, column)``.
    outputs
        Parameters of a pixel's law, over all channels.
    features
        Width at the lowest resolution; half of it at the image's own.

    Examples
    --------
    >>> network = ConstraintNetwork((1, 9, 7), outputs=2, features=8)
    >>> tuple(network(torch.rand(5, 1, 9, 7), torch.ones(5, 1, 9, 7, dtype=torch.bool)).shape)
    (5, 2, 9, 7)
    """

    def __init__(self, image_shape: ImageShape, outputs: int, features: int = 32):
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.outputs, self.features = outputs, features
        channels, rows, columns = self.image_shape
        half = features // 2
        self.fine = nn.Conv2d(2 * channels, half, 3, padding=1)
        self.down = nn.Conv2d(half, features, 3, padding=1, stride=2)
        self.coarse = nn.Conv2d(features, features, 3, padding=1, stride=2)
        self.place = nn.Parameter(torch.zeros(features, (rows + 3) // 4, (columns + 3) // 4))
        self.wide = nn.ModuleList(
            nn.Conv2d(features, features, 3, padding=dilation, dilation=dilation) for dilation in (1, 2, 4, 1)
        )
        self.up = nn.Conv2d(2 * features, features, 3, padding=1)
        self.finest = nn.Conv2d(features + half, half, 3, padding=1)
        self.head = nn.Conv2d(half, outputs, 3, padding=1)
        # A constraint that says nothing is where the prior net's law begins.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def configuration(self) -> dict:
        """Return the arguments that make this network again, as they are stored beside its weights."""
        return {
            "image_shape": list(self.image_shape),
            "outputs": self.outputs,
            "features": self.features,
        }

    def forward(self, image: Image, mask: Mask) -> Tensor:
        """Return ``(n, outputs, row, column)`` for images ``(n, channel, row, column)`` in [0, 1]."""
        seen = torch.where(mask, 2 * image - 1, 0.0)
        fine = F.silu(self.fine(torch.cat([seen, mask.to(seen)], dim=1)))
        half = F.silu(self.down(fine))
        low = F.silu(self.coarse(half) + self.place)
        for convolution in self.wide:
            low = low + F.silu(convolution(low))
        middle = F.silu(self.up(torch.cat([_resized(low, half), half], dim=1)))
        finest = F.silu(self.finest(torch.cat([_resized(middle, fine), fine], dim=1)))
        return self.head(finest)


def _resized(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[-2:], mode="nearest")
