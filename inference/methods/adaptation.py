r"""What vectorised samplers learn while they warm up: step size, scales, trajectory length.

All of it is tensors with one entry a *group*: a group is one posterior, drawn from by many chains, and
several groups (images) can run in one batch, each with an adaptation of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = [
    "METRICS",
    "Ascent",
    "DualAveraging",
    "Metric",
    "Moments",
    "Preconditioner",
    "check_metric",
    "windows",
]

#: How a method learns its scales. ``dense``: a whole covariance across chains, or its diagonal while draws are
#: few or dimensions more than a thousand. ``diagonal``. ``identity``: none, as for weights with a unit prior.
Metric = Literal["dense", "diagonal", "identity"]
METRICS = get_args(Metric)

#: Most dimensions of a whole covariance: beyond, it costs more than what it saves.
MOST_DENSE = 1000


def check_metric(metric: str) -> None:
    """Raise ``ValueError`` for what is no metric.

    >>> check_metric("curved")
    Traceback (most recent call last):
    ValueError: metric='curved'; expected one of dense, diagonal, identity
    """
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r}; expected one of {', '.join(METRICS)}")


def windows(warmup: int) -> tuple[int, ...]:
    """Return the iterations after which scales are learnt anew: longer and longer windows, none at the end.

    >>> windows(200)
    (20, 40, 80, 130)
    """
    return tuple(sorted({max(1, int(share * warmup)) for share in (0.1, 0.2, 0.4, 0.65)}))


@dataclass(frozen=True)
class DualAveraging:
    """Nesterov's dual averaging of the log step size (Hoffman & Gelman 2014, section 3.2).

    Parameters
    ----------
    log_step, log_average
        Of the step in use and of the averaged one, ``(group,)``.
    centre
        Log of ten times the first step, towards which early steps are drawn.
    error
        Running mean of ``target - acceptance``.
    count
        Updates so far.
    """

    log_step: Tensor
    log_average: Tensor
    centre: Tensor
    error: Tensor
    count: int = 0

    @classmethod
    def start(cls, step: Tensor) -> DualAveraging:
        """Begin anew from a first guess of the step ``(group,)``."""
        log_step = step.log()
        return cls(log_step, log_step, log_step + 2.302585, torch.zeros_like(step))

    def update(self, acceptance: Tensor, target: float) -> DualAveraging:
        """Move towards the step at which ``acceptance`` ``(group,)`` is ``target``."""
        count = self.count + 1
        weight = 1 / (count + 10)
        error = (1 - weight) * self.error + weight * (target - acceptance)
        log_step = self.centre - error * count**0.5 / 0.05
        eta = count**-0.75
        return replace(
            self,
            log_step=log_step,
            log_average=eta * log_step + (1 - eta) * self.log_average,
            error=error,
            count=count,
        )


@dataclass(frozen=True)
class Moments:
    """Running mean and scatter over chains and iterations: ``(group, dim)``, ``(group, dim[, dim])``.

    Merged batch by batch (Chan, Golub & LeVeque 1983), so that nothing cancels.
    """

    mean: Tensor
    scatter: Tensor
    count: int = 0

    @classmethod
    def start(cls, position: Tensor, dense: bool = True) -> Moments:
        """Nothing seen yet, for positions ``(group, chain, dim)``; ``dense`` keeps the whole scatter."""
        mean = torch.zeros_like(position[:, 0])
        dim = mean.shape[-1]
        return cls(mean, mean.new_zeros(len(mean), dim, dim) if dense and dim <= MOST_DENSE else mean)

    def update(self, position: Tensor) -> Moments:
        """Take in one position of every chain, ``(group, chain, dim)``."""
        chains = position.shape[1]
        count = self.count + chains
        mean = position.mean(1)
        centred = position - mean.unsqueeze(1)
        shift = mean - self.mean
        if self.scatter.dim() == 3:
            within, outer = centred.mT @ centred, shift.unsqueeze(-1) * shift.unsqueeze(-2)
        else:
            within, outer = centred.square().sum(1), shift.square()
        scatter = self.scatter + within + outer * (self.count * chains / count)
        return Moments(self.mean + shift * (chains / count), scatter, count)

    def scales(self) -> Preconditioner:
        """Return C with C C' the covariance; whole where there are more than twice as many draws as dimensions.

        Shrunk a little with Stan's regularisation: as if five draws of a law of small variance had been seen.
        """
        covariance = self.scatter / max(self.count - 1, 1)
        share = self.count / (self.count + 5.0)
        if covariance.dim() == 2:
            return Preconditioner((share * covariance + 1e-3 * (1 - share)).sqrt())
        dim = covariance.shape[-1]
        covariance = share * covariance + 1e-3 * (1 - share) * torch.eye(dim).to(covariance)
        if self.count > 2 * dim:
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if not failed.any():
                return Preconditioner(factor)
        return Preconditioner(covariance.diagonal(dim1=-2, dim2=-1).sqrt())


@dataclass(frozen=True)
class Preconditioner:
    """A linear map C with C C' near the posterior's covariance: chains move in q = C y, where y is white.

    Parameters
    ----------
    factor
        ``(group, dim)`` for a diagonal C, ``(group, dim, dim)`` lower triangular for a dense one.
    """

    factor: Tensor

    @classmethod
    def identity(cls, position: Tensor) -> Preconditioner:
        """Return C = 1 for positions ``(group, chain, dim)``."""
        return cls(torch.ones_like(position[:, 0]))

    def some(self, groups: Tensor) -> Preconditioner:
        """Return the maps of some groups."""
        return Preconditioner(self.factor[groups])

    def forward(self, white: Tensor) -> Tensor:
        """Return C y for ``(group, chain, dim)``."""
        return white * self.factor.unsqueeze(1) if self.factor.dim() == 2 else white @ self.factor.mT

    def pull_back(self, gradient: Tensor) -> Tensor:
        """Return C' g, the gradient with respect to y."""
        return gradient * self.factor.unsqueeze(1) if self.factor.dim() == 2 else gradient @ self.factor


@dataclass(frozen=True)
class Ascent:
    """Adam on the log of a positive quantity ``(group,)`` (Kingma & Ba 2015), with a running average."""

    log_value: Tensor
    log_average: Tensor
    first: Tensor
    second: Tensor
    count: int = 0

    @classmethod
    def start(cls, value: Tensor) -> Ascent:
        """Begin anew from a value ``(group,)``."""
        log_value = value.log()
        return cls(log_value, log_value, torch.zeros_like(value), torch.zeros_like(value))

    def update(self, gradient: Tensor, rate: float) -> Ascent:
        """Climb along the gradient with respect to the log value, ``(group,)``; NaN counts as 0."""
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        count = self.count + 1
        first = 0.9 * self.first + 0.1 * gradient
        second = 0.99 * self.second + 0.01 * gradient.square()
        step = (first / (1 - 0.9**count)) / ((second / (1 - 0.99**count)).sqrt() + 1e-12)
        log_value = self.log_value + rate * step
        weight = 1 / min(count, 30)
        average = (1 - weight) * self.log_average + weight * log_value
        return replace(
            self, log_value=log_value, log_average=average, first=first, second=second, count=count
        )
