"""The course of a training: steps, validation, an end in time, and checkpoints from which a killed one goes on.

Step sizes stay as they are while the validation score rises, fall to a third where it has not for some validations
(Goodfellow, Bengio & Courville 2016, section 7.8), twice, and then the phase ends with its best weights. Where the time
is bounded they fall to nothing over its last two fifths, so that the end is as good as the time allows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.learning.phases import Phase
from posterior_inpainting.inference.results.state_files import read_state, write_state
from posterior_inpainting.inference.streams import global_state, set_global_state
from posterior_inpainting.inference.training.moving_average import MovingAverage

__all__ = ["Course", "Record"]

#: How often steps shrink, and to what part.
_SHRINKAGES, _PART = 2, 1 / 3
#: Part of a bounded time in which step sizes fall to nothing, and part of the work that validation may be.
_FALLING, _VALIDATING = 0.4, 0.1
#: Epochs after which a phase ends in any case, and seconds between two checkpoints at least.
_EPOCHS, _SECONDS = 2000, 20.0


@dataclass
class Record:
    """What a phase did: its validation scores, its steps and its seconds."""

    name: str
    scores: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0


class Course:
    """Goes through the phases of a training, each to its end.

    Parameters
    ----------
    phases
        In their order.
    count
        How many training images there are.
    signature
        What makes this training this one: a checkpoint of another is refused.
    checkpoint
        File from which a killed training goes on; ``None`` for none.
    minutes
        That all phases may take together, those before a kill counted; ``None`` for no bound.
    progress
        Whether to show a bar.
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        count: int,
        signature: dict[str, Any],
        checkpoint: Path | None = None,
        minutes: float | None = None,
        progress: bool = True,
    ):
        self.phases, self.count, self.signature = tuple(phases), count, signature
        self.checkpoint, self.minutes, self.progress = checkpoint, minutes, progress
        self.records: list[Record] = []

    def run(self) -> list[Record]:
        """Run what is left of the phases, and return what each of them did."""
        saved = self._saved()
        kept = [] if saved is None else saved["phases"]
        done: list[dict[str, Any]] = []
        for index, phase in enumerate(self.phases):
            phase.begin()
            done.append(self._walk(index, phase, kept[index] if index < len(kept) else None, done))
        return self.records

    def _walk(self, index: int, phase: Phase, state: dict[str, Any] | None, done: list) -> dict[str, Any]:
        """Run one phase from its checkpoint, if there is one, to its end; return its state there."""
        walk = _Walk(phase, self.count, self._limit(index))
        if state is None:
            walk.validate()  # what it begins with may be the best that there will be
        else:
            walk.restore(state)
        self.records.append(walk.record)
        told = f"learning: {phase.name}"
        with progress_bar(
            desc=told, disable=not self.progress, unit="step", initial=walk.record.steps
        ) as bar:
            saved = time.monotonic()
            while not walk.ended:
                walk.epoch(bar)
                if walk.ended or time.monotonic() - saved > _SECONDS:
                    saved = time.monotonic()
                    self._save([*done, walk.state()])
        walk.finish()
        return walk.state()

    def _limit(self, index: int) -> float:
        """Return the seconds of a phase: its share of what those before it have left."""
        if self.minutes is None:
            return math.inf
        left = 60 * self.minutes - sum(record.seconds for record in self.records)
        shares = [phase.share for phase in self.phases[index:]]
        return max(left, 0.0) * shares[0] / sum(shares)

    def _save(self, phases: list[dict[str, Any]]) -> None:
        if self.checkpoint is not None:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_state(self.checkpoint, {"signature": self.signature, "phases": phases})

    def _saved(self) -> dict[str, Any] | None:
        if self.checkpoint is None or not self.checkpoint.is_file():
            return None
        saved = read_state(self.checkpoint)
        if saved.get("signature") != self.signature:
            given = saved.get("signature", {})
            differ = [name for name in self.signature if given.get(name) != self.signature[name]]
            raise ValueError(
                f"{self.checkpoint} is of another training: {', '.join(differ)} differ; choose another folder, or "
                "delete it"
            )
        return saved


