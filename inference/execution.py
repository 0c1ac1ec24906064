"""Running a method on a problem: with a store, the caller's state kept, and words on what was run."""

from __future__ import annotations

import json
import time
import types
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.numerical_failures import at_some_draw
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.traced_density import run_unvalidated
from posterior_inpainting.inference.density.tracing import deterministic_sites, latent_sites, trace_of
from posterior_inpainting.inference.methods.auto import Auto
from posterior_inpainting.inference.methods.ranges import check_ranges
from posterior_inpainting.inference.results.containers import to_arviz
from posterior_inpainting.inference.results.convert import KEPT
from posterior_inpainting.inference.results.efficiency import efficiency
from posterior_inpainting.inference.results.fingerprint import fingerprint
from posterior_inpainting.inference.results.settings_of_methods import settings
from posterior_inpainting.inference.results.store import Store
from posterior_inpainting.inference.results.trusted import Trusted, Watch
from posterior_inpainting.models.images.available_memory import check_memory
from posterior_inpainting.models.shapes import describe

__all__ = [
    "Settled",
    "attributes",
    "callers_state_kept",
    "check_kept",
    "check_memory_of_draws",
    "check_run",
    "check_until",
    "deterministics",
    "executed",
    "of_goal",
    "settled",
    "timed_from",
    "values_of",
    "with_efficiency",
]


def executed(problem: Problem, method: Method, plan: Plan, store: str | Path | None) -> Draws:
    """Run a method, with a store where it can use one."""
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


@contextmanager
def callers_state_kept() -> Iterator[None]:
    """Leave torch's generators and Pyro's parameter store, which belong to the caller, as they were."""
    devices = [*range(torch.cuda.device_count())]
    with torch.random.fork_rng(devices=devices), pyro.get_param_store().scope():
        yield


@dataclass(frozen=True)
class Settled:
    """What is run in answer to a call: the method that was named or chosen, how much of it, and with which goal."""

    method: Method
    draws: int
    chains: int
    goal: Trusted | None
    chosen_by: str

    @property
    def attrs(self) -> dict[str, str]:
        """What the result says of the choice."""
        return {"chosen_by": self.chosen_by} if self.chosen_by else {}


def settled(
    problem: Problem,
    method: Method | None,
    draws: int | None,
    chains: int | None,
    until: Trusted | None,
    thin: int = 1,
) -> Settled:
    """Return what to run where the caller leaves something open, checked; arguments are those of ``infer``."""
    named = Auto() if method is None else method
    if not isinstance(named, Method):
        raise ValueError(f"method is {describe(named)}; expected one such as NUTS() or Variational()")
    with callers_state_kept():
        chosen = named.chosen(problem)
    draws = chosen.usual_draws if draws is None else draws
    chains = chosen.usual_chains if chains is None else chains
    check_run(chosen, draws, chains, thin)
    check_until(named, until)
    goal = (named.goal if until is None else until) if chosen.can_end_early else None
    return Settled(chosen, draws, chains, goal, "" if chosen is named else named.label)


def check_run(method: Method, draws: int, chains: int, thin: int = 1) -> None:
    """Raise ``ValueError`` unless it is a method with settings in their ranges, of at least one draw and one chain.

    Only the draws of a Markov chain are thinned: others are no better for it.
    """
    if not isinstance(method, Method):
        raise ValueError(f"method is {describe(method)}; expected one such as NUTS() or Variational()")
    check_ranges(method)
    for name, value in (("draws", draws), ("chains", chains), ("thin", thin)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}; expected a whole number of at least 1")
    if thin > 1 and method.draws_are != "markov":
        raise ValueError(f"thin={thin}: {method.label} makes no Markov chain; take fewer draws instead")


def check_memory_of_draws(
    values: int,
    draws: int,
    chains: int,
    max_memory: float | None,
    images: int = 1,
    keep: Collection[str] = KEPT,
) -> None:
    """Raise ``ValueError`` where the draws of a run do not fit into memory, before it begins.

    Parameters
    ----------
    values
        Of an image, or of the latents of a model.
    draws, chains, images
        How many there will be.
    max_memory
        Bytes that they may take; those that are free where ``None``.
    keep
        Groups of a result beside the draws.
    """
    if max_memory is not None and not max_memory > 0:
        raise ValueError(f"max_memory={max_memory}; expected a positive number of bytes")
    of_images = "" if images == 1 else f" x {images} images"
    check_memory(
        4.0
        * (2 + len(keep))
        * values
        * draws
        * chains
        * images,  # with the latents on the way to completions
        f"{draws} draws x {chains} chains{of_images} of {values} values",
        available=max_memory,
        remedy="take fewer draws, further apart (thin=), keep less of them (keep=()), or say max_memory= in bytes if "
        "there are more",
    )


def check_until(method: Method, until: Trusted | None) -> None:
    """Raise ``ValueError`` for a goal that is none, or of a method that cannot end when it is reached."""
    if until is not None and not isinstance(until, Trusted):
        raise ValueError(f"until is {describe(until)}; expected Trusted()")
    if until is not None and not method.can_end_early:
        raise ValueError(
            f"until={until}: {method.label} does not look at its draws as it goes; use ChEES(), NUTS() or another "
            "method of Markov chains"
        )


def of_goal(watch: Watch | None, group: int = 0) -> dict[str, Any]:
    """Return what a run with a goal says of it: the goal, and what its draws lack, ``""`` where that is nothing."""
    if watch is None:
        return {}
    watch.look()
    return {"until": str(watch.goal), "until_missing": watch.lacks(group)}


def check_kept(keep: Collection[str]) -> None:
    """Raise ``ValueError`` for groups that are not among those that may be left out."""
    wrong = [keep] if isinstance(keep, str) else [name for name in keep if name not in KEPT]
    if wrong:
        raise ValueError(f"keep has {wrong[0]!r}; expected some of {', '.join(KEPT)}, in a list")


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
