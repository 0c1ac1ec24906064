r"""Fitting a stationary Gaussian process to the seen pixels of one image by its marginal likelihood.

Rasmussen & Williams 2006, equations 5.8 and 5.9: with :math:`C = B_{cc'} k(d) + s^2 \delta` over seen values,
:math:`\alpha = C^{-1} r` and :math:`G = (C^{-1} - \alpha \alpha^\top) / 2`,

.. math:: -\log p(r) = \tfrac12 (r^\top \alpha + \log\det C + n \log 2\pi), \qquad
          -\mathrm{d} \log p = \mathrm{tr}(G \,\mathrm{d}C) + \alpha^\top \mathrm{d}r.

On a grid C has few different entries, so that G needs to be known only as sums over equal ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.models.fields.circulant import offsets_squared
from posterior_inpainting.models.fields.stationary_kernels import DeepImagePriorKernel, StationaryKernel
from posterior_inpainting.models.observations import Observation

__all__ = ["DEEP_IMAGE_PRIORS", "Fit", "best_fit"]

#: Candidates among which the marginal likelihood chooses.
DEEP_IMAGE_PRIORS = tuple(DeepImagePriorKernel(2.0, depth=depth) for depth in (2, 4, 8, 16))

#: Seen values up to which the likelihood is that of the whole image, and number and size of blocks otherwise, of which
#: a few choose the kernel.
_WHOLE, _BLOCKS, _SIZE, _FEW = 3000, 8, 512, 3
#: Iterations of L-BFGS that find an optimum, and those that tell which kernel will have the highest.
_ITERATIONS, _SHORT = 40, 12


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
    """

    kernel: StationaryKernel
    mean: Tensor
    covariance: Tensor
    noise: Tensor
    log_evidence: float


