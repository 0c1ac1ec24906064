"""Going down a loss, epoch by epoch: what every training by minibatches does, from a checkpoint where there is one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.results.state_files import read_state, write_state
from posterior_inpainting.inference.streams import Streams, global_state, set_global_state
from posterior_inpainting.inference.training.checkpoints import next_checkpoint, took_up
from posterior_inpainting.inference.training.loss import Loss
from posterior_inpainting.inference.training.moving_average import MovingAverage
from posterior_inpainting.inference.training.schedule import Schedule

__all__ = ["Descent", "Training"]


@dataclass(frozen=True)
class Training:
    """What a training did: the mean loss an image, epoch by epoch, and how long it took, interruptions left out."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Descent:
    """Parameters on their way down a loss; after each epoch everything that going on needs is in the checkpoint.

    Parameters
    ----------
    parameters
        What is trained, in place.
    schedule
        How long and how fast; its ``averaging`` is of these parameters, its ``checkpoint`` of this training. Inside
        ``checkpoints_in`` there is one without its saying so.
    count
        Number of images.
    shares
        From the sizes of an epoch's minibatches to the share of each in what all images have in common.
    loss
        What may carry something from step to step.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        schedule: Schedule,
        count: int,
        shares: Callable[[Sequence[int]], Sequence[float]],
        loss: Loss,
    ):
        self.parameters, self.schedule, self.count, self.loss = list(parameters), schedule, count, loss
        sizes = schedule.sizes(count)
        self.shares, self.steps = shares(sizes), schedule.epochs * len(sizes)
        self.optimiser, self.cosine = schedule.stepper(self.parameters, self.steps)
        self.average = MovingAverage(self.parameters, schedule.averaging)
        self.training = Training()
        chosen = schedule.checkpoint
        self.checkpoint = next_checkpoint() if chosen is None else Path(chosen)
        self._before = self._before_processor = 0.0

    def run(self, objective: Callable[[Tensor, float, float], Tensor]) -> Training:
        """Go through the images until the last epoch.

        Parameters
        ----------
        objective
            From the indices of a minibatch, its share, and the part of the training that is done, to its loss, summed
            over its images.
        """
        schedule = self.schedule
        wall, processor = time.perf_counter(), time.process_time()
        with Streams(schedule.seed).seeded("training"):
            self.loss.restore({})
            self._take_up()
            done = len(self.training.losses)
            with progress_bar(
                total=self.steps,
                initial=done * len(self.shares),
                desc="training",
                disable=not schedule.progress,
                unit="step",
            ) as bar:
                for _ in range(done, schedule.epochs):
                    self._epoch(objective, bar)
                    seconds = self._before + time.perf_counter() - wall
                    self.training = replace(self.training, seconds=seconds)
                    self._commit(self._before_processor + time.process_time() - processor)
        self.average.finish()
        return self.training

    def _epoch(self, objective: Callable[[Tensor, float, float], Tensor], bar: Any) -> None:
        values = []
        # Of the images' own device, as their indices must be.
        batches = torch.randperm(self.count, device=self.parameters[0].device).split(self.schedule.batch_size)
        for which, share in zip(batches, self.shares, strict=True):
            self.optimiser.zero_grad(set_to_none=True)
            value = objective(which, share, self.cosine.last_epoch / self.steps)
            (value / len(which)).backward()
            self.optimiser.step()
            self.cosine.step()
            self.average.update()
            values.append(value.detach())
            bar.update()
        # Once an epoch, because a GPU stands still whenever it is asked for a number.
        total = sum(torch.stack(values).tolist())
        losses = [*self.training.losses, total / self.count]
        self.training = replace(self.training, losses=losses)
        bar.set_postfix(loss=f"{losses[-1]:.4g}")
        if not math.isfinite(total):
            raise ValueError(
                f"the loss is {total} in epoch {len(losses)}; try a learning rate below {self.schedule.learning_rate}"
            )

    def _commit(self, processor: float) -> None:
        if self.checkpoint is None:
            return
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        saved = {
            "signature": self._signature(),
            "parameters": self.parameters,
            "optimiser": self.optimiser.state_dict(),
            "cosine": self.cosine.state_dict(),
            "average": self.average.state(),
            "loss": self.loss.state(),
            "generators": global_state(),
            "losses": self.training.losses,
            "seconds": self.training.seconds,
            "processor": processor,
        }
        write_state(self.checkpoint, saved)

    def _take_up(self) -> None:
        """Go on from the checkpoint, if there is one."""
        path = self.checkpoint
        if path is None or not path.is_file():
            return
        saved = read_state(path)
        signature = self._signature()
        if saved["signature"] != signature:
            differ = [name for name in signature if saved["signature"].get(name) != signature[name]]
            raise ValueError(
                f"{path} is of another training: {', '.join(differ)} differ; give a file that does not exist yet"
            )
        with torch.no_grad():
            for parameter, value in zip(self.parameters, saved["parameters"], strict=True):
                parameter.copy_(value)
        self.optimiser.load_state_dict(saved["optimiser"])
        self.cosine.load_state_dict(saved["cosine"])
        self.average.restore(saved["average"])
        self.loss.restore(saved.get("loss", {}))
        set_global_state(saved["generators"])
        self.training = Training(saved["losses"], saved["seconds"])
        self._before, self._before_processor = saved["seconds"], saved["processor"]
        took_up(self._before, self._before_processor)

    def _signature(self) -> dict[str, Any]:
        """Return what makes this training this one."""
        schedule = self.schedule
        names = ("epochs", "batch_size", "learning_rate", "averaging", "seed")
        return {
            "images": self.count,
            "parameters": [list(parameter.shape) for parameter in self.parameters],
            "optimiser": repr(schedule.optimiser),
            **{name: getattr(schedule, name) for name in names},
        }
