r"""How good a fit is as it goes on: whether it must be stopped early, or may run for as long as it likes.

The deep image prior fits what is seen better and better and what is hidden first better, then worse
(Ulyanov et al. 2018, figure 3); the mean of posterior draws only gains (Cheng et al. 2019, figure 4).
Both need the truth, and only somebody who has it can stop in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from posterior_inpainting.inference.evaluation.scores import psnr
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.models.shapes import Image, check_image

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["early_stopping", "early_stopping_plot"]


def early_stopping(idata, truth: Image) -> pd.DataFrame:
    """Return the PSNR in dB on hidden and on seen pixels, step by step, averaged over chains.

    Parameters
    ----------
    idata
        From ``MAP(snapshots=...)``, whose draws are the way to an optimum, or from a Markov method.
    truth
        The whole image, ``(channel, row, column)``.

    Returns
    -------
    DataFrame
        Indexed by gradient steps (of an optimiser) or draws (of a chain). ``hidden`` and ``seen`` are of the
        single completion there; ``hidden, mean so far`` of the mean of all draws up to there, for Markov draws.

    Raises ValueError if the truth does not have the image's shape, or nothing is hidden.

    >>> import torch
    >>> from posterior_inpainting.inference import MAP, infer
    >>> from posterior_inpainting.models import DeepImagePrior, Observation, observations
    >>> from posterior_inpainting.models.networks import Hourglass
    >>> image = torch.linspace(0, 1, 16).expand(1, 16, 16)
    >>> model = DeepImagePrior(image.shape, Hourglass(image.shape, channels=4, scales=2))
    >>> seen = Observation(image, observations.scatter(image.shape, 0.5))
    >>> path = infer(model, seen, MAP(restarts=1, steps=50, snapshots=5), progress=False)
    >>> early_stopping(path, truth=image).columns.tolist()
    ['hidden', 'seen']
    """
    import pandas as pd

    mask = group(idata, "constant_data")["mask"].to_numpy()
    check_image(truth, mask.shape)
    if mask.all():
        raise ValueError("nothing is hidden, so that there is nothing to score")
    target = truth.cpu().numpy()
    completion = np.clip(group(idata, "posterior")["completion"].to_numpy(), 0, 1)
    columns = {
        name: _curve(completion, target, pixels)
        for name, pixels in (("hidden", ~mask), ("seen", mask))
        if pixels.any()
    }
    draws = np.arange(1, completion.shape[1] + 1)
    if idata.attrs["draws_are"] == "markov":
        mean = completion.cumsum(1) / draws.reshape(1, -1, 1, 1, 1)
        columns["hidden, mean so far"] = _curve(mean, target, ~mask)
        return pd.DataFrame(columns, index=pd.Index(draws, name="draw"))
    stats = group(idata, "sample_stats")
    step = stats["step"].to_numpy()[0] if "step" in stats else draws
    return pd.DataFrame(columns, index=pd.Index(step, name="step"))


def _curve(completion: np.ndarray, target: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """PSNR over some pixels, ``(draw,)``, the mean over chains."""
    return np.array(
        [
            np.mean([psnr(one[pixels], target[pixels]) for one in completion[:, draw]])
            for draw in range(completion.shape[1])
        ]
    )


def early_stopping_plot(idata, truth: Image, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Draw :func:`early_stopping`: the best step is known only to somebody who knows the truth."""
    import matplotlib.pyplot as plt

    curves = early_stopping(idata, truth)
    if ax is None:
        ax = plt.subplots(figsize=(4.4, 3.2), layout="constrained")[1]
        ax.set(xlabel=curves.index.name, ylabel="PSNR of hidden pixels, dB")
    label = label or idata.attrs["method"]
    if "hidden, mean so far" in curves:
        ax.plot(curves.index, curves["hidden, mean so far"], label=f"{label}: mean so far")
        ax.plot(curves.index, curves["hidden"], linewidth=0.6, alpha=0.6, label=f"{label}: single draws")
    else:
        ax.plot(curves.index, curves["hidden"], marker=".", label=label)
        ax.set_xscale("log")
    ax.legend(fontsize=8)
    return ax
