"""From a code to maps as large as an image: what convolutional decoders and generators are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from posterior_inpainting.models.networks.fully_connected import hidden_layers
from posterior_inpainting.models.shapes import Code, ImageShape

__all__ = ["Upsampling"]


class Upsampling(nn.Module):
    """Fully connected layers to a small map, then transposed convolutions, each of which doubles its sides.

    Kernels of 4 x 4 with stride 2 overlap evenly (Odena, Dumoulin & Olah 2016, *Deconvolution and Checkerboard
    Artifacts*) and cost less than half of repeating pixels before a convolution of 3 x 3. SiLU throughout and nothing
    that normalises over a batch: an image never depends on others, and a density over codes has no kinks.

    Parameters
    ----------
    latent
        Length of the code.
    image_shape
        ``(channel, row, column)``; its channels are not read.
    channels
        Of the maps, first to last; the last one's sides are half of the image's.
    widths
        Units of fully connected layers before the first map.
    outputs
        Maps that come out, as large as the image.

    Raises
    ------
    ValueError
        For no map, or an image too small for so many.

    Examples
    --------
    >>> import torch
    >>> trunk = Upsampling(latent=2, image_shape=(1, 10, 12), channels=(8, 4))
    >>> tuple(trunk(torch.zeros(3, 5, 2)).shape)
    (3, 5, 1, 10, 12)
    """

    def __init__(
        self,
        latent: int,
        image_shape: ImageShape,
        channels: Sequence[int],
        widths: Sequence[int] = (),
        outputs: int = 1,
    ):
        super().__init__()
        doublings = len(channels)
        if doublings < 1 or min(image_shape[1:]) < 2**doublings:
            raise ValueError(
                f"channels={tuple(channels)} for images of {image_shape[1]} x {image_shape[2]}; expected at least one "
                "map, the first with at least one row and column"
            )
        self.size = tuple(image_shape[1:])
        self.first = (channels[0], *(math.ceil(side / 2**doublings) for side in self.size))
        self.trunk = hidden_layers(latent, [*widths, math.prod(self.first)])
        layers: list[nn.Module] = []
        for one, other in zip(channels, [*channels[1:], outputs], strict=True):
            layers += [nn.ConvTranspose2d(one, other, 4, stride=2, padding=1), nn.SiLU()]
            # Of the 16 weights of a kernel, 4 meet in a pixel.
            nn.init.normal_(layers[-2].weight, std=(0.5 / one) ** 0.5)  # type: ignore[arg-type]
        self.convolutions = nn.Sequential(*layers[:-1])

    def forward(self, z: Code) -> Tensor:
        """Return maps ``(*batch, outputs, row, column)``, of any numbers, of codes ``(*batch, latent)``."""
        rows, columns = self.size
        maps = self.convolutions(self.trunk(z).reshape(-1, *self.first))[..., :rows, :columns]
        return maps.reshape(*z.shape[:-1], *maps.shape[1:])
