"""The loop that every vectorised method shares: warm up, keep draws, show progress, be resumable.

A *kernel* is a frozen dataclass of settings with ``start`` (positions to state) and ``step`` (state to
state and info). Everything it learns is in its state, so that a run can stop and go on.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from posterior_inpainting.inference.contract import Draws, DrawsAre, Problem
from posterior_inpainting.inference.density.budget import BudgetSpentError
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.results.store import Store

__all__ = ["DivergedError", "Kernel", "Run", "run_kernel"]


class DivergedError(ValueError):
    """A chain left the numbers: what was drawn before is kept, and without a draw the caller gets the error."""


class Kernel(ABC):
    """A vectorised Markov chain method: a frozen dataclass of settings that says how to start and to step.

    See ``ChEES`` for one. Its field ``warmup`` counts the iterations that adapt and are thrown away.
    """

    warmup: int
    draws_are: ClassVar[DrawsAre] = "markov"

    @abstractmethod
    def start(self, potential: Potential, position: Tensor, generator: Generator) -> Any:
        """Return the first state, from positions ``(group, chain, dim)``."""

    @abstractmethod
    def step(self, potential: Potential, state: Any, generator: Generator) -> tuple[Any, dict[str, Tensor]]:
        """Return the next state, and statistics ``(group, chain)`` by name; ``state.point`` is where it is."""

    def run(
        self,
        problem: Problem,
        *,
        draws: int,
        chains: int,
        seed: int,
        progress: bool,
        store: Store | None = None,
    ) -> Draws:
        """Run ``chains`` chains at once, each from its own draw of the prior."""
        run = run_kernel(
            self, Potential(problem), draws=draws, chains=chains, seed=seed, progress=progress, store=store
        )
        first = [{name: value[0] for name, value in part.items()} for part in (run.latents, run.stats)]
        return Draws(first[0], first[1], self.draws_are, run.attrs)


@dataclass(frozen=True)
class Run:
    """What a kernel drew.

    Parameters
    ----------
    latents
        Site -> ``(group, chain, draw, *shape)`` in the model's own space.
    stats
        Statistic -> ``(group, chain, draw)``.
    attrs
        ``warmup``, ``gradient_evaluations``, ``potential``, and ``interrupted``, ``diverged`` or
        ``budget_spent`` where that ended the run.
    """

    latents: dict[str, Tensor]
    stats: dict[str, Tensor]
    attrs: dict[str, Any]


@dataclass
class _Progress:
    """A run under way: where it is, and the blocks of draws that are done."""

    state: Any
    generator: Generator
    blocks: list[tuple[dict[str, Tensor], dict[str, Tensor]]]
    draws: int = 0


def run_kernel(
    kernel: Kernel,
    potential: Potential,
    *,
    draws: int,
    chains: int,
    seed: int,
    progress: bool,
    store: Store | None = None,
) -> Run:
    """Run a kernel from draws of the prior, or go on with what a store holds.

    Ctrl-C ends it early with the draws that are there, if there are any.

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
    store
        Where to keep draws and state as the run goes.
    """
    run = _begin_or_resume(kernel, potential, chains, seed, store)
    total = kernel.warmup + draws
    ending = ""
    kept: list[tuple[Tensor, dict[str, Tensor]]] = []
    block = store.block if store is not None else 50
    bar = tqdm(total=total, initial=run.state.iteration, disable=not progress, unit="it")
    with bar:
        try:
            while run.state.iteration < total:
                warming = run.state.iteration < kernel.warmup
                run.state, info = kernel.step(potential, run.state, run.generator)
                if not warming:
                    kept.append((run.state.point.position, info))
                if run.state.iteration % 10 == 0 and progress:
                    _show(bar, kernel, warming, info)
                bar.update()
                # Blocks are counted in draws, so that a chunk on disk is written once and whole.
                if (
                    len(kept) == block
                    or run.state.iteration == total
                    or (warming and run.state.iteration % block == 0)
                ):
                    _finish_block(run, kept, potential, draws, store)
        except (KeyboardInterrupt, DivergedError, BudgetSpentError) as reason:
            if not kept and not run.blocks:
                raise
            ending = "budget_spent" if isinstance(reason, BudgetSpentError) else "interrupted"
            if isinstance(reason, DivergedError):
                ending = "diverged"
                done = run.draws + len(kept)
                warnings.warn(f"{reason}. The {done} draws a chain before that are kept", stacklevel=5)
            run.blocks += [_as_block(kept, potential)] if kept else []
    latents, stats = (
        {name: torch.cat([one[part][name] for one in run.blocks], 2) for name in run.blocks[0][part]}
        for part in (0, 1)
    )
    attrs = {
        "warmup": kernel.warmup,
        "gradient_evaluations": potential.gradients,
        "potential": potential.route,
        **({ending: 1} if ending else {}),
    }
    return Run(latents, stats, attrs)


def _begin_or_resume(
    kernel: Kernel, potential: Potential, chains: int, seed: int, store: Store | None
) -> _Progress:
    groups = potential.groups or 1
    saved = store.load_state() if store is not None else None
    if store is not None and saved is not None:
        generator = torch.Generator(device=saved["device"])
        generator.set_state(saved["generator"])
        potential.gradients = saved["gradients"]
        blocks = [store.read(saved["draws"])] if saved["draws"] else []
        return _Progress(saved["state"], generator, blocks, saved["draws"])
    torch.manual_seed(seed)
    position = potential.draw_prior(groups * chains).reshape(groups, chains, -1)
    # Another seed than the starts', or the first momenta would be the same numbers.
    generator = torch.Generator(device=position.device).manual_seed(seed + 1_000_003)
    return _Progress(kernel.start(potential, position, generator), generator, [])


def _finish_block(run: _Progress, kept: list, potential: Potential, draws: int, store: Store | None) -> None:
    """Move what was kept into a block, and commit it with the state that follows it."""
    block = _as_block(kept, potential) if kept else ({}, {})
    count = len(kept)
    if store is not None:
        saved = {
            "state": run.state,
            "generator": run.generator.get_state(),
            "device": str(run.generator.device),
            "draws": run.draws + count,
            "gradients": potential.gradients,
        }
        store.write(block, run.draws, draws, saved)
    if kept:
        run.blocks.append(block)
        run.draws += count
        kept.clear()


def _as_block(kept: list, potential: Potential) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    positions, infos = zip(*kept, strict=True)
    stats = {name: torch.stack([info[name] for info in infos], -1) for name in infos[0]}
    return potential.keep(torch.stack(positions, 2)), stats


def _show(bar: tqdm, kernel: Kernel, warming: bool, info: dict[str, Tensor]) -> None:
    bar.set_description(f"{type(kernel).__name__} {'warming up' if warming else 'drawing'}")
    if "acceptance_rate" in info:
        bar.set_postfix(acceptance=f"{float(info['acceptance_rate'].nanmean()):.2f}", refresh=False)
