r"""Langevin dynamics for many chains at once: with the Metropolis test (`MALA`) and without (`ULA`).

Roberts & Tweedie 1996, *Exponential Convergence of Langevin Distributions and Their Discrete
Approximations*. With step size eps and scales C,

.. math:: q' = q + \tfrac\epsilon2 C C^\top \nabla \log p(q) + \sqrt\epsilon\, C \xi, \qquad \xi \sim N(0, I),

which is one leapfrog step of length sqrt(eps). Accepted with its Metropolis probability it leaves p
exact; unadjusted it does not: a normal of sd s comes out with sd s / sqrt(1 - eps / (4 s^2)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.adaptation import Metric, check_metric
from posterior_inpainting.inference.methods.kernel import Kernel
from posterior_inpainting.inference.methods.loop import DivergedError
from posterior_inpainting.inference.methods.starting_points import check_init, starts
from posterior_inpainting.inference.methods.trajectory import Point, evaluate, metropolis, trajectory
from posterior_inpainting.inference.methods.tuning import Tuning, relearns

__all__ = ["MALA", "ULA"]

#: Latents up to which chains start at particles.
_PARTICLES = 100


@dataclass(frozen=True)
class State:
    """What the next iteration needs; the step that is tuned is the root of eps."""

    point: Point
    tuning: Tuning
    iteration: int = 0


@dataclass(frozen=True)
class MALA(Kernel):
    """Metropolis-adjusted Langevin algorithm: exact, with step size and scales learnt while warming up.

    Parameters
    ----------
    warmup
        Iterations that adapt and are thrown away.
    target_acceptance
        Mean acceptance probability that the step size is adapted to (0.574 is optimal in high dimension).
    metric
        How scales are learnt: ``"dense"``, ``"diagonal"`` or ``"identity"``; see
        ``adaptation.Metric``.
    thin
        Langevin steps for each kept draw.
    init
        ``"tempered"``, ``"prior"``, ``"optimum"`` or ``"guide"``, as for ``ChEES``. Single steps do not come far, and
        from a wide prior they may not find the posterior: ``None`` is ``"tempered"`` for up to a hundred latents.

    Examples
    --------
    >>> MALA(thin=5).target_acceptance
    0.574
    """

    warmup: int = 500
    target_acceptance: float = 0.574
    metric: Metric = "dense"
    thin: int = 5
    init: str | None = None

    def __post_init__(self):
        check_metric(self.metric)
        check_init(self.init or "tempered")

    def start(self, density: Density, position: Tensor, generator: Generator) -> State:
        """Begin at positions ``(group, chain, dim)``."""
        # Hundreds of particles of a network cost too much.
        init = self.init or ("tempered" if density.dim <= _PARTICLES else "prior")
        position = starts(init, density, position, generator)
        point = evaluate(density, position)
        return State(point, Tuning.start(density, point, self.metric, generator))

    def step(self, density: Density, state: State, generator: Generator) -> tuple[State, dict[str, Tensor]]:
        """Make ``thin`` steps of every chain; adapt while warming up."""
        warming = state.iteration < self.warmup
        acceptance = torch.zeros_like(state.point.log_prior)
        diverging = torch.zeros_like(acceptance, dtype=torch.bool)
        point, tuning = state.point, state.tuning
        for _ in range(self.thin):
            root = tuning.step_size(warming)
            proposal = trajectory(density, point, root, [1] * len(root), tuning.scales, generator)
            point, _ = metropolis(point, proposal.point, proposal.acceptance, generator)
            acceptance = acceptance + proposal.acceptance / self.thin
            diverging = diverging | proposal.diverging
            if warming:
                tuning = tuning.followed(proposal.acceptance.mean(1), self.target_acceptance)
        info = {
            "lp": point.log_density(),
            "energy": proposal.energy,
            "acceptance_rate": acceptance,
            "step_size": root.square().unsqueeze(1).expand_as(acceptance),
            "n_steps": torch.full_like(acceptance, self.thin, dtype=torch.int64),
            "diverging": diverging,
        }
        if warming:
            tuning = tuning.seen(point.position)
            if relearns(state.iteration + 1, self.warmup, self.metric):
                tuning = tuning.relearnt(density, point, self.metric, generator)
        return State(point, tuning, state.iteration + 1), info


@dataclass(frozen=True)
class FreeState:
    """What the next iteration of unadjusted dynamics needs."""

    point: Point
    iteration: int = 0


@dataclass(frozen=True)
class ULA(Kernel):
    """Unadjusted Langevin algorithm: biased by its step size, and labelled so wherever it appears.

    Parameters
    ----------
    step_size
        eps, in the square of the latents' units.
    warmup
        Iterations that are thrown away.
    thin
        Langevin steps for each kept draw.
    init
        ``"prior"``, ``"tempered"``, ``"optimum"`` or ``"guide"``, as for ``ChEES``.

    Examples
    --------
    >>> ULA(step_size=1e-3).label
    'ULA (unadjusted)'
    """

    step_size: float = 1e-3
    warmup: int = 500
    thin: int = 5
    init: str = "prior"

    is_biased = True

    def __post_init__(self):
        if self.step_size <= 0:
            raise ValueError(f"step_size={self.step_size}; expected a positive number")
        check_init(self.init)

    @property
    def label(self) -> str:
        """What the result calls it, which says what it lacks."""
        return "ULA (unadjusted)"

    def start(self, density: Density, position: Tensor, generator: Generator) -> FreeState:
        """Begin at positions ``(group, chain, dim)``."""
        position = starts(self.init, density, position, generator)
        return FreeState(evaluate(density, position))

    def step(
        self, density: Density, state: FreeState, generator: Generator
    ) -> tuple[FreeState, dict[str, Tensor]]:
        """Make ``thin`` steps of every chain, none of them ever refused."""
        point = state.point
        for _ in range(self.thin):
            position = point.position
            noise = torch.randn(position.shape, generator=generator, device=position.device).to(position)
            drift = 0.5 * self.step_size * point.gradient
            point = evaluate(density, position + drift + self.step_size**0.5 * noise)
        lp = point.log_density()
        # Of many images at once, the one that diverges must not lose the others: its `diverging` says so.
        if density.groups is None and not lp.isfinite().all():
            raise DivergedError(
                f"{self.label} diverged in iteration {state.iteration + 1}: step_size={self.step_size:g} is "
                "too large for this posterior; try a tenth of it, or MALA(), which finds its own"
            )
        info = {
            "lp": lp,
            "step_size": torch.full_like(lp, self.step_size),
            "n_steps": torch.full_like(lp, self.thin, dtype=torch.int64),
            "diverging": ~lp.isfinite(),
        }
        return FreeState(point, state.iteration + 1), info
