r"""What a pixel is worth knowing of its surroundings: means over ever wider squares, weighted by what noise leaves.

Chou, Willsky & Benveniste 1994, *Multiscale Recursive Estimation*: if the mean of a square of :math:`2^l` pixels
differs from that of the square around it by a normal number of variance :math:`q_l`, and pixels are seen under noise of
variance :math:`t^2` each, then estimates and precisions go up a pyramid,

.. math:: p_0 = t^{-2}, \quad v_0 = u, \qquad p_{l+1} = \sum_4 r_l, \quad v_{l+1} = \sum_4 r_l v_l \Big/ \sum_4 r_l,
          \quad r_l = (1 / p_l + q_l)^{-1},

and what is known of the wider squares comes down again, weighed against what is seen nearer,

.. math:: m_l = \frac{p_l v_l + m_{l+1} / q_l}{p_l + 1 / q_l}.

With every square interpolated among its neighbours on the way down, instead of constant, this is the pull-push fill of
Gortler et al. 1996 for noise of any level at each pixel. A network that begins with it has edges and textures to learn,
and not that the sky is blue on both sides of a scratch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.shapes import Image

__all__ = ["Pyramid"]


class Pyramid(nn.Module):
    """The fill of an image under noise, level by level; the variances q are learnt.

    Parameters
    ----------
    levels
        How often the image is halved, at least 1.
    centre, spread
        Mean and standard deviation of pixels, which the widest squares are drawn to.

    Raises
    ------
    ValueError
        For no level.

    Examples
    --------
    >>> pyramid = Pyramid(levels=3)
    >>> level = torch.full((1, 1, 8, 8), 0.01)
    >>> level[0, 0, 4, 4] = 10.0
    >>> noisy = torch.full((1, 1, 8, 8), 0.7)
    >>> noisy[0, 0, 4, 4] = -3.0
    >>> bool((pyramid(noisy, level) - 0.7).abs().max() < 0.02)
    True
    """

    def __init__(self, levels: int = 6, centre: float = 0.5, spread: float = 0.25):
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels={levels}; expected at least 1")
        self.centre, self.spread = centre, spread
        # Photographs differ from their surroundings the more, the wider these are.
        self.log_variances = nn.Parameter(2 * torch.linspace(0.03, 0.15, levels).log())

    def forward(self, noisy: Image, level: Tensor) -> Image:
        """Return the fill, shaped as images ``(n, channel, row, column)``; ``level`` is that of each pixel."""
        value, precision = noisy, level.square().reciprocal().expand_as(noisy)
        finer = []
        for variance in self.log_variances.exp():
            finer.append((value, precision, variance))
            known = (precision.reciprocal() + variance).reciprocal()
            total = _sums(known)
            value = _sums(known * value) / total
            precision = total
        known = self.spread**-2
        found = (precision * value + known * self.centre) / (precision + known)
        for value, precision, variance in reversed(finer):
            rows, columns = value.shape[-2:]
            around = F.interpolate(found, scale_factor=2.0, mode="bilinear")[..., :rows, :columns]
            found = (precision * value + around / variance) / (precision + 1 / variance)
        return found


def _sums(images: Image) -> Image:
    """Return the sums over squares of 2 x 2 pixels, of which some at the edge may have fewer."""
    rows, columns = images.shape[-2:]
    return 4 * F.avg_pool2d(F.pad(images, (0, columns % 2, 0, rows % 2)), 2)
