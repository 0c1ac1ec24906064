"""Gaussian scale mixtures with standard deviations 1, 1/2, 1/4 and so on: their density, and draws of a component."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

__all__ = ["drawn_precisions", "log_scale_mixture"]


def log_scale_mixture(responses: Tensor, log_weights: Tensor) -> Tensor:
    """Return log densities of responses ``(n, filter, row, column)`` under the filters' ``(filter, component)``."""
    best = _largest(responses, log_weights)
    shares = ((one - best).exp() for one in _terms(responses, log_weights))
    return best + functools.reduce(torch.add, shares).log()


def _terms(responses: Tensor, log_weights: Tensor) -> Iterator[Tensor]:
    """Return the logarithm of each component's term, one after another: all at once would be as many images."""
    squares = -0.5 * responses.square()
    for number, weights in enumerate(log_weights.unbind(-1)):
        constant = weights + number * math.log(2) - 0.5 * math.log(2 * math.pi)
        yield torch.add(constant[:, None, None], squares, alpha=4.0**number)


@torch.no_grad()
def _largest(responses: Tensor, log_weights: Tensor) -> Tensor:
    return functools.reduce(torch.maximum, _terms(responses, log_weights))


def drawn_precisions(responses: Tensor, log_weights: Tensor, generator: Generator) -> Tensor:
    """Go through the components and change to each with its share of what there was up to it."""
    best = _largest(responses, log_weights)
    total, chosen = torch.zeros_like(responses), torch.zeros_like(responses)
    for number, one in enumerate(_terms(responses, log_weights)):
        share = (one - best).exp_()
        total += share
        coin = torch.rand(share.shape, generator=generator, dtype=share.dtype, device=share.device)
        chosen = torch.where(coin.mul_(total) < share, 4.0**number, chosen)
    return chosen
