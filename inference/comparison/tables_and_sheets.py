"""A comparison as a table and as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["above_the_best", "markdown", "sheet", "table"]

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

#: How much the CRPS is above that of the best approach.
_ABOVE = "CRPS above the best"
#: What is said of rows that are no draws.
_KINDS = {"restarts": " (restarts)", "filling": " (mean only)"}


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
        Indexed by approach. Without ``rounded`` there is, for CRPS, its standard error over images too, and how much it
        is above that of the best approach on the same images behind the same masks, with the standard error of these
        differences, see :func:`above_the_best`. ``failed`` counts the cells without a result, which no mean includes.

    Examples
    --------
    >>> cell = {name: (("approach", "mask", "image"), [[[1.0, 3.0]]]) for name in ("CRPS", "coverage 95%")}
    >>> coords = {"approach": ["vae"], "mask": ["bottom"], "image": [0, 1]}
    >>> shown = table(xr.Dataset(cell, coords=coords)).round(2)
    >>> shown.loc["vae", ["CRPS", "CRPS, standard error", "CRPS above the best", "failed"]].tolist()
    [2.0, 1.0, 0.0, 0.0]
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
        text = _beside_crps(
            text, _ABOVE, [_with_error(*pair) for pair in zip(*above_the_best(some), strict=True)]
        )
        return pd.DataFrame(text, index=pd.Index(comparison["approach"].to_numpy(), name="approach"))
    by_image = some["CRPS"].mean("mask")
    columns["CRPS, standard error"] = (
        by_image.std("image", ddof=1) / np.sqrt(by_image.count("image"))
    ).to_numpy()
    columns[_ABOVE], columns[f"{_ABOVE}, standard error"] = above_the_best(some)
    columns["failed"] = some["CRPS"].isnull().sum(["mask", "image"]).to_numpy().astype(float)
    return pd.DataFrame(columns, index=pd.Index(comparison["approach"].to_numpy(), name="approach"))


def above_the_best(comparison: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return how much each approach's CRPS is above that of the best, ``(approach,)``, and the standard error of that.

    Differences are taken cell by cell, where both have one, averaged over masks, then over images, whose number the
    standard error counts: the masks of one image say nearly the same. Images differ more than approaches do, so that
    the differences are known better than either mean. The best is the one that came out best on these images.

    Parameters
    ----------
    comparison
        What ``compare`` returned; the ``CRPS`` alone is read.

    Examples
    --------
    >>> cells = [[[1.0, 5.0, 3.0]], [[2.0, 6.5, 3.5]]]
    >>> difference, error = above_the_best(xr.Dataset({"CRPS": (("approach", "mask", "image"), cells)}))
    >>> difference.tolist(), error.round(3).tolist()
    ([0.0, 1.0], [0.0, 0.289])
    """
    crps = comparison["CRPS"]
    best = int(crps.mean(["mask", "image"]).argmin("approach"))
    difference = (crps - crps.isel(approach=best)).mean("mask")
    error = difference.std("image", ddof=1) / np.sqrt(difference.count("image"))
    return difference.mean("image").to_numpy(), error.to_numpy()


def markdown(comparison: xr.Dataset, mask: str | None = None) -> str:
    """Return :func:`table` in Markdown, restarts, fillings and failed cells marked as such, best CRPS first."""
    figures = table(comparison, mask)
    order = figures["CRPS"].sort_values().index
    cells = comparison["CRPS"].sizes["image"] * (comparison["CRPS"].sizes["mask"] if mask is None else 1)
    shown = table(comparison, mask, rounded=True).loc[order]
    kinds = dict(zip(comparison["approach"].to_numpy(), comparison["draws_are"].to_numpy(), strict=True))
    lines = ["| approach | " + " | ".join(shown.columns) + " |", "|---" * (1 + len(shown.columns)) + "|"]
    for name, row in shown.iterrows():
        label = f"{name}{_KINDS.get(kinds[name], '')}"
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
    drawn = np.isfinite(kept).reshape(len(names), -1).all(1)  # neither a filling nor failed
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
        word = _KINDS.get(str(cell["draws_are"].item()), "")
        axes[row, 0].text(
            -0.15, 0.5, f"{name}{word}", ha="right", va="center", fontsize=8, transform=axes[row, 0].transAxes
        )
        if np.isnan(cell["mean"].to_numpy()).any():
            axes[row, 0].text(0, 0.5, "failed", fontsize=8, transform=axes[row, 0].transAxes)
            continue
        _show(axes[row, 0], picture(cell["mean"].to_numpy()), "mean" if row == 1 else "")
        axes[row, 1].imshow(cell["sd"].to_numpy().mean(0), cmap="magma", vmin=0, vmax=widest)
        axes[row, 1].set_title("sd" if row == 1 else "", fontsize=8)
        for column, index in enumerate(chosen if drawn[row - 1] else [], start=2):
            heading = f"draw {column - 1}" if row == 1 + int(drawn.argmax()) else ""
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


def _with_error(value: float, error: float) -> str:
    """Return a difference with its standard error, if there is one; nothing of the best itself."""
    text = _text(value, 4) if value else ""
    return f"{text} ({_text(error, 4)})" if text and np.isfinite(error) else text


def _beside_crps(columns: dict[str, list[str]], name: str, values: list[str]) -> dict[str, list[str]]:
    """Return columns with another one after that of the CRPS."""
    names = list(columns)
    names.insert(names.index("CRPS") + 1, name)
    everything = columns | {name: values}
    return {one: everything[one] for one in names}
