"""The exponential moving average of weights under training, which is better than those of the last step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["MovingAverage"]


class MovingAverage:
    """Average of parameters over their steps (Karras et al. 2018); early ones are soon forgotten.

    Parameters
    ----------
    parameters
        What is averaged.
    past
        Weight of the past, per step; 0 for no average. It looks back at most a tenth of the way.

    Raises
    ------
    ValueError
        For a weight outside [0, 1).

    Examples
    --------
    >>> weight = torch.zeros(1)
    >>> average = MovingAverage([weight], past=0.9)
    >>> for step in range(200):
    ...     weight += 1
    ...     average.update()
    >>> average.finish()
    >>> round(float(weight))
    191
    """

    def __init__(self, parameters: Iterable[Tensor], past: float):
        if not 0 <= past < 1:
            raise ValueError(f"averaging={past}; expected a number in [0, 1)")
        self.parameters, self.past, self.steps = list(parameters), past, 0
        self.values = [parameter.detach().clone() for parameter in self.parameters] if past else []

    def update(self) -> None:
        """Count in the parameters as they are after a step."""
        self.steps += 1
        if self.past:
            present = 1 - min(self.past, self.steps / (self.steps + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], present)

    def finish(self) -> None:
        """Give the parameters the values of their average."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.values, strict=False):
                parameter.copy_(value)

    def state(self) -> dict[str, Any]:
        """Return what going on needs."""
        return {"values": self.values, "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what :meth:`state` returned."""
        self.values, self.steps = state["values"], state["steps"]
