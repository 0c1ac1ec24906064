"""Replicas at neighbouring temperatures that exchange places, and temperatures where they do so equally often.

Geyer 1991; the non-reversible order of swaps and the schedule are those of Syed, Bouchard-Cote, Deligiannidis & Doucet
2022, *Non-Reversible Parallel Tempering*.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

__all__ = ["evenly_spaced", "exchanged"]


def exchanged(
    values: Sequence[Tensor],
    log_likelihood: Tensor,
    inverse_temperature: Tensor,
    iteration: int,
    generator: Generator,
) -> tuple[list[Tensor], Tensor]:
    """Swap pairs (0, 1), (2, 3), ... and (1, 2), (3, 4), ... in turn; return the values and each pair's mean rejection.

    Parameters
    ----------
    values
        What changes places with a replica, each ``(temperature, chain)`` or ``(temperature, chain, dim)``.
    log_likelihood
        ``(temperature, chain)``.
    inverse_temperature
        ``(temperature,)``.
    iteration
        Whose parity says which pairs.
    generator
        Of the decisions.

    Returns
    -------
    tuple
        The values, and mean rejection probabilities ``(temperature - 1,)``, 0 for pairs whose turn it is not.

    Examples
    --------
    >>> likelihood = torch.tensor([[-100.0], [0.0]])
    >>> (swapped,), rejection = exchanged([likelihood], likelihood, torch.tensor([1.0, 0.0]), 0, torch.Generator())
    >>> swapped.flatten().tolist(), rejection.tolist()
    ([0.0, -100.0], [0.0])
    """
    inverse = inverse_temperature
    first = torch.arange(iteration % 2, len(inverse) - 1, 2, device=inverse.device)
    second = first + 1
    ratio = (inverse[first] - inverse[second]).unsqueeze(1) * (log_likelihood[second] - log_likelihood[first])
    probability = ratio.clamp(max=0).exp().nan_to_num(0.0)
    swapped = torch.rand(probability.shape, generator=generator, device=probability.device) < probability
    found = []
    for value in values:
        mask = swapped.unsqueeze(-1) if value.dim() == 3 else swapped
        result = value.clone()
        result[first] = torch.where(mask, value[second], value[first])
        result[second] = torch.where(mask, value[first], value[second])
        found.append(result)
    rejection = torch.zeros_like(inverse[1:])
    rejection[first] = 1 - probability.mean(1)
    return found, rejection


def evenly_spaced(inverse_temperature: Tensor, rejection: Tensor) -> Tensor:
    """Return temperatures at which neighbours would reject equally often (Syed et al. 2022, section 5.1).

    Parameters
    ----------
    inverse_temperature
        ``(temperature,)``, the present ones, decreasing.
    rejection
        Rejections of each pair of neighbours so far, ``(temperature - 1,)``.

    Examples
    --------
    >>> evenly_spaced(torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.1, 0.3]))
    tensor([1.0000, 0.3339, 0.0000])
    """
    barrier = torch.cat([torch.zeros_like(rejection[:1]), (rejection + 1e-3).cumsum(0)])
    wanted = torch.linspace(0, 1, len(barrier)).to(barrier) * barrier[-1]
    right = torch.searchsorted(barrier, wanted[1:-1].contiguous()).clamp(1, len(barrier) - 1)
    share = (wanted[1:-1] - barrier[right - 1]) / (barrier[right] - barrier[right - 1])
    old = inverse_temperature
    inner = old[right - 1] + share * (old[right] - old[right - 1])
    return torch.cat([old[:1], inner, old[-1:]])
