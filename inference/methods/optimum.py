"""`MAP`: the best latents from several starts, as in Yeh et al. 2017. Optima, not draws.

Every restart and every image is an independent optimisation, although all run in one batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, DrawsAre, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import affordable
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.starts_of_finite_density import draw_starts
from posterior_inpainting.inference.methods.climbing import Climb
from posterior_inpainting.inference.methods.early_stop import StoppedClimb, held_apart
from posterior_inpainting.inference.methods.loop import drive

__all__ = ["MAP"]

#: The stream of a run that chooses the pixels that are held out.
_STREAM = "held out"


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
    held_out
        Share of the seen pixels (of the values of a measurement) that are held out of the density; each restart is
        taken at the step at which these were the likeliest, for networks that fit what they see too well. The
        truth is not read. They are one sample of few pixels, a little of what is seen is given up for them, and they
        lie among the fitted ones: where a hole is far from anything seen, the step that suits them need not suit it.
        The statistics ``step`` and ``held_out_loss`` say where each restart was taken, and ``lp`` is without the
        held-out pixels. With ``snapshots`` the path goes on to its end. ``None`` to climb to the end by all of them.

    Raises
    ------
    ValueError
        For a number below 1, or a share that is not between 0 and 1; when run, as ``held_apart``.

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
    held_out: float | None = None

    def __post_init__(self):
        if self.restarts < 1 or self.steps < 1 or self.snapshots < 1:
            raise ValueError(
                f"restarts={self.restarts}, steps={self.steps}, snapshots={self.snapshots}; "
                "expected at least 1 of each"
            )
        if self.held_out is not None and not 0 < self.held_out < 1:
            raise ValueError(f"held_out={self.held_out}; expected a number between 0 and 1")

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
        merit = stats["lp"] if self.held_out is None else -stats["held_out_loss"]
        best = int(merit[:, -1].nan_to_num(-torch.inf).argmax())
        # A climb that was planned shorter than asked for, to stay within the budget, is labelled as one cut short.
        cut = {"budget_spent": 1} if climbing.steps < self.steps else {}
        attrs = {
            "gradient_evaluations": run.gradients,
            "best_restart": best,
            **self._held(climbing),
            **cut,
            **run.label,
        }
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
        judged = None
        if self.held_out is not None:
            problem, judged = held_apart(problem, self.held_out, plan.streams.generator(_STREAM))
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
        if judged is None:
            return Climb(density, position, steps, self.learning_rate, wanted)
        judge = Potential(judged, groups=images, jacobian=False)
        return StoppedClimb(density, position, steps, self.learning_rate, wanted, judge=judge)

    def _held(self, climbing: Climb) -> dict[str, Any]:
        """Say which pixels were held out: how many, and the stream of the seed that chose them."""
        if not isinstance(climbing, StoppedClimb):
            return {}
        return {"held_out_pixels": climbing.held_out, "held_out_stream": _STREAM}
