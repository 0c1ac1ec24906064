r"""Test whether numbers are uniform: their empirical distribution function with a simultaneous band.

Sailynoja, Buerkner & Vehtari 2022, *Graphical Test for Discrete Uniformity and its Applications in
Goodness-of-Fit Evaluation and Multiple Sample Comparison*. Of N uniform numbers the count below z is
binomial, so that one point of the curve has tail probability

.. math:: t(z) = 2 \min\{F(c \mid N, z),\ 1 - F(c - 1 \mid N, z)\},

and the band of level 1 - alpha is where t is at least the alpha-quantile of :math:`\min_z t(z)`, found by
simulation. Several quantities at once share alpha (Bonferroni), so that one verdict holds for all of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

__all__ = ["Uniformity", "uniformity"]

_SIMULATIONS = 20_000


@dataclass(frozen=True)
class Uniformity:
    """What :func:`uniformity` found.

    Parameters
    ----------
    names
        Quantities.
    grid
        Points z at which the curves are compared, ``(point,)``.
    difference
        ECDF minus z, ``(quantity, point)``; 0 is perfect.
    low, high
        The band, ``(point,)``; it holds for all quantities and points together.
    pvalues
        Of each quantity alone, ``(quantity,)``; the least that the simulation resolves is 1 / 20,001.
    level
        Coverage of the band.
    count
        Numbers N of each quantity.
    """

    names: tuple[str, ...]
    grid: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    pvalues: np.ndarray
    level: float
    count: int

    @property
    def pvalue(self) -> float:
        """Probability that uniform numbers give a quantity as far off as the worst one, at most (Bonferroni)."""
        return float(min(1.0, len(self.names) * self.pvalues.min()))

    @property
    def inside_band(self) -> bool:
        """Whether every curve stays inside."""
        return self.pvalue > 1 - self.level

    @property
    def outside(self) -> tuple[str, ...]:
        """Names of the quantities whose curves leave the band."""
        limit = (1 - self.level) / len(self.names)
        return tuple(name for name, p in zip(self.names, self.pvalues, strict=True) if p <= limit)


def uniformity(values: dict[str, np.ndarray], level: float = 0.95) -> Uniformity:
    """Compare numbers that should be uniform on (0, 1) with the uniform law.

    Parameters
    ----------
    values
        Quantity -> ``(n,)``, the numbers of one quantity independent of each other.
    level
        Coverage of the band, in (0, 1).

    Raises
    ------
    ValueError
        For no quantity, fewer than 10 numbers, unequal numbers of them, values outside [0, 1], or a level
        that is not in (0, 1).

    Examples
    --------
    >>> numbers = np.random.default_rng(0).random(200)
    >>> uniformity({"uniform": numbers}).inside_band, uniformity({"squared": numbers**2}).inside_band
    (True, False)
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}; expected a number in (0, 1)")
    if not values or len({len(v) for v in values.values()}) != 1:
        raise ValueError("expected at least one quantity, and as many numbers of each")
    table = np.stack([np.asarray(v, float) for v in values.values()])
    count = table.shape[1]
    if count < 10:
        raise ValueError(f"there are {count} numbers of each quantity; expected at least 10")
    if not ((table >= 0) & (table <= 1)).all():
        raise ValueError("there are numbers outside [0, 1]")
    points = min(count, 100)
    grid = np.arange(1, points) / points
    tails, simulated = _null(count, points)
    below = (table[:, :, None] <= grid).sum(1)
    least = _least_tail(tails, below)
    pvalues = (1 + np.searchsorted(simulated, least, side="right")) / (1 + len(simulated))
    # The least simulated value that is not rejected: so the band and the p-value are one verdict.
    ranked = (1 + np.searchsorted(simulated, simulated, side="right")) / (1 + len(simulated))
    limit = simulated[np.searchsorted(ranked, (1 - level) / len(values), side="right")]
    allowed = tails >= limit
    low, high = allowed.argmax(0), count - allowed[::-1].argmax(0)
    return Uniformity(
        tuple(values),
        grid,
        below / count - grid,
        low / count - grid,
        high / count - grid,
        pvalues,
        level,
        count,
    )


@functools.lru_cache(maxsize=16)
def _null(count: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Tail probabilities ``(count + 1, points - 1)``, and sorted least tails of simulated uniform numbers."""
    grid = np.arange(1, points) / points
    counts = np.arange(count + 1)[:, None]
    # Rounded, so that what is equal by symmetry ties exactly.
    tails = np.round(2 * np.minimum(binom.cdf(counts, count, grid), binom.sf(counts - 1, count, grid)), 12)
    random = np.random.default_rng(0)
    cells = random.multinomial(count, np.full(points, 1 / points), size=_SIMULATIONS)
    return tails, np.sort(_least_tail(tails, cells.cumsum(1)[:, :-1]))


def _least_tail(tails: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Least tail probability over points of counts ``(..., points - 1)``."""
    return tails[below, np.arange(tails.shape[1])].min(-1)
