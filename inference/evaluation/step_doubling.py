r"""`step_doubling`: how far draws move when a reverse diffusion is given twice the steps, which is the error it has.

The error of steps falls in proportion to their size (a weak error of first order), so that what moves from n steps to
2 n is about what is still wrong at 2 n: Richardson's rule. Moves are told in the pixels' own standard deviations, with
what the number of draws alone would move taken off,

.. math:: \mathrm{shift}^2 = \frac1P \sum_i \Big[ \frac{(m_i - m_i')^2}{s_i^2} - \frac1{n_i} - \frac1{n_i'} \Big],

n_i being the effective sample size of pixel i.
"""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.results.chain_statistics import ess
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.verbs import infer
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation

__all__ = ["StepDoubling", "step_doubling"]

#: Pixels that vary less than this part of the widest one, black corners say, have no standard deviation to move by.
_FLAT = 0.02


@dataclass(frozen=True)
class StepDoubling:
    """What twice the steps changed.

    Parameters
    ----------
    few, many
        The posteriors with the method's own steps and with twice as many; the latter's verdict knows of the doubling.
    shift
        Root mean square move of the hidden pixels' means, in their standard deviations.
    spread
        Standard deviations with twice the steps over those with the steps, both summed over hidden pixels.
    evidence
        By how many nats the log evidence moved, and its standard error; ``None`` where it is not estimated.
    """

    few: Any
    many: Any
    shift: float
    spread: float
    evidence: tuple[float, float] | None = None


def step_doubling(
    model: ImageModel, observation: Observation, method: Method, *, seed: int = 0, **settings: Any
) -> StepDoubling:
    """Draw with a method's steps and with twice as many, and say what moved.

    Parameters
    ----------
    model, observation, method
        As for ``infer``; the method has a number of reverse ``steps``.
    seed
        Of the first run; the second has the next one.
    **settings
        ``draws``, ``chains`` and the others of ``infer``.

    Raises
    ------
    ValueError
        For a method without steps, or where nothing is hidden.

    Examples
    --------
    >>> from posterior_inpainting.inference import ConditionalDiffusion
    >>> from posterior_inpainting.models import MixtureField, datasets, observations
    >>> model = MixtureField.fit(datasets.load("digits", split="train"), components=2)
    >>> seen = Observation(datasets.load("digits")[0], observations.half(model.image_shape, hide="bottom"))
    >>> found = step_doubling(model, seen, ConditionalDiffusion(steps=40), draws=200, chains=1, progress=False)
    >>> found.shift < 0.3, 0.8 < found.spread < 1.2
    (True, True)
    """
    steps = vars(method).get("steps")
    # An optimiser has steps too, and no density that is known by denoising.
    if not is_dataclass(method) or not isinstance(steps, int) or method.draws_are == "restarts":
        raise ValueError(f"{method.label} has no reverse steps to double")
    finer: Any = replace(method, steps=2 * steps)
    few, many = (
        infer(model, observation, one, seed=seed + index, **settings)
        for index, one in enumerate((method, finer))
    )
    hidden = ~group(few, "constant_data")["mask"].to_numpy()
    if not hidden.any():
        raise ValueError("no pixel is hidden, so that none can move")
    pixels = [group(one, "posterior")["completion"].to_numpy()[..., hidden] for one in (few, many)]
    means, deviations = [one.mean((0, 1)) for one in pixels], [one.std((0, 1)) for one in pixels]
    width = np.sqrt((np.square(deviations[0]) + np.square(deviations[1])) / 2)
    varies = width > _FLAT * max(width.max(), 1e-12)
    if not varies.any():
        raise ValueError(
            "no hidden pixel varies from draw to draw, so that there is no spread to measure a move by"
        )
    alone = sum(1 / np.clip(_effective(one, few)[varies], 2, None) for one in pixels)
    moves = np.square((means[1] - means[0])[varies] / width[varies]) - alone
    shift = float(np.sqrt(max(0.0, float(moves.mean()))))
    # Of the sums: a pixel that hardly varies has a ratio of any size.
    spread = float(deviations[1][varies].sum() / max(deviations[0][varies].sum(), 1e-12))
    many.attrs |= {"step_doubling_steps": steps, "step_doubling_shift": shift, "step_doubling_spread": spread}
    evidence = None
    if "log_evidence" in few.attrs and "log_evidence" in many.attrs:
        errors = [one.attrs.get("log_evidence_se", float("nan")) for one in (few, many)]
        evidence = many.attrs["log_evidence"] - few.attrs["log_evidence"], float(np.hypot(*errors))
        many.attrs |= {"step_doubling_evidence": evidence[0], "step_doubling_evidence_se": evidence[1]}
    return StepDoubling(few, many, shift, spread, evidence)


def _effective(draws: np.ndarray, idata: Any) -> np.ndarray:
    """Return the effective sample size of each pixel, ``(pixel,)``: the number of draws where they are independent."""
    chains, count = draws.shape[:2]
    if idata.attrs["draws_are"] == "independent" or count < 4:
        return np.full(draws.shape[2], float(chains * count))
    return np.nan_to_num(ess(draws), nan=float(chains * count))
