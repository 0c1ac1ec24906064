"""What the importance weights of a guide's draws say of it: their Pareto k-hat and how far they are from equal.

Vehtari et al. 2024, *Pareto smoothed importance sampling*; Yao et al. 2018, *Yes, but Did It Work?*.
"""

from __future__ import annotations

import warnings

import numpy as np

from posterior_inpainting.inference.results.arviz_functions import pareto_khat
from posterior_inpainting.inference.results.containers import group

__all__ = ["are_exact", "khat", "spread_of_log_weights"]

#: Nats below the largest weight at which others count for nothing.
_NOTHING = 50.0


def are_exact(attrs) -> bool:
    """Return whether draws are independent and declared exact by their method, of whatever law they are."""
    ours = attrs["draws_are"] == "independent" and not attrs.get("biased", 0)
    return ours and not attrs.get("approximate", 1)


def khat(idata) -> float:
    """Return the Pareto k-hat of the importance weights of a guide's draws.

    Below 0.7 the guide is near enough for its draws to be reweighted; above, it is not the posterior.

    Returns
    -------
    float
        NaN without weights or for fewer than 25, which have no tail to fit; ``-inf`` for weights that are equal up to
        rounding; ``inf`` where a few carry everything.
    """
    weights = _log_weights(idata)
    if weights is None or weights.size < 25:
        return float("nan")
    if np.ptp(weights) < 1e-3 * max(1.0, abs(float(weights.mean()))) ** 0.5:
        return float("-inf")  # all weights are equal up to rounding: the guide is the posterior
    # Where the tail would reach as far as what counts for nothing there is none, and a fit to what underflows would
    # be wrong (towards 0!).
    weights = np.maximum(weights, weights.max() - _NOTHING)
    if np.sum(weights > weights.max() - _NOTHING) <= min(weights.size / 5, 3 * weights.size**0.5):
        return float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(pareto_khat(weights))


def spread_of_log_weights(idata) -> float:
    """Return the standard deviation of the log importance weights, in nats; NaN without weights.

    0 for draws of the posterior itself. A spread s leaves about exp(-s^2) of the draws in effect.
    """
    weights = _log_weights(idata)
    return float("nan") if weights is None else float(weights.std())


def _log_weights(idata) -> np.ndarray | None:
    statistics = group(idata, "sample_stats")
    if "log_weight" not in statistics:
        return None
    return statistics["log_weight"].to_numpy().ravel().astype(float)
