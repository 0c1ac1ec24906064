"""Draw what ``calibrate`` found: rank and coverage curves, with the band that they should stay in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from posterior_inpainting.inference.evaluation.calibration import Calibration
from posterior_inpainting.inference.evaluation.uniformity import Uniformity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["rank_ecdf", "tarp_curve"]


def rank_ecdf(calibration: Calibration, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Draw the ECDF difference of every test quantity's ranks, with one simultaneous band for all.

    Above the band left of the middle and below it on the right: draws too narrow. The other way round: too
    wide. On one side only: shifted. Quantities that leave the band are named, the others are grey.

    Parameters
    ----------
    calibration
        What ``calibrate`` returned.
    level
        Coverage of the band, all quantities and points together.
    ax
        Where to draw.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact, calibrate
    >>> from posterior_inpainting.models import LinearGaussian, datasets, observations
    >>> model = LinearGaussian.fit(datasets.load("digits", split="train"), latent=2)
    >>> mask = observations.half(model.image_shape, hide="bottom")
    >>> found = calibrate(model, Exact(), mask=mask, datasets=20, draws=20, chains=1, progress=False)
    >>> rank_ecdf(found).get_xlabel(), tarp_curve(found).get_xlabel()
    ('normalised rank', 'credibility level')
    """
    found = calibration.sbc(level)
    ax = _axes(ax, found)
    for name, curve in zip(found.names, found.difference, strict=True):
        if name in found.outside:
            ax.plot(found.grid, curve, linewidth=1.2, label=name)
        else:
            ax.plot(found.grid, curve, linewidth=0.8, color="0.35", alpha=0.6)
    _finish(
        ax, found, calibration, "normalised rank", "ECDF difference", f"SBC, {len(found.names)} quantities"
    )
    if found.outside:
        ax.legend(fontsize=6, ncols=2, title="outside", title_fontsize=7)
    return ax


def tarp_curve(calibration: Calibration, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Draw expected coverage of balls around random points against credibility (TARP), with its band.

    Parameters
    ----------
    calibration, level, ax
        As for :func:`rank_ecdf`.
    """
    found = calibration.tarp(level)
    ax = _axes(ax, found, slope=1.0)
    ax.plot(found.grid, found.grid + found.difference[0], linewidth=1.4)
    _finish(ax, found, calibration, "credibility level", "expected coverage", "TARP")
    return ax


def _axes(ax: Axes | None, found: Uniformity, slope: float = 0.0) -> Axes:
    import matplotlib.pyplot as plt

    ax = ax if ax is not None else plt.subplots(figsize=(4.2, 3.2), layout="constrained")[1]
    line = slope * found.grid
    ax.fill_between(found.grid, line + found.low, line + found.high, color="0.88", linewidth=0)
    ends = np.array([0.0, 1.0])
    ax.plot(ends, slope * ends, color="0.6", linewidth=0.8)
    return ax


def _finish(ax: Axes, found: Uniformity, calibration: Calibration, x: str, y: str, name: str) -> None:
    verdict = "inside" if found.inside_band else "OUTSIDE"
    ax.set(xlabel=x, ylabel=y, xlim=(0, 1))
    ax.set_title(
        f"{name}: {calibration.model}, {calibration.method}\n"
        f"{found.count} data sets, {verdict} the {found.level:.0%} band (p = {found.pvalue:.2g})",
        fontsize=9,
    )
