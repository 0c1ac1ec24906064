"""One posterior from several clouds of draws, each with an evidence: as many draws of each as its share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["resampled"]


def resampled(log_weight: Tensor, pool: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return which cloud, and which of its draws, each of ``count`` draws of the mixture is: ``(count,)`` each.

    A cloud gets its share to within one draw (systematic resampling), and no draw of it comes twice before all have
    once.

    Parameters
    ----------
    log_weight
        ``(cloud,)``, such as log evidences; unnormalised.
    pool
        Draws in each cloud.
    count
        Draws wanted.
    generator
        Of the choice.

    Examples
    --------
    >>> weight = torch.tensor([0.75, 0.25]).log()
    >>> cloud, draw = resampled(weight, 100, 40, torch.Generator().manual_seed(0))
    >>> cloud.bincount().tolist(), len(set(zip(cloud.tolist(), draw.tolist())))
    ([30, 10], 40)
    """
    weights = log_weight.double().softmax(0)
    device = weights.device
    offset = torch.rand((), generator=generator, device=device, dtype=torch.double)
    places = (torch.arange(count, device=device) + offset) / count
    cloud = torch.searchsorted(weights.cumsum(0), places).clamp(max=len(weights) - 1)
    draw = torch.empty_like(cloud)
    for index in cloud.unique().tolist():
        mine = (cloud == index).nonzero().flatten()
        rounds = math.ceil(len(mine) / pool)
        orders = [torch.randperm(pool, generator=generator, device=device) for _ in range(rounds)]
        draw[mine] = torch.cat(orders)[: len(mine)]
    order = torch.randperm(count, generator=generator, device=device)
    return cloud[order], draw[order]
