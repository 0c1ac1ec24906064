"""What a Hamiltonian or Langevin kernel tunes while it warms up, apart from the move itself: step size and scales."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Generator, Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.adaptation import (
    DualAveraging,
    Metric,
    Moments,
    Preconditioner,
    windows,
)
from posterior_inpainting.inference.methods.trajectory import Point, first_step_size

__all__ = ["Tuning", "relearns"]


def relearns(iteration: int, warmup: int, metric: Metric) -> bool:
    """Whether the scales are learnt anew after an iteration: at the end of each window of the warm-up.

    >>> relearns(20, 200, "dense"), relearns(20, 200, "identity"), relearns(21, 200, "dense")
    (True, False, False)
    """
    return metric != "identity" and iteration in windows(warmup)


@dataclass(frozen=True)
class Tuning:
    """Step size, the moments of where chains were in this window, and the scales learnt at the end of the last.

    Parameters
    ----------
    step
        Dual averaging of each group's step size.
    moments
        Of the positions in this window.
    scales
        The linear map C in whose white coordinates chains move.
    """

    step: DualAveraging
    moments: Moments
    scales: Preconditioner

    @classmethod
    def start(
        cls,
        density: Density,
        point: Point,
        metric: Metric,
        generator: Generator,
        inverse_temperature: float | Tensor = 1.0,
    ) -> Tuning:
        """Begin with C = 1 and a step that the first trajectories accept."""
        scales = Preconditioner.identity(point.position)
        step = first_step_size(density, point, scales, generator, inverse_temperature)
        return cls(DualAveraging.start(step), Moments.start(point.position, metric == "dense"), scales)

    def step_size(self, warming: bool) -> Tensor:
        """Return the step in use, ``(group,)``: the moving one while warming up, then the averaged one."""
        return (self.step.log_step if warming else self.step.log_average).exp()

    def followed(self, acceptance: Tensor, target: float) -> Tuning:
        """Move the step towards where ``acceptance`` ``(group,)`` is ``target``."""
        return replace(self, step=self.step.update(acceptance, target))

    def seen(self, position: Tensor) -> Tuning:
        """Take in where the chains are, ``(group, chain, dim)``."""
        return replace(self, moments=self.moments.update(position))

    def relearnt(
        self,
        density: Density,
        point: Point,
        metric: Metric,
        generator: Generator,
        inverse_temperature: float | Tensor = 1.0,
    ) -> Tuning:
        """Change the scales to what this window saw, and begin the step anew, whose unit changes with them."""
        scales = self.moments.scales()
        step = first_step_size(density, point, scales, generator, inverse_temperature)
        return Tuning(DualAveraging.start(step), Moments.start(point.position, metric == "dense"), scales)
