"""Whether draws can be trusted: R-hat and effective sample size in pixel space and of the latents.

Vehtari et al. 2021, *Rank-normalization, folding, and localization: an improved R-hat*; Vehtari et al.
2024, *Pareto smoothed importance sampling*. Where the draws are not of a Markov chain, R-hat and ESS
would mean nothing and are not reported.
"""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from posterior_inpainting.inference.evaluation.verdict import Verdict, nested_rhat, verdict
from posterior_inpainting.inference.results.arviz_functions import arviz_statistic, pareto_khat
from posterior_inpainting.inference.results.convert import IMAGE_DIMS, group

__all__ = [
    "Verdict",
    "efficiency",
    "khat",
    "latent_ess",
    "latent_rhat",
    "nested_rhat",
    "pixel_ess",
    "pixel_rhat",
    "summary",
    "verdict",
]


def pixel_rhat(idata) -> xr.DataArray:
    """Rank-normalised split R-hat of the completion, a map ``(channel, row, column)``.

    NaN where the pixel is seen, and where the draws are not of a Markov chain of several chains or
    halves. Values above 1.01 say that the chains do not agree.

    >>> import torch
    >>> from posterior_inpainting.inference import NUTS, infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, observations
    >>> model = LinearGaussian(torch.eye(4)[:, :2], torch.zeros(1, 2, 2), noise=0.5)
    >>> seen = Observation(torch.zeros(1, 2, 2), observations.half((1, 2, 2), hide="bottom"))
    >>> idata = infer(model, seen, NUTS(warmup=20), draws=20, chains=2, progress=False)
    >>> pixel_rhat(idata).shape
    (1, 2, 2)
    """
    return _pixel_map(idata, "rhat")


def pixel_ess(idata, kind: str = "bulk") -> xr.DataArray:
    """Effective sample size of the completion, a map ``(channel, row, column)``; NaN as for R-hat.

    Parameters
    ----------
    idata
        What ``infer`` returned.
    kind
        ``"bulk"`` or ``"tail"``.
    """
    return _pixel_map(idata, "ess", **_ess_options(kind))


def latent_rhat(idata) -> xr.Dataset:
    """R-hat of every latent site; empty where the draws are not of a Markov chain."""
    return _latent_map(idata, "rhat")


def latent_ess(idata, kind: str = "bulk") -> xr.Dataset:
    """Effective sample size of every latent site; empty where the draws are not of a Markov chain."""
    return _latent_map(idata, "ess", **_ess_options(kind))


def khat(idata) -> float:
    """Pareto k-hat of the importance weights of a guide's draws, NaN for none or fewer than 25 (no tail to fit).

    Below 0.7 the guide is near enough for its draws to be reweighted; above, it is not the posterior.
    """
    statistics = group(idata, "sample_stats")
    if "log_weight" not in statistics:
        return float("nan")
    weights = statistics["log_weight"].to_numpy().ravel().astype(float)
    if weights.size < 25:
        return float("nan")
    if np.ptp(weights) < 1e-3 * max(1.0, abs(float(weights.mean()))) ** 0.5:
        return float("-inf")  # all weights are equal up to rounding: the guide is the posterior
    # 50 nats below the largest, weights count for nothing; where the tail would reach that far there is
    # none, and a fit to what underflows would be wrong (towards 0!).
    weights = np.maximum(weights, weights.max() - 50)
    if np.sum(weights > weights.max() - 50) <= min(weights.size / 5, 3 * weights.size**0.5):
        return float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(pareto_khat(weights))


def summary(idata) -> dict[str, float]:
    """Return the figures that say whether to trust the draws, by name.

    Markov draws: the largest R-hat and the smallest bulk and tail ESS over hidden pixels and latents,
    and the number of divergences. Guide draws: k-hat. Always: number of draws, seconds, gradients.
    """
    latents = group(idata, "posterior")
    table: dict[str, float] = {"draws": latents.sizes["chain"] * latents.sizes["draw"]}
    if idata.attrs["draws_are"] == "markov":
        table["R-hat, pixels (max)"] = float(pixel_rhat(idata).max())
        bulk = pixel_ess(idata)
        table["ESS bulk, pixels (min)"] = float(bulk.min())
        table["ESS bulk, pixels (median)"] = float(bulk.median())
        table["ESS tail, pixels (min)"] = float(pixel_ess(idata, "tail").min())
        for site, values in latent_rhat(idata).items():
            table[f"R-hat, {site} (max)"] = float(values.max())
        for site, values in latent_ess(idata).items():
            table[f"ESS bulk, {site} (min)"] = float(values.min())
        statistics = group(idata, "sample_stats")
        if "diverging" in statistics:
            table["divergences"] = int(statistics["diverging"].sum())
    elif "log_weight" in group(idata, "sample_stats"):
        table["Pareto k-hat"] = khat(idata)
    for name in ("log_evidence", "log_evidence_se", "gradient_evaluations", "wall_time_s", "ess_per_second"):
        if name in idata.attrs:
            table[name] = idata.attrs[name]
    return table


def efficiency(idata) -> dict[str, float]:
    """Return ESS a second and a thousand gradients, warm-up counted, of the worst value; empty if not Markov.

    The worst over the completion's hidden pixels where there are some, over the latents otherwise.
    """
    if idata.attrs["draws_are"] != "markov":
        return {}
    if "completion" in group(idata, "posterior") and not bool(group(idata, "constant_data")["mask"].all()):
        ess = float(pixel_ess(idata).min())
    else:
        ess = min((float(values.min()) for values in latent_ess(idata).values()), default=float("nan"))
    figures = {"ess_per_second": ess / idata.attrs["wall_time_s"]}
    if idata.attrs.get("gradient_evaluations"):
        figures["ess_per_1000_gradients"] = 1000 * ess / idata.attrs["gradient_evaluations"]
    return figures


def _pixel_map(idata, statistic: str, **options) -> xr.DataArray:
    completion = group(idata, "posterior")["completion"]
    hidden = ~group(idata, "constant_data")["mask"].to_numpy()
    result = np.full(hidden.shape, np.nan)
    if idata.attrs["draws_are"] == "markov" and hidden.any():
        pixels = xr.Dataset({"pixels": (("chain", "draw", "pixel"), completion.to_numpy()[..., hidden])})
        result[hidden] = arviz_statistic(statistic)(pixels, **options)["pixels"].to_numpy()
    return xr.DataArray(result, dims=IMAGE_DIMS, name=statistic)


def _latent_map(idata, statistic: str, **options) -> xr.Dataset:
    latents = group(idata, "posterior").drop_vars("completion", errors="ignore")
    if idata.attrs["draws_are"] != "markov" or not latents.data_vars:
        return xr.Dataset()
    return arviz_statistic(statistic)(latents, **options)


def _ess_options(kind: str) -> dict:
    """Name the tail's quantiles, because the generations of ArviZ take different ones by default."""
    return {"method": "tail", "prob": (0.05, 0.95)} if kind == "tail" else {"method": kind}
