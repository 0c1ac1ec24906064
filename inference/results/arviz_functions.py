"""ArviZ's own statistics, of whichever generation is installed.

With ``convert``, which knows its containers, the only file that knows which ArviZ that is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import xarray as xr

__all__ = ["arviz_statistic", "pareto_khat"]


def arviz_statistic(name: str) -> Callable[..., xr.Dataset]:
    """Return ArviZ's function of that name, silent where a value never varies.

    Parameters
    ----------
    name
        ``"rhat"``, ``"ess"`` and so on: a function of a data set with dimensions ``chain`` and ``draw``. R-hat of a
        single chain compares its halves.
    """
    try:
        generation = importlib.import_module("arviz")
    except ImportError:
        generation = importlib.import_module("arviz_stats")

    def quiet(dataset: xr.Dataset, **options) -> xr.Dataset:
        """Call the statistic without its warnings."""
        if name == "rhat" and dataset.sizes["chain"] == 1:
            dataset = _halves(dataset)
        with np.errstate(invalid="ignore", divide="ignore"):
            return getattr(generation, name)(dataset, **options)

    return quiet


def pareto_khat(log_weights: np.ndarray) -> float:
    """Return the Pareto k-hat of log importance weights ``(n,)``."""
    try:
        import arviz

        if hasattr(arviz, "psislw"):
            return arviz.psislw(log_weights)[1]
    except ImportError:
        pass
    from arviz_stats.base import array_stats

    # Weights, not their logarithms: this generation's `psislw` takes log likelihoods, of the opposite sign.
    weights = np.exp(log_weights - log_weights.max())
    return array_stats.pareto_khat(weights, chain_axis=None, r_eff=1.0, tail="right")


def _halves(dataset: xr.Dataset) -> xr.Dataset:
    """Make two chains of a single one, which has nothing else to be compared with."""
    length = dataset.sizes["draw"] // 2
    parts = [
        dataset.isel(draw=slice(k * length, (k + 1) * length)).drop_vars(["chain", "draw"], errors="ignore")
        for k in (0, 1)
    ]
    return xr.concat(parts, "chain")
