r"""`TemperedSMC`: a cloud of particles carried from the prior to the posterior, with its evidence.

Del Moral, Doucet & Jasra 2006, *Sequential Monte Carlo Samplers*; temperatures are chosen one by one so
that the effective sample size of each reweighting keeps a given share (Jasra et al. 2011), and after each
resampling HMC moves go on until particles have forgotten where they were. With increments w of the
likelihood, the evidence is estimated by

.. math:: \hat Z = \prod_t \frac1N \sum_i p(\tilde x \mid q_i)^{\beta_t - \beta_{t-1}}.

Independent replicates run side by side, and the spread of their estimates is the standard error of the evidence. What
is returned are draws of the replicates' mixture, each replicate weighed by its evidence estimate: where replicates
found different modes, a mode's share is that of the evidence and not of the replicates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.starts import draw_starts
from posterior_inpainting.inference.methods.adaptation import Moments
from posterior_inpainting.inference.methods.evidence_resampling import resampled
from posterior_inpainting.inference.methods.loop import Process, Row, drive
from posterior_inpainting.inference.methods.trajectory import Point, evaluate, metropolis, trajectory
from posterior_inpainting.inference.streams import Streams

__all__ = ["TemperedSMC", "pooled_evidence"]


@dataclass(frozen=True)
class Cloud:
    """Particles ``(replicate, particle, dim)`` and what each replicate ``(replicate,)`` has come to."""

    point: Point
    inverse_temperature: Tensor
    log_evidence: Tensor
    step_size: Tensor


@dataclass(frozen=True)
class TemperedSMC(Method):
    """Sequential Monte Carlo along adaptive temperatures; ``chains`` replicates of ``draws`` particles.

    Parameters
    ----------
    share
        Effective sample size that a reweighting keeps, as a share of the particles.
    steps
        Leapfrog steps of a move; jittered between half and the whole.
    correlation
        Moves go on at each temperature until the correlation of particles with where they started is
        below this.
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

    share: float = 0.7
    steps: int = 8
    correlation: float = 0.15
    max_moves: int = 20
    target_acceptance: float = 0.8

    draws_are = "particles"
    is_resumable = True

    def __post_init__(self):
        if not 0 < self.share < 1 or self.steps < 1 or self.max_moves < 1:
            raise ValueError(
                f"share={self.share}, steps={self.steps}, max_moves={self.max_moves}; expected a share in "
                "(0, 1) and at least 1 of the others"
            )

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Carry ``chains`` replicates of ``draws`` particles from prior to posterior, and draw from their mixture."""
        density = Potential(problem)
        process = Annealing(self, density, plan.chains, plan.draws, plan.streams)
        drive(process, plan)
        cloud = process.cloud
        generator = plan.streams.generator("resampling", device=cloud.log_evidence.device)
        replicate, particle = resampled(cloud.log_evidence, plan.draws, plan.chains * plan.draws, generator)
        shape = plan.chains, plan.draws
        stats = {
            "lp": cloud.point.log_density()[replicate, particle].reshape(shape),
            "replicate": replicate.reshape(shape),
            "log_replicate_evidence": cloud.log_evidence[replicate].reshape(shape),
        }
        position = cloud.point.position[replicate, particle].reshape(*shape, -1)
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
        return Draws(density.keep(position), stats, self.draws_are, attrs)

    def starts(self, density: Density, count: int, generator: Generator) -> Tensor:
        """Return ``(group, count, dim)`` particles of one replicate of at least 256."""
        if density.groups is not None:
            raise ValueError("tempered starts are for one posterior at a time")
        particles = max(256, count)
        # A stream of its own, told by the generator that the kernel was given.
        number = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        process = Annealing(self, density, 1, particles, Streams(number))
        drive(process, Plan(0, 1))
        position = process.cloud.point.position
        chosen = torch.randperm(particles, generator=generator, device=position.device)[:count]
        return position[:, chosen]

    def _reweight(self, cloud: Cloud, generator: Generator) -> Cloud:
        """Choose the next temperature of each replicate, reweight, count the evidence, resample."""
        likelihood, now = cloud.point.log_likelihood, cloud.inverse_temperature
        following = _next_temperature(likelihood, now, self.share)
        log_weight = (following - now).unsqueeze(1) * likelihood
        count = likelihood.shape[1]
        evidence = cloud.log_evidence + log_weight.logsumexp(1) - math.log(count)
        chosen = _systematic(log_weight.softmax(1), generator)
        wide = chosen.unsqueeze(-1).expand_as(cloud.point.position)
        point = Point(
            cloud.point.position.gather(1, wide),
            cloud.point.gradient.gather(1, wide),
            cloud.point.log_prior.gather(1, chosen),
            likelihood.gather(1, chosen),
        )
        return Cloud(point, following, evidence, cloud.step_size)

    def _move(self, density: Density, cloud: Cloud, generator: Generator) -> Cloud:
        """Move every particle until it has forgotten where it was."""
        beta = cloud.inverse_temperature.unsqueeze(1)
        moments = Moments.start(cloud.point.position).update(cloud.point.position)
        scales = moments.scales()
        point = evaluate(density, cloud.point.position, beta)  # the gradient at the new temperature
        origin, step = point.position, cloud.step_size
        for _ in range(self.max_moves):
            spread = float(torch.rand((), generator=generator, device=origin.device))
            steps = [max(1, round(self.steps * (0.5 + 0.5 * spread)))] * len(step)
            proposal = trajectory(density, point, step, steps, scales, generator, beta)
            point, _ = metropolis(point, proposal.point, proposal.acceptance, generator)
            # Between moves, so that each move on its own leaves the tempered posterior as it is.
            step = (step * (0.5 * (proposal.acceptance.mean(1) - self.target_acceptance)).exp()).clamp(
                1e-6, 2.0
            )
            if float(_correlation(origin, point.position).max()) < self.correlation:
                break
        return Cloud(point, cloud.inverse_temperature, cloud.log_evidence, step)


class Annealing(Process):
    """A cloud on its way from prior to posterior: a temperature a step, and nothing kept before the last."""

    label = "tempering"
    total, draws, commits_every = None, 0, 1  # how many temperatures there will be is not known

    def __init__(
        self, method: TemperedSMC, density: Density, replicates: int, particles: int, streams: Streams
    ):
        self.method, self.density, self.streams = method, density, streams
        self.replicates, self.particles = replicates, particles

    @property
    def is_finished(self) -> bool:
        """Whether every replicate is at the posterior."""
        return bool((self.cloud.inverse_temperature >= 1).all())

    @property
    def gradients(self) -> int:
        """Gradient evaluations so far."""
        return self.density.gradients

    def start(self) -> None:
        """Draw every particle from the prior."""
        drawn = draw_starts(self.density, self.replicates * self.particles, self.streams)
        position = drawn.reshape(self.replicates, self.particles, -1)
        zeros = position.new_zeros(self.replicates)
        self._generator = self.streams.generator("momenta", device=position.device)
        self.cloud = Cloud(evaluate(self.density, position, 0.0), zeros, zeros, zeros + 0.5)

    def step(self) -> Row | None:
        """Go down to the next temperature of each replicate."""
        cloud = self.method._reweight(self.cloud, self._generator)
        self.cloud = self.method._move(self.density, cloud, self._generator)
        self.iteration += 1
        return None

    def state(self) -> dict[str, Any]:
        """Return the cloud and the generator's state."""
        return {
            "cloud": self.cloud,
            "generator": self._generator.get_state(),
            "device": str(self._generator.device),
            "iteration": self.iteration,
            "gradients": self.density.gradients,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a stored cloud."""
        self.cloud, self.iteration = state["cloud"], state["iteration"]
        self._generator = Generator(device=state["device"])
        self._generator.set_state(state["generator"])
        self.density.gradients = state["gradients"]
        spend(state["gradients"])

    def status(self) -> str:
        """Say how far the slowest replicate is on its way."""
        return f"{100 * float(self.cloud.inverse_temperature.min()):.3g} % of the likelihood"


def pooled_evidence(log_evidence: Tensor) -> tuple[float, float]:
    """Pool replicates' estimates ``(replicate,)``: the log of their mean, and its standard error in nats.

    The estimates themselves, not their logs, are unbiased (up to the adaptation of the temperatures).

    >>> estimate, error = pooled_evidence(torch.tensor([1.0, 1.0]))
    >>> round(estimate, 6), round(error, 6)
    (1.0, 0.0)
    """
    values = log_evidence.double()
    count = len(values)
    pooled = float(values.logsumexp(0)) - math.log(count)
    if count == 1:
        return pooled, math.nan
    relative = (values - pooled).exp()
    return pooled, float(relative.std() / math.sqrt(count))


def _next_temperature(log_likelihood: Tensor, now: Tensor, share: float) -> Tensor:
    """Bisect, replicate by replicate, for the step at which the effective sample size is ``share`` of all."""
    low, high = torch.zeros_like(now), 1 - now

    def effective(step: Tensor) -> Tensor:
        weight = (step.unsqueeze(1) * log_likelihood).softmax(1)
        return 1 / weight.square().sum(1) / log_likelihood.shape[1]

    whole = effective(high) >= share
    for _ in range(50):
        middle = 0.5 * (low + high)
        enough = effective(middle) >= share
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    # `low` is 0 only where a single particle has all the weight: go on all the same, by the smallest step.
    return torch.where(whole, torch.ones_like(now), (now + low.clamp(min=1e-12)).clamp(max=1.0))


def _systematic(weight: Tensor, generator: Generator) -> Tensor:
    """Resample indices ``(replicate, particle)`` in proportion to weights, with one uniform a replicate."""
    replicates, count = weight.shape
    offset = torch.rand((replicates, 1), generator=generator, device=weight.device)
    places = (torch.arange(count, device=weight.device) + offset) / count
    return torch.searchsorted(weight.double().cumsum(1), places.double()).clamp(max=count - 1)


def _correlation(origin: Tensor, now: Tensor) -> Tensor:
    """Root mean square correlation over particles of each coordinate, and of its square, with its start.

    The squares too, because a move to the mirror image forgets nothing of the distance; ``(replicate,)``.
    """

    def standard(position: Tensor) -> Tensor:
        centred = position - position.mean(1, keepdim=True)
        features = torch.cat([centred, centred.square() - centred.square().mean(1, keepdim=True)], -1)
        return features / features.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)

    return (standard(origin) * standard(now)).mean(1).square().mean(-1).sqrt()
