"""Running a method on a problem: with a store, the caller's state kept, and words on what was run."""

from __future__ import annotations

import json
import time
import types
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem, Watching
from posterior_inpainting.inference.density.budget import BudgetSpentError
from posterior_inpainting.inference.density.numerical_failures import at_some_draw
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.traced_density import run_unvalidated
from posterior_inpainting.inference.density.tracing import deterministic_sites, latent_sites, trace_of
from posterior_inpainting.inference.results import convert
from posterior_inpainting.inference.results.containers import to_arviz
from posterior_inpainting.inference.results.efficiency import efficiency
from posterior_inpainting.inference.results.fingerprint import fingerprint
from posterior_inpainting.inference.results.fit_attributes import fit_attributes
from posterior_inpainting.inference.results.settings_of_methods import settings
from posterior_inpainting.inference.results.store import Store
from posterior_inpainting.inference.settled import Settled
from posterior_inpainting.inference.streams import callers_state_kept
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.observations import Observation

__all__ = [
    "attributes",
    "deterministics",
    "executed",
    "of_image",
    "of_goal",
    "timed_from",
    "values_of",
    "with_efficiency",
]


def executed(problem: Problem, method: Method, plan: Plan, store: str | Path | None) -> Draws:
    """Run a method, with a store where it can use one."""
    try:
        return _executed(problem, method, plan, store)
    except BudgetSpentError as error:
        raise BudgetSpentError(f"{error}, before there was a draw") from error


def _executed(problem: Problem, method: Method, plan: Plan, store: str | Path | None) -> Draws:
    if store is None:
        return method.run(problem, plan)
    if not method.is_resumable:
        raise ValueError(f"{method.label} cannot use a store: it does not go step by step")
    signature = {
        "method": type(method).__name__,
        **json.loads(settings(method)),
        "settings": fingerprint(method),  # beside their words, which name a function only by its name
        "draws_are": method.draws_are,
        "draws": plan.draws,
        "chains": plan.chains,
        "thin": plan.thin,
        "seed": plan.streams.seed,
        "model": fingerprint(problem.model),
        "data": fingerprint([problem.args, problem.kwargs]),
        "torch": torch.__version__,
        "package": version("posterior-inpainting"),
    }
    return method.run(problem, replace(plan, store=Store(store, signature)))


def of_image(
    problem: Problem,
    run: Settled,
    plan: Plan,
    observation: Observation | Measurement,
    keep: Collection[str],
    store: str | Path | None = None,
):
    """Draw from an image's posterior, and wrap what was drawn; its seconds count from here.

    Parameters
    ----------
    problem, observation
        The model with its arguments, and the image and mask among them.
    run, plan
        What to run, checked.
    keep, store
        As for ``infer``.
    """
    start = time.perf_counter()
    with callers_state_kept():
        drawn = executed(problem, run.method, plan, store)
    with callers_state_kept():
        groups = convert.image_groups(drawn, problem, observation, plan.streams, keep)
    fit = fit_attributes(problem.abilities, [observation])[0]
    attrs = attributes(problem, run, drawn, plan.streams.seed, time.perf_counter() - start)
    return with_efficiency(groups, attrs | of_goal(plan.watch) | fit)


def deterministics(problem: Problem, latents: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a model's deterministic sites at draws ``(chain, draw, ...)`` of its latents.

    None of a model of ours, whose completions have a group of their own.
    """
    if problem.abilities is problem.model:
        return {}
    with torch.no_grad():
        trace = at_some_draw(lambda: trace_of(problem.model, *problem.args, **problem.kwargs))
    if not deterministic_sites(trace):
        return {}
    density = Potential(problem)
    return density.deterministics(density.unconstrain(latents, batch=2))


def of_goal(watch: Watching | None, group: int = 0) -> dict[str, Any]:
    """Return what a run with a goal says of it: the goal, and what its draws lack, ``""`` where that is nothing."""
    if watch is None:
        return {}
    watch.look()
    return {"until": str(watch.goal), "until_missing": watch.lacks(group)}


def values_of(problem: Problem) -> int:
    """Return how many values the latents and deterministic sites of a model have, from one run of it."""
    with torch.no_grad(), callers_state_kept():
        trace = at_some_draw(lambda: run_unvalidated(problem.model, problem.args, problem.kwargs))
    names = {*latent_sites(trace), *deterministic_sites(trace)}
    return sum(torch.as_tensor(trace.nodes[name]["value"]).numel() for name in names)


def attributes(problem: Problem, run: Settled, drawn: Draws, seed: int, seconds: float) -> dict[str, Any]:
    """Say what was run, in numbers and words that survive netCDF."""
    model, method = problem.model, run.method
    return run.attrs | {
        "model": model.__name__ if isinstance(model, types.FunctionType) else type(model).__name__,
        "method": method.label,
        "settings": settings(method),
        "draws_are": drawn.draws_are,
        "biased": int(method.is_biased),
        "approximate": int(method.is_approximate),
        "density": "pseudo-posterior" if problem.abilities.is_pseudo_posterior else "posterior",
        "seed": seed,
        "wall_time_s": seconds,
        "versions": _versions(),
        **drawn.attrs,
    }


@cache
def _versions() -> str:
    return " ".join(f"{name}={version(name)}" for name in ("torch", "pyro-ppl", "posterior-inpainting"))


def timed_from(start: float, idata):
    """Let a result's seconds, and what is told a second, count from a moment before ``infer`` began: with a fit.

    Parameters
    ----------
    start
        Of ``time.perf_counter()``.
    idata
        What ``infer`` returned, which is changed.
    """
    attrs, seconds = idata.attrs, time.perf_counter() - start
    if "ess_per_second" in attrs:
        attrs["ess_per_second"] *= attrs["wall_time_s"] / seconds
    attrs["wall_time_s"] = seconds
    return idata


def with_efficiency(groups: dict, attrs: dict[str, Any]):
    """Wrap groups for ArviZ, with ESS a second and a thousand gradients among the attributes."""
    return to_arviz(groups, attrs | efficiency(groups, attrs))
