"""One seed, and from it independent streams of random numbers, each with a name.

A stream is told by the seed and a path of names and numbers: ``streams.child("image", 3).generator("momenta")``.
What one part of a run draws therefore never depends on how much another part drew, in which order they ran, or in
which process; and two parts never share numbers, because they have different names. Names go through SHA-256 into
``numpy.random.SeedSequence`` (O'Neill's mixing), which makes the seeds of both torch's and NumPy's generators.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyro
import torch

__all__ = ["Streams", "callers_state_kept", "global_state", "set_global_state"]


@dataclass(frozen=True)
class Streams:
    """Independent streams of one seed.

    Parameters
    ----------
    seed
        A whole number of at least 0.
    path
        Where in the run these streams belong; what :meth:`child` appended.

    Raises
    ------
    ValueError
        For a seed that is no whole number, or negative.

    Examples
    --------
    >>> streams = Streams(0)
    >>> first = torch.rand(2, generator=streams.generator("starts"))
    >>> bool((first == torch.rand(2, generator=streams.generator("starts"))).all())
    True
    >>> bool((first == torch.rand(2, generator=streams.generator("momenta"))).any())
    False
    """

    seed: int = 0
    path: tuple[str | int, ...] = ()

    def __post_init__(self):
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ValueError(f"seed={self.seed!r}; expected a whole number of at least 0")

    def child(self, *names: str | int) -> Streams:
        """Return the streams of a part of the run, such as ``child("image", 3)``."""
        return Streams(self.seed, (*self.path, *names))

    def number(self, *names: str | int) -> int:
        """Return the seed of one stream, 63 bits, for what takes a seed and no generator."""
        keys = [hashlib.sha256(f"{type(n).__name__}:{n}".encode()).digest()[:8] for n in (*self.path, *names)]
        spawned = np.random.SeedSequence(self.seed, spawn_key=[int.from_bytes(key, "little") for key in keys])
        return int(spawned.generate_state(1, np.uint64)[0] >> 1)

    def generator(self, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a torch generator at the beginning of one stream."""
        return torch.Generator(device=device).manual_seed(self.number(*names))

    def numpy(self, *names: str | int) -> np.random.Generator:
        """Return a NumPy generator at the beginning of one stream."""
        return np.random.default_rng(self.number(*names))

    @contextmanager
    def seeded(self, *names: str | int) -> Iterator[None]:
        """Let torch's *global* generators draw from one stream inside the block, and restore them after it.

        Pyro's sample statements know no other generator.
        """
        with torch.random.fork_rng(devices=[*range(torch.cuda.device_count())]):
            torch.manual_seed(self.number(*names))
            yield


def global_state() -> list[torch.Tensor]:
    """Return the states of torch's global generators: the CPU's, then each CUDA device's.

    >>> state = global_state()
    >>> first = torch.rand(2)
    >>> set_global_state(state)
    >>> bool((torch.rand(2) == first).all())
    True
    """
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def set_global_state(state: list[torch.Tensor]) -> None:
    """Put back what :func:`global_state` returned."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])


@contextmanager
def callers_state_kept() -> Iterator[None]:
    """Leave torch's generators and Pyro's parameter store, which belong to the caller, as they were."""
    devices = [*range(torch.cuda.device_count())]
    with torch.random.fork_rng(devices=devices), pyro.get_param_store().scope():
        yield
