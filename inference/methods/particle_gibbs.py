r"""`ParticleGibbs`: whole paths of the reverse chain, drawn by particles around the path of the draw before.

Andrieu, Doucet & Holenstein 2010, *Particle Markov Chain Monte Carlo Methods*, with the ancestors of the kept path
drawn anew (Lindsten, Jordan & Schon 2014); for diffusions Corenflos, Zhao, Sarkka, Sjolund & Schon 2024, *Conditioning
Diffusion Models by Explicit Forward-Backward Bridging*. Particles are guided as in the twisted diffusion sampler of Wu,
Trippe, Naesseth, Blei & Cunningham 2023, by the twist

.. math:: \psi_t(x_t) = N\big(\tilde x; D(x_t)_{seen}, s^2 + v(x_t)\big), \qquad
          \psi_0(x_0) = N(\tilde x; x_{0, seen}, s^2).

Whatever the twist and however few particles, the chain's invariant law is *exactly* the posterior of the discrete
reverse chain: it is the referee of the samplers that are faster. The number of particles decides how fast it mixes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Plan, Problem
from posterior_inpainting.inference.density.denoised_images import DenoisedImages
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.kernel import Kernel, as_draws, run_kernel
from posterior_inpainting.models.densities.reverse_diffusion import noise_levels

__all__ = ["ParticleGibbs"]


@dataclass(frozen=True)
class Paths:
    """Each chain's path ``(1, chain, step, dim)``, from noise to the image, its log likelihood, and the iteration."""

    path: Tensor
    log_likelihood: Tensor
    iteration: int = 0

    @property
    def point(self) -> Paths:
        """Where the chains are."""
        return self

    @property
    def position(self) -> Tensor:
        """The images, ``(1, chain, dim)``."""
        return self.path[:, :, -1]


@dataclass(frozen=True)
class Particles:
    """Particles ``(chain, particle, dim)`` at a level, with what the next step needs of them."""

    value: Tensor
    log_weight: Tensor
    log_twist: Tensor
    mean: Tensor
    spread: Tensor
    pull: Tensor

    def of(self, ancestor: Tensor) -> Particles:
        """Return the particles that are ancestors, ``(chain, particle)``."""
        wide = ancestor.unsqueeze(-1).expand_as(self.value)
        flat = (self.log_weight, self.log_twist)
        full = (self.mean, self.spread, self.pull)
        return Particles(
            self.value.gather(1, wide),
            *(part.gather(1, ancestor) for part in flat),
            *(part.gather(1, wide) for part in full),
        )


