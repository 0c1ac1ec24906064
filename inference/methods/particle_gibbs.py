r"""`ParticleGibbs`: draws of latents that come in an order, by particles around the path of the draw before.

Andrieu, Doucet & Holenstein 2010, *Particle Markov Chain Monte Carlo Methods*, with the ancestors of the kept path
drawn anew where that is cheap (Lindsten, Jordan & Schon 2014); for diffusions Corenflos, Zhao, Sarkka, Sjolund & Schon
2024, *Conditioning Diffusion Models by Explicit Forward-Backward Bridging*. Where a model names windows, an iteration
also draws the steps of each anew given all others (Singh, Lindsten & Moulines 2017, *Blocking Strategies and Stability
of Particle Gibbs Samplers*): few steps need few particles.

Whatever proposal and twist, and however few particles, the chain's invariant law is *exactly* the posterior: of
``PixelConstrained`` the prior network's own p(hidden | seen), of a prior that denoises that of its discrete reverse
chain. The particles decide how fast it mixes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Plan, Problem
from posterior_inpainting.inference.density.denoised_images import DenoisedImages
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.reverse_steps import ReverseSteps
from posterior_inpainting.inference.density.sequential_paths import SequentialPaths
from posterior_inpainting.inference.methods.kernel import Kernel, as_draws, run_kernel
from posterior_inpainting.inference.methods.particles_in_order import sweep
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.densities.sequential import SequentialModel

__all__ = ["ParticleGibbs"]


@dataclass(frozen=True)
class Paths:
    """Each chain's path ``(1, chain, dim)``, all values in their order, and the iteration."""

    position: Tensor
    iteration: int = 0

    @property
    def point(self) -> Paths:
        """Where the chains are."""
        return self


@dataclass(frozen=True)
class ParticleGibbs(Kernel):
    """Conditional sequential Monte Carlo over models that say in which order their latents come.

    ``gradient_evaluations`` of a result counts steps of single particles.

    Parameters
    ----------
    particles
        Of each chain; at least 2.
    steps
        Of the reverse chain, for priors that denoise; by default those of the model's own, whose posterior it then
        draws from exactly.
    warmup
        Iterations that are thrown away.

    Raises
    ------
    ValueError
        For fewer than 2 particles; when it runs, for a model that has no order and does not denoise.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import Observation, PixelConstrained
    >>> from posterior_inpainting.models.networks import GatedPixelCNN
    >>> model = PixelConstrained(GatedPixelCNN((1, 4, 4), outputs=2, features=4, layers=2))
    >>> seen = Observation(torch.ones(1, 4, 4), torch.arange(4).expand(1, 4, 4) > 1)
    >>> posterior = infer(model, seen, ParticleGibbs(particles=4), draws=10, chains=2, progress=False)
    >>> posterior.attrs["draws_are"], tuple(posterior.posterior["completion"].shape)
    ('markov', (2, 10, 1, 4, 4))
    """

    particles: int = 16
    steps: int | None = None
    warmup: int = 10

    def __post_init__(self):
        if self.particles < 2:
            raise ValueError(f"particles={self.particles}; expected at least 2")

    @property
    def runs_together(self) -> bool:
        """Not: a path of each chain is enough to keep."""
        return False

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run all chains at once."""
        density = self._paths(problem)
        # Nothing is kept of the first path but its shape: the first iteration runs without one.
        start = torch.zeros(1, plan.chains, density.dim, device=density.like.device)
        return as_draws(self, run_kernel(self, density, plan, start), density, 0)

    def start(self, density: Density, position: Tensor, generator: Generator) -> Paths:
        """Draw a first path, of particles alone."""
        assert isinstance(density, SequentialPaths)
        path, _ = self._drawn(density, density.model, position.shape[1], None, generator)
        return Paths(path.unsqueeze(0))

    def step(self, density: Density, state: Paths, generator: Generator) -> tuple[Paths, dict[str, Tensor]]:
        """Draw the steps of each window anew, around what they are now."""
        assert isinstance(density, SequentialPaths)
        model, path = density.model, state.position[0]
        places = torch.arange(model.dim, device=path.device).split(list(model.sizes))
        renewed = torch.zeros_like(path[:, 0])
        with _drawing_from(generator):
            windows = model.windows()
        for window in windows:
            if len(window) == len(model.sizes):
                path, new = self._drawn(density, model, len(path), path, generator)
            else:
                inside = torch.cat([places[index] for index in window.tolist()])
                part = model.given(path, window)
                found, new = self._drawn(density, part, len(path), path[:, inside], generator)
                path = path.index_copy(1, inside, found)
            renewed = renewed + new * len(window)
        share = renewed / sum(len(window) for window in windows)
        stats = model.statistics(path) | {"path_renewed": share}
        stats = {name: value.unsqueeze(0) for name, value in stats.items()}
        return Paths(path.unsqueeze(0), state.iteration + 1), stats

    def _drawn(
        self,
        density: SequentialPaths,
        model: SequentialModel,
        chains: int,
        kept: Tensor | None,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Draw a path of each chain ``(chain, dim)``; return the share of its steps that are new, too."""
        with _drawing_from(generator), torch.no_grad():
            swept = sweep(model, chains, self.particles, generator, kept, count=density.count)
        chosen = torch.multinomial(swept.log_weight.softmax(1), 1, generator=generator)
        path, new = swept.paths(chosen)
        return path[:, 0], new[:, 0]

    def _paths(self, problem: Problem) -> SequentialPaths:
        """Return the paths of the model's own order, or of its reverse chain."""
        model = problem.abilities.sequential(*problem.args, **problem.kwargs)
        if model is not None:
            if self.steps is not None:
                raise ValueError(
                    f"steps={self.steps} is of a reverse chain; {type(problem.model).__name__} has "
                    f"{len(model.sizes)} steps of its own"
                )
            return SequentialPaths(problem, model)
        reverse = problem.abilities.reverse_diffusion()
        steps = self.steps if reverse is None or self.steps is not None else reverse.own_steps
        if reverse is not None and steps is None:
            raise ValueError(f"{type(problem.model).__name__} is no reverse chain; say steps=100")
        return SequentialPaths(problem, ReverseSteps(DenoisedImages(problem, steps)), "denoising")


def _drawing_from(generator: Generator):
    """Let torch's global generators, which proposals draw from, begin at a number of this one."""
    number = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return Streams(number).seeded("proposals")
