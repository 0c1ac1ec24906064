"""Run a Pyro model for many draws at once, and take its log densities apart draw by draw.

All draws go through the model in one call, inside one more plate to the left of the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from posterior_inpainting.inference.contract import Problem

__all__ = [
    "batched_trace",
    "deterministic_sites",
    "draws_of",
    "is_bookkeeping",
    "latent_sites",
    "log_prob_by_draw",
    "observed_sites",
    "plate_nesting",
    "trace_of",
]

_PLATE = "_draws"


def trace_of(program: Callable, *args: Any, **kwargs: Any) -> Trace:
    """Run a program and return its trace.

    What the program raises arrives as it was raised: ``poutine.trace(program).get_trace()`` adds lines about shapes.
    """
    with poutine.trace() as tracer:
        program(*args, **kwargs)
    return tracer.trace


def latent_sites(trace: Trace) -> list[str]:
    """Names of the sites that are random and not observed."""
    return [
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and not is_bookkeeping(site)
    ]


def observed_sites(trace: Trace) -> list[str]:
    """Names of the sites that are observed, factors among them."""
    return [
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and site["is_observed"] and not is_bookkeeping(site)
    ]


def deterministic_sites(trace: Trace) -> list[str]:
    """Names of the sites of ``pyro.deterministic``."""
    return [
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and site["infer"].get("_deterministic")
    ]


def plate_nesting(problem: Problem) -> int:
    """Return how many plates the model stacks, from one run of it."""
    with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        trace = trace_of(problem.model, *problem.args, **problem.kwargs)
    dims = [
        -frame.dim
        for site in trace.nodes.values()
        if site["type"] == "sample"
        for frame in site["cond_indep_stack"]
        if frame.dim is not None
    ]
    return max(dims, default=0)


def batched_trace(
    program: Callable,
    problem: Problem,
    count: int,
    nesting: int,
    given: Trace | dict[str, Tensor] | None = None,
) -> Trace:
    """Trace ``count`` parallel runs of a model or guide.

    Parameters
    ----------
    program
        The problem's model or its guide.
    problem
        Gives the arguments.
    count
        Number of parallel runs.
    nesting
        Plates of the program's own.
    given
        Values of latent sites: a guide's batched trace, or site name -> ``(count, *event)``.
    """
    plate = pyro.plate(_PLATE, count, dim=-1 - nesting)
    if isinstance(given, Trace):
        program = poutine.replay(program, trace=given)
    elif given is not None:
        program = poutine.condition(program, data=given)
    return trace_of(plate(program), *problem.args, **problem.kwargs)


def log_prob_by_draw(trace: Trace, count: int, nesting: int, by_plate: bool = False) -> Tensor:
    """Sum the log densities of a batched trace's sites, draw by draw: ``(count,)``.

    With ``by_plate``, for a model whose every site lies in all of its plates, ``(count, *plates)``.
    """
    trace.compute_log_prob(lambda _, site: not is_bookkeeping(site))
    total = torch.zeros((), device="cpu")  # without dimensions it meets a tensor of any device and type
    for site in trace.nodes.values():
        if site["type"] != "sample" or is_bookkeeping(site):
            continue
        value = site["log_prob"]
        value = value.expand(torch.broadcast_shapes(value.shape, (count, *[1] * nesting)))
        total = total + (value if by_plate else value.reshape(count, -1).sum(-1))
    return total


def draws_of(site: dict, nesting: int) -> Tensor:
    """Return a latent site's values as ``(count, *own plates, *event)``, without other plates' dims."""
    value, event_dim = site["value"], site["fn"].event_dim
    own = {frame.dim for frame in site["cond_indep_stack"]}
    for dim in range(-nesting, 0):
        if dim not in own:
            value = value.squeeze(dim - event_dim)
    return value


def is_bookkeeping(site: dict) -> bool:
    """Whether a sample site is Pyro's own: a plate's indices, or a deterministic value."""
    return type(site["fn"]).__name__ == "_Subsample" or bool(site["infer"].get("_deterministic"))
