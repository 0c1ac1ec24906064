r"""`GlobalLocal`: Hamiltonian chains that also jump, by proposals of a mixture fitted to where chains have been.

Gabrié, Rotskoff & Vanden-Eijnden 2022, *Adaptive Monte Carlo Augmented with Normalizing Flows*; Samsonov et al. 2022,
*Local-Global MCMC Kernels: The Best of Both Worlds*. Each iteration is a ChEES trajectory, then a choice among the
place of a chain and N proposals of a mixture g (iterated sampling importance resampling, Andrieu, Doucet & Holenstein
2010, section 4.4), in proportion to

.. math:: w(q) = p(q \mid \tilde x) / g(q),

which leaves the posterior as it is, however poor g may be. What a mixture cannot propose it holds on to: a chain where
g is too small stays, R-hat sees it, and g learns of it. Chains start half at the particles of a short tempered pilot
and half at draws of the prior, so that they begin apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods import chees
from posterior_inpainting.inference.methods.adaptation import Ascent, Moments, windows
from posterior_inpainting.inference.methods.chees import SHORTEST, ChEES
from posterior_inpainting.inference.methods.mixture_of_t import MixtureOfT, fitted, wide
from posterior_inpainting.inference.methods.rounds import KernelInRounds
from posterior_inpainting.inference.methods.smc import TemperedSMC
from posterior_inpainting.inference.methods.trajectory import Point, evaluate
from posterior_inpainting.inference.methods.tuning import Tuning

__all__ = ["GlobalLocal"]

#: Draws of the prior that tell the scale of the wide component, and iterations that a later round warms up.
_PRIOR, _LATER = 256, 30
#: Chance of a jump from which on a place is sampled by jumps, whatever trajectories do there.
_COVERED = 0.1


@dataclass(frozen=True)
class State:
    """Chains, the mixture that proposes jumps, and, while that is learnt, its wide component and where chains were."""

    chains: chees.State
    mixture: MixtureOfT
    wide: MixtureOfT | None = None
    visited: Tensor | None = None

    @property
    def iteration(self) -> int:
        """Iterations so far."""
        return self.chains.iteration

    @property
    def point(self) -> Point:
        """Where the chains are."""
        return self.chains.point


@dataclass(frozen=True)
class GlobalLocal(KernelInRounds):
    """ChEES with jumps between modes: for posteriors of up to a hundred latents, and of any number of modes.

    With a goal (``infer(..., until=Trusted())``) chains that disagree begin anew with what they have learnt,
    round by round; the draws are those of the last. In ``sample_stats``, ``jumped`` says who moved by a jump, and
    ``diverging`` where a trajectory diverged that no jump was likely to make up for.

    Parameters
    ----------
    warmup
        Iterations that adapt and are thrown away.
    proposals
        Of the mixture for each chain and iteration; one costs about a third of a gradient.
    particles
        Of the pilot.
    pilot
        Settings of the pilot that finds modes.
    local
        Settings of the moves between jumps; its warm-up and its starts are not read.

    Examples
    --------
    >>> from posterior_inpainting.inference import Trusted, infer
    >>> from posterior_inpainting.models import LatentCode, Observation, datasets, observations, pretrained
    >>> image = datasets.load("digits")[0]
    >>> seen = Observation(image, observations.half(image.shape, hide="bottom"))
    >>> model = LatentCode(pretrained.load("digits-vae-2d"))
    >>> posterior = infer(model, seen, GlobalLocal(), draws=500, chains=16, until=Trusted(), progress=False)
    >>> posterior.attrs["until_missing"], float(posterior.sample_stats["jumped"].mean()) > 0.5
    ('', True)
    """

    usual_draws = 2000
    usual_chains = 16

    warmup: int = 80
    proposals: int = 8
    particles: int = 96
    pilot: TemperedSMC = field(default_factory=lambda: TemperedSMC(share=0.5, steps=4, max_moves=2))
    local: ChEES = field(default_factory=lambda: ChEES(max_steps=64))

    def __post_init__(self):
        if self.warmup < 20 or self.particles < 16:
            raise ValueError(
                f"warmup={self.warmup}, particles={self.particles}; expected at least 20 and at least 16"
            )

    def later(self) -> GlobalLocal:
        """Return the kernel of later rounds: scales and mixture are known to it."""
        return replace(self, warmup=_LATER, local=replace(self.local, metric="identity"))

    def start(self, density: Density, position: Tensor, generator: Generator) -> State:
        """Begin half at the given draws of the prior and half at particles of a pilot."""
        cloud, outer = self._explored(density, generator)
        position = _half(position, cloud)
        chains = self._moves().begin(density, position, generator, 1.0)
        return State(chains, fitted(cloud, outer), outer, position[:, :0])

    def go_on(self, density: Density, position: Tensor, draws: Tensor, generator: Generator) -> State:
        """Begin a later round: half where chains are, half at a fresh pilot's, with what the last round's draws say."""
        cloud, outer = self._explored(density, generator)
        point = evaluate(density, _half(position, cloud))
        known = replace(
            Tuning.start(density, point, "identity", generator), moments=Moments.start(draws).update(draws)
        )
        tuning = known.relearnt(density, point, "identity", generator)
        length = Ascent.start(torch.full_like(tuning.step.log_step, SHORTEST))
        return State(chees.State(point, tuning, length), fitted(draws, outer))

    def step(self, density: Density, state: State, generator: Generator) -> tuple[State, dict[str, Tensor]]:
        """Make one trajectory of every chain, then let it jump; learn while warming up."""
        chains, info = self._moves().step(density, state.chains, generator)
        point, jumped, chance = self._jump(density, chains.point, state.mixture, generator)
        lost = info["diverging"] & (chance < _COVERED)
        info = info | {"lp": point.log_density(), "jumped": jumped, "diverging": lost}
        following = replace(state, chains=replace(chains, point=point))
        return self._learn(following), info

    def _explored(self, density: Density, generator: Generator) -> tuple[Tensor, MixtureOfT]:
        """Return a pilot's particles ``(group, particle, dim)``, and the wide component that the prior gives."""
        cloud = self.pilot.cloud(density, self.particles, generator)
        prior = density.draw_prior(_PRIOR * len(cloud))
        return cloud, wide(prior.reshape(len(cloud), _PRIOR, -1))

    def _jump(
        self, density: Density, point: Point, mixture: MixtureOfT, generator: Generator
    ) -> tuple[Point, Tensor, Tensor]:
        """Choose among where chains are and their proposals; return places, who moved, and the chances to move."""
        groups, chains, dim = point.position.shape
        proposed = mixture.draw(chains * self.proposals, generator)
        with torch.no_grad():
            log_density = sum(density(proposed))
        weight = (log_density - mixture.log_density(proposed)).unflatten(1, (chains, self.proposals))
        now = point.log_density() - mixture.log_density(point.position)
        weight = torch.cat([now.unsqueeze(-1), weight], -1).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        uniform = torch.rand(weight.shape, generator=generator, device=weight.device).clamp(min=1e-38)
        # In proportion to weights, by Gumbel's maximum; the first, where the chain is, if all are zero.
        chosen = (weight - (-uniform.log()).log()).argmax(-1)
        places = torch.cat([point.position.unsqueeze(2), proposed.unflatten(1, (chains, self.proposals))], 2)
        position = places.gather(2, chosen[..., None, None].expand(groups, chains, 1, dim)).squeeze(2)
        return evaluate(density, position), chosen > 0, 1 - weight.softmax(-1).nan_to_num(1.0)[..., 0]

    def _learn(self, state: State) -> State:
        """Take in where chains are; fit the mixture anew, to the later half of them, at the ends of windows."""
        if state.visited is None or state.wide is None:
            return state
        visited = torch.cat([state.visited, state.point.position], 1)
        if state.iteration not in (*windows(self.warmup)[1:], self.warmup):
            return replace(state, visited=visited)
        mixture = fitted(visited[:, visited.shape[1] // 2 :], state.wide)
        following = replace(state, mixture=mixture, visited=visited)
        return following if state.iteration < self.warmup else State(state.chains, mixture)

    def _moves(self) -> ChEES:
        return replace(self.local, warmup=self.warmup)


def _half(position: Tensor, cloud: Tensor) -> Tensor:
    """Put the second half of the chains at particles."""
    count = position.shape[1] // 2
    return torch.cat([position[:, count:], cloud[:, :count]], 1)
