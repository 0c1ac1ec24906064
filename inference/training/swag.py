r"""`swag`: a Gaussian of low rank from where gradient descent with large constant steps wanders.

Maddox, Garipov, Izmailov, Vetrov & Wilson 2019, *A Simple Baseline for Bayesian Uncertainty in Deep Learning* (SWAG),
algorithm 1. With snapshots :math:`\theta_1, \ldots, \theta_T` of descent,

.. math:: \bar\theta_t = \frac{1}{t} \sum_{i \le t} \theta_i, \qquad
          \Sigma_{\mathrm{diag}} = \overline{\theta^2}_T - \bar\theta_T^2, \qquad
          D = (\theta_t - \bar\theta_t)_{t = T - K + 1, \ldots, T}.

How far descent wanders is a matter of its step and of the noise of its minibatches, not of the posterior alone: the
Gaussian has the posterior's shape where Mandt, Hoffman & Blei 2017 say so, and no width of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from posterior_inpainting.inference.training.cycles import Cycles
from posterior_inpainting.inference.training.examples import Examples
from posterior_inpainting.inference.training.loss import Loss
from posterior_inpainting.inference.training.sample_weights import WeightWalk
from posterior_inpainting.inference.training.weight_kernels import SGHMC, WeightKernel
from posterior_inpainting.models.random_weights.layers import Prior
from posterior_inpainting.models.random_weights.weight_laws import LowRankGaussian

__all__ = ["swag"]


def swag(
    model: Callable,
    guide: Callable,
    data: Tensor | Examples,
    *,
    network: nn.Module,
    prior: Prior | None = None,
    kernel: WeightKernel | None = None,
    cycles: Cycles | None = None,
    rank: int = 20,
    loss: Loss | ELBO | None = None,
) -> LowRankGaussian:
    """Fit a Gaussian of low rank to the weights that descent passes through.

    Parameters
    ----------
    model, guide, data, network, prior, loss
        As for ``sample_weights``.
    kernel
        How descent steps: by default with momentum 0.9.
    cycles
        A snapshot for each of its samples; by default 20 epochs of constant steps and a snapshot after each. Its
        temperature is not read: descent has no noise but that of its minibatches.
    rank
        Most deviations to keep, the last ones.

    Raises
    ------
    ValueError
        For a rank below 2, or fewer than 2 snapshots; and what ``sample_weights`` raises.

    Examples
    --------
    >>> from posterior_inpainting.models import VariationalAutoencoder, datasets
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> digits = datasets.load("digits", split="train")
    >>> vae = VariationalAutoencoder(MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,)))
    >>> steps = Cycles(cycles=4, epochs=1, exploring=0.0, samples=1, last=1.0, progress=False)
    >>> swag(vae, vae.guide, digits, network=vae.decoder, cycles=steps).rank
    4
    """
    if rank < 2:
        raise ValueError(f"rank={rank}; expected at least 2")
    kernel = SGHMC() if kernel is None else kernel
    constant = Cycles(cycles=20, epochs=1, exploring=0.0, samples=1, last=1.0)
    cycles = replace(constant if cycles is None else cycles, temperature=0.0)
    walk = WeightWalk(model, guide, data, network=network, prior=prior, loss=loss)
    count, means, squares = 0, [], []
    columns: list[list[Tensor]] = []
    for weights in walk.snapshots(kernel, cycles):
        count += 1
        if count == 1:
            means, squares = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
        # Of squared deviations and not of squares, which single precision would not tell apart (Welford 1962).
        before = [w - mean for w, mean in zip(weights, means, strict=True)]
        means = [mean + d / count for mean, d in zip(means, before, strict=True)]
        after = [w - mean for w, mean in zip(weights, means, strict=True)]
        squares = [s + b * a for s, b, a in zip(squares, before, after, strict=True)]
        columns = [*columns, after][-rank:]
    if count < 2:
        raise ValueError(f"there is {count} snapshot; expected at least 2")
    variances = [s / count for s in squares]
    deviations = [torch.stack(one) for one in zip(*columns, strict=True)]
    parts = (dict(zip(walk.paths, part, strict=True)) for part in (means, variances, deviations))
    return LowRankGaussian(network, *parts)
