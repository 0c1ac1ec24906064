"""R-hat and effective sample size in pixel space and of the latents.

Vehtari et al. 2021, *Rank-normalization, folding, and localization: an improved R-hat*. Where the draws are not of a
Markov chain, both would mean nothing and are not reported.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from posterior_inpainting.inference.results.arrays import IMAGE_DIMS
from posterior_inpainting.inference.results.chain_statistics import ess, rhat
from posterior_inpainting.inference.results.containers import group

__all__ = ["latent_ess", "latent_rhat", "pixel_ess", "pixel_rhat"]


def pixel_rhat(idata) -> xr.DataArray:
    """Return the rank-normalised split R-hat of the completion, a map ``(channel, row, column)``.

    NaN where the pixel is seen, and where the draws are not of a Markov chain. A single chain is compared with itself,
    half with half. Values above 1.01 say that the chains do not agree.

    >>> import torch
    >>> from posterior_inpainting.inference import NUTS, infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, observations
    >>> model = LinearGaussian(torch.eye(4)[:, :2], torch.zeros(1, 2, 2), noise=0.5)
    >>> seen = Observation(torch.zeros(1, 2, 2), observations.half((1, 2, 2), hide="bottom"))
    >>> idata = infer(model, seen, NUTS(warmup=20), draws=20, chains=2, progress=False)
    >>> pixel_rhat(idata).shape
    (1, 2, 2)
    """
    return _pixel_map(idata, "rhat", rhat)


def pixel_ess(idata, kind: str = "bulk") -> xr.DataArray:
    """Return the effective sample size of the completion, a map ``(channel, row, column)``; NaN as for R-hat.

    Parameters
    ----------
    idata
        What ``infer`` returned.
    kind
        ``"bulk"`` or ``"tail"``.
    """
    return _pixel_map(idata, "ess", lambda values: ess(values, kind))


def latent_rhat(idata) -> xr.Dataset:
    """Return the R-hat of every latent site; empty where the draws are not of a Markov chain."""
    return _latent_map(idata, rhat)


def latent_ess(idata, kind: str = "bulk") -> xr.Dataset:
    """Return the effective sample size of every latent site; empty where the draws are not of a Markov chain."""
    return _latent_map(idata, lambda values: ess(values, kind))


def _pixel_map(idata, name: str, statistic: Callable[[np.ndarray], np.ndarray]) -> xr.DataArray:
    completion = group(idata, "posterior")["completion"]
    hidden = ~group(idata, "constant_data")["mask"].to_numpy()
    result = np.full(hidden.shape, np.nan)
    if idata.attrs["draws_are"] == "markov" and hidden.any():
        result[hidden] = statistic(completion.to_numpy()[..., hidden])
    return xr.DataArray(result, dims=IMAGE_DIMS, name=name)


def _latent_map(idata, statistic: Callable[[np.ndarray], np.ndarray]) -> xr.Dataset:
    latents = group(idata, "posterior").drop_vars("completion", errors="ignore")
    if idata.attrs["draws_are"] != "markov":
        return xr.Dataset()
    return xr.Dataset(
        {name: (value.dims[2:], statistic(value.to_numpy())) for name, value in latents.data_vars.items()}
    )
