"""What a verdict is made of: its words, what draws may be used as, and the values that are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from posterior_inpainting.inference.evaluation.incomplete import ending
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.trusted import ESS, RHAT

__all__ = ["ESS", "RHAT", "Verdict", "scalars", "target", "trusted"]


@dataclass(frozen=True)
class Verdict:
    """What the draws are worth.

    Parameters
    ----------
    kind
        ``"converged"``, ``"diverging"``, ``"stuck"``, ``"several modes"``, ``"not mixing"``, ``"too few draws"``,
        ``"biased"``; for other draws than a Markov chain's ``"independent"``, ``"particles"``, ``"restarts"`` or
        ``"path"``.
    reason
        The check that it rests on, with its figures.
    advice
        What the draws may be used as, or what to try.
    ended
        What ended the run early, ``""`` for a whole run.
    may_be_used
        Whether the draws are recommended as the posterior's, without reserve.
    fit
        What is to be said where the prior does not know what is seen, ``""`` otherwise: draws of its posterior may be
        trusted as such, and yet be poor completions.
    """

    kind: str
    reason: str
    advice: str
    ended: str = ""
    may_be_used: bool = False
    fit: str = ""

    def __str__(self) -> str:
        """Return all of it in one line, which begins with ``trusted`` where the draws may be used."""
        incomplete = f" (incomplete run: {self.ended})" if self.ended else ""
        word = "trusted: " if self.may_be_used else ""
        fit = f" {self.fit}" if self.fit else ""
        return f"{word}{self.kind}{incomplete}: {self.reason}. {self.advice}{fit}"


def target(attrs: Mapping[str, Any]) -> str:
    """Return what the method aimed at: the posterior, or the pseudo-posterior of a model without a joint density.

    >>> target({"density": "posterior"}), target({"density": "pseudo-posterior"})
    ('posterior', 'pseudo-posterior')
    """
    return attrs.get("density", "posterior")


def trusted(kind: str, reason: str, attrs: Mapping[str, Any]) -> Verdict:
    """Return the verdict on draws that passed their check, with what they may be used as.

    Draws are recommended here and nowhere else: as a posterior's only if they are of a posterior, and by a method that
    declares no approximation and no bias.

    Parameters
    ----------
    kind, reason
        As of :class:`Verdict`.
    attrs
        Of the result of ``infer``.

    Examples
    --------
    >>> print(trusted("converged", "R-hat 1.002", {"density": "pseudo-posterior"}).advice.split(". ")[0])
    Read them as draws of the pseudo-posterior, not of a posterior
    """
    reserved = True
    if target(attrs) != "posterior":
        advice = (
            f"Read them as draws of the {target(attrs)}, not of a posterior. Only scores can tell what they are "
            "worth."
        )
    elif attrs.get("approximate", 0) or attrs.get("biased", 0):
        advice = (
            f"Read them as draws of what {attrs.get('method', 'the method')} puts in the posterior's place: how far "
            "that is from it only calibrate() or another method can tell."
        )
    elif ending(attrs):
        advice = "Use the draws that there are, fewer than were asked for: the run is incomplete."
    else:
        advice, reserved = "Use the draws.", False
    return Verdict(kind, reason, advice, may_be_used=not reserved)


def scalars(idata) -> dict[str, np.ndarray]:
    """Return latents, and the completion at hidden pixels, as ``(chain, draw, k)`` by name."""
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
