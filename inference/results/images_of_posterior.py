"""What a posterior says of an image: completed ones, their mean, and the pixels that were seen."""

from __future__ import annotations

import numpy as np
import xarray as xr

from posterior_inpainting.inference.results.containers import group, group_names, to_arviz
from posterior_inpainting.inference.results.convert import EXPECTED

__all__ = ["completed_images", "posterior_mean", "seen_pixels"]


def completed_images(idata) -> np.ndarray:
    """Return the draws of the image that was partly seen, ``(chain, draw, channel, row, column)``.

    Seen pixels are as they were seen, hidden ones are drawn with their noise. ``posterior_predictive`` has replicates
    of all pixels instead, as a check of fit needs them.

    Parameters
    ----------
    idata
        What ``infer`` returned.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact, infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> posterior = infer(model, seen, Exact(), draws=5, chains=1, progress=False)
    >>> bool((completed_images(posterior)[0, :, 0, :4] == images[0, 0, :4].numpy()).all())
    True
    """
    replicates = group(idata, "posterior_predictive")["image"].to_numpy()
    mask = group(idata, "constant_data")["mask"].to_numpy()
    return np.where(mask, group(idata, "observed_data")["image"].to_numpy(), replicates)


def posterior_mean(idata, clipped: bool = False) -> np.ndarray:
    """Return the mean completion, ``(channel, row, column)``.

    Where a method kept the expectation of each draw given a part of what led to it, these are averaged: their mean is
    that of the draws, with less chance in it (Blackwell 1947; Casella & Robert 1996, *Rao-Blackwellisation of Sampling
    Schemes*). Else it is the average of the draws themselves.

    Parameters
    ----------
    idata
        What ``infer`` returned.
    clipped
        Whether to average what is left of values in [0, 1].

    Examples
    --------
    >>> from posterior_inpainting.inference import ConditionalDiffusion, infer
    >>> from posterior_inpainting.models import MixtureField, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = MixtureField.fit(images, components=2)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> posterior = infer(model, seen, ConditionalDiffusion(), draws=5, chains=1, progress=False)
    >>> posterior_mean(posterior).shape, "expected_completion" in posterior.sample_stats
    ((1, 8, 8), True)
    """
    statistics = group(idata, "sample_stats")
    kept = statistics[EXPECTED] if EXPECTED in statistics else group(idata, "posterior")["completion"]
    values = kept.to_numpy().reshape(-1, *kept.shape[2:])
    return (np.clip(values, 0, 1) if clipped else values).mean(0)


def seen_pixels(idata):
    """Return a posterior of which observation and replicates have the seen pixels alone, one dimension of them.

    So ``log_likelihood``, ``posterior_predictive`` and ``observed_data`` are of the same shape, as ArviZ's
    ``plot_loo_pit``, ``loo_pit`` and ``plot_ppc_pit`` ask, and nothing is NaN.

    Parameters
    ----------
    idata
        What ``infer`` returned.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact, infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> posterior = infer(model, seen, Exact(), draws=5, chains=1, progress=False)
    >>> dict(seen_pixels(posterior).posterior_predictive["image"].sizes)
    {'chain': 1, 'draw': 5, 'pixel': 32}
    """
    groups = {name: group(idata, name) for name in group_names(idata)}
    mask = groups["constant_data"]["mask"].to_numpy().reshape(-1)
    pixel = np.flatnonzero(mask)
    for name in ("posterior_predictive", "observed_data"):
        image = group(idata, name)["image"]
        kept = image.to_numpy().reshape(*image.shape[:-3], -1)[..., mask]
        dims = (*image.dims[:-3], "pixel")
        coords = {dim: image.coords[dim].to_numpy() for dim in dims[:-1]} | {"pixel": pixel}
        groups[name] = xr.Dataset({"image": (dims, kept)}, coords)
    return to_arviz(groups, dict(idata.attrs))
