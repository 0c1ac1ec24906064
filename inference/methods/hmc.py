"""Hamiltonian Monte Carlo one chain at a time: Pyro's own kernels, with everything they know recorded.

Hoffman & Gelman 2014, *The No-U-Turn Sampler*; the kernels are ``pyro.infer.HMC`` and ``pyro.infer.NUTS``.
They are stepped here rather than by ``pyro.infer.MCMC``, which reports no energy, step size or number
of gradients, and are given our potential, which takes a model's closed form where it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pyro.infer import HMC as PyroHMC
from pyro.infer import NUTS as PyroNUTS
from torch import Tensor
from tqdm.auto import tqdm

from posterior_inpainting.inference.contract import Draws, Problem
from posterior_inpainting.inference.density.potential import Potential

__all__ = ["HMC", "NUTS"]


class _Recording(PyroHMC):
    """Pyro's HMC kernel, and a mixin for its NUTS: keep the kinetic energy at the start of each trajectory."""

    kinetic: Tensor | None = None

    def _sample_r(self, name):
        momentum, unscaled = super()._sample_r(name)
        if name.startswith("r_t="):  # the others belong to the search for a first step size
            self.kinetic = super()._kinetic_energy(unscaled)
        return momentum, unscaled


class _RecordingNUTS(_Recording, PyroNUTS):
    pass


@dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo with a fixed trajectory length (Neal 2011).

    Parameters
    ----------
    trajectory_length
        Integration time of a trajectory.
    warmup
        Iterations that adapt step size and mass matrix and are thrown away; half of ``draws`` and at
        least 200 if ``None``.
    target_acceptance
        Mean acceptance probability that the step size is adapted to.
    full_mass
        Whether the mass matrix is dense.

    Examples
    --------
    >>> HMC(trajectory_length=1.5).target_acceptance
    0.8
    """

    trajectory_length: float = 2.0
    warmup: int | None = None
    target_acceptance: float = 0.8
    full_mass: bool = False

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Run ``chains`` chains one after another, each from its own draw of the prior."""
        return _run(self, problem, draws, chains, seed, progress)

    def _kernel(self, potential_fn: Callable) -> _Recording:
        return _Recording(
            potential_fn=potential_fn,
            trajectory_length=self.trajectory_length,
            target_accept_prob=self.target_acceptance,
            full_mass=self.full_mass,
        )


@dataclass(frozen=True)
class NUTS:
    """The No-U-Turn sampler (Hoffman & Gelman 2014, with multinomial trajectories as in Stan).

    Parameters
    ----------
    warmup
        Iterations that adapt step size and mass matrix and are thrown away; half of ``draws`` and at
        least 200 if ``None``.
    target_acceptance
        Mean acceptance probability that the step size is adapted to.
    max_tree_depth
        Trajectories have at most ``2**max_tree_depth`` steps.
    full_mass
        Whether the mass matrix is dense.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> idata = infer(model, seen, NUTS(warmup=50), draws=20, chains=2, progress=False)
    >>> dict(idata.posterior["z"].sizes)
    {'chain': 2, 'draw': 20, 'latent': 3}
    """

    warmup: int | None = None
    target_acceptance: float = 0.8
    max_tree_depth: int = 10
    full_mass: bool = False

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Run ``chains`` chains one after another, each from its own draw of the prior."""
        return _run(self, problem, draws, chains, seed, progress)

    def _kernel(self, potential_fn: Callable) -> _RecordingNUTS:
        return _RecordingNUTS(
            potential_fn=potential_fn,
            target_accept_prob=self.target_acceptance,
            max_tree_depth=self.max_tree_depth,
            full_mass=self.full_mass,
        )


def _run(method: HMC | NUTS, problem: Problem, draws: int, chains: int, seed: int, progress: bool) -> Draws:
    warmup = max(200, draws // 2) if method.warmup is None else method.warmup
    potential = Potential(problem)
    positions, records = [], []
    with tqdm(total=chains * (warmup + draws), disable=not progress, unit="it") as bar:
        for chain in range(chains):
            bar.set_description(f"{type(method).__name__} chain {chain + 1}/{chains}")
            torch.manual_seed(seed + chain)
            position, record = _run_chain(method, potential, warmup, draws, bar)
            positions.append(position)
            records.append(record)
    stats = {name: torch.stack([record[name] for record in records]) for name in records[0]}
    attrs = {"warmup": warmup, "gradient_evaluations": potential.gradients, "potential": potential.route}
    return Draws(potential.keep(torch.stack(positions)), stats, "markov", attrs)


def _run_chain(
    method: HMC | NUTS, potential: Potential, warmup: int, draws: int, bar: tqdm
) -> tuple[Tensor, dict]:
    """Step one kernel; return positions ``(draw, dim)`` and statistics by name."""

    def potential_fn(state: dict[str, Tensor]) -> Tensor:
        potential.count(1)
        log_prior, log_likelihood = potential(state["position"].unsqueeze(0))
        return -(log_prior + log_likelihood).squeeze(0)

    kernel = method._kernel(potential_fn)
    kernel.initial_params = state = {"position": potential.draw_prior(1).squeeze(0)}
    kernel.setup(warmup)
    positions, rows = [], []
    for iteration in range(warmup + draws):
        before, start = _Counters(kernel, potential), kernel._potential_energy_last
        state = kernel.sample(state)
        bar.update()
        if bar.n % 10 == 0:
            bar.set_postfix(step=f"{kernel.step_size:.2g}", refresh=False)
        if iteration < warmup:
            continue
        after = _Counters(kernel, potential)
        positions.append(state["position"].detach())
        rows.append(
            {
                "lp": -float(kernel._potential_energy_last),
                "energy": float(start + kernel.kinetic),
                "acceptance_rate": after.acceptance_since(before, iteration - warmup),
                "step_size": float(kernel.step_size),
                "n_steps": after.gradients - before.gradients,
                "diverging": after.divergences > before.divergences,
            }
        )
    kernel.cleanup()
    return torch.stack(positions), {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


class _Counters:
    """The running totals of a kernel, from whose differences one iteration's figures follow."""

    def __init__(self, kernel, potential: Potential):
        self.gradients = potential.gradients
        self.divergences = len(kernel._divergences)
        self.mean_acceptance = kernel._mean_accept_prob

    def acceptance_since(self, before: _Counters, index: int) -> float:
        """Undo the kernel's running mean, which starts anew after warm-up."""
        return min(1.0, max(0.0, self.mean_acceptance * (index + 1) - before.mean_acceptance * index))
