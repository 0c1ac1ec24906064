"""Scores of a posterior against the truth, over hidden pixels only.

A proper score (CRPS, energy score) rewards the right spread as much as the right middle; PSNR and SSIM
of the mean say nothing of spread and never stand without coverage. Gneiting & Raftery 2007, *Strictly
Proper Scoring Rules*; the unbiased forms divide by n(n - 1) (Ferro 2014). Draws are clipped to [0, 1].
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist

from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.images_of_posterior import posterior_mean
from posterior_inpainting.models.shapes import Image, check_image

__all__ = [
    "LEVELS",
    "coverage",
    "crps",
    "energy_score",
    "flat",
    "hidden_draws",
    "in_the_middle",
    "pit",
    "psnr",
    "score",
    "ssim",
]

LEVELS = (0.5, 0.8, 0.9, 0.95)


def score(idata, truth: Image, seed: int = 0, restarts_as_draws: bool = False) -> dict[str, float]:
    """Return every score of a posterior against the true image, by name.

    Parameters
    ----------
    idata
        What ``infer`` returned.
    truth
        The whole image, ``(channel, row, column)`` in [0, 1].
    seed
        Seed of the randomisation of the PIT at ties.
    restarts_as_draws
        Score the restarts of an optimiser as if they were draws, to measure how wrong it is to take them for some.

    Returns
    -------
    dict
        PSNR and SSIM of the mean; for draws also CRPS, energy score, coverage of central intervals
        (of all hidden pixels, and ``positive`` of those whose truth is above 0, because a black
        background is easy to cover), PIT mean and sd (0.5 and 0.289 if calibrated). Restarts of an optimiser
        are not draws: for them the best against the truth is reported, which is an *oracle*.

    Raises
    ------
    ValueError
        If nothing is hidden, there are fewer than 2 draws, or the truth is not such an image.

    Examples
    --------
    >>> from posterior_inpainting.inference import Variational, infer
    >>> from posterior_inpainting.models import LatentCode, Observation, datasets, observations, pretrained
    >>> image = datasets.load("digits")[0]
    >>> seen = Observation(image, observations.half(image.shape, hide="bottom"))
    >>> posterior = infer(LatentCode(pretrained.load("digits-vae-2d")), seen, Variational(), progress=False)
    >>> figures = score(posterior, truth=image)
    >>> 0 < figures["CRPS"] < 0.5
    True
    """
    if idata.attrs["draws_are"] == "path":
        raise ValueError("the draws are the path of an optimiser; early_stopping() scores it step by step")
    draws, hidden, target = hidden_draws(idata, truth)
    completions, mean = (
        np.clip(flat(idata, "posterior", "completion"), 0, 1),
        posterior_mean(idata, clipped=True),
    )
    figures = {
        "PSNR of the mean (dB)": psnr(mean[hidden], target),
        "SSIM of the mean": ssim(mean, truth, hidden),
    }
    if idata.attrs["draws_are"] == "restarts":
        figures["PSNR of the best restart (oracle, dB)"] = max(
            psnr(one[hidden], target) for one in completions
        )
        if not restarts_as_draws:
            return figures
    if len(draws) < 2:
        raise ValueError("there is 1 draw; scores of a distribution need at least 2")
    figures["CRPS"] = float(crps(draws, target).mean())
    figures["energy score"] = energy_score(draws, target)
    ranks, positive = pit(draws, target, seed), target > 0
    for level in LEVELS:
        inside = in_the_middle(ranks, level)
        figures[f"coverage {level:.0%}"] = float(inside.mean())
        figures[f"coverage {level:.0%}, positive"] = (
            float(inside[positive].mean()) if positive.any() else np.nan
        )
    figures["PIT mean"], figures["PIT sd"] = float(ranks.mean()), float(ranks.std())
    return figures


def psnr(estimate: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB for values in [0, 1]; infinite where they are equal.

    >>> round(psnr(np.zeros(4), np.full(4, 0.1)), 3)
    20.0
    """
    error = float(np.mean((estimate - target) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(estimate: np.ndarray, truth: Image | np.ndarray, hidden: np.ndarray) -> float:
    """Mean over hidden pixels of the structural similarity map (Wang et al. 2004).

    Parameters
    ----------
    estimate, truth, hidden
        All ``(channel, row, column)``. NaN for images below 3 pixels a side.
    """
    from skimage.metrics import structural_similarity

    whole = np.asarray(truth, dtype=float)
    side = min(7, *whole.shape[1:])
    side -= 1 - side % 2
    if side < 3:
        return float("nan")
    _, similarity = structural_similarity(
        whole, estimate.astype(float), data_range=1.0, channel_axis=0, full=True, win_size=side
    )
    return float(similarity[hidden].mean())


def crps(draws: np.ndarray, target: np.ndarray) -> np.ndarray:
    r"""Continuous ranked probability score of each pixel, in its fair form, in the image's units.

    .. math:: \frac1n \sum_i |x_i - y| - \frac1{2 n (n-1)} \sum_{i, j} |x_i - x_j|

    Parameters
    ----------
    draws
        ``(n, pixel)``, n at least 2.
    target
        ``(pixel,)``.

    >>> float(crps(np.array([[0.0], [1.0]]), np.array([0.5]))[0])
    0.0
    """
    n = len(draws)
    ordered = np.sort(draws, axis=0)
    ranks = 2 * np.arange(1, n + 1) - n - 1
    # sum over pairs |x_i - x_j| = sum_i (2 i - n - 1) x_(i) over unordered pairs
    spread = np.tensordot(ranks, ordered, axes=1) / (n * (n - 1))
    return np.abs(draws - target).mean(0) - spread


def energy_score(draws: np.ndarray, target: np.ndarray) -> float:
    """Return the fair energy score of all pixels at once, divided by the square root of their number.

    The many-dimensional CRPS: unlike the pixels' mean CRPS it sees whether they vary together.

    >>> round(energy_score(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([0.5, 0.5])), 6)
    0.0
    """
    distance = np.linalg.norm(draws - target, axis=1).mean()
    # Pairs of at most 1,000 draws spread evenly: as unbiased, and 8,000 draws have 32 million pairs.
    some = draws[np.unique(np.linspace(0, len(draws) - 1, min(len(draws), 1000)).astype(int))]
    return float((distance - pdist(some).mean() / 2) / np.sqrt(target.size))


def coverage(draws: np.ndarray, target: np.ndarray, level: float, seed: int = 0) -> np.ndarray:
    """Whether each pixel's truth lies in the central interval of ``level``, boolean ``(pixel,)``.

    It does where its :func:`pit` is in the middle, so that a calibrated law covers ``level`` with any number of draws,
    and a pixel that is exactly black in truth and in draws counts for as much as it should, not as always covered.
    """
    return in_the_middle(pit(draws, target, seed), level)


def in_the_middle(ranks: np.ndarray, level: float) -> np.ndarray:
    """Whether ranks from 0 to 1 lie in the middle ``level`` of them.

    >>> in_the_middle(np.array([0.01, 0.5]), 0.95).tolist()
    [False, True]
    """
    return np.abs(ranks - 0.5) <= level / 2


def pit(draws: np.ndarray, target: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probability integral transform of each pixel, randomised at ties: uniform if calibrated.

    Pixels that are exactly 0 in truth and in many draws would otherwise pile up at one value.
    """
    below, ties = (draws < target).sum(0), (draws == target).sum(0)
    return (below + np.random.default_rng(seed).random(target.shape) * (ties + 1)) / (len(draws) + 1)


def hidden_draws(idata, truth: Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return clipped draws ``(n, pixel)``, the hidden map, and the truth ``(pixel,)``, of hidden pixels."""
    hidden = ~group(idata, "constant_data")["mask"].to_numpy()
    check_image(truth, hidden.shape)
    if not hidden.any():
        raise ValueError("no pixel is hidden, so that there is nothing to score")
    target = truth.cpu().numpy()[hidden].astype(float)
    if not np.isfinite(target).all() or target.min() < 0 or target.max() > 1:
        raise ValueError(
            f"the truth has hidden values from {target.min():.3g} to {target.max():.3g}; expected [0, 1]"
        )
    # A restart is the completion that an optimiser proposes, without noise around it.
    alone = idata.attrs["draws_are"] == "restarts"
    whole = flat(idata, *(("posterior", "completion") if alone else ("posterior_predictive", "image")))
    draws = np.clip(whole[:, hidden], 0, 1).astype(float)
    return draws, hidden, target


def flat(idata, name: str, variable: str) -> np.ndarray:
    """Return a variable's draws with chains one after another, ``(chain * draw, ...)``."""
    values = group(idata, name)[variable].to_numpy()
    return values.reshape(-1, *values.shape[2:])
