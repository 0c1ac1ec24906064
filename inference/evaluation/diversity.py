"""How far draws differ from each other over hidden pixels.

Zheng et al. 2019 and its followers report diversity alone; a posterior that is sure where it may be sure has
little of it, and noise has much.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist

from posterior_inpainting.inference.evaluation.scores import flat, ssim
from posterior_inpainting.inference.results.containers import group

__all__ = ["diversity"]


def diversity(idata, pairs: int = 50, seed: int = 0) -> dict[str, float]:
    """Return the mean pairwise distance of completions (without pixel noise) over hidden pixels.

    Parameters
    ----------
    idata
        What ``infer`` returned.
    pairs
        Pairs whose SSIM is taken, at random; the root mean square error is of all pairs of at most 400 draws.
    seed
        Of the choice of pairs.

    Returns
    -------
    dict
        ``diversity (RMSE)``, the mean over pairs of their root mean square difference, and
        ``diversity (1 - SSIM)``; both 0 if all draws are equal.

    Raises
    ------
    ValueError
        If nothing is hidden or there is one draw.

    Examples
    --------
    >>> from posterior_inpainting.inference import Variational, infer
    >>> from posterior_inpainting.models import LatentCode, Observation, datasets, observations, pretrained
    >>> image = datasets.load("digits")[0]
    >>> seen = Observation(image, observations.half(image.shape, hide="bottom"))
    >>> posterior = infer(LatentCode(pretrained.load("digits-vae-2d")), seen, Variational(), progress=False)
    >>> sorted(name for name, value in diversity(posterior).items() if value > 0)
    ['diversity (1 - SSIM)', 'diversity (RMSE)']
    """
    hidden = ~group(idata, "constant_data")["mask"].to_numpy()
    if not hidden.any():
        raise ValueError("no pixel is hidden, so that draws cannot differ")
    completions = np.clip(flat(idata, "posterior", "completion"), 0, 1).astype(float)
    if len(completions) < 2:
        raise ValueError("there is 1 draw; diversity needs at least 2")
    some = completions[
        np.unique(np.linspace(0, len(completions) - 1, min(len(completions), 400)).astype(int))
    ]
    rmse = pdist(some[:, hidden]).mean() / np.sqrt(hidden.sum())
    seen = group(idata, "observed_data")["image"].to_numpy()
    generator = np.random.default_rng(seed)
    similar = []
    for _ in range(pairs):
        one, other = (np.where(hidden, some[i], seen) for i in generator.choice(len(some), 2, replace=False))
        similar.append(ssim(one, other, hidden))
    return {"diversity (RMSE)": float(rmse), "diversity (1 - SSIM)": 1 - float(np.mean(similar))}
