"""The one loop of everything that draws in sequence: progress, Ctrl-C, a budget of gradients, store and resume.

A *process* is one run under way. It goes forward step by step, and everything that it needs to go on is in its
state, so that a run can stop anywhere and be taken up again with the same draws. What a process does in a step is its
own affair: move all chains, go down one temperature with a cloud of particles, make one step of an optimiser.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.contract import Plan
from posterior_inpainting.inference.density.budget import BudgetSpentError
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.thinned_rows import Row, Thinned

__all__ = [
    "ENDED_BY",
    "ENDINGS",
    "DivergedError",
    "Process",
    "Row",
    "Run",
    "check_planned",
    "drive",
    "kept_at_positions",
]


class DivergedError(ValueError):
    """A chain left the numbers: what was drawn before is kept, and without a draw the caller gets the error."""


class Process(ABC):
    """One run, step by step.

    Attributes
    ----------
    label
        What the progress bar says.
    total
        Steps in all; ``None`` where that is not known beforehand.
    draws
        Rows that the whole run keeps.
    iteration
        Steps made so far.
    commits_every
        Steps after which the state is stored while nothing is kept yet.
    """

    label: str
    total: int | None
    draws: int
    iteration: int = 0
    commits_every: int = 50

    @property
    def is_finished(self) -> bool:
        """Whether no step is left."""
        return self.total is not None and self.iteration >= self.total

    @property
    @abstractmethod
    def gradients(self) -> int:
        """Gradient evaluations so far, all chains counted."""

    @abstractmethod
    def start(self) -> None:
        """Make the first state."""

    @abstractmethod
    def step(self) -> Row | None:
        """Go forward by one step; return what is kept of it, if anything."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return everything that going on needs: tensors, numbers, and dictionaries and dataclasses of them."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what :meth:`state` returned, in place of :meth:`start`."""

    def gather(self, rows: list[Row]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return rows as latents and statistics ``(group, chain, draw, ...)``; a row has all but the draws."""
        values, infos = zip(*rows, strict=True)
        latents, stats = (
            {name: torch.stack([one[name] for one in part], 2) for name in part[0]}
            for part in (values, infos)
        )
        return latents, stats

    def conclude(self) -> list[Row] | None:
        """Return what a run that is ended early still gives beside its rows, ``None`` if that is nothing."""
        return None

    def status(self) -> str:
        """Say in a word or two how it goes."""
        return ""


