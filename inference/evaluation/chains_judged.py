"""Judge Markov chains: converged, several modes, not mixing, or too few draws."""

from __future__ import annotations

import numpy as np

from posterior_inpainting.inference.evaluation.judgement import ESS, RHAT, Verdict, scalars, target, trusted
from posterior_inpainting.inference.results.chain_statistics import ess, rhat

__all__ = ["judge_chains"]

#: R-hat above which chains are in different places, and not only short.
_APART = 1.1
#: Draws a chain that R-hat and ESS need.
_LEAST = 4


def judge_chains(idata) -> Verdict:
    """Judge Markov draws by R-hat and bulk ESS of the latents and of the completion's hidden pixels."""
    values = scalars(idata)
    chains, draws = next(iter(values.values())).shape[:2]
    lost = sum(int(np.sum(~np.isfinite(one))) for one in values.values())
    if lost or "diverged" in idata.attrs:
        reason = f"chains left the numbers: {lost} of the values are not finite"
        return Verdict("not mixing", reason, "Take smaller steps, or a method that adapts them.")
    if draws < _LEAST:
        reason = f"{draws} draws a chain; R-hat and ESS need at least {_LEAST}"
        return Verdict("too few draws", reason, "Draw more in each chain.")
    if not any(np.ptp(one, 1).any() for one in values.values()):
        return Verdict("not mixing", "no chain ever moves", "Take smaller steps, or warm up longer.")
    # NaN is of values that do not vary, a black corner say, of which there is nothing to judge.
    worst = float(np.nanmax(np.concatenate([rhat(one) for one in values.values()])))
    effective = min(float(ess(one).min()) for one in values.values())
    figures = f"R-hat up to {worst:.3f}, ESS down to {effective:.0f} of {chains * draws} draws"
    if target(idata.attrs) != "posterior":
        figures = f"as draws of a {target(idata.attrs)}, {figures}"
    if worst < RHAT and effective >= ESS and chains > 1:
        return trusted("converged", figures, idata.attrs)
    if chains == 1 and worst < _APART:
        advice = "One chain cannot know of modes that it never saw: run several chains."
        return Verdict("too few draws", figures, advice)
    # Each chain on its own, its halves against each other: still within chains, apart between them?
    alone = float(np.median(np.max([_alone(v) for v in values.values()], axis=0)))
    figures += f", each chain alone {alone:.2f}"
    if worst > _APART and alone < 1 + 0.5 * (worst - 1):
        advice = (
            "Chains stay where they fell: use ParallelTempering(), TemperedSMC() or ChEES(init='tempered')."
        )
        return Verdict("several modes", figures, advice)
    if worst < _APART:
        advice = f"Draw {_factor(worst, effective)} times as many, in longer chains."
        return Verdict("too few draws", figures, advice)
    return Verdict("not mixing", figures, "Warm up longer, or reparametrise; then try ParallelTempering().")


def _alone(values: np.ndarray) -> np.ndarray:
    """Return the largest split R-hat of each chain ``(chain,)``, from its two halves alone."""
    length = values.shape[1] // 2
    halves = values[:, : 2 * length].reshape(values.shape[0], 2, length, -1)
    inside = halves.var(2, ddof=1).mean(1)
    between = halves.mean(2).var(1, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((length - 1) / length + np.nan_to_num(between / inside)).max(-1)


def _factor(worst: float, effective: float) -> int:
    return int(np.ceil(max(2.0, ESS / max(effective, 1.0), (worst - 1) / (RHAT - 1))))
