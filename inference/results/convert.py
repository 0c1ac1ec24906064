"""Draws to groups of ArviZ, one ``xarray.Dataset`` each.

They are never squeezed through ``az.from_pyro``, which forgets masks and files deterministic sites as data.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from pyro.distributions import TorchDistribution
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Problem
from posterior_inpainting.inference.density.tracing import batched_trace, plate_nesting
from posterior_inpainting.inference.results.arrays import IMAGE_DIMS, array, dataset, numbered
from posterior_inpainting.inference.results.what_was_seen import likelihood_group, observed_groups, replicates
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.measurements import Instrument, Measurement
from posterior_inpainting.models.observations import Observation

__all__ = [
    "EXPECTED",
    "KEPT",
    "completions_of_draws",
    "image_groups",
    "latent_groups",
    "pixels_of_draws",
]

#: Groups of an image's posterior that need not be kept; most of the memory of a result is theirs.
KEPT = ("posterior_predictive", "log_likelihood")
#: Draws, and pixels of draws, that go through a model at a time: what a decoder makes of them on the way is larger.
_CHUNK, _PIXELS = 512, 2**20
#: What is kept of a draw, instead of too many latents, to give the law of its pixels again.
_LAW = ("completion", "scale")
#: Where the completions, the replicates and the likelihoods of draws are kept.
_GROUPS = ("posterior", *KEPT)
#: The statistic that is an image a draw, see ``Draws``.
EXPECTED = "expected_completion"


#: Of single precision, with a few to differ in.
_LAST_DIGITS = 3e-6


def latent_groups(drawn: Draws, small: int | None = 10_000) -> dict[str, xr.Dataset]:
    """Return the groups ``posterior`` (latents of at most ``small`` elements) and ``sample_stats``.

    Raises ``ValueError`` for draws without latents or statistics, or not of the same chains and draws.
    """
    _check(drawn)
    posterior = {}
    for site, value in drawn.latents.items():
        if small is None or value[0, 0].numel() <= small:
            names = (
                ("latent",)
                if site == "z" and value.dim() == 3
                else tuple(f"{site}_dim_{i}" for i in range(value.dim() - 2))
            )
            posterior[site] = (("chain", "draw", *names), array(value))
    return {"posterior": dataset(posterior), "sample_stats": _statistics(drawn)}


def image_groups(
    drawn: Draws,
    problem: Problem,
    observation: Observation | Measurement,
    streams: Streams,
    keep: Collection[str] = KEPT,
) -> dict[str, xr.Dataset]:
    """Run the model forward for every draw; return every group of an image's posterior.

    Parameters
    ----------
    drawn
        Latents of ``problem.model``, or what it keeps of them.
    problem, observation
        The model with its arguments, and the image and mask among them.
    streams
        Of the run; the noise of pixels has one of its own.
    keep
        Which of these two groups there shall be.

    Returns
    -------
    dict
        ``posterior`` (latents, ``completion``), ``posterior_predictive`` (``image``: replicates of the whole image
        with its noise, which ``plot_ppc`` lays beside what was observed; ``completed_images`` puts the seen pixels in),
        ``log_likelihood`` (seen pixels), ``sample_stats``, ``observed_data`` and ``constant_data``.

    Raises
    ------
    ValueError
        For draws without latents or statistics, or not of the same chains and draws.
    """
    _check(drawn)
    if "completion" not in drawn.latents:
        drawn = replace(drawn, latents=problem.abilities.kept(drawn.latents))
    with streams.seeded("pixel noise"):
        pixels = _of_all_draws(drawn.latents, problem, observation, keep)
    is_kept = "completion" in drawn.latents
    dims = ("chain", "draw", *IMAGE_DIMS)
    latents = {name: value for name, value in drawn.latents.items() if not is_kept or name not in _LAW}
    sites = {} if not latents else latent_groups(replace(drawn, latents=latents), None if is_kept else 10_000)
    groups = sites or {"posterior": xr.Dataset(), "sample_stats": _statistics(drawn)}
    groups["posterior"] = numbered(groups["posterior"].assign(completion=(dims, pixels["posterior"])))
    if "posterior_predictive" in keep:
        groups["posterior_predictive"] = dataset({"image": (dims, pixels["posterior_predictive"])})
    if "log_likelihood" in keep:
        groups["log_likelihood"] = likelihood_group(
            observation, _never_constant(pixels["log_likelihood"], streams)
        )
    return groups | observed_groups(observation)


def pixels_of_draws(
    latents: dict[str, Tensor], problem: Problem, observation: Observation | Measurement, nesting: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return completions, predictive images and log likelihoods of seen pixels for draws of the latents.

    The noise of hidden pixels is drawn with torch's global generator.

    Parameters
    ----------
    latents
        Site -> ``(draw, *event)``, or what ``model.kept`` made of them.
    problem, observation
        As for :func:`image_groups`.
    nesting
        Plates that the model stacks, as ``density.tracing.plate_nesting`` counts them.

    Returns
    -------
    completion, image
        ``(draw, channel, row, column)``; the image is drawn around the completion, where it is seen, too.
    log_likelihood
        ``(draw, seen pixel)``.
    """
    count = len(next(iter(latents.values())))
    with torch.no_grad():
        completion, law = _law_of_draws(latents, problem, nesting)
        law = law.expand((count, *observation.shape))
        image, log_likelihood = replicates(observation, law, problem.abilities)
    return completion.expand(image.shape), image, log_likelihood