def kept_at_positions(rows: list[Row], density: Density) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gather rows of positions ``(group, chain, dim)``: what the density keeps there, and the statistics."""
    positions, infos = zip(*rows, strict=True)
    stats = {name: torch.stack([info[name] for info in infos], -1) for name in infos[0]}
    return density.keep(torch.stack(positions, 2)), stats


@dataclass(frozen=True)
class Run:
    """What a process drew.

    Parameters
    ----------
    latents
        Site -> ``(group, chain, draw, *shape)`` in the model's own space.
    stats
        Statistic -> ``(group, chain, draw)``.
    gradients
        Evaluations in all.
    ended
        ``""`` for a whole run, else what ended it: ``"interrupted"``, ``"budget_spent"`` or ``"diverged"``.
    """

    latents: dict[str, Tensor]
    stats: dict[str, Tensor]
    gradients: int
    ended: str = ""

    @property
    def label(self) -> dict[str, int]:
        """The attribute that labels an incomplete result; none for a whole one."""
        return {self.ended: 1} if self.ended else {}


def check_planned(stored: int, steps: int) -> None:
    """Raise ``ValueError`` where a stored run was planned for another number of steps, as under another budget."""
    if stored != steps:
        raise ValueError(
            f"the store holds a run of {stored} steps, and this one has {steps}; give the same budget of gradients, or "
            "a folder that does not exist yet"
        )


#: Draws of a block, and of one that a watch looks at.
_BLOCK, _WATCHED = 50, 8
#: What may end a run early, and how its result is labelled then.
ENDED_BY: dict[type[BaseException], str] = {
    KeyboardInterrupt: "interrupted",
    BudgetSpentError: "budget_spent",
    DivergedError: "diverged",
}
#: The attributes that label an incomplete result.
ENDINGS = tuple(ENDED_BY.values())


def drive(process: Process, plan: Plan) -> Run:
    """Run a process to its end, or go on with what the plan's store holds.

    Ctrl-C, a spent budget and a divergence end it early with the draws that are there; if there are none, the error
    reaches the caller. Where the plan's watch ends it, it is whole.

    Parameters
    ----------
    process
        What to run; it has not been started.
    plan
        Progress, store, thinning and watch are read.
    """
    recorder = _Recorder(process, plan)
    ended = ""
    try:
        recorder.begin()
        # With a goal the total is only the most that there may be, and an estimate of the time by it would frighten.
        total = process.total if plan.watch is None else None
        with progress_bar(
            total=total, initial=process.iteration, disable=not plan.progress, unit="it"
        ) as bar:
            while not process.is_finished and not recorder.is_enough:
                recorder.take(process.step())
                _show(bar, process, "" if plan.watch is None else plan.watch.missing)
    except tuple(ENDED_BY) as reason:
        ended = ENDED_BY[type(reason)]
        if not recorder.conclude():
            raise
        if isinstance(reason, DivergedError):
            warnings.warn(f"{reason}. The {recorder.done} draws a chain before that are kept", stacklevel=4)
    latents, stats = recorder.everything()
    return Run(latents, stats, process.gradients, ended)


class _Recorder:
    """What a run has kept so far, in blocks, and the store that each block goes to."""

    def __init__(self, process: Process, plan: Plan):
        self.process, self.store, self.watch = process, plan.store, plan.watch
        self.size = plan.store.block if plan.store is not None else _BLOCK if plan.watch is None else _WATCHED
        self.is_enough = False
        self.thinned = Thinned(plan.thin)
        self.rows: list[Row] = []
        self.blocks: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        self.done = 0

    def begin(self) -> None:
        """Start the process, or take it up from the store."""
        saved = None if self.store is None else self.store.load_state()
        if self.store is None or saved is None:
            self.process.start()
            return
        if saved["draws"]:
            self.blocks, self.done = [self.store.read(saved["draws"])], saved["draws"]
            self._look()
        self.process.restore(saved["state"])

    def take(self, row: Row | None) -> None:
        """Keep a row; finish a block where one is full, so that a chunk on disk is written once and whole."""
        process = self.process
        if row is not None:
            self.rows += self.thinned.of(row)
        pause = row is None and not self.rows and process.iteration % process.commits_every == 0
        if len(self.rows) == self.size or process.is_finished or pause:
            self._finish_block()

    def conclude(self) -> bool:
        """Keep what an ended process still gives; return whether there is anything at all."""
        last = self.process.conclude()
        self.rows += last or []
        if self.rows:
            self.done += len(self.rows)
            self.blocks.append(self.process.gather(self.rows))
        return bool(self.blocks) or last is not None

    def everything(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return all latents and statistics."""
        if not self.blocks:
            return {}, {}
        latents, stats = (
            {
                # What a store gives back is on the CPU, wherever the run goes on.
                name: torch.cat([block[part][name].to(last.device) for block in self.blocks], 2)
                for name, last in self.blocks[-1][part].items()
            }
            for part in (0, 1)
        )
        return latents, stats

    def _finish_block(self) -> None:
        """Move the rows into a block, and commit it with the state that follows it."""
        block = self.process.gather(self.rows) if self.rows else ({}, {})
        count = len(self.rows)
        if self.store is not None:
            saved = {"state": self.process.state(), "draws": self.done + count}
            self.store.write(block, self.done, self.process.draws, saved)
        if count:
            self.blocks, self.rows, self.done = [*self.blocks, block], [], self.done + count
            self._look()

    def _look(self) -> None:
        """Show the watch the last block."""
        if self.watch is not None:
            self.is_enough = self.watch.is_enough(*self.blocks[-1])


def _show(bar: Any, process: Process, missing: str) -> None:
    bar.update()
    if not bar.disable and (process.iteration % 10 == 0 or process.is_finished):
        bar.set_description_str(process.label)
        # What a goal lacks once there are draws, in so many words as there is room for.
        lacking = "" if missing.startswith("draws") else missing.split(", where")[0]
        bar.set_postfix_str(", ".join(filter(None, (process.status(), lacking))), refresh=False)
