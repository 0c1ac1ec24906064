"""Judge Markov chains: converged, diverging, stuck, several modes, not mixing, or too few draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from posterior_inpainting.inference.evaluation.judgement import ESS, RHAT, Verdict, scalars, target, trusted
from posterior_inpainting.inference.evaluation.stuck_chains import stuck_chains
from posterior_inpainting.inference.results.chain_statistics import ess, rhat
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.trusted import (
    ERROR_OF_SD,
    LOG_DENSITY,
    error_of_wide_ones,
    log_density,
)

__all__ = ["judge_chains"]

#: R-hat above which chains are in different places, and not only short.
_APART = 1.1
#: Share of iterations that may diverge where chains also jump.
_WITH_JUMPS = 0.001
#: Draws a chain that R-hat and ESS need.
_LEAST = 4


def judge_chains(idata) -> Verdict:
    """Judge Markov draws by R-hat and ESS of latents, hidden pixels and density, by divergences, and by places."""
    values, statistics = scalars(idata), group(idata, "sample_stats")
    judged = dict(values)
    if LOG_DENSITY in statistics:
        judged |= log_density(statistics[LOG_DENSITY].to_numpy())
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
    worst = float(np.nanmax(np.concatenate([rhat(one) for one in judged.values()])))
    effective = min(float(ess(one, kind).min()) for one in judged.values() for kind in ("bulk", "tail"))
    figures = f"R-hat up to {worst:.3f}, ESS down to {effective:.0f} of {chains * draws} draws"
    if target(idata.attrs) != "posterior":
        figures = f"as draws of a {target(idata.attrs)}, {figures}"
    diverging = int(statistics["diverging"].sum()) if "diverging" in statistics else 0
    # Jumps reach a narrow region from outside, in its share: that a few trajectories fail in it is no matter then.
    allowed = _WITH_JUMPS * chains * draws if "jumped" in statistics else 0
    if worst < _APART and diverging > allowed:
        reason = (
            f"{diverging} of {chains * draws} iterations diverged: a narrow region may be missed; {figures}"
        )
        return Verdict("diverging", reason, "Take smaller steps (target_acceptance=0.9), or reparametrise.")
    if worst < RHAT and effective >= ESS and chains > 1:
        errors = np.concatenate([error_of_wide_ones(one) for one in judged.values()])
        spread = 0.0 if np.isnan(errors).all() else float(np.nanmax(errors))
        if spread <= ERROR_OF_SD:
            return trusted("converged", figures, idata.attrs)
        reason = f"standard error {100 * spread:.0f} % of a standard deviation; {figures}"
        return Verdict(
            "too few draws", reason, f"Draw {np.ceil((spread / ERROR_OF_SD) ** 2):.0f} times as many."
        )
    if chains == 1 and worst < _APART:
        advice = "One chain cannot know of modes that it never saw: run several chains."
        return Verdict("too few draws", figures, advice)
    # Each chain on its own, its halves against each other: still within chains, apart between them?
    alone = float(np.median(np.max([_alone(v) for v in values.values()], axis=0)))
    figures += f", each chain alone {alone:.2f}"
    if worst > _APART and alone < 1 + 0.5 * (worst - 1):
        return _apart(idata, values, figures)
    if worst < _APART:
        advice = f"Draw {_factor(worst, effective)} times as many, in longer chains."
        return Verdict("too few draws", figures, advice)
    return Verdict("not mixing", figures, "Warm up longer, or reparametrise; then try ParallelTempering().")


def _apart(idata, values: Mapping[str, np.ndarray], figures: str) -> Verdict:
    """Judge chains that stay where they fell: in modes, or in no mode at all."""
    latents = [one for name, one in values.items() if name != "completion"]
    statistics = group(idata, "sample_stats")
    if latents and "lp" in statistics:
        stuck = stuck_chains(latents, statistics["lp"].to_numpy())
        if stuck.any():
            reason = f"{stuck.sum()} of {len(stuck)} chains never left a poor start, where there is next to nothing"
            advice = "Leave them out, or start elsewhere: init='tempered' or init='guide'."
            return Verdict("stuck", f"{reason}; {figures}", advice)
    return Verdict("several modes", figures, f"Chains stay where they fell: {_instead(idata.attrs)}")


def _instead(attrs: Mapping[str, Any]) -> str:
    """Return what to try against several modes that was not tried yet."""
    method, settings = attrs.get("method", ""), str(attrs.get("settings", ""))
    if "Tempering" in method:
        return "give it more temperatures and longer runs, or use TemperedSMC(), which weighs modes by their evidence."
    if '"tempered"' in settings:
        return "their shares are those of the start: use ParallelTempering(), or TemperedSMC() with many particles."
    if method == "GlobalLocal":
        return "give it more draws and particles, or use TemperedSMC(), which weighs modes by their evidence."
    return "use GlobalLocal(), ParallelTempering() or TemperedSMC()."


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
