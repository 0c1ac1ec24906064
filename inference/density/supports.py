"""Supports of laws: the transform onto each from unconstrained space, and whether two are the same."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import ComposeTransform, IndependentTransform, Transform

__all__ = ["Wrap", "has_own_bounds", "is_identity", "same_support", "transform_of"]


#: Supports of which there is one object for all laws.
_CONSTANT = [value for value in vars(dist.constraints).values() if isinstance(value, Constraint)]


class Wrap(Transform):
    """From all real numbers to the angles of ``[-pi, pi)``; an angle is its own inverse.

    Examples
    --------
    >>> Wrap()(torch.tensor([1.0, 2 * torch.pi + 1.0, torch.pi]))
    tensor([ 1.0000,  1.0000, -3.1416])
    """

    domain = constraints.real
    codomain = constraints.interval(-math.pi, math.pi)

    def _call(self, x: Tensor) -> Tensor:
        return x - 2 * math.pi * torch.floor(x / (2 * math.pi) + 0.5)

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return zeros, shaped as ``x``."""
        return torch.zeros_like(x)


def transform_of(law: Distribution) -> Transform:
    """Return the transform from unconstrained space onto the support of a law.

    Laws of angles say that their support is the real line, over which they repeat; their draws lie in ``[-pi, pi)``.

    Examples
    --------
    >>> transform_of(dist.LogNormal(0.0, 1.0))(torch.tensor(0.0)), transform_of(dist.VonMises(0.0, 1.0))
    (tensor(1.), Wrap())
    """
    base = law
    while isinstance(base, Independent | dist.MaskedDistribution | dist.ExpandedDistribution):
        base = base.base_dist
    if isinstance(base, torch.distributions.VonMises | dist.SineBivariateVonMises | dist.SineSkewed):
        return Wrap()
    return biject_to(law.support)


def is_identity(transform: Transform) -> bool:
    """Whether a transform of ``biject_to`` leaves everything as it is."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, ComposeTransform) and not transform.parts


def has_own_bounds(support: Constraint) -> bool:
    """Whether a support has bounds of its own, which another run of the model may give other values.

    >>> has_own_bounds(constraints.positive), has_own_bounds(dist.Uniform(0.0, 1.0).support)
    (False, True)
    """
    if any(support is constant for constant in _CONSTANT):
        return False
    return any(
        has_own_bounds(part) if isinstance(part, Constraint) else isinstance(part, Tensor | float)
        for value in vars(support).values()
        for part in (value if isinstance(value, list | tuple) else [value])
    )


def same_support(one: Constraint, other: Constraint) -> bool:
    """Whether two supports are the same set."""
    first, second = _parts(one), _parts(other)
    return len(first) == len(second) and all(map(_same, first, second))


def _parts(value: Any) -> list:
    """Type and bounds of a support, those of the supports that it is made of included."""
    if isinstance(value, Constraint):
        return [type(value), *(part for inner in vars(value).values() for part in _parts(inner))]
    if isinstance(value, list | tuple):
        return [part for inner in value for part in _parts(inner)]
    return [value]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