@dataclass(frozen=True)
class ParticleGibbs(Kernel):
    """Conditional sequential Monte Carlo over the reverse chain, with twisted proposals and ancestor sampling.

    Parameters
    ----------
    particles
        Of each chain; at least 2.
    steps
        Of the reverse chain; by default those of the model's own, whose posterior it then draws from exactly.
    warmup
        Iterations that are thrown away.

    Examples
    --------
    >>> ParticleGibbs(particles=32).warmup
    10
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
        reverse = problem.abilities.reverse_diffusion()
        steps = self.steps if reverse is None or self.steps is not None else reverse.own_steps
        if reverse is not None and steps is None:
            raise ValueError(f"{type(problem.model).__name__} is no reverse chain; say steps=100")
        density = DenoisedImages(problem, steps)
        # Nothing is kept of the first path but its shape: the first iteration runs without one.
        start = torch.zeros(1, plan.chains, density.dim, device=density.like.device)
        return as_draws(self, run_kernel(self, density, plan, start), density, 0)

    def start(self, density: Density, position: Tensor, generator: Generator) -> Paths:
        """Draw a first path, of particles alone."""
        assert isinstance(density, DenoisedImages)
        return self._swept(density, position.shape[1], None, generator, 0)

    def step(self, density: Density, state: Paths, generator: Generator) -> tuple[Paths, dict[str, Tensor]]:
        """Draw another path around the one that there is."""
        assert isinstance(density, DenoisedImages)
        kept = state.path[0]
        found = self._swept(density, len(kept), kept, generator, state.iteration + 1)
        renewed = (found.path[0, :, 0] != kept[:, 0]).any(-1).to(kept.dtype).unsqueeze(0)
        return found, {"log_likelihood_of_seen": found.log_likelihood, "path_renewed": renewed}

    def _swept(
        self, density: DenoisedImages, chains: int, kept: Tensor | None, generator: Generator, iteration: int
    ) -> Paths:
        """Carry particles down the chain, the kept path among them, and draw one of their paths."""
        reverse, count = density.reverse, self.particles
        assert density.steps is not None
        levels = noise_levels(density.steps, reverse.highest, reverse.lowest).to(density.like)
        shape = chains, count, density.dim

        def noise() -> Tensor:
            """Draw standard normal particles."""
            return torch.randn(shape, generator=generator, device=density.like.device)

        value = reverse.centre + math.hypot(reverse.highest, reverse.spread) * noise()
        value = _with_kept(value, kept, 0)
        now = self._judged(density, value, levels[0], levels[1])
        now = _weighted(now, now.log_twist)
        history: list[tuple[Tensor, Tensor]] = []
        for index in range(1, len(levels)):
            ancestor = _drawn(now.log_weight, count, generator)
            if kept is not None:
                # The kept path's ancestor is drawn anew, by how well each particle leads to what comes after.
                leads = _log_normal(kept[:, None, index], now.mean, now.spread) - now.log_twist
                ancestor = torch.cat([_drawn(now.log_weight + leads, 1, generator), ancestor[:, 1:]], 1)
            history.append((now.value, ancestor))
            before = now.of(ancestor)
            proposed = before.mean + before.pull
            value = _with_kept(proposed + before.spread * noise(), kept, index)
            correction = _log_normal(value, before.mean, before.spread) - _log_normal(
                value, proposed, before.spread
            )
            following = levels[index + 1] if index + 1 < len(levels) else None
            now = self._judged(density, value, levels[index], following)
            now = _weighted(now, now.log_twist - before.log_twist + correction)
        return self._traced_back(history, now, _drawn(now.log_weight, 1, generator), density, iteration)

    def _judged(
        self, density: DenoisedImages, value: Tensor, level: Tensor, following: Tensor | None
    ) -> Particles:
        """Return particles with their twist, the law of the next step, and the twist's pull on it."""
        if following is None:
            likelihood = density.log_likelihood(value)
            empty = torch.zeros_like(value)
            return Particles(value, likelihood, likelihood, empty, empty, empty)
        reverse = density.reverse
        density.count(value.shape[0] * value.shape[1])
        with torch.enable_grad():
            images = value.detach().unflatten(-1, reverse.image_shape).requires_grad_()
            mean, variance = (part.flatten(-3) for part in reverse.denoised(images, level))
            doubt = reverse.noise**2 + variance.detach()
            apart = torch.where(density.seen, density.target - mean, 0.0)
            log_normal = 0.5 * (apart.square() / doubt + torch.where(density.seen, doubt.log(), 0.0))
            twist = -log_normal.sum(-1)
            (slope,) = torch.autograd.grad(twist.sum(), images)
        mean, twist = mean.detach(), twist.detach()
        kept = (following / level).square()
        variance = following.square() * (1 - kept) + (1 - kept).square() * variance.detach()
        pull = (1 - kept) * level.square() * slope.flatten(-3)
        return Particles(value, twist, twist, mean + kept * (value - mean), variance.sqrt(), pull)

    def _traced_back(
        self,
        history: list[tuple[Tensor, Tensor]],
        last: Particles,
        chosen: Tensor,
        density: DenoisedImages,
        iteration: int,
    ) -> Paths:
        """Return the path that leads to the chosen particle of each chain."""
        path = [_pick(last.value, chosen)]
        for value, ancestor in reversed(history):
            chosen = ancestor.gather(1, chosen)
            path.append(_pick(value, chosen))
        whole = torch.stack(path[::-1], 1).unsqueeze(0)
        return Paths(whole, density.log_likelihood(whole[:, :, -1]), iteration)


def _with_kept(value: Tensor, kept: Tensor | None, index: int) -> Tensor:
    """Put the kept path's point in the first place of each chain's particles."""
    return value if kept is None else torch.cat([kept[:, None, index], value[:, 1:]], 1)


def _weighted(particles: Particles, log_weight: Tensor) -> Particles:
    return replace(particles, log_weight=log_weight)


def _drawn(log_weight: Tensor, count: int, generator: Generator) -> Tensor:
    """Draw indices ``(chain, count)`` in proportion to weights, each independently."""
    return torch.multinomial(log_weight.softmax(1), count, replacement=True, generator=generator)


def _pick(value: Tensor, chosen: Tensor) -> Tensor:
    """Return one particle of each chain, ``(chain, dim)``."""
    return value.gather(1, chosen.unsqueeze(-1).expand(-1, 1, value.shape[-1])).squeeze(1)


def _log_normal(value: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Return log densities, summed over pixels, up to a constant."""
    return -(0.5 * ((value - mean) / spread).square() + spread.log()).sum(-1)
