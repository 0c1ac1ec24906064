"""`Gibbs`: chains that draw each part of the latents exactly given the others, in turn.

Geman & Geman 1984, *Stochastic Relaxation, Gibbs Distributions, and the Bayesian Restoration of Images*. There is no
step size to find and nothing is refused; what the parts are, the model says (``Abilities.conditionals``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.methods.loop import Process, Row, drive
from posterior_inpainting.inference.results.convert import EXPECTED
from posterior_inpainting.models.densities.conditionals import Conditionals

__all__ = ["Gibbs"]


@dataclass(frozen=True)
class Gibbs(Method):
    """All chains at once, for models that declare their conditional draws, such as ``ExpertField``.

    Parameters
    ----------
    warmup
        Sweeps that are thrown away.
    thin
        Sweeps for one that is kept.

    Raises
    ------
    ValueError
        For a model without conditional draws, or numbers out of range.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import ExpertField, Observation, observations
    >>> from posterior_inpainting.models.networks import Experts
    >>> model = ExpertField(Experts(channels=1, count=4, side=3), (1, 16, 16))
    >>> seen = Observation(torch.rand(1, 16, 16), observations.half((1, 16, 16), hide="bottom"))
    >>> posterior = infer(model, seen, Gibbs(warmup=5), draws=10, chains=2, progress=False)
    >>> posterior.attrs["draws_are"], dict(posterior.posterior["completion"].sizes)["draw"]
    ('markov', 10)
    """

    warmup: int = 30
    thin: int = 1

    draws_are = "markov"
    can_end_early = True
    is_resumable = True
    usual_draws = 50
    usual_chains = 8

    def __post_init__(self):
        if self.warmup < 0 or self.thin < 1:
            raise ValueError(f"warmup={self.warmup}, thin={self.thin}; expected at least 0 and 1")

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run the chains."""
        conditionals = problem.abilities.conditionals(*problem.args, **problem.kwargs)
        if conditionals is None:
            raise ValueError(
                f"{type(problem.model).__name__} declares no conditional draws; use ChEES() or another of its own"
            )
        run = drive(_Sweeps(self, problem, conditionals, plan), plan)
        attrs = {"warmup": self.warmup, "gradient_evaluations": run.gradients, **run.label}
        latents, stats = (
            {name: value[0] for name, value in part.items()} for part in (run.latents, run.stats)
        )
        return Draws(latents, stats, self.draws_are, attrs)


class _Sweeps(Process):
    """Chains under way; a step is a sweep of all of them."""

    gradients = 0
    _latents: dict[str, Tensor]

    def __init__(self, method: Gibbs, problem: Problem, conditionals: Conditionals, plan: Plan):
        self.method, self.problem, self.conditionals, self.plan = method, problem, conditionals, plan
        self.total, self.draws = method.warmup + method.thin * plan.iterations, plan.draws

    @property
    def label(self) -> str:  # type: ignore[override]
        """Which method, and whether it still warms up."""
        return f"Gibbs {'warming up' if self.iteration <= self.method.warmup else 'drawing'}"

    def start(self) -> None:
        """Let the model say where chains begin."""
        self._generator = self.plan.streams.generator("sweeps")
        self._latents = self.conditionals.start(self.plan.chains, self._generator)

    def step(self) -> Row | None:
        """Make one sweep."""
        spend(self.plan.chains)
        self.gradients += self.plan.chains
        with torch.no_grad():
            self._latents = self.conditionals.sweep(self._latents, self._generator)
        self.iteration += 1
        since = self.iteration - self.method.warmup
        if since <= 0 or since % self.method.thin:
            return None
        kept = self.problem.abilities.kept(self._latents)
        stats = {"lp": self.conditionals.log_density(self._latents)}
        expected = self.conditionals.expected(self._latents, self._generator)
        if expected is not None:
            stats[EXPECTED] = expected
        rows = ({name: value[None] for name, value in part.items()} for part in (kept, stats))
        return next(rows), next(rows)

    def state(self) -> dict[str, Any]:
        """Return chains and generator."""
        return {
            "latents": self._latents,
            "iteration": self.iteration,
            "generator": self._generator.get_state(),
            "device": str(self._generator.device),
            "gradients": self.gradients,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a stored state; what it cost counts against the budget."""
        self._latents = state["latents"]
        self._generator = Generator(device=state["device"])
        self._generator.set_state(state["generator"])
        self.iteration, self.gradients = state["iteration"], state["gradients"]
        spend(self.gradients)
