r"""`Alternating`: the code given the weights, then the weights given the code, both moves exact.

The code moves by Hamiltonian Monte Carlo at fixed weights. What is standard normal a priori - white weights, the
noises of units - moves by the preconditioned Crank-Nicolson proposal (Neal 1999; Cotter, Roberts, Stuart & White 2013,
equation 4.8),

.. math:: \epsilon' = (1 - \beta^2)^{1/2} \epsilon + \beta \xi, \qquad \xi \sim N(0, I),

which keeps N(0, I) by itself, so that only the likelihoods' ratio is left to the Metropolis test and the
acceptance does not fall with the number of weights. It needs no gradient in them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.conditional import Conditional
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.kernel import Kernel
from posterior_inpainting.inference.methods.trajectory import (
    Point,
    acceptance_of,
    evaluate,
    metropolis,
    trajectory,
)
from posterior_inpainting.inference.methods.tuning import Tuning, relearns

__all__ = ["Alternating"]


@dataclass(frozen=True)
class State:
    """What the next iteration needs.

    Parameters
    ----------
    point
        Where the chains are; the gradient is in the code alone.
    tuning
        Of the code's move.
    log_beta
        Of the weights' move, ``(group,)``.
    """

    point: Point
    tuning: Tuning
    log_beta: Tensor
    iteration: int = 0


@dataclass(frozen=True)
class Alternating(Kernel):
    """Gibbs-like sampling of codes and white weights, for ``CodeAndUnits`` and ``CodeAndWeights``.

    Parameters
    ----------
    warmup
        Iterations that adapt and are thrown away.
    code
        Names of the sites that move by Hamiltonian Monte Carlo; all others must be standard normal a priori.
    steps
        Leapfrog steps of the code's move, jittered between half and the whole.
    moves
        Moves of the weights for each of the code.
    target_acceptance
        Mean acceptance probabilities of both moves, that their steps adapt to.

    Raises
    ------
    ValueError
        For a model without one of the sites of ``code``, or another site that is not standard normal a priori.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from posterior_inpainting.inference import sample
    >>> def model():
    ...     z, w = (pyro.sample(name, dist.Normal(torch.zeros(1), 1.0).to_event(1)) for name in ("z", "weights"))
    ...     pyro.sample("x", dist.Normal((1 + w[..., 0]) * z[..., 0], 0.5), obs=torch.tensor(1.0))
    >>> idata = sample(model, Alternating(warmup=50), draws=20, chains=4, progress=False)
    >>> dict(idata.posterior["z"].sizes)
    {'chain': 4, 'draw': 20, 'latent': 1}
    """

    warmup: int = 200
    code: tuple[str, ...] = ("z",)
    steps: int = 8
    moves: int = 2
    target_acceptance: tuple[float, float] = (0.8, 0.3)

    def start(self, density: Density, position: Tensor, generator: Generator) -> State:
        """Begin at positions ``(group, chain, dim)``."""
        missing = [name for name in self.code if name not in density.shapes]
        if missing:
            raise ValueError(f"the model has no site {missing[0]!r}; there are {', '.join(density.shapes)}")
        given = Conditional(density, self._code(density, position), position)
        _check_standard_normal(density, given, position)
        code = evaluate(given, given.part(position))
        tuning = Tuning.start(given, code, "diagonal", generator)
        log_beta = torch.full_like(position[:, 0, 0], -1.0)
        return State(replace(code, position=position), tuning, log_beta)

    def step(self, density: Density, state: State, generator: Generator) -> tuple[State, dict[str, Tensor]]:
        """Move every chain's code, then its weights; adapt while warming up."""
        warming = state.iteration < self.warmup
        point, tuning = state.point, state.tuning
        given = Conditional(density, self._code(density, point.position), point.position)
        size = tuning.step_size(warming)
        point, accepted = self._move_code(given, point, tuning, size, generator)
        rates = []
        for _ in range(self.moves):
            point, rate = self._move_weights(density, point, state.log_beta.exp(), generator)
            rates.append(rate)
        moved = torch.stack(rates).mean(0)
        info = {
            "lp": point.log_density(),
            "acceptance_rate": accepted,
            "acceptance_of_weights": moved,
            "step_size": size.unsqueeze(1).expand_as(accepted),
        }
        log_beta = state.log_beta
        if warming:
            # Robbins and Monro's steps: there is no gradient to average over.
            gain = 2.0 / (state.iteration + 5) ** 0.6
            log_beta = (log_beta + gain * (moved.mean(1) - self.target_acceptance[1])).clamp(-12.0, 0.0)
            code = replace(point, position=given.part(point.position))
            tuning = tuning.followed(accepted.mean(1), self.target_acceptance[0]).seen(code.position)
            if relearns(state.iteration + 1, self.warmup, "diagonal"):
                now = given.at(point.position)
                tuning = tuning.relearnt(now, code, "diagonal", generator)
        return State(point, tuning, log_beta, state.iteration + 1), info

    def _move_code(
        self, given: Conditional, point: Point, tuning: Tuning, size: Tensor, generator: Generator
    ) -> tuple[Point, Tensor]:
        """Make one Hamiltonian move of the code at fixed weights; return the probability of it."""
        spread = float(torch.rand((), generator=generator, device=size.device))
        steps = [max(1, round(self.steps * (0.5 + 0.5 * spread)))] * len(size)
        start = replace(point, position=given.part(point.position))
        proposal = trajectory(given, start, size, steps, tuning.scales, generator)
        code, _ = metropolis(start, proposal.point, proposal.acceptance, generator)
        return replace(code, position=given.whole(code.position)), proposal.acceptance

    def _move_weights(
        self, density: Density, point: Point, beta: Tensor, generator: Generator
    ) -> tuple[Point, Tensor]:
        """Propose other weights at the same code; only the likelihoods' ratio decides."""
        position, share = point.position, beta.reshape(-1, 1, 1)
        noise = torch.randn(position.shape, generator=generator, device=position.device, dtype=position.dtype)
        proposed = (1 - share.square()).sqrt() * position + share * noise
        given = Conditional(density, self._code(density, position), proposed)
        end = evaluate(given, given.part(position))
        end = replace(end, position=given.whole(end.position))
        probability = acceptance_of(end.log_likelihood - point.log_likelihood)
        return metropolis(point, end, probability, generator)[0], probability

    def _code(self, density: Density, like: Tensor) -> Tensor:
        """Return the indices of the code in a position."""
        spans = density.sites()
        found = [torch.arange(spans[n].start, spans[n].stop, device=like.device) for n in self.code]
        return torch.cat(found).sort().values


def _check_standard_normal(density: Density, given: Conditional, position: Tensor) -> None:
    """Refuse a model one of whose other sites is not standard normal a priori, whatever the code."""
    others = {name: span for name, span in density.sites().items() if name not in given.names}
    if not others:
        raise ValueError("every site of the model is of the code; use ChEES()")

    def log_prior(place: Tensor) -> Tensor:
        """Return the log prior, ``(image, chain)``."""
        with torch.no_grad():
            return density(place if density.groups is not None else place[0])[0].reshape(place.shape[:2])

    here = log_prior(position)
    for name, span in others.items():  # one by one: a small site must not be lost beside a large one
        moved = position.clone()
        moved[..., span] = 1.3 * position[..., span] + 0.7
        expected = -0.5 * (moved.square() - position.square()).sum(-1)
        off = (log_prior(moved) - here - expected).abs() > 1e-3 * (1 + expected.abs())
        if bool(off.any()):
            raise ValueError(
                f"{name} is not standard normal a priori, which the weights' move takes for granted; name it in "
                "code=(...), or use ChEES()"
            )
