"""The loop that every vectorised method shares: warm up, keep draws, show progress, be resumable.

A *kernel* is a frozen dataclass of settings with ``start`` (positions to state) and ``step`` (state to
state and info). Everything it learns is in its state, so that a run can stop and go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from posterior_inpainting.inference.methods import Draws, DrawsAre, Problem
from posterior_inpainting.inference.potential import Potential

__all__ = ["Kernel", "Run", "run_kernel", "run_single"]


class Kernel(Protocol):
    """A vectorised method; see ``ChEES`` for one."""

    draws_are: ClassVar[DrawsAre]

    @property
    def warmup(self) -> int:
        """Iterations that adapt and are thrown away."""
        ...

    def start(self, potential: Potential, position: Tensor, generator: Generator) -> Any:
        """Return the first state, from positions ``(group, chain, dim)``."""
        ...

    def step(self, potential: Potential, state: Any, generator: Generator) -> tuple[Any, dict[str, Tensor]]:
        """Return the next state, and statistics ``(group, chain)`` by name; ``state.point`` is where it is."""
        ...


@dataclass(frozen=True)
class Run:
    """Kept positions ``(group, chain, draw, dim)``, statistics ``(group, chain, draw)``, and the last state."""

    position: Tensor
    stats: dict[str, Tensor]
    state: Any


def run_kernel(
    kernel: Kernel,
    potential: Potential,
    *,
    draws: int,
    chains: int,
    seed: int,
    progress: bool,
    position: Tensor | None = None,
) -> Run:
    """Run a kernel from draws of the prior, or from given positions.

    Parameters
    ----------
    kernel, potential
        What to run on what.
    draws, chains
        Kept iterations, and chains of each group.
    seed
        Seed of the starts and of everything after.
    progress
        Whether to show a progress bar.
    position
        Starts ``(group, chain, dim)``; drawn from the prior if ``None``.
    """
    groups = potential.groups or 1
    torch.manual_seed(seed)
    if position is None:
        position = potential.draw_prior(groups * chains).reshape(groups, chains, -1)
    generator = torch.Generator(device=position.device).manual_seed(seed)
    kept: list[Tensor] = []
    infos: list[dict[str, Tensor]] = []
    state = first = kernel.start(potential, position, generator)
    for state, info, warming in iterate(kernel, potential, first, generator, draws, progress):
        if not warming:
            kept.append(state.point.position)
            infos.append(info)
    stats = {name: torch.stack([info[name] for info in infos], -1) for name in infos[0]}
    return Run(torch.stack(kept, 2), stats, state)


def iterate(
    kernel: Kernel, potential: Potential, state: Any, generator: Generator, draws: int, progress: bool
) -> Iterator[tuple[Any, dict[str, Tensor], bool]]:
    """Step a kernel through what is left of its warm-up and draws, yielding state, info, and whether it warms up."""
    warmup = kernel.warmup
    bar = tqdm(total=warmup + draws, initial=state.iteration, disable=not progress, unit="it")
    with bar:
        while state.iteration < warmup + draws:
            warming = state.iteration < warmup
            state, info = kernel.step(potential, state, generator)
            if state.iteration % 10 == 0 and progress:
                bar.set_description(f"{type(kernel).__name__} {'warming up' if warming else 'drawing'}")
                acceptance = (
                    float(info["acceptance_rate"].nanmean()) if "acceptance_rate" in info else math.nan
                )
                bar.set_postfix(acceptance=f"{acceptance:.2f}", refresh=False)
            bar.update()
            yield state, info, warming


def run_single(
    kernel: Kernel, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool
) -> Draws:
    """Run a kernel on one problem and return its draws."""
    potential = Potential(problem)
    run = run_kernel(kernel, potential, draws=draws, chains=chains, seed=seed, progress=progress)
    attrs = {
        "warmup": kernel.warmup,
        "gradient_evaluations": potential.gradients,
        "potential": potential.route,
    }
    stats = {name: value[0] for name, value in run.stats.items()}
    return Draws(potential.constrain(run.position[0]), stats, kernel.draws_are, attrs)
