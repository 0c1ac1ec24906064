r"""`TwistedSMC`: particles along a model's own order, with the evidence of what is seen.

Gordon, Salmond & Smith 1993, with the proposal and the twist of the model (Naesseth, Lindsten & Schon 2019, *Elements
of Sequential Monte Carlo*). Replicates run one after another, each with an unbiased estimate of the evidence, whose
spread is its standard error. Draws are of the replicates' mixture, each weighed by its estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.density.sequential_paths import SequentialPaths
from posterior_inpainting.inference.methods.evidence_resampling import resampled
from posterior_inpainting.inference.methods.loop import Process, Row, drive
from posterior_inpainting.inference.methods.particles_in_order import sweep, systematic_ancestors
from posterior_inpainting.inference.methods.smc import pooled_evidence

__all__ = ["TwistedSMC"]


@dataclass(frozen=True)
class TwistedSMC(Method):
    """Sequential Monte Carlo along the order of a model's latents; ``chains`` replicates of ``draws`` particles.

    ``gradient_evaluations`` of a result counts steps of single particles.

    Parameters
    ----------
    share
        Particles are resampled where their effective sample size falls below this share of them.

    Raises
    ------
    ValueError
        When it runs, for a model whose latents come in no order.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import Observation, PixelConstrained
    >>> from posterior_inpainting.models.networks import GatedPixelCNN
    >>> model = PixelConstrained(GatedPixelCNN((1, 4, 4), outputs=2, features=4, layers=2))
    >>> seen = Observation(torch.ones(1, 4, 4), torch.arange(4).expand(1, 4, 4) > 1)
    >>> posterior = infer(model, seen, TwistedSMC(), draws=50, chains=4, progress=False)
    >>> posterior.attrs["draws_are"], posterior.attrs["log_evidence_se"] < 0.1
    ('particles', True)
    """

    share: float = 0.5

    draws_are = "particles"
    is_resumable = True
    usual_draws = 100
    usual_chains = 8

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run the replicates, and draw from their mixture."""
        process = Replicates(SequentialPaths.of(problem), self.share, plan)
        drive(process, plan)
        log_evidence = torch.stack(process.log_evidence)
        shape, generator = (
            (plan.chains, plan.draws),
            plan.streams.generator("resampling", device=log_evidence.device),
        )
        replicate, particle = resampled(log_evidence, plan.draws, plan.chains * plan.draws, generator)
        position = torch.stack(process.positions)[replicate, particle].reshape(*shape, -1)
        estimate, error = pooled_evidence(log_evidence)
        attrs: dict[str, Any] = {
            "replicates": plan.chains,
            "effective_replicates": float(1 / log_evidence.double().softmax(0).square().sum()),
            "log_evidence": estimate,
            "log_evidence_se": error,
            "resamplings": sum(process.resamplings) / plan.chains,
            "gradient_evaluations": process.gradients,
            "potential": process.paths.route,
        }
        stats = {
            "replicate": replicate.reshape(shape),
            "log_replicate_evidence": log_evidence[replicate].reshape(shape),
        }
        stats |= process.paths.model.statistics(position)
        return Draws(process.paths.keep(position), stats, "particles", attrs)


class Replicates(Process):
    """Replicates of particles, one after another: a replicate a step, and nothing kept before the last.

    Parameters
    ----------
    paths
        The model in its order.
    share
        As for :class:`TwistedSMC`.
    plan
        Replicates, particles of each, and random numbers.
    """

    label, draws, commits_every = "particles", 0, 1

    def __init__(self, paths: SequentialPaths, share: float, plan: Plan):
        self.paths, self.share, self.plan, self.total = paths, share, plan, plan.chains
        self.positions: list[Tensor] = []
        self.log_evidence: list[Tensor] = []
        self.resamplings: list[float] = []

    @property
    def iteration(self) -> int:  # type: ignore[override]
        """Replicates that are done."""
        return len(self.positions)

    @property
    def gradients(self) -> int:
        """Steps of single particles so far."""
        return self.paths.gradients

    def start(self) -> None:
        """Begin with no replicate."""

    def step(self) -> Row | None:
        """Run a replicate, with random numbers of its own, and make its particles equal in weight."""
        streams = self.plan.streams.child("replicate", self.iteration)
        generator = streams.generator("resampling", device=self.paths.like.device)
        with streams.seeded("proposals"), torch.no_grad():
            swept = sweep(
                self.paths.model, 1, self.plan.draws, generator, share=self.share, count=self.paths.count
            )
        position, _ = swept.paths(systematic_ancestors(swept.log_weight, generator))
        self.positions.append(position[0])
        self.log_evidence.append(swept.log_evidence[0])
        self.resamplings.append(float(swept.resamplings[0]))
        return None

    def state(self) -> dict[str, Any]:
        """Return the replicates that are done."""
        done = {str(i): part for i, part in enumerate(zip(self.positions, self.log_evidence, strict=True))}
        return {
            "positions": {name: position for name, (position, _) in done.items()},
            "log_evidence": {name: evidence for name, (_, evidence) in done.items()},
            "resamplings": {str(i): times for i, times in enumerate(self.resamplings)},
            "gradients": self.gradients,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on after stored replicates."""
        self.positions, self.log_evidence, self.resamplings = (
            list(state[name].values()) for name in ("positions", "log_evidence", "resamplings")
        )
        self.paths.gradients = state["gradients"]
        spend(state["gradients"])
