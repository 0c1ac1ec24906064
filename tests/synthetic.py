"""Posteriors made of plain arrays, for everything that only reads them."""

import numpy as np
import xarray as xr

from posterior_inpainting.inference.results.containers import to_arviz

IMAGE = ("channel", "row", "column")
#: Of every posterior of an image.
GROUPS = {
    "posterior",
    "posterior_predictive",
    "sample_stats",
    "log_likelihood",
    "observed_data",
    "constant_data",
}


def names(idata):
    """Names of the groups of either container."""
    found = idata.groups
    return {name.strip("/") for name in (found() if callable(found) else found)} - {""}


def posterior(predictive, mask, *, image=None, completion=None, draws_are="independent", z=None, **stats):
    """A posterior as ``infer`` returns it.

    ``predictive`` and ``completion`` are ``(chain, draw, channel, row, column)`` (the latter is the former
    unless given), ``z`` is ``(chain, draw, latent)``, and statistics are ``(chain, draw)``.
    """
    mask = np.asarray(mask)
    predictive = np.asarray(predictive)
    completion = predictive if completion is None else np.asarray(completion)
    image = np.zeros(mask.shape) if image is None else np.asarray(image)
    z = np.zeros((*predictive.shape[:2], 1)) if z is None else z
    stats = {"lp": np.zeros(predictive.shape[:2]), **stats}
    draws = ("chain", "draw")
    groups = {
        "posterior": xr.Dataset({"z": ((*draws, "latent"), z), "completion": ((*draws, *IMAGE), completion)}),
        "posterior_predictive": xr.Dataset({"image": ((*draws, *IMAGE), np.where(mask, image, predictive))}),
        "sample_stats": xr.Dataset({name: (draws, value) for name, value in stats.items()}),
        "observed_data": xr.Dataset({"image": (IMAGE, np.where(mask, image, np.nan))}),
        "constant_data": xr.Dataset({"mask": (IMAGE, mask)}),
    }
    attrs = {
        "model": "Made",
        "method": "Up",
        "draws_are": draws_are,
        "density": "posterior",
        "wall_time_s": 1.5,
    }
    return to_arviz(groups, attrs)