def best_fit(
    observation: Observation,
    kernels: Sequence[StationaryKernel],
    *,
    noise_floor: float,
    seed: int,
    each: Callable[[], Any] | None = None,
) -> Fit:
    """Fit every kernel, and return the fit with the highest marginal likelihood.

    Each is fitted to blocks of seen values, and then, if the image has few enough, from there to all of them. If not, a
    few of the blocks choose the kernel, which is then fitted to all.

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
    blocks = _blocks(observation, seed)
    several = [blocks, _everything(observation)] if seen <= _WHOLE else [blocks[:_FEW], blocks]
    first, last = (_Likelihood(observation, index, noise_floor) for index in several)
    iterations = _ITERATIONS if seen <= _WHOLE else _SHORT
    places, fits = [], []
    for kernel in kernels:
        places.append((kernel, first.maximum(kernel, first.start(kernel), iterations)))
        if each is not None:
            each()
    if seen > _WHOLE:
        places = [max(places, key=lambda place: -float(first(*place)))]
    for kernel, parameters in places:
        fits.append(last.fit(kernel, last.maximum(kernel, parameters)))
        if each is not None:
            each()
    return max(fits, key=lambda fit: fit.log_evidence)


class _Likelihood:
    """Negative log marginal likelihood per value, of blocks of seen values ``(block, value)`` by flat index."""

    def __init__(self, observation: Observation, index: Tensor, noise_floor: float):
        self.channels, rows, columns = observation.shape
        self.values = observation.image.double().flatten()[index]
        self.floor, self.longest = noise_floor, max(8.0, max(rows, columns) / 4)
        pixel = index % (rows * columns)
        self.channel = index // (rows * columns)
        apart = [(line[:, :, None] - line[:, None]).abs_() for line in (pixel // columns, pixel % columns)]
        extents = [int(line.max()) + 1 for line in apart]
        self.squared = offsets_squared(extents[0], extents[1], index.device).flatten()
        # Every entry of C is one of channels^2 x offsets different ones: which?
        pair = self.channel[:, :, None] * self.channels + self.channel[:, None]
        self.entry = (pair * extents[0] + apart[0]) * extents[1] + apart[1]
        self.mean, self.scale = _channel_moments(observation)

    def start(self, kernel: StationaryKernel) -> Tensor:
        """Return a starting point: the seen values' own moments, and channels that go along with each other."""
        like = self.values
        correlation = 0.9 + 0.1 * torch.eye(self.channels, dtype=like.dtype, device=like.device)
        factor = torch.linalg.cholesky(correlation) / math.sqrt(1 - kernel.floor)
        factor = factor.tril(-1) + factor.diagonal().log().diag()
        share = min(float(kernel.lengthscale) / self.longest, 0.9)
        head = like.new_tensor([math.log(share / (1 - share)), math.log(0.2)])
        return torch.cat([head, like.new_zeros(self.channels), factor[self._lower()]])

    def natural(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lengthscale, mean, channels' covariance and noise of unconstrained parameters."""
        head, mean, lower = parameters.split([2, self.channels, len(self._lower()[0])])
        factor = parameters.new_zeros(self.channels, self.channels).index_put(self._lower(), lower)
        factor = (factor.tril(-1) + factor.diagonal().exp().diag()) * self.scale
        lengthscale = 0.3 + (self.longest - 0.3) * head[0].sigmoid()
        noise = self.floor + self.scale * head[1].exp()
        return lengthscale, self.mean + self.scale * mean, factor @ factor.T, noise

    def __call__(self, kernel: StationaryKernel, parameters: Tensor) -> Tensor:
        """Return the value, whose gradient is that of the traces in the module's docstring."""
        lengthscale, mean, covariance, noise = self.natural(parameters)
        entries = covariance.flatten()[:, None] * replace(kernel, lengthscale=lengthscale)(self.squared)
        residual = self.values - mean[self.channel]
        with torch.no_grad():
            matrix = entries.flatten()[self.entry]
            matrix.diagonal(dim1=1, dim2=2).add_(noise**2)
            factor = torch.linalg.cholesky(matrix)
            alpha = torch.cholesky_solve(residual.unsqueeze(-1), factor).squeeze(-1)
            log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum()
            value = 0.5 * ((residual * alpha).sum() + log_det + alpha.numel() * math.log(2 * math.pi))
        if not parameters.requires_grad:
            return value / alpha.numel()
        with torch.no_grad():
            G = torch.cholesky_inverse(factor).sub_(alpha.unsqueeze(-1) * alpha.unsqueeze(-2)).mul_(0.5)
            trace = G.diagonal(dim1=1, dim2=2).sum()
            sums = torch.bincount(self.entry.flatten(), G.flatten(), minlength=entries.numel())
        slope = sums @ entries.flatten() + trace * noise**2 + (alpha * residual).sum()
        return (value + slope - slope.detach()) / alpha.numel()

    def fit(self, kernel: StationaryKernel, parameters: Tensor) -> Fit:
        """Return hyperparameters by name, and their likelihood."""
        with torch.no_grad():
            lengthscale, mean, covariance, noise = self.natural(parameters)
            log_evidence = -float(self(kernel, parameters))
        return Fit(replace(kernel, lengthscale=float(lengthscale)), mean, covariance, noise, log_evidence)

    def maximum(self, kernel: StationaryKernel, start: Tensor, iterations: int = _ITERATIONS) -> Tensor:
        """Maximise from a starting point by L-BFGS."""
        parameters = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS(
            [parameters], max_iter=iterations, line_search_fn="strong_wolfe", tolerance_change=1e-5
        )

        def closure() -> Tensor:
            """Evaluate the loss and its gradient."""
            optimiser.zero_grad()
            loss = self(kernel, parameters)
            loss.backward()
            return loss

        with torch.enable_grad():
            optimiser.step(closure)
        return parameters.detach()

    def _lower(self) -> tuple[Tensor, Tensor]:
        rows, columns = torch.tril_indices(self.channels, self.channels)
        return rows, columns


def _everything(observation: Observation) -> Tensor:
    return observation.mask.flatten().nonzero().T


def _blocks(observation: Observation, seed: int) -> Tensor:
    """Blocks of the seen values around some at random: those nearest in the larger of row and column."""
    index = observation.mask.flatten().nonzero().flatten()
    if len(index) <= _SIZE:
        return index[None]
    _, rows, columns = observation.shape
    pixel = index % (rows * columns)
    # Drawn on the CPU, so that a seed means the same blocks on any device.
    order = torch.randperm(len(pixel), generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    blocks = []
    for centre in pixel[order[:_BLOCKS]]:
        row = (pixel // columns - centre // columns).abs()
        column = (pixel % columns - centre % columns).abs()
        nearest = torch.maximum(row, column).argsort(stable=True)[:_SIZE]
        blocks.append(index[nearest])
    return torch.stack(blocks)


def _channel_moments(observation: Observation) -> tuple[Tensor, Tensor]:
    """Mean of every channel's seen values (of all, where none is seen), and one common sd."""
    values = observation.image.double().flatten(1)
    seen = observation.mask.flatten(1).double()
    overall = values.sum() / seen.sum()
    count = seen.sum(1)
    mean = torch.where(count > 0, values.sum(1) / count.clamp(min=1), overall)
    variance = (seen * (values - mean[:, None]) ** 2).sum() / seen.sum()
    return mean, variance.sqrt().clamp(min=1e-3)
