r"""Step sizes in cycles: each begins with large steps that look for another mode, and ends with small ones that draw.

Zhang, Li, Zhang, Chen & Wilson 2020, *Cyclical Stochastic Gradient MCMC for Bayesian Deep Learning*, equation 1. Step k
of a cycle of n steps has the size

.. math:: l_k = l_0 \Big( r + \frac{1 - r}{2} \big[ \cos(\pi k / n) + 1 \big] \Big), \qquad k = 0, \ldots, n - 1,

with r = 0 in the paper and r = 1 for constant steps. In the first part of a cycle there is no noise, and nothing is
kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from posterior_inpainting.inference.streams import Streams

__all__ = ["Cycles"]


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """How long, how fast and how warm weights are drawn, and how many are kept.

    Parameters
    ----------
    cycles, epochs
        Number of cycles, and passes over the data in each.
    batch_size
        Images a step.
    learning_rate
        First step size of a cycle, of the mean loss an image.
    last
        r: the share of it that steps end with, in [0, 1].
    exploring
        Part of a cycle without noise and draws, in [0, 1).
    samples
        Draws kept of each cycle, evenly spread over what is left of it; the last step's is one.
    temperature
        Of the noise: 1 for the posterior; below, it is a *cold* posterior, which is another law.
    seed
        Seed of order and noise: the same seed gives the same draws on the same machine.
    progress
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        For a number out of range, or more samples than steps.

    Examples
    --------
    >>> cycles = Cycles(cycles=2, epochs=2, batch_size=10, learning_rate=1.0, exploring=0.5, samples=2)
    >>> [round(cycles.size(k, 4), 3) for k in range(4)], cycles.kept(4)
    ([1.0, 0.854, 0.5, 0.146], [2, 3])
    """

    cycles: int = 4
    epochs: int = 5
    batch_size: int = 256
    learning_rate: float = 1e-4
    last: float = 0.0
    exploring: float = 0.5
    samples: int = 2
    temperature: float = 1.0
    seed: int = 0
    progress: bool = True

    def __post_init__(self):
        if min(self.cycles, self.epochs, self.batch_size, self.samples) < 1:
            raise ValueError(
                f"cycles={self.cycles}, epochs={self.epochs}, batch_size={self.batch_size}, samples={self.samples}; "
                "expected at least 1 of each"
            )
        if not 0 < self.learning_rate < math.inf or not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"learning_rate={self.learning_rate}, temperature={self.temperature}; expected a finite number above 0 "
                "and one of at least 0"
            )
        if not 0 <= self.last <= 1 or not 0 <= self.exploring < 1:
            raise ValueError(
                f"last={self.last}, exploring={self.exploring}; expected a number in [0, 1] and one in [0, 1)"
            )
        Streams(self.seed)

    def size(self, step: int, steps: int) -> float:
        """Return the size of a step of a cycle that has ``steps``."""
        fall = 0.5 * (math.cos(math.pi * step / steps) + 1)
        return self.learning_rate * (self.last + (1 - self.last) * fall)

    def explores(self, step: int, steps: int) -> bool:
        """Say whether a step of a cycle is of its first part."""
        return step < math.floor(self.exploring * steps)

    def kept(self, steps: int) -> list[int]:
        """Return the steps of a cycle after which the weights are kept."""
        drawing = steps - math.floor(self.exploring * steps)
        if self.samples > drawing:
            raise ValueError(
                f"samples={self.samples} of the {drawing} steps of a cycle that draw; expected no more than that"
            )
        return [steps - 1 - (drawing * i) // self.samples for i in reversed(range(self.samples))]
