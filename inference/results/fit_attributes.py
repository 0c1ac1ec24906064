"""How well a prior knows what is seen, kept among a result's attributes: numbers and words that survive netCDF."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from posterior_inpainting.models.abilities import Abilities
from posterior_inpainting.models.fit_of_seen import Fit, fits_of_seen, judge_of
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.observations import Observation

__all__ = ["fit_attributes", "fit_of_attributes"]


def fit_attributes(
    model: Abilities, observations: Sequence[Observation | Measurement]
) -> list[dict[str, Any]]:
    """Return what the attributes of each observation's posterior say of its fit, nothing without images held back.

    Observations behind one mask share the work of ranking the prior's images behind it.

    Parameters
    ----------
    model, observations
        As for ``infer_many``.

    Examples
    --------
    >>> from posterior_inpainting.models import LinearGaussian
    >>> model = LinearGaussian(torch.ones(4, 1), torch.zeros(1, 2, 2), 0.1)
    >>> fit_attributes(model, [Observation(torch.zeros(1, 2, 2), torch.ones(1, 2, 2) > 0)])
    [{}]
    """
    found: list[dict[str, Any]] = [{} for _ in observations]
    if judge_of(model) is None:
        return found
    behind: dict[bytes, list[int]] = {}
    # Of a measurement no pixel is seen that could be judged.
    seen = {index: one for index, one in enumerate(observations) if isinstance(one, Observation)}
    for index, one in seen.items():
        behind.setdefault(one.mask.cpu().numpy().tobytes(), []).append(index)
    for indices in behind.values():
        images = torch.stack([seen[index].image for index in indices])
        fits = fits_of_seen(model, images, observations[indices[0]].mask) or []
        for index, fit in zip(indices, fits, strict=True):
            words = json.dumps(fit.statistics)
            found[index] = {"fit_p": fit.p, "fit_statistics": words, "fit_references": fit.references}
    return found


def fit_of_attributes(attrs: Mapping[str, Any]) -> Fit | None:
    """Return the fit that attributes tell of, or ``None``.

    >>> fit_of_attributes({"fit_p": 0.5, "fit_statistics": "{}", "fit_references": 99})
    Fit(p=0.5, statistics={}, references=99)
    >>> fit_of_attributes({}) is None
    True
    """
    if "fit_p" not in attrs:
        return None
    return Fit(float(attrs["fit_p"]), json.loads(attrs["fit_statistics"]), int(attrs["fit_references"]))
