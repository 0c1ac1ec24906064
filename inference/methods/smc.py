r"""`TemperedSMC`: a cloud of particles carried from the prior to the posterior, with its evidence.

Del Moral, Doucet & Jasra 2006, *Sequential Monte Carlo Samplers*; temperatures are chosen one by one so
that the effective sample size of each reweighting keeps a given share (Jasra et al. 2011), and after each
resampling HMC moves go on until particles have forgotten where they were. With increments w of the
likelihood, the evidence is estimated by

.. math:: \hat Z = \prod_t \frac1N \sum_i p(\tilde x \mid q_i)^{\beta_t - \beta_{t-1}}.

Independent replicates run side by side, and the spread of their estimates is the standard error of the evidence, wider
the fewer they are (Student's t), with the size of what all of them share. What is returned are draws of the replicates'
mixture, each replicate weighed by its evidence estimate: where replicates found different modes, a mode's share is that
of the evidence and not of the replicates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import norm
from scipy.stats import t as student_t
from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.numerical_failures import warn_of_failures
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.annealing import Annealing
from posterior_inpainting.inference.methods.evidence_resampling import resampled
from posterior_inpainting.inference.methods.hamiltonian_moves import AnnealingSettings, HamiltonianMoves
from posterior_inpainting.inference.methods.loop import drive
from posterior_inpainting.inference.streams import Streams

__all__ = ["TemperedSMC", "from_replicates", "pooled_evidence"]


@dataclass(frozen=True)
class TemperedSMC(AnnealingSettings, Method):
    """Sequential Monte Carlo along adaptive temperatures; ``chains`` replicates of ``draws`` particles.

    Parameters
    ----------
    share
        Effective sample size that a reweighting keeps, as a share of the particles.
    steps
        Leapfrog steps of a move; jittered between half and the whole.
    correlation
        Moves go on at each temperature until the correlation of particles with where they started is
        below this, and then twice as many again.
    max_moves
        Most moves at one temperature.
    target_acceptance
        Mean acceptance probability that the step size follows.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> idata = infer(model, seen, TemperedSMC(), draws=200, chains=4, progress=False)
    >>> truth = float(model.log_evidence(seen.image, seen.mask))
    >>> abs(idata.attrs["log_evidence"] - truth) < 5 * idata.attrs["log_evidence_se"] + 0.1
    True
    """

    draws_are = "particles"
    is_resumable = True
    usual_draws = 250
    usual_chains = 8

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Carry ``chains`` replicates of ``draws`` particles from prior to posterior, and draw from their mixture."""
        density = Potential(problem)
        process = Annealing(
            HamiltonianMoves(self, density), self.share, plan.chains, plan.draws, plan.streams
        )
        drive(process, plan)
        warn_of_failures(density.failures, density.gradients)
        with torch.no_grad():
            log_density = sum(density(process.cloud.position))
        return from_replicates(process, problem, plan, {"lp": log_density})

    def starts(self, density: Density, count: int, generator: Generator) -> Tensor:
        """Return ``(group, count, dim)`` particles of one replicate of at least 256 for each posterior."""
        return self.cloud(density, max(256, count), generator)[:, :count]

    def cloud(self, density: Density, particles: int, generator: Generator) -> Tensor:
        """Return the particles ``(group, particle, dim)`` of one replicate for each posterior, in no order."""
        # A stream of its own, told by the generator that the kernel was given.
        number = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        moves, groups = HamiltonianMoves(self, density), density.groups or 1
        process = Annealing(moves, self.share, groups, particles, Streams(number))
        drive(process, Plan(0, 1))
        position = process.cloud.position
        return position[:, torch.randperm(particles, generator=generator, device=position.device)]


def from_replicates(process: Annealing, problem: Problem, plan: Plan, stats: dict[str, Any]) -> Draws:
    """Return draws of the mixture of a finished process's replicates, each weighed by its evidence.

    Parameters
    ----------
    process, problem, plan
        What ran, on what, and how long.
    stats
        Statistic -> ``(replicate, particle)``.
    """
    cloud, density, shape = process.cloud, process.moves.density, (plan.chains, plan.draws)
    generator = plan.streams.generator("resampling", device=cloud.log_evidence.device)
    replicate, particle = resampled(cloud.log_evidence, plan.draws, plan.chains * plan.draws, generator)
    found = {name: value[replicate, particle].reshape(shape) for name, value in stats.items()}
    found["replicate"] = replicate.reshape(shape)
    found["log_replicate_evidence"] = cloud.log_evidence[replicate].reshape(shape)
    share = cloud.log_evidence.double().softmax(0)
    attrs: dict[str, Any] = {
        "replicates": plan.chains,
        "effective_replicates": float(1 / share.square().sum()),
        "temperatures": process.iteration,
        "gradient_evaluations": density.gradients,
        "potential": density.route,
    }
    if not problem.abilities.is_pseudo_posterior:  # of a weighted density it would be no evidence
        estimate, error = pooled_evidence(cloud.log_evidence)
        attrs |= {"log_evidence": estimate, "log_evidence_se": error}
    position = cloud.position[replicate, particle].reshape(*shape, -1)
    return Draws(density.keep(position), found, "particles", attrs)


def pooled_evidence(log_evidence: Tensor) -> tuple[float, float]:
    """Pool replicates' estimates ``(replicate,)``: the log of their mean, and its standard error in nats.

    The estimates themselves, not their logs, are unbiased but for the adaptation of temperatures and moves to the
    particles. That bias falls like one over the particles, as the bias of a replicate's log does, which is half its
    relative variance, and more replicates do not lessen it: the error is the root of the squares of that half and of
    the standard error of the mean. The latter is half the width of the interval that has the probability of one
    standard deviation to each side: of a few replicates, the spread is itself not well known.

    >>> estimate, error = pooled_evidence(torch.tensor([1.0, 1.0]))
    >>> round(estimate, 6), round(error, 6)
    (1.0, 0.0)
    """
    values = log_evidence.double()
    count = len(values)
    pooled = float(values.logsumexp(0)) - math.log(count)
    if count == 1:
        return pooled, math.nan
    spread = float((values - pooled).exp().std())
    sampling = spread / math.sqrt(count) * float(student_t.ppf(norm.cdf(1), count - 1))
    return pooled, math.hypot(sampling, spread**2 / 2)
