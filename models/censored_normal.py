r"""A normal law clipped to an interval, with point masses at both ends: pixels that are exactly black or white.

Tobin 1958, *Estimation of Relationships for Limited Dependent Variables*: a normal y is seen as
:math:`x = \min(\max(y, 0), 1)`, so that with :math:`u = (x - m) / s`

.. math:: p(x) = \begin{cases} \Phi(u) & x = 0 \\ N(x; m, s^2) & 0 < x < 1 \\ \Phi(-u) & x = 1 \end{cases}

against the sum of the length of the interval and a point mass at each end. It is smooth in m and s.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

__all__ = ["CensoredNormal", "log_normal_cdf", "log_normal_cdf_and_slope"]


class CensoredNormal(TorchDistribution):
    """Normal law of single pixels clipped to [0, 1].

    Parameters
    ----------
    loc, scale
        Of the normal law before it is clipped: any numbers, and positive ones.

    Examples
    --------
    >>> law = CensoredNormal(torch.tensor([-1.0, 0.5]), torch.tensor(0.5))
    >>> [round(v, 4) for v in law.log_prob(torch.tensor([0.0, 0.5])).exp().tolist()]
    [0.9772, 0.7979]
    >>> [round(v, 4) for v in law.mean.tolist()]
    [0.0042, 0.5]
    """

    arg_constraints: ClassVar[dict] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.unit_interval
    has_rsample = False

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None):
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> CensoredNormal:
        """Broadcast to a larger batch."""
        return CensoredNormal(
            self.loc.expand(batch_shape), self.scale.expand(batch_shape), validate_args=False
        )

    def sample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw, clipped."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            normal = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            return (self.loc + self.scale * normal).clamp_(0.0, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities inside the interval, log probabilities at its ends; minus infinity outside."""
        if self._validate_args:
            self._validate_sample(value)
        u = (value - self.loc) / self.scale
        at_end = log_normal_cdf(torch.where(value <= 0, u, -u))
        inside = -0.5 * u.square() - self.scale.log() - _HALF_LOG_2_PI
        ends = (value <= 0) | (value >= 1)
        log_prob = torch.where(ends, at_end, inside)
        return torch.where((value < 0) | (value > 1), -math.inf, log_prob)

    @property
    def mean(self) -> Tensor:
        """The mean of clipped values."""
        high, mass, (at_low, at_high) = self._parts()
        return self.loc * mass + self.scale * (at_low - at_high) + _probability(-high)

    @property
    def variance(self) -> Tensor:
        """The variance of clipped values."""
        high, mass, (at_low, at_high) = self._parts()
        square = (self.loc.square() + self.scale.square()) * mass
        square = square + self.scale * (self.loc * at_low - (self.loc + 1) * at_high) + _probability(-high)
        return (square - self.mean.square()).clamp(min=0)

    def _parts(self) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Return the upper end in standard units, the probability between the ends, and the normal density at each."""
        low, high = -self.loc / self.scale, (1 - self.loc) / self.scale
        densities = [_density(end) for end in (low, high)]
        return high, _probability(high) - _probability(low), (densities[0], densities[1])


def log_normal_cdf(u: Tensor) -> Tensor:
    """Return the logarithm of the standard normal distribution function, which ``vmap`` can batch.

    By the error function, and far below 0 by the asymptotic series (Abramowitz & Stegun 26.2.12).

    >>> [round(v, 3) for v in log_normal_cdf(torch.tensor([-30.0, 0.0, 30.0])).tolist()]
    [-454.321, -0.693, 0.0]
    """
    near = _probability(u.clamp(-_NEAR, _SURE)).log()
    return torch.where(u < -_NEAR, _tail(u.clamp(max=-_NEAR)), near)


def log_normal_cdf_and_slope(u: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the standard normal distribution function and its derivative, without a graph.

    >>> value, slope = log_normal_cdf_and_slope(torch.tensor([-30.0, 0.0]))
    >>> [round(v, 3) for v in value.tolist()], [round(v, 3) for v in slope.tolist()]
    ([-454.321, -0.693], [30.033, 0.798])
    """
    near = u.clamp(-_NEAR, _SURE)
    probability = _probability(near)
    value, slope = probability.log(), _density(near).div_(probability)
    if float(u.min()) < -_NEAR:
        far = u.clamp(max=-_NEAR)
        r = far.square().reciprocal()
        tail_slope = -far - 1 / far + 2 * r / far * (1 - r * (5 - r * 37))
        value = torch.where(u < -_NEAR, _tail(far), value)
        slope = torch.where(u < -_NEAR, tail_slope, slope)
    return value, slope


_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)

#: Beyond which the probability is 1 and its logarithm flat, in single precision.
_SURE = 6.0

#: How far below 0 the error function is used.
_NEAR = 9.0


def _probability(u: Tensor) -> Tensor:
    return 0.5 * torch.erfc(u * -(0.5**0.5))


def _density(u: Tensor) -> Tensor:
    return (-0.5 * u.square() - _HALF_LOG_2_PI).exp()


def _tail(u: Tensor) -> Tensor:
    r = u.square().reciprocal()
    return -0.5 / r - (-u).log() - _HALF_LOG_2_PI - r * (1 - r * (2.5 - r * (37 / 3)))
