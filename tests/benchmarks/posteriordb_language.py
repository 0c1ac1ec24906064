"""`Language`: what a model of the posteriordb benchmark is written in, so that Pyro and NumPyro run the same one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Language"]


@dataclass(frozen=True)
class Language:
    """What models are written in: Pyro with torch, or NumPyro with JAX, whose names are nearly the same."""

    sample: Callable
    deterministic: Callable
    factor: Callable
    plate: Callable
    dist: Any  # the module of distributions
    xp: Any  # the module of array functions
    logsumexp: Callable
    array: Callable[[np.ndarray], Any]

    @classmethod
    def pyro(cls) -> Language:
        """Return Pyro's, in double precision, as Stan's is."""
        import pyro
        import pyro.distributions
        import torch

        torch.set_default_dtype(torch.float64)
        primitives = (pyro.sample, pyro.deterministic, pyro.factor, pyro.plate)
        return cls(*primitives, pyro.distributions, torch, torch.logsumexp, torch.as_tensor)

    @classmethod
    def numpyro(cls) -> Language:
        """Return NumPyro's, in double precision."""
        import jax
        import numpyro
        import numpyro.distributions

        jax.config.update("jax_enable_x64", True)
        primitives = (numpyro.sample, numpyro.deterministic, numpyro.factor, numpyro.plate)
        logsumexp = jax.scipy.special.logsumexp
        return cls(*primitives, numpyro.distributions, jax.numpy, logsumexp, jax.numpy.asarray)

    def normal(self, name: str, scale: float, size: int, flat: bool = True) -> Any:
        """Sample a vector from a normal law, or under a flat prior around which it lies."""
        law = self.dist.Normal(0.0, scale).expand([size]).to_event(1)
        return self.sample(name, law.mask(False) if flat else law)

    def ordered(self, name: str, size: int) -> Any:
        """Sample an increasing vector under a flat prior."""
        law = self.dist.Normal(0.0, 2.0).expand([size]).to_event(1)
        steps = self.dist.transforms.OrderedTransform()
        return self.sample(name, self.dist.TransformedDistribution(law, [steps]).mask(False))

    def recurrence(self, coefficient: Any, inputs: Any) -> Any:
        r"""Solve :math:`y_t = c\, y_{t-1} + x_t` from :math:`y_0 = 0`, doubling the reach of each step."""
        reach, total = 1, inputs
        while reach < len(inputs):
            earlier = self.xp.concatenate([self.xp.zeros_like(total[:reach]), total[:-reach]], 0)
            total, reach = total + coefficient**reach * earlier, 2 * reach
        return total

    def log_product(self, matrices: Any) -> Any:
        """Multiply matrices ``(n, state, state)`` of logarithms in order, pair by pair."""
        while len(matrices) > 1:
            even = len(matrices) // 2 * 2
            left, right = matrices[0:even:2], matrices[1:even:2]
            pairs = self.logsumexp(left[:, :, :, None] + right[:, None, :, :], -2)
            matrices = self.xp.concatenate([pairs, matrices[even:]], 0)
        return matrices[0]
