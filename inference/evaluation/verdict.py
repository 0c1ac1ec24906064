"""A verdict on draws, in words: what was checked, what the draws may be used as, and what to try otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from posterior_inpainting.inference.evaluation.chains_judged import judge_chains
from posterior_inpainting.inference.evaluation.fit_of_seen import fit, words_of_fit
from posterior_inpainting.inference.evaluation.importance_weights import (
    are_exact,
    khat,
    spread_of_log_weights,
)
from posterior_inpainting.inference.evaluation.incomplete import ending
from posterior_inpainting.inference.evaluation.judgement import Verdict, target, trusted
from posterior_inpainting.inference.evaluation.particles_judged import judge_particles

__all__ = ["Verdict", "verdict"]

#: Log weights of exact draws spread by rounding alone; by this many nats they would be of something else.
_ROUNDING = 0.1
#: Moves between numbers of steps that are no matter: of means, in standard deviations, and of spreads.
_SHIFT, _SPREAD = 0.1, 0.03
#: Steps of the coarser run below which the error does not fall like their size yet, so that doubling misleads.
_LEAST_STEPS = 20
#: Pareto k-hat up to which draws can be reweighted (Vehtari et al. 2024).
_KHAT = 0.7


def verdict(idata) -> Verdict:
    """Judge draws by what they are: chains, particles, independent draws or optima.

    Markov chains are judged by R-hat and ESS of the latents and of the completion's hidden pixels, particles by the
    agreement of their replicates, a guide's draws by their importance weights. Draws of a pseudo-posterior and of an
    approximation are never recommended as a posterior's. Where the prior does not know what is seen, that is said, too.

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
    judges: dict[str, Callable[..., Verdict]] = {
        "markov": judge_chains,
        "particles": judge_particles,
        "independent": _judge_exact if are_exact(idata.attrs) else _judge_guide,
        "restarts": _judge_optima,
        "path": _judge_optima,
    }
    kind = idata.attrs["draws_are"]
    if kind not in judges:
        raise ValueError(f"the draws are {kind!r}; expected one of {', '.join(judges)}")
    found = judges[kind](idata)
    if idata.attrs.get("biased", 0) and kind in ("markov", "particles", "independent"):
        found = _biased(idata.attrs, found)
    return replace(found, ended=ending(idata.attrs), fit=words_of_fit(fit(idata)))


def _biased(attrs: Mapping[str, Any], found: Verdict) -> Verdict:
    """Say what else there is where a method has an error of its own, beside what would be said without it."""
    denoises = attrs.get("potential") == "denoising"
    reason = found.reason
    if denoises and "step_doubling_shift" in attrs:
        return _doubled(attrs, found)
    of_what, advice = (
        (
            "its reverse steps",
            "Draw again with twice the steps, by step_doubling(): what moves is that error. ParticleGibbs() has none.",
        )
        if denoises
        else ("its step size", f"Use MALA() or ChEES(), whose draws are of the {target(attrs)}.")
    )
    return Verdict(
        "biased",
        f"draws of {attrs.get('method', 'this method')} carry an error of its own, such as that of {of_what}, which no "
        f"number of draws mends and no R-hat shows ({reason})",
        advice,
    )


def _doubled(attrs: Mapping[str, Any], found: Verdict) -> Verdict:
    """Judge draws of which it is known what they moved by when the steps were doubled."""
    shift, spread = attrs["step_doubling_shift"], attrs["step_doubling_spread"]
    moves = f"pixels moved by {shift:.2f} sd and spread {spread:.2f} times"
    reason = f"{found.reason}; from half the steps to these, {moves}"
    apart = False
    if "step_doubling_evidence" in attrs:
        moved, error = attrs["step_doubling_evidence"], attrs["step_doubling_evidence_se"]
        reason += f", log evidence by {moved:+.2f} (se {error:.2f})"
        apart = abs(moved) > max(0.5, 3 * error)
    steps = attrs["step_doubling_steps"]
    if steps < _LEAST_STEPS:
        reason += f", which of {steps} steps says little"
        return Verdict(
            "biased", reason, f"Double from {_LEAST_STEPS} steps or more, where errors fall like their size."
        )
    if shift > _SHIFT or abs(spread - 1) > _SPREAD or apart:
        return Verdict("biased", reason, "Take twice the steps, and see what moves then.")
    return replace(found, reason=reason)


def _judge_optima(idata) -> Verdict:
    return Verdict(
        idata.attrs["draws_are"],
        "each is an optimum, and none is a draw",
        f"Use ChEES() for draws of the {target(idata.attrs)}.",
    )


def _judge_exact(idata) -> Verdict:
    """Judge draws that are exact by construction, which their weights can contradict."""
    attrs = idata.attrs
    kind, spread = attrs["draws_are"], spread_of_log_weights(idata)
    if "law" in attrs:  # not the draws but their weights are the posterior's
        k = khat(idata)
        weights = "importance weights are not known" if np.isnan(k) else f"k-hat {_figure(k)} of its weights"
        advice = (
            "Reweight them for the posterior." if k < _KHAT else "Read them as such, not as the posterior's."
        )
        return Verdict(kind, f"exact draws of the {attrs['law']}; {weights}", advice)
    if spread >= _ROUNDING:
        return Verdict(
            kind,
            f"declared to be exact, but log importance weights spread by {spread:.2g} nats",
            "Do not use the draws before the model's exact law is mended; compare with ChEES().",
        )
    reason = f"exact draws of the model's own {target(attrs)}, by construction"
    if spread > 0:
        reason += f", and log importance weights are equal within {spread:.1g} nats"
    return trusted(kind, reason, attrs)


def _judge_guide(idata) -> Verdict:
    """Judge the draws of a guide by their importance weights."""
    attrs = idata.attrs
    kind, k, aim = attrs["draws_are"], khat(idata), target(attrs)
    if attrs.get("potential") == "denoising" and not attrs.get("approximate", 0):
        reason = "draws of the denoiser's own law of hidden pixels given seen ones"
        return Verdict(
            kind, reason, "Use the draws; calibrate() tests whether that law is the prior's posterior."
        )
    if attrs.get("potential") == "denoising":
        reason = f"draws of {attrs['method']} follow a rule of its own; no weights say how far from the {aim} they are"
        return Verdict("approximate", reason, "Use NoiseMatchedSMC() or NoiseMatchedTempering().")
    if np.isnan(k):
        return Verdict(
            kind, "k-hat is not known without at least 25 importance weights", "Compare with ChEES()."
        )
    if k >= _KHAT:
        reason = f"k-hat {_figure(k)}: the guide is not the {aim}"
        return Verdict(kind, reason, "Use ChEES(), or a richer guide.")
    reason = (
        f"importance weights are equal within {spread_of_log_weights(idata):.1g} nats: the guide is the {aim}"
        if k == -np.inf
        else f"k-hat {k:.2f}: the guide is near the {aim}"
    )
    # Its weights have judged the approximation; for draws of a pseudo-posterior that still is no recommendation.
    found = trusted(kind, reason, {**attrs, "approximate": 0})
    reweight = k > -np.inf and aim == "posterior"
    return replace(found, advice="Use the draws, or reweight them.") if reweight else found


def _figure(k: float) -> str:
    return "beyond any figure (a few weights carry everything)" if k == np.inf else f"{k:.2f}"
