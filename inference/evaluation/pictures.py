"""Pictures of a posterior at the image's own size: mean, standard deviation, and draws, a file each."""

from __future__ import annotations

import numpy as np

from posterior_inpainting.inference.evaluation.plots import picture
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.images_of_posterior import posterior_mean

__all__ = ["pictures"]


def pictures(idata, draws: int = 8) -> dict[str, np.ndarray]:
    """Return bytes ``(row, column[, 3])`` by file name: ``mean.png``, ``sd.png``, ``draw-01.png`` and so on.

    Draws are without the pixel noise that the standard deviation includes; seen pixels are as they were seen. White in
    ``sd.png`` is the largest standard deviation, a mean over channels.

    Parameters
    ----------
    idata
        What ``infer`` returned.
    draws
        How many at most, spread evenly over chains and iterations.

    Raises
    ------
    ValueError
        If ``draws`` is below 1.
    """
    if draws < 1:
        raise ValueError(f"draws={draws}; expected at least 1")
    mask = group(idata, "constant_data")["mask"].to_numpy()
    seen = group(idata, "observed_data")["image"].to_numpy()
    completion = group(idata, "posterior")["completion"].to_numpy()
    predictive = group(idata, "posterior_predictive")["image"].to_numpy()
    completion, predictive = (each.reshape(-1, *mask.shape) for each in (completion, predictive))
    deviation = np.where(mask, 0.0, predictive.std(0)).mean(0, keepdims=True)
    chosen = np.linspace(0, len(completion) - 1, min(draws, len(completion))).astype(int)
    found = {
        "mean.png": np.where(mask, seen, posterior_mean(idata)),
        "sd.png": deviation / max(float(deviation.max()), 1e-6),
        **{
            f"draw-{number:02d}.png": np.where(mask, seen, completion[index])
            for number, index in enumerate(chosen, start=1)
        },
    }
    return {name: (255 * picture(values)).round().astype(np.uint8) for name, values in found.items()}
