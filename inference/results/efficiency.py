"""What a run got for its time and gradients: effective draws a second and a thousand gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from posterior_inpainting.inference.results.chain_statistics import ess
from posterior_inpainting.inference.results.containers import group

__all__ = ["efficiency"]


def efficiency(groups: Any, attrs: Mapping[str, Any]) -> dict[str, float]:
    """Return the worst value's ESS a second and a thousand gradients, warm-up counted; empty if not Markov.

    The worst over the completion's hidden pixels where there are some, over the latents otherwise.

    Parameters
    ----------
    groups
        Group name -> data set, or what ``infer`` returned.
    attrs
        ``draws_are``, ``wall_time_s`` and ``gradient_evaluations``.

    Examples
    --------
    >>> import xarray as xr
    >>> draws = np.random.default_rng(0).normal(size=(4, 500, 2))
    >>> groups = {"posterior": xr.Dataset({"z": (("chain", "draw", "latent"), draws)})}
    >>> attrs = {"draws_are": "markov", "wall_time_s": 10.0, "gradient_evaluations": 4000}
    >>> {name: round(value) for name, value in efficiency(groups, attrs).items()}
    {'ess_per_second': 171, 'ess_per_1000_gradients': 428}
    """
    if attrs["draws_are"] != "markov":
        return {}
    found = groups if isinstance(groups, dict) else {"posterior": group(groups, "posterior")}
    draws = found["posterior"]
    values = [value.to_numpy() for name, value in draws.items() if name != "completion"]
    if "completion" in draws:
        constant = found.get("constant_data")
        mask = (group(groups, "constant_data") if constant is None else constant)["mask"].to_numpy()
        if not mask.all():
            values = [draws["completion"].to_numpy()[..., ~mask]]
    every = np.concatenate([ess(value).ravel() for value in values]) if values else np.empty(0)
    worst = float(np.nanmin(every)) if np.isfinite(every).any() else float("nan")
    figures = {"ess_per_second": worst / attrs["wall_time_s"]}
    if attrs.get("gradient_evaluations"):
        figures["ess_per_1000_gradients"] = 1000 * worst / attrs["gradient_evaluations"]
    return figures
