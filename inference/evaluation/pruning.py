r"""Pruning by signal-to-noise: weights that the posterior is least sure of are set to 0.

Blundell et al. 2015, *Weight Uncertainty in Neural Networks*, section 5.3 and table 2. Weights are ranked by
:math:`|\mu_j| / \sigma_j`, all layers together, and the lowest are removed; or the lowest of each layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from posterior_inpainting.models.random_weights.given_weights import Weights
from posterior_inpainting.models.random_weights.layers import BayesianModule

__all__ = ["SHARES", "prune", "pruning_curve"]

#: Removed shares of the paper's table, and two at which more is kept.
SHARES = (0.0, 0.25, 0.5, 0.75, 0.95, 0.98)


def prune(
    network: BayesianModule, share: float, by: str = "signal-to-noise", per_layer: bool = False
) -> nn.Module:
    """Return the network at the posterior's mean, with the lowest-ranked of its random weights set to 0.

    Parameters
    ----------
    network
        A fitted network with random weights; it stays as it is.
    share
        Share of the weights to remove, in [0, 1].
    by
        ``"signal-to-noise"``, or ``"magnitude"`` to ignore the noise: the usual baseline.
    per_layer
        Whether to remove the same share of each layer, its bias with it, so that none is emptied before the others.

    Raises
    ------
    ValueError
        If the share is outside [0, 1], or for an unknown ranking.

    Examples
    --------
    >>> from posterior_inpainting.models.random_weights.layers import bayesian
    >>> pruned = prune(bayesian(nn.Linear(10, 9)), share=0.5)
    >>> sum(int((p == 0).sum()) for p in pruned.parameters())
    49
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}; expected a number in [0, 1]")
    if by not in ("signal-to-noise", "magnitude"):
        raise ValueError(f"by={by!r}; expected 'signal-to-noise' or 'magnitude'")
    if by == "signal-to-noise":
        ranks = network.signal_to_noise()
    else:
        ranks = {path: law.loc.detach().abs() for path, law in network.posterior().items()}
    pruned = copy.deepcopy(network.mean)
    with torch.no_grad():
        for paths in _ranked_together(ranks, per_layer):
            order = torch.cat([ranks[path].flatten() for path in paths]).argsort()
            kept = torch.ones_like(order, dtype=torch.bool)
            # By position, so that ties do not change the share.
            kept[order[: int(share * len(order))]] = False
            parts = kept.split([ranks[path].numel() for path in paths])
            for path, part in zip(paths, parts, strict=True):
                pruned.get_parameter(path).mul_(part.reshape(ranks[path].shape))
    return pruned


def pruning_curve(
    network: BayesianModule,
    score: Callable[[nn.Module], float],
    shares: Sequence[float] = SHARES,
    by: str = "signal-to-noise",
    per_layer: bool = False,
) -> Any:
    """Score the network after each share of its weights has been removed: the paper's table 2.

    Parameters
    ----------
    network, by, per_layer
        As for :func:`prune`.
    score
        From a pruned network to a number, such as its accuracy on held-out images.
    shares
        Shares to remove.

    Returns
    -------
    pandas.DataFrame
        Rows ``removed`` share; columns ``weights`` (kept) and ``score``.

    Examples
    --------
    >>> from posterior_inpainting.models.random_weights.layers import bayesian
    >>> x = torch.randn(100, 10)
    >>> curve = pruning_curve(bayesian(nn.Linear(10, 9)), lambda net: float(net(x).detach().var()), [0, 0.5, 1])
    >>> curve["weights"].tolist(), float(curve["score"].iloc[-1])
    ([99, 50, 0], 0.0)
    """
    import pandas as pd

    ranks = network.signal_to_noise()
    sizes = [sum(ranks[path].numel() for path in paths) for paths in _ranked_together(ranks, per_layer)]
    rows = [
        (share, sum(size - int(share * size) for size in sizes), score(prune(network, share, by, per_layer)))
        for share in shares
    ]
    return pd.DataFrame(rows, columns=["removed", "weights", "score"]).set_index("removed")


def _ranked_together(ranks: Weights, per_layer: bool) -> list[list[str]]:
    """Return the paths whose weights share a ranking: all, or those of each layer."""
    layers: dict[str, list[str]] = {}
    for path in ranks:
        layers.setdefault(path.rpartition(".")[0] if per_layer else "", []).append(path)
    return list(layers.values())
