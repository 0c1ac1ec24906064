"""Where chains start: at draws of the prior at which the posterior density is finite."""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.streams import Streams

__all__ = ["draw_starts"]

#: Draws of the prior that a chain is given to find one with a finite density.
_ROUNDS = 20


def draw_starts(density: Density, chains: int, streams: Streams) -> Tensor:
    """Draw starting positions ``(group, chain, dim)`` from the prior, again where the log density is not finite.

    Evaluations are not counted as gradients.

    Parameters
    ----------
    density
        Of one posterior, which counts as one group, or of several.
    chains
        Starts for each group.
    streams
        The first draws are those of ``"starts"``, later ones those of ``("starts", round)``.

    Raises
    ------
    ValueError
        If some chain has no finite density at 20 draws of the prior.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from posterior_inpainting.inference.contract import Problem
    >>> from posterior_inpainting.inference.density.potential import Potential
    >>> potential = Potential(Problem(lambda: pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))))
    >>> tuple(draw_starts(potential, 5, Streams(0)).shape)
    (1, 5, 2)
    """
    groups = density.groups or 1
    with torch.no_grad():
        with streams.seeded("starts"):
            position = density.draw_prior(groups * chains).reshape(groups, chains, density.dim)
        for tried in range(1, _ROUNDS + 1):
            log_prior, log_likelihood = density(position)
            hopeless = ~(log_prior + log_likelihood).isfinite()
            if not hopeless.any():
                return position
            if tried < _ROUNDS:
                with streams.seeded("starts", tried):
                    position[hopeless] = density.draw_prior(int(hopeless.sum()))
    group, chain = hopeless.nonzero()[0].tolist()
    whose = f"chain {chain}" if density.groups is None else f"chain {chain} of observation {group}"
    raise ValueError(
        f"the log density of {whose} is not finite at {_ROUNDS} draws of the prior; expected it finite at one at least"
    )
