r"""Priors of network weights, each the law of a single weight: expanded over a tensor it makes all independent.

The scale mixture is that of Blundell et al. 2015, *Weight Uncertainty in Neural Networks*, equation 7. With
share :math:`\pi` and scales :math:`\sigma_1 > \sigma_2`,

.. math:: p(w) = \pi\, N(w; 0, \sigma_1^2) + (1 - \pi)\, N(w; 0, \sigma_2^2), \qquad
          \log p(\mathbf w) = \sum_j \log p(w_j),

the mixture is *per weight*: each has its own hidden choice. Mixing the densities of a whole tensor is another
prior, under which all weights are wide or all are narrow.
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

__all__ = ["FanIn", "Gaussian", "ScaleMixture", "WeightPrior", "law_of_weights"]


class WeightPrior(dist.TorchDistribution):
    """Abstract law of a single weight that can be had in the type and on the device of any parameter."""

    def on(self, parameter: Tensor) -> dist.TorchDistribution:
        """Return the same law in the parameter's type and on its device."""
        raise NotImplementedError


class Gaussian(dist.Normal, WeightPrior):
    """Zero-mean Gaussian with standard deviation ``scale``; its divergence from a Gaussian has a closed form.

    Examples
    --------
    >>> Gaussian(2.0).expand((3, 4)).log_prob(torch.zeros(3, 4)).shape
    torch.Size([3, 4])
    """

    def __init__(self, scale: float | Tensor = 1.0):
        scale = scale if isinstance(scale, Tensor) else torch.tensor(float(scale), device="cpu")
        super().__init__(torch.zeros_like(scale), scale)

    def on(self, parameter: Tensor) -> Gaussian:
        """Return the same law in the parameter's type and on its device."""
        return Gaussian(self.scale.to(parameter))

    def expand(self, batch_shape, _instance=None):
        """Return the law of a tensor of independent weights."""
        return dist.Normal(self.loc, self.scale, validate_args=False).expand(torch.Size(batch_shape))


class FanIn:
    r"""Zero-mean Gaussian of standard deviation ``gain`` / sqrt(inputs of a unit): outputs keep their size.

    Neal 1996, *Bayesian Learning for Neural Networks*, section 2.1: with this scaling the prior over functions
    has a limit as layers grow wide. Parameters with fewer than two dimensions, biases among them, get ``bias``.

    Examples
    --------
    >>> float(FanIn(gain=1.0)("layer.weight", torch.zeros(3, 100)).scale)
    0.10000000149011612
    """

    def __init__(self, gain: float = math.sqrt(2.0), bias: float = 1.0):
        self.gain, self.bias = gain, bias

    def __call__(self, name: str, parameter: Tensor) -> Gaussian:
        """Return the law of one weight of ``parameter``."""
        inputs = parameter[0].numel() if parameter.dim() > 1 else None
        return Gaussian(parameter.new_tensor(self.bias if inputs is None else self.gain / math.sqrt(inputs)))


class ScaleMixture(WeightPrior):
    r"""Two zero-mean Gaussians, a wide and a narrow one, weight by weight.

    Parameters
    ----------
    share
        Probability :math:`\pi` of the wide component, in (0, 1).
    wide, narrow
        Standard deviations :math:`\sigma_1 > \sigma_2 > 0`. The paper searches :math:`-\log\sigma_1` in
        {0, 1, 2} and :math:`-\log\sigma_2` in {6, 7, 8}; the defaults are its first values.
    batch_shape, like
        Of independent weights; a tensor of the type and on the device of draws. Both are for ``expand`` and ``on``.

    Raises
    ------
    ValueError
        If the share is not in (0, 1), or not ``wide > narrow > 0``.

    Examples
    --------
    >>> prior = ScaleMixture(share=0.5, wide=1.0, narrow=0.0025)
    >>> round(float(prior.log_prob(torch.tensor(10.0))), 4)  # -log 2 and the wide component's -50.9189
    -51.6121
    """

    arg_constraints: dict = {}  # noqa: RUF012 (torch.distributions' own idiom)
    support = constraints.real
    has_rsample = False

    def __init__(
        self,
        share: float = 0.5,
        wide: float = 1.0,
        narrow: float = math.exp(-6),
        batch_shape: torch.Size | tuple = (),
        like: Tensor | None = None,
    ):
        if not 0 < share < 1:
            raise ValueError(f"share={share}; expected a number in (0, 1)")
        if not wide > narrow > 0:
            raise ValueError(f"wide={wide}, narrow={narrow}; expected wide > narrow > 0")
        self.share, self.wide, self.narrow = float(share), float(wide), float(narrow)
        self._like = torch.empty(0, device="cpu") if like is None else like.new_empty(0)
        super().__init__(torch.Size(batch_shape), validate_args=False)

    def expand(self, batch_shape, _instance=None) -> ScaleMixture:
        """Return the law of a tensor of independent weights."""
        return ScaleMixture(self.share, self.wide, self.narrow, batch_shape, self._like)

    def on(self, parameter: Tensor) -> ScaleMixture:
        """Return the same law in the parameter's type and on its device."""
        return ScaleMixture(self.share, self.wide, self.narrow, self.batch_shape, parameter)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of every weight, by log-sum-exp: finite however far out a weight lies."""
        half_square = 0.5 * value.square()
        wide = math.log(self.share / self.wide) - half_square / self.wide**2
        narrow = math.log((1 - self.share) / self.narrow) - half_square / self.narrow**2
        density = torch.logaddexp(wide, narrow) - 0.5 * math.log(2 * math.pi)
        return density.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def sample(self, sample_shape: torch.Size | tuple = ()) -> Tensor:
        """Draw weights, each with its own choice of the component."""
        shape = torch.Size(sample_shape) + self.batch_shape
        draws = self._like.new_empty(shape)
        scale = torch.where(torch.rand_like(draws) < self.share, self.wide, self.narrow)
        return scale * torch.randn_like(draws)

    @property
    def mean(self) -> Tensor:
        """Return 0, for every weight."""
        return self._like.new_zeros(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        """Return the components' variances, averaged."""
        value = self.share * self.wide**2 + (1 - self.share) * self.narrow**2
        return self._like.new_full(self.batch_shape, value)


def law_of_weights(prior: Any, path: str, parameter: Tensor) -> Any:
    """Return the law of all weights of a parameter, each independent, in its type and on its device.

    Parameters
    ----------
    prior
        Law of a single weight, or a function of path and parameter that returns one.

    >>> tuple(law_of_weights(FanIn(), "weight", torch.zeros(3, 4)).batch_shape)
    (3, 4)
    """
    law = prior if isinstance(prior, TorchDistributionMixin) else prior(path, parameter)
    return (law.on(parameter) if isinstance(law, WeightPrior) else law).expand(parameter.shape)
