"""Hamiltonian Monte Carlo chain by chain: Pyro's own kernels, with everything they know recorded.

Hoffman & Gelman 2014, *The No-U-Turn Sampler*; the kernels are ``pyro.infer.HMC`` and ``pyro.infer.NUTS``.
They are stepped here rather than by ``pyro.infer.MCMC``, which reports no energy, step size or number
of gradients, and are given our potential, which takes a model's closed form where it has one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from pyro.infer import HMC as PyroHMC
from pyro.infer import NUTS as PyroNUTS
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.numerical_failures import warn_of_failures
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.loop import drive
from posterior_inpainting.inference.methods.pyro_process import PyroProcess

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


class _OneByOne(Method):
    """What both methods do with their kernel: an iteration of every chain in turn."""

    draws_are = "markov"
    can_end_early = True
    is_resumable = True
    warmup: int | None

    @abstractmethod
    def kernel(self, potential_fn: Callable) -> _Recording:
        """Return Pyro's kernel of a potential."""

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run all chains, each from its own draw of the prior."""
        warmup = max(200, plan.draws // 2) if self.warmup is None else self.warmup
        density = Potential(problem)
        run = drive(PyroProcess(self.label, self.kernel, density, warmup, plan), plan)
        warn_of_failures(density.failures, density.gradients)
        attrs = {
            "warmup": warmup,
            "gradient_evaluations": run.gradients,
            "potential": density.route,
            **run.label,
        }
        latents, stats = ({n: v[0] for n, v in part.items()} for part in (run.latents, run.stats))
        return Draws(latents, stats, self.draws_are, attrs)


@dataclass(frozen=True)
class HMC(_OneByOne):
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

    def kernel(self, potential_fn: Callable) -> _Recording:
        """Return Pyro's HMC kernel."""
        return _Recording(
            potential_fn=potential_fn,
            trajectory_length=self.trajectory_length,
            target_accept_prob=self.target_acceptance,
            full_mass=self.full_mass,
        )


@dataclass(frozen=True)
class NUTS(_OneByOne):
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

    def kernel(self, potential_fn: Callable) -> _RecordingNUTS:
        """Return Pyro's NUTS kernel."""
        return _RecordingNUTS(
            potential_fn=potential_fn,
            target_accept_prob=self.target_acceptance,
            max_tree_depth=self.max_tree_depth,
            full_mass=self.full_mass,
        )
