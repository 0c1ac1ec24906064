"""Where chains start: at draws of the prior at which the density is a number."""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.streams import Streams

__all__ = ["draw_starts"]

_ROUNDS = 20


def draw_starts(density: Density, chains: int, streams: Streams) -> Tensor:
    """Return starts ``(group, chain, dim)`` drawn from the prior, anew where the density is not finite.

    Raises ``ValueError`` where it is not finite at 20 draws in a row.
    """
    groups = density.groups or 1
    position = None
    for attempt in range(_ROUNDS):
        with streams.seeded("starts", attempt), torch.no_grad():
            drawn = density.draw_prior(groups * chains).reshape(groups, chains, -1)
        position = drawn if position is None else torch.where(bad.unsqueeze(-1), drawn, position)  # noqa: F821
        with torch.no_grad():
            log_prior, log_likelihood = density(position if density.groups is not None else position[0])
        bad = ~(log_prior + log_likelihood).isfinite().reshape(groups, chains)
        if not bad.any():
            return position
    raise ValueError(
        f"the log density is not finite at {_ROUNDS} draws of the prior in a row (chain {int(bad.nonzero()[0, 1])}); "
        "check the model, its data and its noise"
    )
