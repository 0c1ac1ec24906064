r"""Discriminator or critic: one number for an image, high where it looks like the real ones.

Its output is read in one of two ways. A *logit* (Goodfellow et al. 2014) is the log odds that the image is
real, :math:`D = 1 / (1 + e^{-s})`. A *critic* (Arjovsky, Chintala & Bottou 2017) has no probability behind
it: its mean over real images less that over generated ones estimates their Wasserstein distance.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.networks.fully_connected import hidden_layers
from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["Discriminator"]

OUTPUTS = ("logit", "critic")


class Discriminator(nn.Module):
    r"""Convolutions that halve the sides, then fully connected layers, then one number.

    No batch normalisation, so that the number for an image is its own; SiLU throughout, so that it may stand
    in a density that is followed by gradients.

    Parameters
    ----------
    image_shape
        ``(channel, row, column)`` of what is judged.
    channels
        Channels of the convolutions (5 x 5, stride 2), first to last; none by default.
    widths
        Units of the fully connected layers, first to last.
    output
        ``"logit"`` for ``train_gan(loss="r1")`` or ``"critic"`` for ``loss="wgan-gp"``.

    Raises
    ------
    ValueError
        For another ``output``.

    Examples
    --------
    >>> import torch
    >>> discriminator = Discriminator((1, 8, 8), channels=(4,), widths=(16,))
    >>> tuple(discriminator(torch.rand(3, 2, 1, 8, 8)).shape)
    (3, 2)
    """

    def __init__(
        self,
        image_shape: ImageShape,
        channels: Sequence[int] = (),
        widths: Sequence[int] = (512, 256),
        output: str = "logit",
    ):
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f"output={output!r}; expected one of {', '.join(OUTPUTS)}")
        self.image_shape: ImageShape = tuple(image_shape)
        self.channels = tuple(channels)
        self.widths = tuple(widths)
        self.output = output
        depth, rows, columns = image_shape
        layers: list[nn.Module] = []
        for more in channels:
            layers += [nn.Conv2d(depth, more, 5, stride=2, padding=2), nn.SiLU()]
            depth, rows, columns = more, (rows + 1) // 2, (columns + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        self.trunk = hidden_layers(depth * rows * columns, widths)
        self.head = nn.Linear(([depth * rows * columns, *widths])[-1], 1)

    def configuration(self) -> dict:
        """Return the arguments that make this network again, as they are stored beside its weights."""
        return {
            "image_shape": self.image_shape,
            "channels": self.channels,
            "widths": self.widths,
            "output": self.output,
        }

    def forward(self, image: Image) -> Tensor:
        """Return logits or the critic's values, ``(*batch,)``, of images ``(*batch, channel, row, column)``."""
        batch = image.shape[:-3]
        # In (-1, 1), so that a black background is not a layer of dead inputs.
        features = self.convolutions(2 * image.reshape(-1, *self.image_shape) - 1)
        return self.head(self.trunk(features.flatten(1))).reshape(batch)

    def prior_loss(self, image: Image) -> Tensor:
        r"""Return the prior loss of Yeh et al. 2017 (equation 5), image by image: ``(*batch,)``.

        :math:`\log(1 - D(x))` of a logit; minus the value of a critic. Low where the image looks real.
        """
        value = self(image)
        return -value if self.output == "critic" else -F.softplus(value)
