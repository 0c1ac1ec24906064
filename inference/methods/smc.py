r"""`TemperedSMC`: a cloud of particles carried from the prior to the posterior, with its evidence.

Del Moral, Doucet & Jasra 2006, *Sequential Monte Carlo Samplers*; temperatures are chosen one by one so
that the effective sample size of each reweighting keeps a given share (Jasra et al. 2011), and after each
resampling HMC moves go on until particles have forgotten where they were. With increments w of the
likelihood, the evidence is estimated by

.. math:: \hat Z = \prod_t \frac1N \sum_i p(\tilde x \mid q_i)^{\beta_t - \beta_{t-1}}.

Independent replicates run side by side; they are the ``chain`` dimension, and the spread of their
estimates is the standard error of the evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from posterior_inpainting.inference.contract import Draws, DrawsAre, Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.adaptation import Moments
from posterior_inpainting.inference.methods.trajectory import Point, evaluate, metropolis, trajectory

__all__ = ["TemperedSMC", "pooled_evidence"]


@dataclass(frozen=True)
class Cloud:
    """Particles ``(replicate, particle, dim)`` and what each replicate ``(replicate,)`` has come to."""

    point: Point
    inverse_temperature: Tensor
    log_evidence: Tensor
    step_size: Tensor


@dataclass(frozen=True)
class TemperedSMC:
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

    draws_are: ClassVar[DrawsAre] = "particles"

    def __post_init__(self):
        if not 0 < self.share < 1 or self.steps < 1 or self.max_moves < 1:
            raise ValueError(
                f"share={self.share}, steps={self.steps}, max_moves={self.max_moves}; expected a share in "
                "(0, 1) and at least 1 of the others"
            )

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Carry ``chains`` replicates of ``draws`` particles from prior to posterior."""
        potential = Potential(problem)
        torch.manual_seed(seed)
        position = potential.draw_prior(chains * draws).reshape(chains, draws, -1)
        # Another seed than the starts', or the first momenta would be the same numbers.
        generator = torch.Generator(device=position.device).manual_seed(seed + 1_000_003)
        cloud, rounds = self._anneal(potential, position, generator, progress)
        estimate, error = pooled_evidence(cloud.log_evidence)
        stats = {
            "lp": cloud.point.log_density(),
            "log_replicate_evidence": cloud.log_evidence.unsqueeze(1).expand(chains, draws),
        }
        attrs = {
            "log_evidence": estimate,
            "log_evidence_se": error,
            "temperatures": rounds,
            "gradient_evaluations": potential.gradients,
            "potential": potential.route,
        }
        return Draws(potential.constrain(cloud.point.position), stats, "particles", attrs)

    def starts(self, potential: Potential, count: int, generator: Generator) -> Tensor:
        """Return ``(group, count, dim)`` particles of one replicate of at least 256 for each group."""
        if potential.groups is not None:
            raise ValueError("tempered starts are for one posterior at a time")
        particles = max(256, count)
        position = potential.draw_prior(particles).unsqueeze(0)
        cloud, _ = self._anneal(potential, position, generator, progress=False)
        chosen = torch.randperm(particles, generator=generator, device=position.device)[:count]
        return cloud.point.position[:, chosen]

    def _anneal(
        self, potential: Potential, position: Tensor, generator: Generator, progress: bool
    ) -> tuple[Cloud, int]:
        zeros = position.new_zeros(position.shape[0])
        cloud = Cloud(evaluate(potential, position, 0.0), zeros, zeros, zeros + 0.5)
        bar = tqdm(total=1.0, desc="tempering", disable=not progress, bar_format="{l_bar}{bar}| {elapsed}")
        rounds = 0
        with bar:
            while bool((cloud.inverse_temperature < 1).any()):
                cloud = self._reweight(cloud, generator)
                cloud = self._move(potential, cloud, generator)
                rounds += 1
                bar.update(float(cloud.inverse_temperature.min()) - bar.n)
        return cloud, rounds

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

    def _move(self, potential: Potential, cloud: Cloud, generator: Generator) -> Cloud:
        """Move every particle until it has forgotten where it was."""
        beta = cloud.inverse_temperature.unsqueeze(1)
        moments = Moments.start(cloud.point.position).update(cloud.point.position)
        scales = moments.scales()
        point = evaluate(potential, cloud.point.position, beta)  # the gradient at the new temperature
        origin, step = point.position, cloud.step_size
        for _ in range(self.max_moves):
            spread = float(torch.rand((), generator=generator, device=origin.device))
            steps = [max(1, round(self.steps * (0.5 + 0.5 * spread)))] * len(step)
            proposal = trajectory(potential, point, step, steps, scales, generator, beta)
            point, _ = metropolis(point, proposal, generator)
            # Between moves, so that each move on its own leaves the tempered posterior as it is.
            step = (step * (0.5 * (proposal.acceptance.mean(1) - self.target_acceptance)).exp()).clamp(
                1e-6, 2.0
            )
            if float(_correlation(origin, point.position).max()) < self.correlation:
                break
        return Cloud(point, cloud.inverse_temperature, cloud.log_evidence, step)


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
