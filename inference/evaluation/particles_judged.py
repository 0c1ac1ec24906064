r"""Judge draws that were resampled from independent replicates, or from the networks of `Nested`.

With R replicates whose evidence estimates have shares :math:`s_r`, of which :math:`R_e = 1 / \sum_r s_r^2` are
effective, the standard error of the log of their mean, and of each mode's share, is about
:math:`\sqrt{(R / R_e - 1) / (R - 1)}`. Where the method reports a larger one, that is the one they are judged by. Of
fewer than four replicates the spread is itself too little known to trust a small one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from posterior_inpainting.inference.evaluation.judgement import RHAT, Verdict, scalars, target, trusted
from posterior_inpainting.inference.results.containers import group

__all__ = ["judge_particles", "rhat_between_replicates"]

#: Standard error of a log evidence in nats, and so relative error of weights, up to which draws can be used.
_ERROR = 0.1
#: Replicates from which on their spread is known well enough that a small one can be believed.
_SEVERAL = 4
#: R-hat between replicates above which they are in different places.
_APART = 1.1


def judge_particles(idata) -> Verdict:
    """Judge by how well replicates agree in evidence and place, or networks' chains among themselves."""
    if "networks" in idata.attrs:
        return _judge_networks(idata)
    attrs, kind = idata.attrs, "particles"
    count = attrs.get("replicates")
    if count == 1:
        return Verdict(
            kind, "one replicate has none to agree with: its error is not known", "Run several: chains=8."
        )
    error = _error(attrs)
    if math.isnan(error):
        return Verdict(kind, "how well replicates agree is not known", "Compare with ChEES().")
    figures = f"log evidence within {error:.2g} nats"
    if count is not None:
        figures += f", {attrs['effective_replicates']:.1f} of {count} replicates in effect"
    if count is not None and attrs["effective_replicates"] < count / 2:
        advice = "The draws are those of a few replicates: use several times as many particles (draws)."
        return Verdict(kind, f"replicates disagree: {figures}", advice)
    if error >= _ERROR:
        return Verdict(kind, f"replicates differ: {figures} only", "Use more particles or replicates.")
    if count is not None and count < _SEVERAL:
        reason = f"too few replicates to know how far they differ: {figures}"
        return Verdict(kind, reason, "Run several: chains=8.")
    apart = rhat_between_replicates(idata)
    if apart > _APART:
        reason = f"replicates are in different places: R-hat between them {apart:.2f}, {figures}"
        advice = (
            "Modes have the shares of a few replicates: use more particles, so that each sees every mode."
        )
        return Verdict(kind, reason, advice)
    if target(attrs) != "posterior":
        figures = f"normalising constant{figures.removeprefix('log evidence')}"
    place = "" if math.isnan(apart) else f", R-hat between them {apart:.3f}"
    return trusted(kind, f"replicates agree: {figures}{place}", attrs)


def rhat_between_replicates(idata) -> float:
    r"""Return the largest R-hat between the replicates that draws come from, over latents and hidden pixels.

    With F the ratio of the variance between replicates to that within, and n draws of each on average, it is
    :math:`\sqrt{1 + \max(0, F - 1) / n}`.

    Returns
    -------
    float
        NaN where draws do not say which replicate they come from, or fewer than two have two draws.
    """
    statistics = group(idata, "sample_stats")
    if "replicate" not in statistics:
        return math.nan
    _, which, counts = np.unique(
        statistics["replicate"].to_numpy().ravel(), return_inverse=True, return_counts=True
    )
    several = (counts > 1)[which]
    groups = int((counts > 1).sum())
    if groups < 2:
        return math.nan
    which, total = which[several], int(several.sum())
    worst = 1.0
    for values in scalars(idata).values():
        flat = values.reshape(-1, values.shape[-1])[several].astype(float)
        centre = flat.mean(0)
        within, between = np.zeros_like(centre), np.zeros_like(centre)
        for one in np.unique(which):
            mine = flat[which == one]
            between = between + len(mine) * (mine.mean(0) - centre) ** 2 / (groups - 1)
            within = within + ((mine - mine.mean(0)) ** 2).sum(0) / (total - groups)
        moves = within + between > 0
        with np.errstate(divide="ignore"):
            ratio = between[moves] / within[moves]
        if ratio.size:
            worst = max(worst, float(np.sqrt(1 + max(0.0, ratio.max() - 1) * groups / total)))
    return worst


def _error(attrs: Mapping[str, Any]) -> float:
    """Return the standard error of the log of the replicates' mean estimate, the larger of its two; NaN if unknown."""
    reported = attrs.get("log_evidence_se", math.nan)
    if "replicates" not in attrs:
        return reported
    excess = max(0.0, attrs["replicates"] / attrs["effective_replicates"] - 1)
    spread = math.sqrt(excess / (attrs["replicates"] - 1))
    return max(spread, reported) if reported == reported else spread


def _judge_networks(idata) -> Verdict:
    """Judge draws of several networks, weighed by evidence, by the chains under each and by the evidences' errors."""
    attrs, kind = idata.attrs, "particles"
    count, effective = attrs["networks"], attrs["effective_networks"]
    error, within = attrs["log_evidence_error_of_a_network"], attrs["rhat_within_networks"]
    figures = (
        f"R-hat within networks up to {within:.3f}, log evidence of a network within {error:.2g} nats, "
        f"{effective:.1f} of {count} networks in effect"
    )
    if group(idata, "posterior").sizes["chain"] == 1:
        return Verdict(
            kind, f"one chain a network has none to agree with: {figures}", "Run several: chains=8."
        )
    if not within < RHAT:
        return Verdict(kind, f"chains within networks disagree: {figures}", "Draw more in each chain.")
    if not error < _ERROR:
        return Verdict(kind, f"networks cannot be weighed: {figures}", "Draw more in each chain.")
    if count > 1 and effective < 2:
        return Verdict(kind, f"one network has nearly all the weight: {figures}", "Use more networks.")
    return trusted(kind, f"chains within networks agree: {figures}", attrs)