class _Walk:
    """One phase under way."""

    def __init__(self, phase: Phase, count: int, limit: float):
        self.phase, self.count, self.limit = phase, count, limit
        self.record = Record(phase.name)
        self.parameters = [one for player in phase.players for one in player.parameters]
        self.optimisers = [
            torch.optim.Adam(player.parameters, lr=phase.learning_rate, betas=player.betas)
            for player in phase.players
        ]
        self.average = MovingAverage(self.parameters, phase.averaging)
        self.best, self.best_values = -math.inf, [one.detach().clone() for one in self.parameters]
        self.waited = self.shrinkages = self.epochs = 0
        # By work and not by the clock, so that the same seed gives the same weights; a step goes back as well as forth.
        self.every = max(1, math.ceil(phase.validation / (3 * count * _VALIDATING)))
        self.ended = limit <= 0

    def epoch(self, bar: Any) -> None:
        """Go through the images once, or until the time is over; validate when that costs little."""
        begun = time.monotonic()
        device = self.parameters[0].device
        for which in torch.randperm(self.count, device=device).split(self.phase.batch_size):
            now = self.record.seconds + time.monotonic() - begun
            if now > self.limit:
                break
            self._step(which, self._rate(now))
            bar.update()
        self.record.seconds += time.monotonic() - begun
        self.epochs += 1
        over = self.record.seconds >= self.limit or self.epochs >= _EPOCHS
        if over or self.epochs % self.every == 0:
            self.validate(over)
            bar.set_postfix(validation=f"{self.record.scores[-1]:.4g}")
        self.ended = self.ended or over

    def _step(self, which: Tensor, rate: float) -> None:
        for player, optimiser in zip(self.phase.players, self.optimisers, strict=True):
            moved = player.parameters
            value = player.loss(which)
            # Of this player's parameters alone: the others stand in its loss too.
            for one, slope in zip(moved, torch.autograd.grad(value, moved, allow_unused=True), strict=True):
                one.grad = slope
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
        self.record.steps += 1
        self.average.update()

    def _rate(self, now: float) -> float:
        left = 1.0 if math.isinf(self.limit) else (1 - now / self.limit) / _FALLING
        return self.phase.learning_rate * _PART**self.shrinkages * min(1.0, max(left, 1e-3))

    def validate(self, last: bool = False) -> None:
        """Score the averaged weights, and decide whether to shrink steps or to end."""
        begun = time.monotonic()
        moving = [one.detach().clone() for one in self.parameters]
        self.average.finish()
        score = self.phase.score()
        if not math.isfinite(score):
            raise ValueError(
                f"the validation score of {self.phase.name} is {score} after {self.record.steps} steps; are the "
                "images in [0, 1]?"
            )
        if score > self.best:
            self.best, self.waited = score, 0
            self.best_values = [one.detach().clone() for one in self.parameters]
        else:
            self.waited += 1
        with torch.no_grad():
            for one, value in zip(self.parameters, moving, strict=True):
                one.copy_(value)
        self.record.scores.append(score)
        self.record.seconds += time.monotonic() - begun
        if self.waited >= self.phase.patience and not last:
            self.waited, self.shrinkages = 0, self.shrinkages + 1
            self.ended = self.shrinkages > _SHRINKAGES

    def finish(self) -> None:
        """Leave the networks with their best weights."""
        with torch.no_grad():
            for one, value in zip(self.parameters, self.best_values, strict=True):
                one.copy_(value)

    def state(self) -> dict[str, Any]:
        """Return all that going on needs."""
        return {
            "parameters": [one.detach() for one in self.parameters],
            "optimisers": [one.state_dict() for one in self.optimisers],
            "average": self.average.state(),
            "best": self.best,
            "best_values": self.best_values,
            "counts": [self.waited, self.shrinkages, self.epochs],
            "record": vars(self.record),
            "ended": self.ended,
            "generators": global_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        with torch.no_grad():
            for one, value in zip(self.parameters, state["parameters"], strict=True):
                one.copy_(value)
        for optimiser, value in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(value)
        device = self.parameters[0].device
        average = state["average"]
        self.average.restore(average | {"values": [value.to(device) for value in average["values"]]})
        self.best, self.best_values = state["best"], [value.to(device) for value in state["best_values"]]
        self.waited, self.shrinkages, self.epochs = state["counts"]
        self.record = Record(**state["record"])
        self.ended = bool(state["ended"])
        set_global_state(state["generators"])
