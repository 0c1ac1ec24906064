"""Many positions on their way to an optimum each: Adam along half a cosine, all of them in one batch.

Every chain and every image is an independent optimisation: Adam works element by element, so nothing of one reaches
another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.loop import Process, Row, check_planned

__all__ = ["Climb", "climb"]


class Climb(Process):
    """Positions ``(..., chain, dim)`` on their way to an optimum each, by Adam along half a cosine.

    A row is what is kept of the positions at one of the steps ``wanted``, and ``lp`` there.

    Parameters
    ----------
    density
        What is maximised.
    position
        Where it starts; without groups ``(chain, dim)``.
    steps, learning_rate
        Adam's, and its first step size.
    wanted
        Numbers of steps after which a row is kept; beside them the end is.
    """

    label = "climbing"

    def __init__(
        self,
        density: Density,
        position: Tensor,
        steps: int,
        learning_rate: float,
        wanted: tuple[int, ...] = (),
    ):
        self.density, self.position = density, position.clone()
        self.steps = steps
        self.wanted = {*wanted, steps}
        # The last step only looks at where the one before it led.
        self.total, self.draws = steps + 1, len(self.wanted)
        self.optimiser = torch.optim.Adam([self.position], lr=learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, steps)

    @property
    def gradients(self) -> int:
        """Gradient evaluations so far."""
        return self.density.gradients

    def start(self) -> None:
        """Nothing is made that is not there already."""

    def step(self) -> Row | None:
        """Keep a row if one is wanted here, then go up."""
        last = self.iteration == self.steps
        row = self._row() if last else None
        if not last:
            log_prior, log_likelihood, gradient = self.density.gradient(self.position)
            if self.iteration in self.wanted:
                row = self._kept(log_prior + log_likelihood, self.position, self.iteration)
            self.position.grad = -gradient
            self.optimiser.step()
            self.schedule.step()
        self.iteration += 1
        return row

    def conclude(self) -> list[Row]:
        """Where an ended climb has come to is what it gives."""
        return [self._row()]

    def state(self) -> dict[str, Any]:
        """Return where it is, and what the optimiser remembers."""
        return {
            "position": self.position.detach().clone(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "iteration": self.iteration,
            "gradients": self.density.gradients,
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there; the schedule of step sizes must be the same."""
        check_planned(state["steps"], self.steps)
        with torch.no_grad():
            self.position.copy_(state["position"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.iteration, self.density.gradients = state["iteration"], state["gradients"]
        spend(state["gradients"])

    def _row(self) -> Row:
        with torch.no_grad():
            lp = sum(self.density(self.position))
        return self._kept(lp, self.position, self.iteration)  # type: ignore[arg-type]

    def _kept(self, lp: Tensor, position: Tensor, step: int | Tensor, **more: Tensor) -> Row:
        """Return a row: latents and statistics ``(group, chain)`` of positions met at a step."""
        latents, alone = self.density.keep(position.detach().clone()), self.density.groups is None
        stats = {"lp": lp, "step": torch.zeros_like(lp, dtype=torch.int64) + step, **more}
        values, info = (
            {n: v.unsqueeze(0) if alone else v for n, v in part.items()} for part in (latents, stats)
        )
        return values, info


def climb(density: Density, position: Tensor, steps: int = 300, learning_rate: float = 0.03) -> Tensor:
    """Move chains ``(..., chain, dim)`` towards an optimum each: where thousands of weights may start."""
    process = Climb(density, position, steps, learning_rate)
    while process.iteration < steps:  # within another run: what ends that one ends this
        process.step()
    return process.position
