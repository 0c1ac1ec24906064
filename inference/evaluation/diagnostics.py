"""Whether draws can be trusted: the figures, and the verdict in words."""

from __future__ import annotations

from posterior_inpainting.inference.evaluation.check_of_fit import check_of_fit
from posterior_inpainting.inference.evaluation.convergence_maps import (
    latent_ess,
    latent_rhat,
    pixel_ess,
    pixel_rhat,
)
from posterior_inpainting.inference.evaluation.fit_of_seen import Fit, fit
from posterior_inpainting.inference.evaluation.importance_weights import (
    are_exact,
    khat,
    spread_of_log_weights,
)
from posterior_inpainting.inference.evaluation.incomplete import ending
from posterior_inpainting.inference.evaluation.nested_rhat import nested_rhat
from posterior_inpainting.inference.evaluation.verdict import Verdict, verdict
from posterior_inpainting.inference.results.containers import group

__all__ = [
    "Fit",
    "Verdict",
    "fit",
    "khat",
    "latent_ess",
    "latent_rhat",
    "nested_rhat",
    "pixel_ess",
    "pixel_rhat",
    "summary",
    "check_of_fit",
    "verdict",
]

_ATTRS = (
    "replicates",
    "effective_replicates",
    "networks",
    "effective_networks",
    "rhat_within_networks",
    "log_evidence",
    "log_evidence_se",
    "gradient_evaluations",
    "wall_time_s",
    "ess_per_second",
)


def summary(idata) -> dict[str, float]:
    """Return the figures that say whether to trust the draws, by name.

    Markov draws: the largest R-hat and the smallest bulk and tail ESS over hidden pixels and latents,
    and the number of divergences. Guide draws: k-hat, or how far their weights are from equal where they are equal up
    to rounding. Particles: replicates or networks, and how many are in effect. An incomplete run: what ended it, as a
    name with the value 1. Of a prior with images held back: the p-value of its fit to what is seen, ``fit p``. Always:
    number of draws, seconds, gradients.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact, infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> list(summary(infer(model, seen, Exact(), draws=50, chains=2, progress=False)))
    ['draws', 'log_evidence', 'gradient_evaluations', 'wall_time_s']
    """
    latents = group(idata, "posterior")
    table: dict[str, float] = {"draws": latents.sizes["chain"] * latents.sizes["draw"]}
    if ending(idata.attrs):
        table[f"incomplete run: {ending(idata.attrs)}"] = 1
    if idata.attrs["draws_are"] == "markov":
        table |= _of_chains(idata)
    elif "log_weight" in group(idata, "sample_stats"):
        table |= _of_weights(idata)
    if (found := fit(idata)) is not None:
        table["fit p"] = found.p
    return table | {name: idata.attrs[name] for name in _ATTRS if name in idata.attrs}


def _of_chains(idata) -> dict[str, float]:
    table: dict[str, float] = {}
    if "completion" in group(idata, "posterior"):  # of an image's posterior, not of any Pyro model's
        bulk = pixel_ess(idata)
        table = {
            "R-hat, pixels (max)": float(pixel_rhat(idata).max()),
            "ESS bulk, pixels (min)": float(bulk.min()),
            "ESS bulk, pixels (median)": float(bulk.median()),
            "ESS tail, pixels (min)": float(pixel_ess(idata, "tail").min()),
        }
    table |= {f"R-hat, {site} (max)": float(values.max()) for site, values in latent_rhat(idata).items()}
    table |= {f"ESS bulk, {site} (min)": float(values.min()) for site, values in latent_ess(idata).items()}
    statistics = group(idata, "sample_stats")
    if "diverging" in statistics:
        table["divergences"] = int(statistics["diverging"].sum())
    return table


def _of_weights(idata) -> dict[str, float]:
    """Return what a guide's weights say of it; of exact draws there is nothing to say, unless another law's."""
    k = khat(idata)
    if are_exact(idata.attrs):
        of_another_law = "law" in idata.attrs and abs(k) < float("inf")
        return {"Pareto k-hat": k} if of_another_law else {}
    if k == -float("inf"):
        return {"log weights, sd": spread_of_log_weights(idata)}
    return {"Pareto k-hat": k}
