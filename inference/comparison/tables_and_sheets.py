"""A comparison as a table and as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["markdown", "sheet", "table"]

_COLUMNS = {
    "PSNR of the mean (dB)": 1,
    "SSIM of the mean": 3,
    "CRPS": 4,
    "energy score": 3,
    "coverage 50%": 3,
    "coverage 80%": 3,
    "coverage 90%": 3,
    "coverage 95%": 3,
    "diversity (RMSE)": 3,
    "diversity (1 - SSIM)": 3,
    "R-hat, pixels (max)": 3,
    "Pareto k-hat": 2,
    "seconds": 1,
    "gradients": 0,
}


def table(comparison: xr.Dataset, mask: str | None = None, rounded: bool = False) -> pd.DataFrame:
    """Return a row an approach: the mean over images, and over masks if none is named; R-hat and k-hat are medians.

    Parameters
    ----------
    comparison
        What ``compare`` returned.
    mask
        One of its masks.
    rounded
        Whether to round each figure to its usual digits, as text.

    Returns
    -------
    DataFrame
        Indexed by approach. Without ``rounded`` there is, for CRPS, its standard error over images too, and ``failed``
        counts the cells without a result, which no mean includes.

    Examples
    --------
    >>> cell = {name: (("approach", "mask", "image"), [[[1.0, 3.0]]]) for name in ("CRPS", "coverage 95%")}
    >>> coords = {"approach": ["vae"], "mask": ["bottom"], "image": [0, 1]}
    >>> table(xr.Dataset(cell, coords=coords)).round(2).loc["vae"].to_dict()
    {'CRPS': 2.0, 'coverage 95%': 2.0, 'CRPS, standard error': 1.0, 'failed': 0.0}
    """
    import pandas as pd

    some = comparison if mask is None else comparison.sel(mask=[mask])
    names = [name for name in _COLUMNS if name in comparison]
    columns = {}
    for name in names:
        values = some[name]
        medians = name in ("R-hat, pixels (max)", "Pareto k-hat")
        columns[name] = (values.median if medians else values.mean)(["mask", "image"]).to_numpy()
    if rounded:
        text = {name: [_text(value, _COLUMNS[name]) for value in column] for name, column in columns.items()}
        return pd.DataFrame(text, index=pd.Index(comparison["approach"].to_numpy(), name="approach"))
    by_image = some["CRPS"].mean("mask")
    columns["CRPS, standard error"] = (
        by_image.std("image", ddof=1) / np.sqrt(by_image.count("image"))
    ).to_numpy()
    columns["failed"] = some["CRPS"].isnull().sum(["mask", "image"]).to_numpy().astype(float)
    return pd.DataFrame(columns, index=pd.Index(comparison["approach"].to_numpy(), name="approach"))


def markdown(comparison: xr.Dataset, mask: str | None = None) -> str:
    """Return :func:`table` in Markdown, restarts and failed cells marked as such, best CRPS first."""
    figures = table(comparison, mask)
    order = figures["CRPS"].sort_values().index
    cells = comparison["CRPS"].sizes["image"] * (comparison["CRPS"].sizes["mask"] if mask is None else 1)
    shown = table(comparison, mask, rounded=True).loc[order]
    kinds = dict(zip(comparison["approach"].to_numpy(), comparison["draws_are"].to_numpy(), strict=True))
    lines = ["| approach | " + " | ".join(shown.columns) + " |", "|---" * (1 + len(shown.columns)) + "|"]
    for name, row in shown.iterrows():
        label = f"{name} (restarts)" if kinds[name] == "restarts" else name
        failed = int(figures["failed"][name])
        label += f" ({failed} of {cells} failed)" if failed else ""
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def sheet(
    comparison: xr.Dataset, image: int = 0, mask: str | None = None, draws: int = 8, title: str | None = None
) -> np.ndarray:
    """Draw one sheet: a row an approach; columns are the mean, the standard deviation and draws.

    Parameters
    ----------
    comparison
        What ``compare`` returned.
    image, mask
        Which cell of each approach; the first mask by default.
    draws
        How many draws to show at most, without pixel noise.
    title
        Put above everything.

    Returns
    -------
    ndarray of Axes
        ``(approach + 1, 2 + draws)``; the first row holds what is seen and the truth.
    """
    import matplotlib.pyplot as plt

    from posterior_inpainting.inference.evaluation.plots import picture, with_holes

    one = comparison.sel(image=image, mask=comparison["mask"].item(0) if mask is None else mask)
    names = comparison["approach"].to_numpy()
    kept = one["draws"].to_numpy()
    kept = kept.reshape(len(names), -1, *kept.shape[3:])
    chosen = np.linspace(0, kept.shape[1] - 1, min(draws, kept.shape[1])).astype(int)
    rows, columns = len(names) + 1, 2 + len(chosen)
    figure, axes = plt.subplots(
        rows, columns, figsize=(0.85 * columns + 2.6, 0.87 * rows + 0.3), layout="constrained", squeeze=False
    )
    for axis in axes.ravel():
        axis.set_axis_off()
    seen = one["seen"].to_numpy()
    truth = one["truth"].to_numpy()
    _show(axes[0, 0], with_holes(np.where(seen, truth, np.nan), seen), "observed")
    _show(axes[0, 1], picture(truth), "truth")
    widest = float(np.nanmax(one["sd"].to_numpy()))
    for row, name in enumerate(names, start=1):
        cell = one.sel(approach=name)
        word = " (restarts)" if str(cell["draws_are"].item()) == "restarts" else ""
        axes[row, 0].text(
            -0.15, 0.5, f"{name}{word}", ha="right", va="center", fontsize=8, transform=axes[row, 0].transAxes
        )
        if np.isnan(cell["mean"].to_numpy()).any():
            axes[row, 0].text(0, 0.5, "failed", fontsize=8, transform=axes[row, 0].transAxes)
            continue
        _show(axes[row, 0], picture(cell["mean"].to_numpy()), "mean" if row == 1 else "")
        axes[row, 1].imshow(cell["sd"].to_numpy().mean(0), cmap="magma", vmin=0, vmax=widest)
        axes[row, 1].set_title("sd" if row == 1 else "", fontsize=8)
        for column, index in enumerate(chosen, start=2):
            heading = f"draw {column - 1}" if row == 1 else ""
            _show(axes[row, column], picture(kept[row - 1, index]), heading)
    if title is not None:
        figure.suptitle(title, fontsize=9)
    return axes


def _show(axis: Axes, values: np.ndarray, title: str) -> None:
    axis.imshow(values, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=8)


def _text(value: float, digits: int) -> str:
    if np.isnan(value):
        return ""
    text = f"{value:,.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
