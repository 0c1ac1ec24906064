"""Where trainings keep what going on needs, when a whole recipe of them is to survive being killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Checkpoints", "checkpoints_in", "next_checkpoint", "took_up"]


@dataclass
class Checkpoints:
    """A folder with a file for each training, in the order in which they come.

    Parameters
    ----------
    folder
        Where the files are.
    trainings
        How many have begun.
    wall, processor
        Seconds that had gone into those that were taken up, by the clock and of the processor.
    """

    folder: Path
    trainings: int = 0
    wall: float = 0.0
    processor: float = 0.0


_current: ContextVar[Checkpoints | None] = ContextVar("checkpoints", default=None)


@contextmanager
def checkpoints_in(folder: str | Path | None) -> Iterator[Checkpoints]:
    """Keep a checkpoint of every training inside the block, or none where there is no folder.

    Killed at any moment, the same block goes on: trainings that had ended are read, and the one that was under way is
    taken up after its last whole epoch.

    >>> with checkpoints_in("folder"):
    ...     next_checkpoint().name, next_checkpoint().name
    ('training-0.pt', 'training-1.pt')
    >>> next_checkpoint() is None
    True
    """
    kept = Checkpoints(Path(folder or "."))
    token = _current.set(None if folder is None else kept)
    try:
        yield kept
    finally:
        _current.reset(token)


def next_checkpoint() -> Path | None:
    """Return the file of a training that begins, ``None`` outside :func:`checkpoints_in`."""
    kept = _current.get()
    if kept is None:
        return None
    kept.trainings += 1
    return kept.folder / f"training-{kept.trainings - 1}.pt"


def took_up(wall: float, processor: float) -> None:
    """Say how many seconds had gone into a training that is taken up."""
    kept = _current.get()
    if kept is not None:
        kept.wall += wall
        kept.processor += processor
