r"""Posterior draws of many data sets, thinned until they are (nearly) independent of each other.

The integrated autocorrelation time of a quantity over chains (Vehtari et al. 2021, section 3.2; Geyer 1992)

.. math:: \tau = -1 + 2 \sum_t \min_{s \le t} (\rho_{2s} + \rho_{2s+1}), \qquad
          \rho_t = 1 - \frac{W - \bar\gamma_t}{\widehat{\mathrm{var}}^+},

is the thinning; W is the variance within chains, var+ that of all draws, gamma the autocovariance. Chains that
disagree have a long one: at worst the last draw of each chain is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.evaluation.incomplete import go_on_only_if_whole
from posterior_inpainting.inference.evaluation.ranked import Ranked, ranked
from posterior_inpainting.inference.results.autocorrelation import autocorrelation_time

__all__ = ["Independent", "independent_draws"]

#: Statistics of which a chain has one: the log density, or that of what was seen where the prior's is not known.
_DENSITIES = ("lp", "log_likelihood_of_seen")


@dataclass(frozen=True)
class Independent:
    """Draws ``(draw, dim)`` of one posterior as points, and the split R-hat they had (NaN if not Markov)."""

    position: Tensor
    rhat: float


def independent_draws(
    problem: Problem, groups: int, method: Method, plan: Plan, most: int
) -> tuple[Ranked, list[Independent]]:
    """Draw from the posterior of every image, and thin.

    Parameters
    ----------
    problem
        A model, with images and masks ``(image, channel, row, column)`` as its arguments.
    groups
        Number of images.
    method, plan
        How to draw from each posterior, and how much before thinning.
    most
        Draws kept of each posterior at most. Of particles, which resampling makes alike, an eighth at most.

    Returns
    -------
    Ranked, list of Independent
        What is ranked of the draws, with all images as groups, and the draws of each.

    Raises
    ------
    ValueError
        For a method that returns restarts, or a run that diverged.
    KeyboardInterrupt, BudgetSpentError
        For a run that was ended early.
    """
    if method.runs_together:
        runs = method.run_together(problem, groups, plan)
    else:
        runs = [method.run(problem.of(image), plan.part("image", image)) for image in range(groups)]
    for run in runs:  # half of a simulation is no simulation
        go_on_only_if_whole(run.attrs)
    space = ranked(problem, groups, runs[0])
    return space, [_of_one(run, space, most) for run in runs]


def _of_one(drawn: Draws, space: Ranked, most: int) -> Independent:
    position = space.points(drawn.latents, 2)
    if drawn.draws_are == "markov":
        density = next(drawn.stats[name] for name in _DENSITIES if name in drawn.stats)
        return _thinned(position, density, most)
    flat = position.flatten(0, 1)
    if drawn.draws_are == "independent":
        return Independent(flat[:most], math.nan)
    if drawn.draws_are == "particles":  # in random order
        return Independent(flat[: max(1, min(most, len(flat) // 8))], math.nan)
    raise ValueError(f"the draws are {drawn.draws_are}; expected draws of a posterior")


def _thinned(position: Tensor, density: Tensor, most: int) -> Independent:
    """Thin Markov draws ``(chain, draw, dim)`` by their longest autocorrelation time, from the end."""
    # A divergent chain is far from any truth, but finite, so that ranks and pixels can be computed.
    position = position.nan_to_num(1e6, 1e6, -1e6).clamp(-1e6, 1e6)
    squares = (position - position.mean((0, 1))).square()
    tau, _ = autocorrelation_time(torch.cat([position, squares, density.unsqueeze(-1)], -1))
    half = position.shape[1] // 2
    _, rhat = autocorrelation_time(torch.cat([position[:, :half], position[:, -half:]]) if half else position)
    step = max(1, math.ceil(float(tau.max())))
    kept = position.flip(1)[:, ::step].flatten(0, 1)
    chosen = torch.linspace(0, len(kept) - 1, min(most, len(kept))).long()
    return Independent(kept[chosen], float(rhat.max()))
