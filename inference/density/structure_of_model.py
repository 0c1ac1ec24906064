"""What a model draws: its latent sites and their supports, found by running it a few times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.change_of_variables import ChangeOfVariables
from posterior_inpainting.inference.density.numerical_failures import at_some_draw
from posterior_inpainting.inference.density.supports import has_own_bounds, same_support
from posterior_inpainting.inference.density.traced_density import rows, run_unvalidated
from posterior_inpainting.inference.density.tracing import latent_sites
from posterior_inpainting.inference.streams import Streams

__all__ = ["read_structure", "run_group"]

#: Further runs of a model whose supports have bounds, to see whether they move.
_FURTHER_RUNS = 4


class PriorDraws(Messenger):
    """Draw a model's latents from their prior, and name the site whose prior cannot be drawn from."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is not None or msg["done"]:
            return
        try:
            msg["value"] = msg["fn"](*msg["args"], **msg["kwargs"])
        except NotImplementedError:
            law = type(msg["fn"]).__name__
            raise ValueError(
                f"the prior of site {msg['name']!r}, {law}, cannot be drawn from; give it a proper one, "
                "such as a wide Normal"
            ) from None


def run_group(
    problem: Problem, groups: int | None, group: int = 0, given: Mapping[str, Tensor] | None = None
) -> Trace:
    """Trace the model of one group, with latents from the prior or as given."""
    args = problem.args if groups is None else rows(problem.args, group)
    model = PriorDraws()(problem.model) if given is None else poutine.condition(problem.model, given)
    return run_unvalidated(model, args, problem.kwargs)


def read_structure(problem: Problem, groups: int | None) -> tuple[ChangeOfVariables, Trace]:
    """Return a model's change of variables and one run of it; torch's global generators are left as they were.

    Parameters
    ----------
    problem, groups
        As for ``Potential``.

    Raises
    ------
    ValueError
        As ``Potential``; and for a model whose sites, or their shapes, change from run to run, or with a plate that
        is subsampled.
    """
    with torch.no_grad(), Streams().seeded("structure of the model"):
        trace = at_some_draw(lambda: run_group(problem, groups))
        latents = {name: trace.nodes[name]["value"] for name in latent_sites(trace)}
        bounded = [name for name in latents if has_own_bounds(trace.nodes[name]["fn"].support)]
        further = []
        if bounded:
            for group in range(1, groups or 1):
                _check_same(trace, run_group(problem, groups, group, latents), bounded)
            further = [at_some_draw(lambda: run_group(problem, groups)) for _ in range(_FURTHER_RUNS)]
        _check_fixed(trace, further[0] if further else at_some_draw(lambda: run_group(problem, groups)))
        return ChangeOfVariables([trace, *further]), trace


def _check_fixed(trace: Trace, other: Trace) -> None:
    """Refuse a model that is another one at every call: its runs are two of one density's only if they are alike."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and type(site["fn"]).__name__ == "_Subsample":
            law: Any = site["fn"]
            if (law.subsample_size or law.size) < law.size:
                raise ValueError(
                    f"plate {name!r} takes {law.subsample_size} of its {law.size} at random in every run; give the "
                    "model all of them"
                )
    sites, others = ({n: s for n, s in t.nodes.items() if s["type"] == "sample"} for t in (trace, other))
    if changing := [name for name in (*sites, *others) if name not in sites or name not in others]:
        raise ValueError(
            f"site {changing[0]!r} is in some runs of the model only; expected the same sites in all"
        )
    for name, site in sites.items():
        values = site["value"], others[name]["value"]
        here, there = (tuple(one.shape) if isinstance(one, Tensor) else () for one in values)
        if here != there:
            raise ValueError(
                f"site {name!r} has shape {here} in one run and {there} in another; expected one shape"
            )


def _check_same(trace: Trace, other: Trace, names: list[str]) -> None:
    for name in names:
        if not same_support(trace.nodes[name]["fn"].support, other.nodes[name]["fn"].support):
            raise ValueError(
                f"the support of site {name!r} differs between observations; infer them one at a time"
            )
