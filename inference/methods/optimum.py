"""`MAP`: the best latents from several starts, as in Yeh et al. 2017. Optima, not draws.

Every restart and every image is an independent optimisation, although all run in one batch: Adam works
element by element, so nothing of one reaches another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, DrawsAre, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import affordable, spend
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.starts_of_finite_density import draw_starts
from posterior_inpainting.inference.methods.loop import Process, Row, check_planned, drive

__all__ = ["MAP", "Climb", "climb"]


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
                row = self._kept(log_prior + log_likelihood)
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
            return self._kept(sum(self.density(self.position)))  # type: ignore[arg-type]

    def _kept(self, lp: Tensor) -> Row:
        """Return a row: latents and statistics ``(group, chain)``."""
        latents, alone = self.density.keep(self.position.detach().clone()), self.density.groups is None
        stats = {"lp": lp, "step": torch.full_like(lp, self.iteration, dtype=torch.int64)}
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


@dataclass(frozen=True)
class MAP(Method):
    """Maximise the joint density over the latents from ``restarts`` draws of the prior.

    In Pyro's words an ``AutoDelta`` for each restart. The result has one *restart* a chain and one
    draw; no diagnostic treats them as a sample. ``draws`` and ``chains`` of ``infer`` are not read.

    Parameters
    ----------
    restarts
        Number of starting points.
    steps, learning_rate
        Adam's steps and first step size, which falls to 0 along half a cosine.
    snapshots
        Points of the way that are kept, at steps evenly spaced in their logarithm, the end among them:
        the result's draws are then the ``path`` of each restart, for ``early_stopping``.

    Examples
    --------
    >>> from posterior_inpainting.models import LinearGaussian, datasets
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> latents, lp = MAP(restarts=2, steps=300).optimise(Problem(model, (images[:4],)))
    >>> tuple(latents["z"].shape), tuple(lp.shape)
    ((2, 4, 3), (2,))
    """

    restarts: int = 8
    steps: int = 1000
    learning_rate: float = 0.05
    snapshots: int = 1

    def __post_init__(self):
        if self.restarts < 1 or self.steps < 1 or self.snapshots < 1:
            raise ValueError(
                f"restarts={self.restarts}, steps={self.steps}, snapshots={self.snapshots}; "
                "expected at least 1 of each"
            )

    is_resumable = True

    @property
    def draws_are(self) -> DrawsAre:  # type: ignore[override]
        """Optima, or the way to them."""
        return "restarts" if self.snapshots == 1 else "path"

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Optimise from every restart; chain = restart, draw = snapshot."""
        climbing = self._process(problem, plan)
        run = drive(climbing, plan)
        latents, stats = ({n: v[0] for n, v in part.items()} for part in (run.latents, run.stats))
        best = int(stats["lp"][:, -1].nan_to_num(-torch.inf).argmax())
        # A climb that was planned shorter than asked for, to stay within the budget, is labelled as one cut short.
        cut = {"budget_spent": 1} if climbing.steps < self.steps else {}
        attrs = {"gradient_evaluations": run.gradients, "best_restart": best, **cut, **run.label}
        return Draws(latents, stats, self.draws_are, attrs)

    def optimise(self, problem: Problem, plan: Plan | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Return the optima, site -> ``(restart, *batch, *event)``, and their log joint density ``(restart,)``.

        A batch of images is optimised as if each were alone, from the same starting points; densities are summed
        over it.
        """
        plan = Plan(1, 1) if plan is None else plan
        climbing = self._process(problem, plan)
        run = drive(climbing, plan)
        if run.ended:  # half-way points carry no label here
            raise KeyboardInterrupt
        latents = {name: value[:, :, -1] for name, value in run.latents.items()}
        lp = run.stats["lp"][..., -1].sum(0)
        alone = climbing.density.groups is None
        return {n: v[0] if alone else v.transpose(0, 1).clone() for n, v in latents.items()}, lp

    def _process(self, problem: Problem, plan: Plan) -> Climb:
        """Draw starts from the prior, the same for every image of a batch."""
        batches = [len(a) for a in problem.args if isinstance(a, Tensor) and a.dim() == 4]
        # Of someone else's model a tensor of four dimensions may be anything.
        images = max(batches) if batches and problem.abilities is problem.model else None
        if images is not None:  # a mask may be shared by all images
            args = (a.expand(images, *a.shape[-3:]) if isinstance(a, Tensor) else a for a in problem.args)
            problem = replace(problem, args=tuple(args))
        # The optimum is that of the density in the model's own space, whose constraints `constrain` keeps.
        density = Potential(problem, groups=images, jacobian=False)
        if images is None:
            position = draw_starts(density, self.restarts, plan.streams)[0]
        else:
            with plan.streams.seeded("starts"):
                position = density.draw_prior(self.restarts).repeat(images, 1, 1)
        # Planned within the budget, so that the step size has fallen to 0 at the end.
        steps = affordable(self.steps, math.prod(position.shape[:-1]))
        between = np.geomspace(1, self.steps, self.snapshots + 1).round().astype(int)[1:-1]
        wanted = tuple(int(step) for step in np.unique(between) if step < steps)
        return Climb(density, position, steps, self.learning_rate, wanted)
