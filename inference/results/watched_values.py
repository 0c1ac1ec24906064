"""What a watch judges of a run: latents, and the hidden pixels of completions, block by block as draws come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.tracing import plate_nesting
from posterior_inpainting.inference.results.convert import completions_of_draws
from posterior_inpainting.inference.results.trusted import Values
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.observations import Observation

__all__ = ["values_of_images", "values_of_latents"]

#: Latents of more values than this are not judged by themselves, as they are not kept: their completions are.
_SMALL = 10_000
#: Completions that are made at a time.
_CHUNK = 512


def values_of_latents(latents: dict[str, Tensor], which: Sequence[int] = ()) -> list[dict[str, np.ndarray]]:
    """Return all latents of a block ``(group, chain, draw, *event)``.

    >>> (one,) = values_of_latents({"z": torch.zeros(1, 4, 10, 2, 3)})
    >>> one["z"].shape
    (4, 10, 6)
    """
    groups = len(next(iter(latents.values())))
    return [{name: _flat(value[group]) for name, value in latents.items()} for group in range(groups)]


def values_of_images(problem: Problem, observations: Sequence[Observation | Measurement]) -> Values:
    """Return what makes the values of a block: latents, and the hidden pixels of its completions.

    Parameters
    ----------
    problem
        The model; its arguments are not read.
    observations
        One a posterior.
    """
    problems = [replace(problem, args=one.arguments) for one in observations]

    @cache
    def nesting() -> int:
        """Return the plates of the model, which is run for it, where its latents are not enough."""
        return plate_nesting(problems[0])

    def values(latents: dict[str, Tensor], which: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return the values of a block."""
        found = []
        for group, number in enumerate(which):
            one, seen = problems[number], observations[number]
            mine = {name: value[group] for name, value in latents.items()}
            is_kept = "completion" in mine
            small = {} if is_kept else {n: v for n, v in mine.items() if v[0, 0].numel() <= _SMALL}
            judged = {name: _flat(value) for name, value in small.items()}
            if not bool(seen.mask.all()):
                judged["hidden pixels"] = _hidden(mine, one, seen, 0 if is_kept else nesting())
            found.append(judged)
        return found

    return values


def _hidden(
    latents: dict[str, Tensor], problem: Problem, seen: Observation | Measurement, nesting: int
) -> np.ndarray:
    """Return hidden pixels of completions; the generators are left as they were."""
    shape = next(iter(latents.values())).shape[:2]
    flat = {name: value.flatten(0, 1) for name, value in latents.items()}
    pieces = []
    with torch.random.fork_rng(devices=[]):
        for start in range(0, shape.numel(), _CHUNK):
            some = {name: value[start : start + _CHUNK] for name, value in flat.items()}
            pieces.append(completions_of_draws(some, problem, seen, nesting)[:, ~seen.mask])
    return torch.cat(pieces).unflatten(0, shape).cpu().numpy()


def _flat(value: Tensor) -> np.ndarray:
    return value.flatten(2).cpu().numpy() if value.dim() > 2 else value.unsqueeze(-1).cpu().numpy()
