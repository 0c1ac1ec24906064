"""Fitting a stationary Gaussian process to the seen pixels of one image: among kernels, from several starts.

It is the marginal likelihood that is maximised, times the prior of the channels' mean and covariance where there is
one. What the image says nothing of, as where one channel is all that is seen, is the prior's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.models.fields.block_likelihood import (
    ITERATIONS,
    SHORT,
    BlockLikelihood,
    blocks,
    everything,
)
from posterior_inpainting.models.fields.channel_prior import ChannelPrior
from posterior_inpainting.models.fields.hourglass_kernel import HourglassKernel
from posterior_inpainting.models.fields.stationary_kernels import DeepImagePriorKernel, StationaryKernel
from posterior_inpainting.models.observations import Observation

__all__ = ["DEEP_IMAGE_PRIORS", "Fit", "best_fit"]

#: Candidates among which the marginal likelihood chooses: plain networks of several depths, and an hourglass with the
#: published share of channels that skip its resampling.
DEEP_IMAGE_PRIORS: tuple[StationaryKernel, ...] = (
    *(DeepImagePriorKernel(2.0, depth=depth) for depth in (2, 4, 8, 16)),
    HourglassKernel(2.0, scales=4, skip=4 / 132),
)

#: Seen values up to which the likelihood is that of the whole image, and how many blocks choose the kernel otherwise.
_WHOLE, _FEW = 3000, 3


@dataclass(frozen=True)
class Fit:
    """Hyperparameters at the optimum.

    Parameters
    ----------
    kernel
        With its fitted lengthscale.
    mean, covariance, noise
        m ``(channel,)``, B ``(channel, channel)`` and s, float64.
    log_evidence
        Nats of log marginal likelihood for each seen value.
    unseen
        Channels of which no value is seen: m and B are the prior's there, given the others.
    """

    kernel: StationaryKernel
    mean: Tensor
    covariance: Tensor
    noise: Tensor
    log_evidence: float
    unseen: tuple[int, ...] = ()


def best_fit(
    observation: Observation,
    kernels: Sequence[StationaryKernel],
    *,
    noise_floor: float,
    seed: int,
    colours: ChannelPrior | None = None,
    each: Callable[[], Any] | None = None,
) -> Fit:
    """Fit every kernel, and return the fit with the highest marginal likelihood.

    The channels' mean and covariance start from where a few steps of the first kernel lead farthest: channels that go
    along with each other, channels that do not, or the prior's mean. From there each kernel is fitted to blocks of seen
    values, and then, if the image has few enough, to all of them. If not, a few of the blocks choose the kernel, which
    is then fitted to all.

    Raises
    ------
    ValueError
        If fewer than 3 values are seen, there is no kernel, or the floor is not positive.
    """
    seen = int(observation.mask.sum())
    if seen < 3 or not kernels or not noise_floor > 0:
        raise ValueError(
            f"{seen} values are seen, there are {len(kernels)} kernels and noise_floor={noise_floor}; "
            "expected at least 3, at least 1 and a positive number"
        )
    some = blocks(observation, seed)
    several = [some, everything(observation)] if seen <= _WHOLE else [some[:_FEW], some]
    first, last = (BlockLikelihood(observation, index, noise_floor, colours) for index in several)
    iterations = ITERATIONS if seen <= _WHOLE else SHORT
    places, fits = [], []
    channels = first.best_start(kernels[0])
    for kernel in kernels:
        places.append((kernel, first.maximum(kernel, first.start(kernel, channels), iterations)))
        if each is not None:
            each()
    if seen > _WHOLE:
        places = [max(places, key=lambda place: -float(first(*place)))]
    for kernel, parameters in places:
        fits.append(_fit(last, kernel, last.maximum(kernel, parameters)))
        if each is not None:
            each()
    return max(fits, key=lambda fit: fit.log_evidence)


def _fit(likelihood: BlockLikelihood, kernel: StationaryKernel, parameters: Tensor) -> Fit:
    """Return hyperparameters by name; of channels that are not seen, the prior's moments given the others."""
    order = likelihood.order
    seen, back = order[: len(order) - likelihood.unseen], order.argsort()
    with torch.no_grad():
        lengthscale, mean, covariance, noise = likelihood.natural(kernel, parameters)
        log_evidence = -float(likelihood(kernel, parameters))
        if likelihood.colours is not None and likelihood.unseen:
            phi, known = likelihood.phi(parameters), covariance[seen][:, seen]
            mean, covariance = likelihood.colours.unseen(order.tolist(), phi, known)
            mean, covariance = mean[back], covariance[back][:, back]
    unseen = tuple(sorted(order[len(seen) :].tolist()))
    fitted = replace(kernel, lengthscale=float(lengthscale))
    return Fit(fitted, mean, covariance, noise, log_evidence, unseen)
