r"""Chains that never left a poor start: where they are there is next to nothing of the posterior.

A chain that moves about in a region has seen how high the density is there and how wide the region, which together say
how much of the posterior it holds (Laplace's approximation, as one normal with the chain's own standard deviations),

.. math:: \log m_c \approx \overline{\log p}_c + \tfrac12 \sum_i \log \mathrm{var}_c(x_i) + \mathrm{const.}

Two modes differ by a few nats, be the one narrow and high, the other wide and low. A chain that stays by tens of nats
below the others is in no mode, and says that it is stuck and not that the posterior has several.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["stuck_chains"]

#: Nats by which the logarithm of a region's mass may err: in all, and for each latent whose correlations it leaves out.
_MARGIN, _A_LATENT = 15.0, 0.5


def stuck_chains(latents: Sequence[np.ndarray], log_density: np.ndarray) -> np.ndarray:
    """Return which chains ``(chain,)`` are where there is next to nothing of the posterior.

    Parameters
    ----------
    latents
        Draws ``(chain, draw, quantity)``.
    log_density
        Of the draws, ``(chain, draw)``, up to a constant.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> draws = random.normal(size=(4, 100, 2))
    >>> draws[3] = 9 + 0.01 * random.normal(size=(100, 2))
    >>> stuck_chains([draws], -0.5 * (draws**2).sum(-1)).tolist()
    [False, False, False, True]
    """
    values = np.concatenate([one.reshape(*one.shape[:2], -1) for one in latents], -1).astype(float)
    within = values.var(1)
    # What does not vary in any chain says nothing; a chain that does not move at all has next to no width.
    varies = within.max(0) > 0
    floor = 1e-12 * within.max(0)[varies]
    mass = np.median(log_density, 1) + 0.5 * np.log(np.maximum(within[:, varies], floor)).sum(1)
    return mass < np.nanmax(mass) - _MARGIN - _A_LATENT * varies.sum()
