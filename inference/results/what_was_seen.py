"""What a posterior is conditioned on, pixels behind a mask or a measurement, among the groups of ArviZ."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from pyro.distributions import TorchDistribution
from torch import Tensor

from posterior_inpainting.inference.results.arrays import IMAGE_DIMS, array, dataset
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.models.abilities import Abilities
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.observations import Observation

__all__ = ["is_of", "likelihood_group", "observed_groups", "replicates"]

_VALUES = tuple(f"measured_{dim}" for dim in IMAGE_DIMS)


def replicates(
    observation: Observation | Measurement, law: TorchDistribution, abilities: Abilities
) -> tuple[Tensor, Tensor]:
    """Return an image for each draw, and what is seen's log likelihoods.

    Of pixels the image is drawn around the completion, where it is seen, too; of a measurement it is drawn given the
    completion and what was measured, and is the completion where the model's noise is that of seeing pixels. Noise is
    of torch's global generator.

    Parameters
    ----------
    observation
        What was seen.
    law
        Of single pixels, batch shape ``(draw, channel, row, column)``.
    abilities
        The model's.

    Returns
    -------
    image, log_likelihood
        ``(draw, channel, row, column)``, and ``(draw, seen)``: of one number alone where measured values are not
        independent.
    """
    if isinstance(observation, Observation):
        return law.sample(), law.log_prob(observation.image)[:, observation.mask]
    values, instrument = observation.arguments
    mean, variance = law.mean, None if abilities.noise_is_of_seeing else law.variance
    measured: Any = instrument.law(mean, variance)
    flat = values.flatten()
    if isinstance(measured, torch.distributions.Independent):
        log_likelihood = measured.base_dist.log_prob(flat)
    else:
        log_likelihood = measured.log_prob(flat).unsqueeze(-1)
    return mean if variance is None else instrument.image_given(values, mean, variance), log_likelihood


def likelihood_group(observation: Observation | Measurement, log_likelihood: np.ndarray) -> xr.Dataset:
    """Return the group ``log_likelihood`` of ``(chain, draw, seen)``, as ArviZ takes it."""
    if isinstance(observation, Measurement):
        return dataset({"measurement": (("chain", "draw", "value"), log_likelihood)})
    seen = array(observation.mask.flatten().nonzero().flatten())
    return dataset({"image": (("chain", "draw", "pixel"), log_likelihood)}, {"pixel": seen})


def observed_groups(observation: Observation | Measurement) -> dict[str, xr.Dataset]:
    """Return ``observed_data``, NaN where hidden, and ``constant_data``."""
    mask = array(observation.mask)
    constant = dataset({"mask": (IMAGE_DIMS, mask)})
    if isinstance(observation, Observation):
        seen = np.where(mask, array(observation.image), np.nan).astype(np.float32)
        return {"observed_data": dataset({"image": (IMAGE_DIMS, seen)}), "constant_data": constant}
    nothing = np.full(mask.shape, np.nan, np.float32)
    observed = {"image": (IMAGE_DIMS, nothing), "measurement": (_VALUES, array(observation.values))}
    constant["measurement_noise"] = float(observation.noise)
    return {"observed_data": dataset(observed), "constant_data": constant}


def is_of(idata, observation: Observation | Measurement) -> bool:
    """Whether a posterior is of an observation, by what was seen."""
    for name, of_this in observed_groups(observation).items():
        there = group(idata, name)
        for variable, values in of_this.items():
            if variable not in there or there[variable].shape != values.shape:
                return False
            if not np.array_equal(
                there[variable].to_numpy(), values.to_numpy(), equal_nan=values.dtype.kind == "f"
            ):
                return False
    return True
