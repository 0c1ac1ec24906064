"""`more`: go on from a posterior that is there, with what its draws say."""

from __future__ import annotations

import math
import time
from collections.abc import Collection

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from posterior_inpainting.inference.contract import Method, Plan
from posterior_inpainting.inference.density.budget import within
from posterior_inpainting.inference.execution import of_image, timed_from, with_efficiency
from posterior_inpainting.inference.problems import problem_of
from posterior_inpainting.inference.results.chain_statistics import rhat
from posterior_inpainting.inference.results.containers import group, group_names
from posterior_inpainting.inference.results.convert import KEPT
from posterior_inpainting.inference.results.trusted import RHAT, Trusted, Watch
from posterior_inpainting.inference.results.watched_values import values_of_images
from posterior_inpainting.inference.results.what_was_seen import is_of
from posterior_inpainting.inference.settled import check_memory_of_draws, settled
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.observations import Observation

__all__ = ["more"]

#: Kinds of draws of which there can be more: optima and particles of one evidence are begun anew.
_CAN_BE_ADDED_TO = ("markov", "independent")


def more(
    posterior,
    model: ImageModel,
    observation: Observation | Measurement,
    method: Method | None = None,
    *,
    draws: int | None = None,
    progress: bool = True,
    max_memory: float | None = None,
    until: Trusted | None = None,
    budget: str | None = None,
):
    """Draw more from a posterior that `infer` returned: chains go on from where they are.

    Where the chains agree the result has the draws that were there, and then those that came. Where they do not, what
    was drawn before says only where to begin, and is left out as a warm-up is.

    Parameters
    ----------
    posterior
        What `infer` or `more` returned, or `load` read.
    model, observation, method
        As they were given to `infer`.
    draws
        How many more a chain; by default as many as it takes to reach the goal, where the method has one.
    progress, max_memory, until, budget
        As for `infer`; the goal is that of the draws that come.

    Returns
    -------
    InferenceData
        As `infer` does, with gradients and seconds of both runs.

    Raises
    ------
    ValueError
        For another observation or method than those of the posterior; for particles and optima, which are begun anew;
        or where the latents from which chains would go on were too many to be kept.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer, more
    >>> from posterior_inpainting.models import LatentCode, datasets, observations, pretrained
    >>> image = datasets.load("digits")[0]
    >>> seen = Observation(image, observations.half(image.shape, hide="bottom"))
    >>> model = LatentCode(pretrained.load("digits-vae-2d"))
    >>> posterior = infer(model, seen, progress=False)
    >>> before = posterior.posterior.sizes["draw"]
    >>> posterior = more(posterior, model, seen, draws=100, progress=False)
    >>> posterior.posterior.sizes["draw"] - before
    100
    """
    start = time.perf_counter()
    before = group(posterior, "posterior")
    chains, count = before.sizes["chain"], before.sizes["draw"]
    problem = problem_of(model, observation)
    run = settled(problem, method, draws, chains, until)
    _check(posterior, observation, run.method)
    keep = [name for name in KEPT if name in group_names(posterior)]
    check_memory_of_draws(math.prod(observation.shape), count + run.draws, chains, max_memory, keep=keep)
    goal = run.goal if draws is None or until is not None else None
    watch = None if goal is None else Watch(goal, values_of_images(problem, [observation]))
    after = _latents(before) if run.method.draws_are == "markov" else None
    streams = Streams(int(posterior.attrs["seed"])).child("more", count)
    plan = Plan(run.draws, chains, streams, progress, watch=watch, after=after)
    with within(budget):
        found = of_image(problem, run, plan, observation, keep)
    spent = int(posterior.attrs.get("gradient_evaluations", 0)), float(posterior.attrs["wall_time_s"])
    attrs = dict(found.attrs) | {"seed": posterior.attrs["seed"], "went_on_after": count}
    if "gradient_evaluations" in attrs:
        attrs["gradient_evaluations"] += spent[0]
    groups = {name: group(found, name) for name in group_names(found)}
    if after is None or _agree(before):
        groups = _joined({name: group(posterior, name) for name in groups}, groups, keep)
    return timed_from(start - spent[1], with_efficiency(groups, attrs))


def _check(posterior, observation: Observation | Measurement, method: Method) -> None:
    """Refuse to go on with something else."""
    kind, label = posterior.attrs["draws_are"], posterior.attrs["method"]
    if kind not in _CAN_BE_ADDED_TO:
        raise ValueError(
            f"the posterior has {kind} of {label}, which are not added to; infer anew, with more of them"
        )
    if label != method.label:
        raise ValueError(
            f"the posterior is of {label}, and method is {method.label}; give the method that it is of"
        )
    if not is_of(posterior, observation):
        raise ValueError("the posterior is of another observation; give the one that it was inferred from")


def _latents(before: xr.Dataset) -> dict[str, Tensor]:
    """Return the latents that chains go on from."""
    kept = {str(name): values for name, values in before.items() if name != "completion"}
    if not kept:
        raise ValueError(
            "the latents of the chains are too many to be kept, so that nothing can go on from them; "
            "infer with store=, and the same call goes on"
        )
    return {name: torch.as_tensor(values.to_numpy().copy()) for name, values in kept.items()}


def _agree(before: xr.Dataset) -> bool:
    """Whether chains are in the same places, by latents and completions."""
    worst = [np.nanmax(rhat(values.to_numpy()), initial=1.0) for values in before.values()]
    return before.sizes["chain"] > 1 and max(worst) < RHAT


def _joined(
    before: dict[str, xr.Dataset], after: dict[str, xr.Dataset], keep: Collection[str]
) -> dict[str, xr.Dataset]:
    """Return groups with the draws of both, as far as both have them."""
    found = dict(after)
    for name in ("posterior", "sample_stats", *keep):
        both = [one for one in after[name] if one in before[name]]
        parts = [part[name][both] for part in (before, after)]
        joined = xr.concat(parts, "draw", join="override", combine_attrs="override")
        found[name] = joined.assign_coords(draw=np.arange(joined.sizes["draw"]))
    return found
