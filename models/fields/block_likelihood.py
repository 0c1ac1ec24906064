r"""The likelihood of a Gaussian process by blocks of seen values, as a function of its hyperparameters.

Rasmussen & Williams 2006, equations 5.8 and 5.9: with :math:`C = B_{cc'} k(d) + s^2 \delta` over seen values,
:math:`\alpha = C^{-1} r` and :math:`G = (C^{-1} - \alpha \alpha^\top) / 2`,

.. math:: -\log p(r) = \tfrac12 (r^\top \alpha + \log\det C + n \log 2\pi), \qquad
          -\mathrm{d} \log p = \mathrm{tr}(G \,\mathrm{d}C) + \alpha^\top \mathrm{d}r.

On a grid C has few different entries, so that G needs to be known only as sums over equal ones.

Mean and covariance of the channels have the coordinates of
:mod:`~posterior_inpainting.models.fields.channel_prior`, best seen channels first, of B less what all pixels have in
common. With a prior over them it is the sum of log likelihood and log prior that is maximised.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from posterior_inpainting.models.fields.channel_prior import ChannelPrior, coordinates, moments
from posterior_inpainting.models.fields.circulant import offsets
from posterior_inpainting.models.fields.stationary_kernels import StationaryKernel
from posterior_inpainting.models.observations import Observation

__all__ = ["BlockLikelihood", "ITERATIONS", "SHORT", "blocks", "everything"]

#: Number and size of blocks.
_BLOCKS, _SIZE = 8, 512
#: Iterations of L-BFGS that find an optimum, and those that tell which start or kernel will have the highest.
ITERATIONS, SHORT = 40, 12


class BlockLikelihood:
    """Negative log marginal likelihood per value, of blocks of seen values, and the prior of channels beside it.

    Parameters
    ----------
    observation
        What is seen.
    index
        Of the blocks' values in the flat image, ``(block, value)``.
    noise_floor
        Smallest noise, in the image's units.
    colours
        Prior of the channels' mean and covariance, if there is one.
    """

    def __init__(
        self,
        observation: Observation,
        index: Tensor,
        noise_floor: float,
        colours: ChannelPrior | None = None,
    ):
        self.channels, rows, columns = observation.shape
        self.values = observation.image.double().flatten()[index]
        self.floor, self.longest = noise_floor, max(8.0, max(rows, columns) / 4)
        pixel = index % (rows * columns)
        self.channel = index // (rows * columns)
        apart = [(line[:, :, None] - line[:, None]).abs_() for line in (pixel // columns, pixel % columns)]
        extents = [int(line.max()) + 1 for line in apart]
        self.lags = offsets(extents[0], extents[1], index.device)
        # Every entry of C is one of channels^2 x offsets different ones: which?
        pair = self.channel[:, :, None] * self.channels + self.channel[:, None]
        self.entry = (pair * extents[0] + apart[0]) * extents[1] + apart[1]
        self.mean, self.scale = _channel_moments(observation)
        count = observation.mask.flatten(1).sum(1)
        self.order = count.argsort(descending=True, stable=True)
        self.unseen = int((count == 0).sum())
        # Coordinates of the channels are shift + unit * parameters: means in units of what is seen.
        self.shift = torch.cat([self.mean[self.order], self.mean.new_zeros(_entries(self.channels))])
        self.unit = torch.ones_like(self.shift)
        self.unit[: self.channels] = self.scale
        self.colours = colours
        if colours is not None:
            self.location, covariance = (part.to(self.values) for part in colours.law(self.order.tolist()))
            self.precision = covariance.inverse()

    def start(self, kernel: StationaryKernel, channels: Tensor) -> Tensor:
        """Return a starting point: the kernel's lengthscale, little noise, and the channels' parameters."""
        share = min(float(kernel.lengthscale) / self.longest, 0.9)
        return torch.cat([channels.new_tensor([math.log(share / (1 - share)), math.log(0.2)]), channels])

    def best_start(self, kernel: StationaryKernel) -> Tensor:
        """Return the channels' parameters where a few iterations lead that come farthest."""
        if self.channels == 1:
            return self._correlated(0.0)
        starts = [self._correlated(0.9), self._correlated(0.0)]
        if self.colours is not None:
            starts.append((self.location - self.shift) / self.unit)
        found = [self.maximum(kernel, self.start(kernel, one), SHORT) for one in starts]
        # Of starts that do as well, as where one channel is all that is seen, the first.
        values = [round(float(self.objective(kernel, one)), 6) for one in found]
        return found[values.index(min(values))][2:]

    def _correlated(self, correlation: float) -> Tensor:
        """Parameters of the seen values' own moments, with one correlation of all channels."""
        like = torch.eye(self.channels, dtype=self.values.dtype, device=self.values.device)
        covariance = self.scale**2 * (correlation + (1 - correlation) * like)
        return (coordinates(self.mean[self.order][None], covariance[None])[0] - self.shift) / self.unit

    def phi(self, parameters: Tensor) -> Tensor:
        """Return the channels' coordinates, as a ``ChannelPrior`` has them, in the order of ``order``."""
        return self.shift + self.unit * parameters[2:]

    def natural(self, kernel: StationaryKernel, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lengthscale, mean, channels' covariance and noise of unconstrained parameters."""
        head = parameters[:2]
        mean, factor = moments(self.phi(parameters), self.channels)
        covariance = factor @ factor.T / (1 - kernel.floor)
        back = self.order.argsort()
        lengthscale = 0.3 + (self.longest - 0.3) * head[0].sigmoid()
        noise = self.floor + self.scale * head[1].exp()
        return lengthscale, mean[back], covariance[back][:, back], noise

    def objective(self, kernel: StationaryKernel, parameters: Tensor) -> Tensor:
        """Return what is minimised: the negative log likelihood and log prior, per seen value."""
        value = self(kernel, parameters)
        if self.colours is None:
            return value
        apart = self.phi(parameters) - self.location
        return value + 0.5 * (apart @ self.precision @ apart) / self.values.numel()

    def __call__(self, kernel: StationaryKernel, parameters: Tensor) -> Tensor:
        """Return the value, whose gradient is that of the traces in the module's docstring."""
        lengthscale, mean, covariance, noise = self.natural(kernel, parameters)
        k = replace(kernel, lengthscale=lengthscale).at(*self.lags).flatten()
        entries = covariance.flatten()[:, None] * k
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

    def maximum(self, kernel: StationaryKernel, start: Tensor, iterations: int = ITERATIONS) -> Tensor:
        """Maximise from a starting point by L-BFGS."""
        parameters = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS(
            [parameters], max_iter=iterations, line_search_fn="strong_wolfe", tolerance_change=1e-5
        )

        def closure() -> Tensor:
            """Evaluate the loss and its gradient."""
            optimiser.zero_grad()
            loss = self.objective(kernel, parameters)
            loss.backward()
            return loss

        with torch.enable_grad():
            optimiser.step(closure)
        return parameters.detach()


def _entries(channels: int) -> int:
    """How many coordinates the channels' covariance has."""
    return channels * (channels + 1) // 2


def everything(observation: Observation) -> Tensor:
    """One block of all seen values, by flat index."""
    return observation.mask.flatten().nonzero().T


def blocks(observation: Observation, seed: int) -> Tensor:
    """Blocks of seen values around some at random, by flat index: those nearest in the larger of row and column."""
    index = observation.mask.flatten().nonzero().flatten()
    if len(index) <= _SIZE:
        return index[None]
    _, rows, columns = observation.shape
    pixel = index % (rows * columns)
    # Drawn on the CPU, so that a seed means the same blocks on any device.
    order = torch.randperm(len(pixel), generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    found = []
    for centre in pixel[order[:_BLOCKS]]:
        row = (pixel // columns - centre // columns).abs()
        column = (pixel % columns - centre % columns).abs()
        nearest = torch.maximum(row, column).argsort(stable=True)[:_SIZE]
        found.append(index[nearest])
    return torch.stack(found)


def _channel_moments(observation: Observation) -> tuple[Tensor, Tensor]:
    """Mean of every channel's seen values (of all, where none is seen), and one common sd."""
    values = observation.image.double().flatten(1)
    seen = observation.mask.flatten(1).double()
    overall = values.sum() / seen.sum()
    count = seen.sum(1)
    mean = torch.where(count > 0, values.sum(1) / count.clamp(min=1), overall)
    variance = (seen * (values - mean[:, None]) ** 2).sum() / seen.sum()
    return mean, variance.sqrt().clamp(min=1e-3)
