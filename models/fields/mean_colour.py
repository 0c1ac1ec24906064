r"""The mean colour of an image, as a Gaussian factor beside a field that says nothing of it.

Filters that sum to nothing leave open what an image has everywhere. With :math:`\bar x` the mean of the pixels of each
channel,

.. math:: p(x) \propto p_0(x)\, N(\bar x; \mu, S), \qquad
          \log p = \log p_0 - \tfrac12 (\bar x - \mu)^\top S^{-1} (\bar x - \mu) :

a factor of as many dimensions as there are channels, in a Gibbs sampler of pixels a part of their precision of that
rank.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from posterior_inpainting.models.fields.channel_prior import ChannelPrior
from posterior_inpainting.models.shapes import Image

__all__ = ["MeanColour"]


class MeanColour(nn.Module):
    """Gaussian law of the mean colour of images.

    Parameters
    ----------
    colours
        Whose images' mean colours have that law.

    Examples
    --------
    >>> law = MeanColour(ChannelPrior.of_photographs())
    >>> grey, green = torch.full((3, 4, 4), 0.5), torch.tensor([0.1, 0.9, 0.1]).reshape(3, 1, 1).expand(3, 4, 4)
    >>> bool(law.log_factor(grey) > 5 + law.log_factor(green))
    True
    """

    mean: Tensor
    precision: Tensor
    root: Tensor

    def __init__(self, colours: ChannelPrior):
        super().__init__()
        covariance = colours.means.T.cov().reshape(colours.channels, colours.channels)
        precision = torch.linalg.inv(covariance)
        self.register_buffer("mean", colours.means.mean(0).float())
        self.register_buffer("precision", precision.float())
        self.register_buffer("root", torch.linalg.cholesky(precision).float())

    def log_factor(self, image: Image) -> Tensor:
        """Return the log factor but for its constant, ``(*batch,)``."""
        apart = image.mean((-2, -1)) - self.mean.to(image)
        return -0.5 * ((apart @ self.precision.to(image)) * apart).sum(-1)

    def precision_times(self, image: Image) -> Image:
        """Multiply images ``(n, channel, row, column)`` by the factor's part of the pixels' precision."""
        return self._spread(image.mean((-2, -1)) @ self.precision.to(image), image)

    def right(self, noise: Callable[[Tensor], Tensor], like: Image) -> Image:
        """Return its part of the right-hand side of a draw of pixels, shaped as ``like``.

        Parameters
        ----------
        noise
            From a tensor to white noise of its shape, or to nothing where the mean is solved for.
        like
            Images ``(n, channel, row, column)``.
        """
        white = noise(like[..., 0, 0])
        return self._spread(self.mean.to(like) @ self.precision.to(like) + white @ self.root.T.to(like), like)

    def diagonal(self, like: Image) -> Tensor:
        """Return the diagonal of its part of the precision, ``(channel, 1, 1)``."""
        return self.precision.diagonal().to(like).reshape(-1, 1, 1) / like[0, 0].numel() ** 2

    @staticmethod
    def _spread(colour: Tensor, like: Image) -> Image:
        return (colour / like[0, 0].numel())[..., None, None].expand_as(like)
