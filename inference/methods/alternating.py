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

from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.adaptation import DualAveraging
from posterior_inpainting.inference.methods.loop import Kernel
from posterior_inpainting.inference.methods.trajectory import Point

__all__ = ["Alternating"]


@dataclass(frozen=True)
class State:
    """What the next iteration needs; ``log_beta`` is of each group, ``scale`` of each group's code coordinates."""

    point: Point
    step: DualAveraging
    log_beta: Tensor
    scale: Tensor
    squares: Tensor
    sums: Tensor
    count: int = 0
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
        For a model without one of the sites of ``code``.

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

    def start(self, potential: Potential, position: Tensor, generator: Generator) -> State:
        """Begin at positions ``(group, chain, dim)``."""
        missing = [name for name in self.code if name not in potential.shapes]
        if missing:
            raise ValueError(f"the model has no site {missing[0]!r}; there are {', '.join(potential.shapes)}")
        where = self._where(potential)
        code = position[..., where]
        one = position.new_ones(len(position), 1, code.shape[-1])
        step = torch.full((len(position),), 0.1).to(position)
        return State(
            self._evaluate(potential, position, code),
            DualAveraging.start(step),
            torch.full_like(step, -1.0),
            one,
            torch.zeros_like(one),
            torch.zeros_like(one),
        )

    def step(
        self, potential: Potential, state: State, generator: Generator
    ) -> tuple[State, dict[str, Tensor]]:
        """Move every chain's code, then its weights; adapt while warming up."""
        warming = state.iteration < self.warmup
        size = (state.step.log_step if warming else state.step.log_average).exp()
        point, accepted = self._move_code(potential, state, size, generator)
        beta = state.log_beta.exp()
        rates = []
        for _ in range(self.moves):
            point, rate = self._move_weights(potential, point, beta, generator)
            rates.append(rate)
        moved = torch.stack(rates).mean(0)
        info = {
            "lp": point.log_density(),
            "acceptance_rate": accepted,
            "acceptance_of_weights": moved,
            "step_size": size.unsqueeze(1).expand_as(accepted),
        }
        following = replace(state, point=point, iteration=state.iteration + 1)
        if warming:
            following = self._learn(potential, state, following, accepted, moved)
        return following, info

    def _learn(self, potential, before: State, after: State, accepted: Tensor, moved: Tensor) -> State:
        """Robbins and Monro's steps for both acceptances; scales of the code from the warm-up's second quarter."""
        gain = 2.0 / (before.iteration + 5) ** 0.6
        log_beta = before.log_beta + gain * (moved.mean(1) - self.target_acceptance[1])
        code = after.point.position[..., self._where(potential)]
        after = replace(
            after,
            step=before.step.update(accepted.mean(1), self.target_acceptance[0]),
            log_beta=log_beta.clamp(min=-12.0, max=0.0),
        )
        if after.iteration > self.warmup // 4:
            sums, squares = (
                before.sums + code.mean(1, keepdim=True),
                before.squares + code.square().mean(1, keepdim=True),
            )
            after = replace(after, sums=sums, squares=squares, count=before.count + 1)
        if after.iteration == self.warmup // 2 and after.count > 1:
            variance = after.squares / after.count - (after.sums / after.count).square()
            scale = variance.clamp(min=1e-8).sqrt()
            after = replace(after, scale=scale, step=DualAveraging.start(torch.full_like(log_beta, 0.3)))
        return after

    def _move_code(self, potential, state: State, size: Tensor, generator) -> tuple[Point, Tensor]:
        point, where = state.point, self._where(potential)
        step = size.reshape(-1, 1, 1)
        code, gradient = point.position[..., where], point.gradient
        momentum = torch.randn(code.shape, generator=generator, device=code.device).to(code)
        energy = 0.5 * momentum.square().sum(-1) - point.log_density()
        spread = float(torch.rand((), generator=generator, device=code.device))
        proposal = point
        for _ in range(max(1, round(self.steps * (0.5 + 0.5 * spread)))):
            momentum = momentum + 0.5 * step * state.scale * gradient
            code = code + step * state.scale * momentum
            proposal = self._evaluate(potential, point.position, code)
            gradient = proposal.gradient
            momentum = momentum + 0.5 * step * state.scale * gradient
        change = energy - 0.5 * momentum.square().sum(-1) + proposal.log_density()
        return _choose(point, proposal, change, generator)

    def _move_weights(self, potential, point: Point, beta: Tensor, generator) -> tuple[Point, Tensor]:
        where = self._where(potential)
        position = point.position
        noise = torch.randn(position.shape, generator=generator, device=position.device).to(position)
        share = beta.reshape(-1, 1, 1)
        proposed = (1 - share.square()).sqrt() * position + share * noise
        proposal = self._evaluate(potential, proposed, position[..., where])
        return _choose(point, proposal, proposal.log_likelihood - point.log_likelihood, generator)

    def _evaluate(self, potential: Potential, position: Tensor, code: Tensor) -> Point:
        """Put a code in its place, and take density and gradient, the gradient in the code alone."""
        where = self._where(potential)
        potential.count(code[..., 0].numel())
        with torch.enable_grad():
            code = code.detach().requires_grad_()
            whole = position.detach().index_copy(-1, where, code)
            log_prior, log_likelihood = potential(whole)
            (gradient,) = torch.autograd.grad((log_prior + log_likelihood).sum(), code)
        return Point(whole.detach(), gradient, log_prior.detach(), log_likelihood.detach())

    def _where(self, potential: Potential) -> Tensor:
        """Return the indices of the code in a position."""
        starts = torch.tensor([0, *potential.sizes]).cumsum(0).tolist()
        spans = zip(potential.shapes, starts, starts[1:], strict=False)
        return torch.cat([torch.arange(low, high) for name, low, high in spans if name in self.code])


def _choose(point: Point, proposal: Point, change: Tensor, generator: Generator) -> tuple[Point, Tensor]:
    """Make the Metropolis test: where the chains are now, and the probability of each."""
    probability = torch.where(change.isfinite(), change, -torch.inf).clamp(max=0).exp()
    draw = torch.rand(probability.shape, generator=generator, device=probability.device)
    accepted = draw < probability
    pairs = (
        (getattr(proposal, name), getattr(point, name))
        for name in ("position", "gradient", "log_prior", "log_likelihood")
    )
    return Point(
        *(torch.where(accepted.reshape(accepted.shape + (1,) * (a.dim() - 2)), a, b) for a, b in pairs)
    ), probability
