"""A verdict on draws, in words: converged, several modes, not mixing, too few draws, and what to try.

Nested R-hat is that of Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari & Gelman 2024, *Nested R-hat:
Assessing the Convergence of Markov Chain Monte Carlo When Running Many Short Chains*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from posterior_inpainting.inference.results.arviz_functions import arviz_statistic
from posterior_inpainting.inference.results.convert import group

__all__ = ["Verdict", "nested_rhat", "verdict"]

#: Thresholds of Vehtari et al. 2021: R-hat and total ESS of draws that can be used.
RHAT, ESS = 1.01, 400.0


@dataclass(frozen=True)
class Verdict:
    """What the draws are worth.

    Parameters
    ----------
    kind
        ``"converged"``, ``"several modes"``, ``"not mixing"``, ``"too few draws"``, ``"biased"``; for other
        draws than a Markov chain's ``"independent"``, ``"particles"`` or ``"restarts"``.
    reason
        The figures that it rests on.
    advice
        What to try.
    """

    kind: str
    reason: str
    advice: str

    def __str__(self) -> str:
        """Return all three in one line."""
        return f"{self.kind}: {self.reason}. {self.advice}"


def nested_rhat(values: np.ndarray, superchains: int) -> np.ndarray:
    r"""Nested R-hat of many chains, those of a superchain having started at one point.

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


def verdict(idata) -> Verdict:
    """Judge draws by R-hat and ESS of the latents and of the completion's hidden pixels.

    Parameters
    ----------
    idata
        What ``infer`` or ``sample`` returned.

    Examples
    --------
    >>> from posterior_inpainting.inference import ChEES, infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> verdict(infer(model, seen, ChEES(), draws=400, chains=16, progress=False)).kind
    'converged'
    """
    if idata.attrs["draws_are"] != "markov":
        return _not_markov(idata)
    if "unadjusted" in idata.attrs.get("method", ""):
        return Verdict(
            "biased", "unadjusted draws carry the bias of their step size", "Use MALA() or ChEES()."
        )
    values = _scalars(idata)
    chains, draws = next(iter(values.values())).shape[:2]
    rhat = _largest(values, "rhat")
    ess = _smallest_ess(values)
    figures = f"R-hat up to {rhat:.3f}, ESS down to {ess:.0f} of {chains * draws} draws"
    if rhat < RHAT and ess >= ESS and chains > 1:
        return Verdict("converged", figures, "Use the draws.")
    if chains == 1 and rhat < 1.1:
        return Verdict(
            "too few draws", figures, "One chain cannot know of modes that it never saw: run several chains."
        )
    # Each chain on its own, its halves against each other: still within chains, apart between them?
    alone = float(np.median(np.max([_alone(v) for v in values.values()], axis=0)))
    figures += f", each chain alone {alone:.2f}"
    if rhat > 1.1 and alone < 1 + 0.5 * (rhat - 1):
        return Verdict(
            "several modes",
            figures,
            "Chains stay where they fell: use ParallelTempering(), TemperedSMC() or ChEES(init='tempered').",
        )
    if rhat < 1.1:
        return Verdict(
            "too few draws", figures, f"Draw {_factor(rhat, ess)} times as many, in longer chains."
        )
    return Verdict("not mixing", figures, "Warm up longer, or reparametrise; then try ParallelTempering().")


def _not_markov(idata) -> Verdict:
    from posterior_inpainting.inference.evaluation.diagnostics import khat

    kind = idata.attrs["draws_are"]
    if kind in ("restarts", "path"):
        return Verdict(kind, "each is an optimum, and none is a draw", "Use ChEES() for a posterior.")
    if kind == "particles":
        error = idata.attrs.get("log_evidence_se", float("nan"))
        if error < 0.1:
            return Verdict(kind, f"replicates agree, log evidence within {error:.3f}", "Use the draws.")
        return Verdict(
            kind, f"log evidence within {error:.2f} nats only", "Use more particles or replicates."
        )
    k = khat(idata)
    if k < 0.7:
        return Verdict(
            kind, f"k-hat {k:.2f}: the guide is near the posterior", "Use the draws, or reweight them."
        )
    if np.isnan(k):
        return Verdict(kind, "k-hat is not known", "Compare with ChEES().")
    if "law" in idata.attrs:  # latents that no Markov chain of ours moves
        return Verdict(kind, f"k-hat {k:.2f}: draws of the {idata.attrs['law']}", "Read them as such.")
    return Verdict(kind, f"k-hat {k:.2f}: the guide is not the posterior", "Use ChEES(), or a richer guide.")


def _scalars(idata) -> dict[str, np.ndarray]:
    """Latents, and the completion at hidden pixels, as ``(chain, draw, k)``."""
    posterior = group(idata, "posterior")
    values = {}
    for name in posterior.data_vars:
        array = posterior[name].to_numpy()
        if name == "completion":
            hidden = ~group(idata, "constant_data")["mask"].to_numpy()
            if not hidden.any():
                continue
            array = array[..., hidden]
        values[str(name)] = array.reshape(*array.shape[:2], -1)
    return values


def _alone(values: np.ndarray) -> np.ndarray:
    """Return the largest split R-hat of each chain ``(chain,)``, from its two halves alone."""
    length = values.shape[1] // 2
    halves = values[:, : 2 * length].reshape(values.shape[0], 2, length, -1)
    inside = halves.var(2, ddof=1).mean(1) if length > 1 else np.ones_like(halves[:, 0, 0])
    between = halves.mean(2).var(1, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((length - 1) / length + np.nan_to_num(between / inside)).max(-1)


def _largest(values: dict[str, np.ndarray], statistic: str) -> float:
    data = xr.Dataset({n: (("chain", "draw", f"{n}_k"), v) for n, v in values.items()})
    found = arviz_statistic(statistic)(data)
    return max(float(found[name].max()) for name in values)


def _smallest_ess(values: dict[str, np.ndarray]) -> float:
    data = xr.Dataset({n: (("chain", "draw", f"{n}_k"), v) for n, v in values.items()})
    return min(float(arviz_statistic("ess")(data, method="bulk")[name].min()) for name in values)


def _factor(rhat: float, ess: float) -> int:
    return int(np.ceil(max(2.0, ESS / max(ess, 1.0), (rhat - 1) / (RHAT - 1))))
