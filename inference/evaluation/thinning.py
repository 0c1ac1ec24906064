r"""Posterior draws of many data sets, thinned until they are (nearly) independent of each other.

The integrated autocorrelation time of a quantity over chains (Vehtari et al. 2021, section 3.2; Geyer 1992)

.. math:: \tau = -1 + 2 \sum_t \min_{s \le t} (\rho_{2s} + \rho_{2s+1}), \qquad
          \rho_t = 1 - \frac{W - \bar\gamma_t}{\widehat{\mathrm{var}}^+},

is the thinning; W is the variance within chains, var+ that of all draws, gamma the autocovariance. Chains that
disagree have a long one: at worst the last draw of each chain is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Method, Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.loop import run_kernel
from posterior_inpainting.inference.methods.tempering import ParallelTempering
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Independent", "autocorrelation_time", "independent_draws", "runs_together", "unconstrain"]


@dataclass(frozen=True)
class Independent:
    """Unconstrained draws ``(draw, dim)`` of one posterior, and the split R-hat they had (NaN if not Markov)."""

    position: Tensor
    rhat: float


def runs_together(method: Method) -> bool:
    """Whether a method draws from many posteriors in one batch, as ``infer_many`` does.

    >>> from posterior_inpainting.inference import ChEES
    >>> runs_together(ChEES()), runs_together(ChEES(init="tempered")), runs_together(ParallelTempering())
    (True, False, False)
    """
    alone = isinstance(method, ParallelTempering) or getattr(method, "init", "prior") == "tempered"
    return hasattr(method, "step") and not alone


def independent_draws(
    model: ImageModel,
    images: Image,
    mask: Mask,
    method: Method,
    *,
    draws: int,
    chains: int,
    seed: int,
    most: int,
) -> tuple[Potential, list[Independent]]:
    """Draw from the posterior of every image, and thin.

    Parameters
    ----------
    model, method
        As for ``infer``.
    images, mask
        ``(n, channel, row, column)``, and one mask for all.
    draws, chains
        Of each posterior, before thinning.
    seed
        Of the batch.
    most
        Draws kept of each posterior at most. Of particles, which resampling makes alike, an eighth at most,
        replicates in proportion to their evidence.

    Returns
    -------
    Potential, list of Independent
        The density of all images as groups, and the draws of each.

    Raises
    ------
    ValueError
        For a method that returns restarts.
    """
    masks = mask.expand(images.shape)
    potential = Potential(Problem(model, (images, masks)), groups=len(images))
    if runs_together(method):
        run = run_kernel(method, potential, draws=draws, chains=chains, seed=seed, progress=False)  # type: ignore[arg-type]
        if run.attrs.get("interrupted"):  # half of a simulation is no simulation
            raise KeyboardInterrupt
        position = unconstrain(potential, run.latents, batch=3)
        pairs = zip(position, run.stats["lp"], strict=True)
        return potential, [_thinned(one, lp, most) for one, lp in pairs]
    found = []
    seeds = np.random.SeedSequence(seed).generate_state(len(images)).tolist()
    for image, one in zip(images, seeds, strict=True):
        problem = Problem(model, (image, mask), guide=model.guide)
        drawn = method.run(problem, draws=draws, chains=chains, seed=one, progress=False)
        found.append(_of_one(drawn, potential, most))
    return potential, found


def unconstrain(potential: Potential, latents: dict[str, Tensor], batch: int = 0) -> Tensor:
    """Return positions ``(*batch, dim)`` of latents, with ``batch`` leading dimensions: ``constrain`` undone."""
    return potential.unconstrain(latents, batch)


def _of_one(drawn: Draws, potential: Potential, most: int) -> Independent:
    position = unconstrain(potential, drawn.latents, batch=2)
    if drawn.draws_are == "markov":
        return _thinned(position, drawn.stats["lp"], most)
    flat = position.flatten(0, 1)
    if drawn.draws_are == "independent":
        return Independent(flat[:most], math.nan)
    if drawn.draws_are == "particles":
        weight = drawn.stats["log_replicate_evidence"].flatten().softmax(0)
        count = max(1, min(most, len(flat) // 8))
        return Independent(flat[weight.multinomial(count)], math.nan)
    raise ValueError(f"the draws are {drawn.draws_are}; expected draws of a posterior")


def _thinned(position: Tensor, lp: Tensor, most: int) -> Independent:
    """Thin Markov draws ``(chain, draw, dim)`` by their longest autocorrelation time, from the end."""
    # A divergent chain is far from any truth, but finite, so that ranks and pixels can be computed.
    position = position.nan_to_num(1e6, 1e6, -1e6).clamp(-1e6, 1e6)
    squares = (position - position.mean((0, 1))).square()
    tau, _ = autocorrelation_time(torch.cat([position, squares, lp.unsqueeze(-1)], -1))
    half = position.shape[1] // 2
    _, rhat = autocorrelation_time(torch.cat([position[:, :half], position[:, -half:]]) if half else position)
    step = max(1, math.ceil(float(tau.max())))
    kept = position.flip(1)[:, ::step].flatten(0, 1)
    chosen = torch.linspace(0, len(kept) - 1, min(most, len(kept))).long()
    return Independent(kept[chosen], float(rhat.max()))


def autocorrelation_time(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return autocorrelation time and R-hat of quantities, both ``(quantity,)``.

    Parameters
    ----------
    values
        ``(chain, draw, quantity)``. A quantity that does not vary, or is not finite, has time ``draw``.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> steps = torch.randn(32, 4000, 1, generator=generator)
    >>> for t in range(1, 4000):
    ...     steps[:, t] += 0.8 * steps[:, t - 1]
    >>> tau, _ = autocorrelation_time(steps)
    >>> abs(float(tau) - (1 + 0.8) / (1 - 0.8)) < 0.5
    True
    """
    chains, draws, _ = values.shape
    values = values.double()
    centred = values - values.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * draws, dim=1).abs().square()
    covariance = torch.fft.irfft(spectrum, n=2 * draws, dim=1)[:, :draws].mean(0) / draws
    within = covariance[0] * draws / max(1, draws - 1)
    between = values.mean(1).var(0) if chains > 1 else torch.zeros_like(within)
    whole = covariance[0] + between
    rho = 1 - (within - covariance) / whole
    rho[0] = 1
    pairs = rho[: draws // 2 * 2].unflatten(0, (-1, 2)).sum(1) if draws > 1 else rho
    pairs = pairs.cummin(0).values.clamp(min=0)
    tau = (2 * pairs.sum(0) - 1).nan_to_num(draws, draws).clamp(1, draws)
    return tau, (whole / within).sqrt()
