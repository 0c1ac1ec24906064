"""How long, how fast and from which seed networks are trained: the settings that every training shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.streams import Streams

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """Settings of a training by minibatches; ``train(..., epochs=5)`` is short for ``schedule=Schedule(epochs=5)``.

    Parameters
    ----------
    epochs, batch_size
        Passes over the data, images a step.
    learning_rate
        First step size; it falls to 0 along half a cosine (Loshchilov & Hutter 2017).
    averaging
        Weight of the past in a moving average of the weights, per step, which the training ends with; 0 for none.
    checkpoint
        File to which everything that going on needs is written after each epoch: the same call with the same file
        goes on there, and ends with the same weights. ``None`` for none.
    optimiser
        Any ``torch.optim`` class, or ``functools.partial`` of one.
    seed
        Seed of order, masks and draws: the same seed gives the same parameters on the same machine.
    progress
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        For a number out of range.

    Examples
    --------
    >>> Schedule(batch_size=100).sizes(250)
    [100, 100, 50]
    """

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 1e-3
    averaging: float = 0.0
    checkpoint: str | Path | None = None
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    seed: int = 0
    progress: bool = True

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs={self.epochs}, batch_size={self.batch_size}; expected at least 1 of each"
            )
        if not 0 <= self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate}; expected a finite number of at least 0")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging={self.averaging}; expected a number in [0, 1)")
        Streams(self.seed)

    def sizes(self, count: int) -> list[int]:
        """Return the sizes of an epoch's minibatches of ``count`` images."""
        return [min(self.batch_size, count - first) for first in range(0, count, self.batch_size)]

    def stepper(self, parameters: Iterable[Tensor], steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """Return an optimiser of the parameters and the scheduler that lowers its step size over ``steps`` steps."""
        optimiser = self.optimiser(parameters, lr=self.learning_rate)
        return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
