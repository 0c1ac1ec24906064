r"""What a pixel is worth knowing of its surroundings: means over ever wider squares, weighted by what noise leaves.

Chou, Willsky & Benveniste 1994, *Multiscale Recursive Estimation*: if the mean of a square of :math:`2^l` pixels
differs from that of the square around it by a normal number of variance :math:`q_l`, and pixels are seen under noise of
variance :math:`t^2` each, then estimates and precisions go up a pyramid,

.. math:: p_0 = t^{-2}, \quad v_0 = u, \qquad p_{l+1} = \sum_4 r_l, \quad v_{l+1} = \sum_4 r_l v_l \Big/ \sum_4 r_l,
          \quad r_l = (1 / p_l + q_l)^{-1},

and what is known of the wider squares comes down again, weighed against what is seen nearer,

.. math:: m_l = \frac{p_l v_l + m_{l+1} / q_l}{p_l + 1 / q_l}.

With every square interpolated among its neighbours on the way down, instead of constant, this is the pull-push fill of
Gortler et al. 1996 for noise of any level at each pixel. At every level it begins sweeps through a Gaussian Markov
field: a square given those around it has a mean, which is a filter K of them, and a variance c (Besag 1974, *Spatial
Interaction and the Statistical Analysis of Lattice Systems*), and

.. math:: m_l \leftarrow w v_l + (1 - w) \big( m_l + a (K * m_l - m_l) \big), \qquad w = \frac{p_l}{p_l + 1 / c},

goes towards the field's mean given what is seen, as Jacobi's method does: in a hole slopes and curves go on, where a
fill by means alone is flat. A network that begins with it has edges and textures to learn, and not that the sky is blue
on both sides of a scratch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.shapes import Image

__all__ = ["Pyramid"]


class Pyramid(nn.Module):
    """The fill of an image under noise, level by level; the variances q and c, the filters K and steps a are learnt.

    Parameters
    ----------
    levels
        How often the image is halved, at least 1.
    sweeps
        Through each level, the filters of which are 5 x 5; 0 for the pull-push fill alone.
    centre, spread
        Mean and standard deviation of pixels, which the widest squares are drawn to.

    Raises
    ------
    ValueError
        For no level, or fewer than no sweeps.

    Examples
    --------
    >>> pyramid = Pyramid(levels=3)
    >>> level = torch.full((1, 1, 8, 8), 0.01)
    >>> level[0, 0, 4, 4] = 10.0
    >>> noisy = torch.full((1, 1, 8, 8), 0.7)
    >>> noisy[0, 0, 4, 4] = -3.0
    >>> bool((pyramid(noisy, level)[0] - 0.7).abs().max() < 0.02)
    True
    """

    others: Tensor

    def __init__(self, levels: int = 6, centre: float = 0.5, spread: float = 0.25, sweeps: int = 6):
        super().__init__()
        if levels < 1 or sweeps < 0:
            raise ValueError(f"levels={levels}, sweeps={sweeps}; expected at least 1 level and 0 sweeps")
        self.levels, self.centre, self.spread, self.sweeps = levels, centre, spread, sweeps
        # Photographs differ from their surroundings the more, the wider these are.
        self.log_variances = nn.Parameter(2 * torch.linspace(0.03, 0.15, levels).log())
        if sweeps:
            self.filters = nn.Parameter(torch.tensor(_SMOOTH).repeat(levels, 1, 1) / 40)
            others = torch.ones(5, 5)  # all but the pixel itself
            others[2, 2] = 0
            self.register_buffer("others", others, persistent=False)
            self.log_conditional = nn.Parameter(2 * torch.linspace(0.02, 0.1, levels).log())
            self.steps = nn.Parameter(torch.ones(levels))
        self.log_doubts = nn.Parameter(2 * torch.linspace(0.03, 0.15, levels).log())

    def forward(self, noisy: Image, level: Tensor) -> tuple[Image, Image]:
        """Return the fill, and how far it may be from each pixel: a variance.

        Parameters
        ----------
        noisy
            ``(n, channel, row, column)``.
        level
            Standard deviation of the noise of each pixel.
        """
        # Differences of seen pixels are small beside them: in low precision they would be lost.
        with torch.autocast(noisy.device.type, enabled=False):
            return self._filled(noisy, level.square().reciprocal().expand_as(noisy))

    def _filled(self, value: Image, precision: Image) -> tuple[Image, Image]:
        finer = []
        for variance in self.log_variances.exp():
            finer.append((value, precision))
            known = (precision.reciprocal() + variance).reciprocal()
            total = _sums(known)
            value = _sums(known * value) / total
            precision = total
        known = self.spread**-2
        found = (precision * value + known * self.centre) / (precision + known)
        doubt = (precision + known).reciprocal()
        for index in range(self.levels - 1, -1, -1):
            value, precision = finer[index]
            around, doubt = (_between(coarse, value) for coarse in (found, doubt))
            weight = precision / (precision + (-self.log_variances[index]).exp())
            found = around.lerp(value, weight)
            doubt = (precision + (doubt + self.log_doubts[index].exp()).reciprocal()).reciprocal()
            if self.sweeps:
                found = self._swept(found, value, precision, index)
        return found, doubt

    def _swept(self, found: Image, value: Image, precision: Image, index: int) -> Image:
        """Return what sweeps through one level make of what was found there."""
        taken = self.filters[index] * self.others
        taken = taken + self.others * (1 - taken.sum()) / 24  # what is constant stays
        weight = precision / (precision + (-self.log_conditional[index]).exp())
        rows, columns = found.shape[-2:]
        for _ in range(self.sweeps):
            padded = F.pad(found, (2, 2, 2, 2), mode="replicate").reshape(-1, 1, rows + 4, columns + 4)
            mean = F.conv2d(padded, taken[None, None]).reshape(found.shape)
            found = found.lerp(mean, self.steps[index]).lerp(value, weight)
        return found


#: What filters begin as, times 40: half way from a membrane's (means of four) to a thin plate's, whose curvature is
#: continued.
_SMOOTH = (
    (0, 0, -1, 0, 0),
    (0, -2, 13, -2, 0),
    (-1, 13, 0, 13, -1),
    (0, -2, 13, -2, 0),
    (0, 0, -1, 0, 0),
)


def _between(coarse: Image, fine: Image) -> Image:
    """Return the values of a level at the places of the next finer one, of whose shape they are."""
    rows, columns = fine.shape[-2:]
    return F.interpolate(coarse, scale_factor=2.0, mode="bilinear")[..., :rows, :columns]


def _sums(images: Image) -> Image:
    """Return the sums over squares of 2 x 2 pixels, of which some at the edge may have fewer."""
    rows, columns = images.shape[-2:]
    return 4 * F.avg_pool2d(F.pad(images, (0, columns % 2, 0, rows % 2)), 2)
