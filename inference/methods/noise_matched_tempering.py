r"""`NoiseMatchedTempering`: noise-matched chains at several noise levels that exchange images, so that modes are left.

Tempering the likelihood of seen pixels under normal noise is raising that noise: a replica at inverse temperature beta
has noise :math:`s / \sqrt\beta`. A swap needs the residuals of seen pixels alone, and so no density of the prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.denoised_images import DenoisedImages
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.adaptation import windows
from posterior_inpainting.inference.methods.noise_matched_gibbs import DenoisingKernel, Places
from posterior_inpainting.inference.methods.replica_exchange import evenly_spaced, exchanged

__all__ = ["NoiseMatchedTempering"]


@dataclass(frozen=True)
class Replicas:
    """Images at all levels ``(temperature, chain, dim)``, the coldest first, and rejected swaps so far."""

    places: Places
    inverse_temperature: Tensor
    rejection: Tensor
    swaps: int = 0

    @property
    def iteration(self) -> int:
        """Rounds so far."""
        return self.places.iteration

    @property
    def point(self) -> Places:
        """Where the coldest replicas are: the draws, as one group."""
        places = self.places
        return Places(places.position[:1], places.log_likelihood[:1], places.iteration)


@dataclass(frozen=True)
class NoiseMatchedTempering(DenoisingKernel):
    """Replica exchange over the noise of seen pixels; every chain is an ensemble of its own.

    Parameters
    ----------
    temperatures
        Replicas a chain, from the observation's noise to the prior's highest level. They must be the closer the more
        pixels are seen; ``swap_rate`` in ``sample_stats`` should stay above 0.2.
    steps
        As for ``NoiseMatchedGibbs``.
    warmup
        Rounds that adapt the levels and are thrown away.

    Examples
    --------
    >>> NoiseMatchedTempering(temperatures=8).warmup
    100
    """

    temperatures: int = 20
    steps: int | None = 40
    warmup: int = 100

    def __post_init__(self):
        if self.temperatures < 2:
            raise ValueError(f"temperatures={self.temperatures}; expected at least 2")

    @property
    def runs_together(self) -> bool:
        """Not: its groups are temperatures of one posterior."""
        return False

    def start(self, density: Density, position: Tensor, generator: Generator) -> Replicas:
        """Begin with every replica at a draw of the prior; ``position`` ``(1, chain, dim)`` is the coldest's."""
        assert isinstance(density, DenoisedImages)
        _, chains, dim = position.shape
        hotter = density.draw_from_prior((self.temperatures - 1) * chains, generator)
        everywhere = torch.cat([position, hotter.reshape(-1, chains, dim)])
        highest = (density.reverse.noise / density.reverse.highest) ** 2
        inverse = highest ** torch.linspace(0, 1, self.temperatures).to(position)
        places = Places(everywhere, density.log_likelihood(everywhere))
        return Replicas(places, inverse, torch.zeros_like(inverse[1:]))

    def step(
        self, density: Density, state: Replicas, generator: Generator
    ) -> tuple[Replicas, dict[str, Tensor]]:
        """Move every replica, then let alternate pairs of neighbours swap."""
        assert isinstance(density, DenoisedImages)
        inverse, iteration = state.inverse_temperature, state.iteration + 1
        position = density.move(state.places.position, inverse, generator)
        likelihood = density.log_likelihood(position)
        (position, likelihood), rejection = exchanged(
            [position, likelihood], likelihood, inverse, iteration, generator
        )
        swaps, total = state.swaps + 1, state.rejection + rejection
        rate = 1 - (2 * total / swaps).mean()
        info = {"log_likelihood_of_seen": likelihood[:1], "swap_rate": rate.expand(1, position.shape[1])}
        following = Replicas(Places(position, likelihood, iteration), inverse, total, swaps)
        if iteration in windows(self.warmup):
            spaced = evenly_spaced(inverse, total)
            following = replace(
                following, inverse_temperature=spaced, rejection=torch.zeros_like(total), swaps=0
            )
        return following, info
