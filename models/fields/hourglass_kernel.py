r"""The kernel of a wide hourglass that halves and doubles its maps: the deep image prior with its resampling.

Ulyanov et al. 2018, *Deep Image Prior*, in the limit of Cheng et al. 2019, *A Bayesian Perspective on the Deep Image
Prior*. Down: every second pixel is kept, so that a correlation stays stationary, of twice the distance. Up: of maps
with covariance k on the coarse grid, doubled with weights w (1/4, 3/4, 3/4, 1/4; or 1, 1), two pixels covary by where
they lie between those of the coarse grid. Averaged over these phases, at lag d along an axis,

.. math:: k'(d) = \sum_j b_{d - 2j}\, k(j), \qquad b_l = \tfrac12 \sum_i w_i w_{i + l},

and likewise along the other. It is the covariance of the network's output moved by a random number of pixels, but for
that of the next layers' nonlinearities, which act on averages here: 3e-5 of the variance for bilinear doubling, 1e-3
for that of nearest neighbours (`tests/models/test_hourglass_kernel.py`). The weights b are the cubic B-spline's at
these points, nearly: k' is smooth on scales below a coarse pixel whatever the input is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posterior_inpainting.models.fields.stationary_kernels import StationaryKernel, leaky_units

__all__ = ["HourglassKernel"]


@dataclass(frozen=True)
class HourglassKernel(StationaryKernel):
    r"""The wide limit of ``scales`` convolutions of stride 2, and as many after doubling, on a blurred random input.

    It is defined at whole numbers of pixels along rows and columns, and its level lines are no circles; between whole
    numbers it is linear. As for :class:`DeepImagePriorKernel`, there are no normalisation layers.

    Parameters
    ----------
    lengthscale
        Blur :math:`\sigma` of the input, in pixels of the image.
    scales
        How often the size is halved and doubled, at least 1.
    slope
        Of LeakyReLU, in [0, 1).
    skip
        Share of a doubled map's channels that come from the skip connection: 4 of 132 in the paper.
    upsampling
        ``"bilinear"`` or ``"nearest"``.

    Raises
    ------
    ValueError
        For a number outside its range, or another name.

    Examples
    --------
    >>> kernel = HourglassKernel(1.5, scales=2)
    >>> lags = torch.arange(4)
    >>> [round(float(k), 3) for k in kernel.at(lags, torch.zeros(4))], round(kernel.floor, 2)
    ([1.0, 0.988, 0.959, 0.921], 0.81)
    """

    scales: int = 3
    slope: float = 0.0
    skip: float = 0.0
    upsampling: str = "bilinear"

    #: b at lags 0, 1, 2 ...
    _WEIGHTS: ClassVar[dict[str, tuple[float, ...]]] = {
        "bilinear": (0.625, 0.46875, 0.1875, 0.03125),
        "nearest": (1.0, 0.5),
    }

    def __post_init__(self):
        super().__post_init__()
        if self.scales < 1 or not 0 <= self.slope < 1 or not 0 <= self.skip < 1:
            raise ValueError(
                f"scales={self.scales}, slope={self.slope}, skip={self.skip}; expected scales >= 1, slope and skip "
                "in [0, 1)"
            )
        if self.upsampling not in self._WEIGHTS:
            raise ValueError(f"upsampling={self.upsampling!r}; expected 'bilinear' or 'nearest'")

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return k at lags in whole pixels, of their common shape; differentiable in the lengthscale."""
        rows, columns = rows.abs().long(), columns.abs().long()
        table, _ = self._table(int(rows.max()), int(columns.max()), rows.device)
        return table[rows, columns]

    def __call__(self, squared_distance: Tensor) -> Tensor:
        """Return k along a row of pixels; beyond any finite distance, the floor."""
        distance = squared_distance.double().sqrt()
        finite = distance.isfinite()
        below = torch.where(finite, distance, 0.0).floor()
        part = torch.where(finite, distance - below, 0.0)
        none = torch.zeros_like(below)
        k = (1 - part) * self.at(none, below) + part * self.at(none, below + 1)
        return torch.where(finite, k, self.floor)

    @property
    def floor(self) -> float:
        """The limit of k at infinite distance, where the inputs are uncorrelated."""
        return float(self._table(0, 0, torch.device("cpu"))[1])

    def _table(self, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return k at lags ``(rows + 1, columns + 1)`` from 0 on, and at infinity, float64."""
        # A coarse lag reaches as far as its weights do.
        reach = len(self._WEIGHTS[self.upsampling]) - 1
        extents = [(rows, columns)]
        for _ in range(self.scales):
            extents.append(((extents[-1][0] + reach) // 2, (extents[-1][1] + reach) // 2))
        k, far = self._down(self.scales, self.scales, extents[-1], device)
        for level in reversed(range(self.scales)):
            down, across = (
                self._doubling(*sizes, k) for sizes in zip(extents[level], extents[level + 1], strict=True)
            )
            k = down @ k @ across.T
            skipped, far_skipped = self._down(level, level + 1, extents[level], device)
            k = (1 - self.skip) * k + self.skip * skipped
            far = (1 - self.skip) * far + self.skip * far_skipped
            variance = k[0, 0]
            k, far = (variance * leaky_units(one / variance, self.slope) for one in (k, far))
        return k / k[0, 0], far / k[0, 0]

    def _down(
        self, halved: int, layers: int, extents: tuple[int, int], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return the correlation of maps that are ``halved`` times and passed ``layers``, and at infinity."""
        row, column = (2.0**halved * torch.arange(n + 1, dtype=torch.double, device=device) for n in extents)
        correlation = (-(row[:, None] ** 2 + column**2) / (4 * self.lengthscale**2)).exp()
        far = torch.zeros((), dtype=torch.double, device=device)
        for _ in range(layers):
            correlation, far = (leaky_units(one, self.slope) for one in (correlation, far))
        return correlation, far

    def _doubling(self, extent: int, coarse: int, like: Tensor) -> Tensor:
        """Return the matrix that takes k at coarse lags 0 ... to lags 0 ..., k being the same at -j as at j."""
        weights = like.new_tensor([*self._WEIGHTS[self.upsampling], 0.0])
        lags = torch.arange(extent + 1, device=like.device)[:, None]
        twice = 2 * torch.arange(coarse + 1, device=like.device)
        ahead, behind = (
            weights[apart.clamp(max=len(weights) - 1)] for apart in ((lags - twice).abs(), lags + twice)
        )
        return ahead + torch.where(twice > 0, behind, 0.0)