def completions_of_draws(
    latents: dict[str, Tensor], problem: Problem, observation: Observation | Measurement, nesting: int
) -> Tensor:
    """Return completions alone ``(draw, channel, row, column)``, arguments as for :func:`pixels_of_draws`."""
    count = len(next(iter(latents.values())))
    with torch.no_grad():
        return _law_of_draws(latents, problem, nesting)[0].expand(count, *observation.shape)


def _law_of_draws(
    latents: dict[str, Tensor], problem: Problem, nesting: int
) -> tuple[Tensor, TorchDistribution]:
    """Return completions of draws, and the law of single pixels around them."""
    if "completion" in latents:  # a model that keeps completions instead of its many latents
        return latents["completion"], problem.abilities.law_of_kept(latents)
    if isinstance(problem.args[-1], Instrument):  # the law of pixels is the same whatever is measured of them
        problem = replace(problem, args=())
    trace = batched_trace(problem.model, problem, len(next(iter(latents.values()))), nesting, latents)
    # Single pixels, below `to_event(3)`.
    return trace.nodes["completion"]["value"], trace.nodes["image"]["fn"].base_dist


def _of_all_draws(
    latents: dict[str, Tensor],
    problem: Problem,
    observation: Observation | Measurement,
    keep: Collection[str],
) -> dict[str, np.ndarray]:
    """Fill an array ``(chain, draw, ...)`` a group, made once, with the pixels of some draws at a time."""
    chains, draws = next(iter(latents.values())).shape[:2]
    # Only a model that makes completions of its latents is run, which for a reverse diffusion takes as long as a draw.
    nesting, count = 0 if "completion" in latents else plate_nesting(problem), chains * draws
    flat = {name: value.flatten(0, 1) for name, value in latents.items()}
    chunk = max(1, min(_CHUNK, _PIXELS // math.prod(observation.shape)))
    arrays: dict[str, np.ndarray] = {}
    for start in range(0, count, chunk):
        some = {name: value[start : start + chunk] for name, value in flat.items()}
        pieces = zip(_GROUPS, pixels_of_draws(some, problem, observation, nesting), strict=True)
        for name, piece in pieces:
            if name in ("posterior", *keep):
                values = array(piece)
                if name not in arrays:
                    arrays[name] = np.empty((count, *values.shape[1:]), values.dtype)
                arrays[name][start : start + chunk] = values
    return {name: values.reshape(chains, draws, *values.shape[1:]) for name, values in arrays.items()}


def _never_constant(log_likelihood: np.ndarray, streams: Streams) -> np.ndarray:
    """Return log likelihoods ``(chain, draw, pixel)`` that differ in their last digits where they would not at all.

    A pixel of which the latents say nothing, such as a corner that is black in all images, has one likelihood whatever
    is drawn, and ArviZ 1 raises for importance weights that are all the same.
    """
    constant = np.ptp(log_likelihood, (0, 1)) == 0
    if constant.any() and log_likelihood[..., 0].size > 1:
        digits = streams.numpy("last digits").standard_normal((*log_likelihood.shape[:2], constant.sum()))
        size = _LAST_DIGITS * np.maximum(1, np.abs(log_likelihood[0, 0, constant]))
        log_likelihood[..., constant] += (size * digits).astype(log_likelihood.dtype)
    return log_likelihood


def _check(drawn: Draws) -> None:
    """Refuse draws that say nothing, or whose parts are not of the same chains and draws."""
    for name, part in (("latents", drawn.latents), ("stats", drawn.stats)):
        if not part:
            raise ValueError(f"the draws have no {name}; expected at least one name -> (chain, draw, ...)")
    shapes = {name: tuple(v.shape[:2]) for part in (drawn.latents, drawn.stats) for name, v in part.items()}
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if shape != first or len(shape) < 2 or 0 in shape:
            raise ValueError(f"{name} has chains and draws {shape}; expected {first}, at least one of each")


def _statistics(drawn: Draws) -> xr.Dataset:
    """Return the statistics; those of more than a number a draw are images."""
    dims = ("chain", "draw", *IMAGE_DIMS)
    return dataset({name: (dims[: value.dim()], array(value)) for name, value in drawn.stats.items()})
