r"""`ChEES`: Hamiltonian Monte Carlo for many chains at once, its trajectory length learnt from all of them.

Hoffman, Radul & Sountsov 2021, *An Adaptive-MCMC Scheme for Setting Trajectory Lengths in Hamiltonian
Monte Carlo*. The length T climbs the change in the estimator of the expected square,

.. math:: \mathrm{ChEES} = \tfrac14 E\big[(\lVert q' - E q' \rVert^2 - \lVert q - E q \rVert^2)^2\big],

trajectories are jittered by a Halton sequence, (1 + h_t) T / 2, and the step size is held where chains accept 0.8 on
average. Every chain shares them, so that a batch of chains takes the same number of steps: no chain waits for another,
as chains of a vectorised NUTS do. A chain that is where the step is too large follows its trajectory again in smaller
ones (``local_steps``), so that narrow regions are neither missed nor paid for by all. In the first windows of the
warm-up, when chains come from far, the harmonic mean of Hoffman et al., 0.651, leaves none behind instead. The scales
are learnt across chains: a whole covariance where there are draws enough, which shortens trajectories more than any
tuning of T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.adaptation import (
    Ascent,
    Metric,
    Preconditioner,
    check_metric,
    windows,
)
from posterior_inpainting.inference.methods.kernel import Kernel
from posterior_inpainting.inference.methods.local_steps import SMALLER, refined
from posterior_inpainting.inference.methods.starting_points import check_init, starts
from posterior_inpainting.inference.methods.trajectory import (
    Point,
    Proposal,
    evaluate,
    metropolis,
    trajectory,
)
from posterior_inpainting.inference.methods.tuning import Tuning, relearns

__all__ = ["ChEES"]


#: Shortest trajectory in white coordinates, where a quarter of a normal's period is pi / 2: with the jitter, from
#: 1 to 2. Few chains, or one, know too little of the criterion to be left to it alone.
SHORTEST = 2.0
#: Harmonic-mean acceptance that the step size is adapted to while chains come from far.
_EARLY = 0.651


@dataclass(frozen=True)
class State:
    """What the next iteration needs."""

    point: Point
    tuning: Tuning
    length: Ascent
    iteration: int = 0


@dataclass(frozen=True)
class ChEES(Kernel):
    """Vectorised Hamiltonian Monte Carlo with learnt trajectory length, step size and scales.

    Works best with 16 or more chains, which cost little more than one.

    Parameters
    ----------
    warmup
        Iterations that adapt and are thrown away.
    target_acceptance
        Mean acceptance probability that the step size is adapted to once chains have come from where they began.
    metric
        How scales are learnt: ``"dense"``, ``"diagonal"`` or ``"identity"``; see
        ``adaptation.Metric``.
    max_steps
        Longest trajectory in leapfrog steps.
    refinements
        How often a chain's step may be made four times as small where its trajectory loses its way.
    learning_rate
        Of Adam on the log of the trajectory length.
    init
        ``"prior"`` starts every chain from its own draw of the prior, so that R-hat can see several modes;
        ``"tempered"`` from the particles of a ``TemperedSMC`` run, so that each mode gets its share of chains;
        ``"optimum"`` from the optimum that each reaches from its draw, for weights of networks; ``"guide"`` from
        draws of the model's own guide, which is quick and sees the modes that the guide sees.
    superchains
        Start the chains from this many points only, neighbours together, as ``diagnostics.nested_rhat``
        wants it; ``None`` gives each its own.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> idata = infer(model, seen, ChEES(warmup=100), draws=50, chains=8, progress=False)
    >>> dict(idata.posterior["z"].sizes)
    {'chain': 8, 'draw': 50, 'latent': 3}
    """

    warmup: int = 200
    target_acceptance: float = 0.8
    metric: Metric = "dense"
    max_steps: int = 256
    refinements: int = 5
    learning_rate: float = 0.05
    init: str = "prior"
    superchains: int | None = None

    def __post_init__(self):
        check_init(self.init)
        check_metric(self.metric)
        if self.warmup < 10:
            raise ValueError(f"warmup={self.warmup}; expected at least 10")

    def start(self, density: Density, position: Tensor, generator: Generator) -> State:
        """Begin at positions ``(group, chain, dim)``, or where ``init`` says."""
        chains = position.shape[1]
        position = starts(self.init, density, position, generator)
        if self.superchains is not None:
            if not 0 < self.superchains <= chains or chains % self.superchains:
                raise ValueError(f"superchains={self.superchains}; expected a divisor of the {chains} chains")
            position = position[:, : self.superchains].repeat_interleave(chains // self.superchains, 1)
        return self.begin(density, position, generator, 1.0)

    def begin(
        self, density: Density, position: Tensor, generator: Generator, inverse_temperature: float | Tensor
    ) -> State:
        """Begin at positions ``(group, chain, dim)`` of tempered densities."""
        point = evaluate(density, position, inverse_temperature)
        tuning = Tuning.start(density, point, self.metric, generator, inverse_temperature)
        return State(point, tuning, Ascent.start(8 * tuning.step_size(True)))

    def step(
        self,
        density: Density,
        state: State,
        generator: Generator,
        inverse_temperature: float | Tensor = 1.0,
    ) -> tuple[State, dict[str, Tensor]]:
        """Make one iteration of every chain; adapt while warming up."""
        warming = state.iteration < self.warmup
        step_size = state.tuning.step_size(warming)
        steps = self._steps(state, step_size, warming)
        scales = state.tuning.scales
        first = trajectory(density, state.point, step_size, steps, scales, generator, inverse_temperature)
        refinements = self.refinements if self._have_arrived(state.iteration) else 0
        proposal, number = refined(
            density, state.point, first, step_size, steps, scales, refinements, inverse_temperature
        )
        point, _ = metropolis(state.point, proposal.point, proposal.acceptance, generator)
        count = torch.tensor(steps, device=step_size.device).unsqueeze(1)
        info = {
            "lp": point.log_density(),
            "energy": proposal.energy,
            "acceptance_rate": proposal.acceptance,
            "step_size": step_size.unsqueeze(1) / SMALLER**number,
            "n_steps": count.expand_as(proposal.acceptance),
            "diverging": proposal.diverging,
        }
        following = replace(state, point=point, iteration=state.iteration + 1)
        if warming:
            following = self._adapt(
                state, following, proposal, first.acceptance, count.squeeze(1) * step_size
            )
            if relearns(following.iteration, self.warmup, self.metric):
                tuning = following.tuning.relearnt(
                    density, point, self.metric, generator, inverse_temperature
                )
                length = Ascent.start(torch.full_like(step_size, SHORTEST))  # in units of the new scales
                following = replace(following, tuning=tuning, length=length)
        return following, info

    def _have_arrived(self, iteration: int) -> bool:
        """Whether chains are where they belong, so that those few that lose their way are seen to by themselves."""
        return iteration >= windows(self.warmup)[-2]

    def _steps(self, state: State, step_size: Tensor, warming: bool) -> list[int]:
        """Return each group's leapfrog steps: the one transfer from the device in an iteration."""
        length = (state.length.log_value if warming else state.length.log_average).exp()
        most = min(self.max_steps, 32) if state.iteration < 0.15 * self.warmup else self.max_steps
        jittered = 0.5 * (1 + _halton(state.iteration)) * length
        return (jittered / step_size).ceil().clamp(1, most).int().tolist()

    def _adapt(
        self, before: State, after: State, proposal: Proposal, acceptance: Tensor, travelled: Tensor
    ) -> State:
        """Tune step size and trajectory length to one iteration, and take in where the chains are."""
        if self._have_arrived(before.iteration):
            rate, target = acceptance.mean(1), self.target_acceptance
        else:
            rate, target = 1 / (1 / acceptance.clamp(min=1e-2)).mean(1), _EARLY
        tuning = before.tuning.followed(rate, target).seen(after.point.position)
        gradient = _chees_gradient(before.point, proposal, travelled, before.tuning.scales)
        length = before.length.update(gradient, self.learning_rate)
        log_length = length.log_value
        if (
            before.iteration >= windows(self.warmup)[0]
        ):  # from there on scales are learnt and T is in their units
            log_length = log_length.clamp(min=math.log(SHORTEST))
        longest = tuning.step.log_step + math.log(self.max_steps)
        return replace(after, tuning=tuning, length=replace(length, log_value=log_length.minimum(longest)))


def _chees_gradient(start: Point, proposal: Proposal, travelled: Tensor, scales: Preconditioner) -> Tensor:
    """Gradient of the criterion with respect to log T, ``(group,)`` (Hoffman et al. 2021, section 3)."""
    position = torch.where(proposal.point.position.isfinite(), proposal.point.position, start.position)
    weight = proposal.acceptance
    total = weight.sum(1, keepdim=True).clamp(min=1e-9)
    centred = position - (weight.unsqueeze(-1) * position).sum(1, keepdim=True) / total.unsqueeze(-1)
    before = start.position - start.position.mean(1, keepdim=True)
    change = centred.square().sum(-1) - before.square().sum(-1)
    slope = change * (centred * scales.forward(proposal.momentum)).sum(-1)
    return travelled * (weight * slope.nan_to_num(0.0)).sum(1) / total.squeeze(1)


def _halton(index: int) -> float:
    """Return the ``index``-th number of the Halton sequence of base 2, in (0, 1)."""
    index, fraction, result = index + 1, 0.5, 0.0
    while index:
        result += fraction * (index % 2)
        index //= 2
        fraction /= 2
    return result
