"""Nested R-hat, for many short chains.

Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari & Gelman 2024, *Nested R-hat: Assessing the Convergence of Markov
Chain Monte Carlo When Running Many Short Chains*.
"""

from __future__ import annotations

import numpy as np

__all__ = ["nested_rhat"]


def nested_rhat(values: np.ndarray, superchains: int) -> np.ndarray:
    r"""Return the nested R-hat of many chains, those of a superchain having started at one point.

    With B the variance between superchains' means and W that within superchains, between their chains and
    within them, it is :math:`\sqrt{1 + B / W}`; unlike R-hat it tells bias from few draws a chain.

    Parameters
    ----------
    values
        ``(chain, draw, ...)``; neighbouring chains are of one superchain.
    superchains
        How many; it divides the number of chains. ``ChEES(superchains=...)`` starts them so.

    Returns
    -------
    ndarray
        Shaped as one draw.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(64, 5))
    >>> bool(nested_rhat(draws, superchains=4) < 1.05), bool(nested_rhat(draws + np.arange(64)[:, None], 4) > 2)
    (True, True)
    """
    chains, draws = values.shape[:2]
    if superchains < 2 or chains % superchains:
        raise ValueError(f"superchains={superchains}; expected at least 2 that divide the {chains} chains")
    means = values.reshape(superchains, chains // superchains, draws, *values.shape[2:])
    between = means.mean((1, 2)).var(0, ddof=1)
    chain_means = means.mean(2)
    many = chain_means.shape[1] > 1
    among = chain_means.var(1, ddof=1) if many else np.zeros_like(chain_means[:, 0])
    inside = means.var(2, ddof=1).mean(1) if draws > 1 else np.zeros_like(chain_means[:, 0])
    return np.sqrt(1 + between / (among + inside).mean(0))
