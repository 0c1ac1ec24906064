r"""Laws of a network's weights that are more than mean-field: a number of networks, or a Gaussian of low rank.

What samplers of weights and deep ensembles leave is a number of networks, as probable one as the other
(Lakshminarayanan, Pritzel & Blundell 2017, *Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles*). What stochastic weight averaging leaves is a Gaussian (Maddox et al. 2019, *A Simple Baseline for Bayesian
Uncertainty in Deep Learning*, equation 1),

.. math:: \theta = \bar\theta + \tfrac{1}{\sqrt 2} \Sigma_{\mathrm{diag}}^{1/2} \epsilon_1
          + \tfrac{1}{\sqrt{2 (K - 1)}} D \epsilon_2, \qquad \epsilon_1 \sim N(0, I), \ \epsilon_2 \sim N(0, I_K),

with a column of D for each of K snapshots.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from posterior_inpainting.models.random_weights.given_weights import Weights

__all__ = ["LowRankGaussian", "WeightLaw", "WeightSamples"]


class WeightLaw(ABC):
    """Abstract law of the weights of a network, for ``WeightDraws``.

    Parameters
    ----------
    network
        What the weights are of; what of it is not random has its present values.
    """

    def __init__(self, network: nn.Module):
        self.network = network

    @abstractmethod
    def draw_weights(self, count: int) -> Weights:
        """Return ``count`` networks by torch's global generator: path -> ``(count, *shape)``, without gradients."""


class WeightSamples(WeightLaw):
    """A number of networks, as probable one as the other.

    Parameters
    ----------
    network
        As for :class:`WeightLaw`.
    weights
        Path -> ``(sample, *shape)``.

    Attributes
    ----------
    count
        Number of samples.

    Raises
    ------
    ValueError
        For weights of different numbers of samples, of an unknown path or of a wrong shape.

    Examples
    --------
    >>> law = WeightSamples.of_networks([nn.Linear(3, 2) for _ in range(5)])
    >>> law.count, tuple(law.draw_weights(2)["weight"].shape)
    (5, (2, 2, 3))
    """

    def __init__(self, network: nn.Module, weights: Weights):
        super().__init__(network)
        shapes = {path: parameter.shape for path, parameter in network.named_parameters()}
        counts = {len(value) for value in weights.values()}
        if len(counts) != 1:
            raise ValueError(f"weights have {sorted(counts)} samples; expected one number of them")
        for path, value in weights.items():
            if path not in shapes or value.shape[1:] != shapes[path]:
                raise ValueError(
                    f"{path!r} has shape {tuple(value.shape)}; expected (sample, *shape) of one of {', '.join(shapes)}"
                )
        self.weights = {path: value.detach() for path, value in weights.items()}
        self.count = counts.pop()

    @classmethod
    def of_networks(cls, networks: Sequence[nn.Module]) -> WeightSamples:
        """Return the law of networks that were trained apart: a deep ensemble.

        Encoders that they carry are of each, too: codes mean something else to each of them.

        Raises
        ------
        ValueError
            For no network, or networks whose parameters differ in name or shape.
        """
        if not networks:
            raise ValueError("there is no network; expected at least 1")
        members = [dict(network.named_parameters()) for network in networks]
        layouts = {tuple((path, tuple(p.shape)) for path, p in one.items()) for one in members}
        if len(layouts) > 1:
            raise ValueError(
                "the networks' parameters differ in name or shape; expected copies of one architecture"
            )
        stacked = {path: torch.stack([one[path].detach() for one in members]) for path in members[0]}
        return cls(networks[0], stacked)

    def draw_weights(self, count: int) -> Weights:
        """Return ``count`` of the samples, evenly spread over their order: no sample twice.

        Raises
        ------
        ValueError
            For more than there are.
        """
        if not 1 <= count <= self.count:
            raise ValueError(f"count={count} networks; expected 1 to {self.count}, the number of samples")
        which = torch.linspace(0, self.count - 1, count, device="cpu").round().long()
        return {path: value[which.to(value.device)] for path, value in self.weights.items()}


class LowRankGaussian(WeightLaw):
    """Gaussian whose covariance is half a diagonal and half that of K deviations from its mean.

    Parameters
    ----------
    network
        As for :class:`WeightLaw`.
    mean, variance
        Path -> ``shape``; the variances are the whole of the diagonal, of which half counts.
    deviations
        Path -> ``(K, *shape)`` with K of 2 or more.

    Raises
    ------
    ValueError
        For fewer than 2 deviations, or other paths in one of the three than in the others.

    Examples
    --------
    >>> ones = {"weight": torch.ones(2, 3)}
    >>> law = LowRankGaussian(nn.Linear(3, 2, bias=False), ones, ones, {"weight": torch.zeros(4, 2, 3)})
    >>> round(float(law.covariance("weight")[0, 0]), 3)  # half of the diagonal, and deviations of 0
    0.5
    """

    def __init__(self, network: nn.Module, mean: Weights, variance: Weights, deviations: Weights):
        super().__init__(network)
        if not set(mean) == set(variance) == set(deviations):
            raise ValueError(
                f"paths are {sorted(mean)}, {sorted(variance)} and {sorted(deviations)}; expected the same ones"
            )
        ranks = {len(value) for value in deviations.values()}
        if len(ranks) != 1 or min(ranks) < 2:
            raise ValueError(f"there are {sorted(ranks)} deviations; expected one number of them, at least 2")
        self.mean, self.variance, self.deviations = mean, variance, deviations
        self.rank = ranks.pop()

    def draw_weights(self, count: int) -> Weights:
        """Return ``count`` networks; the noise of the deviations is one for all weights of a network."""
        like = next(iter(self.mean.values()))
        shared = like.new_empty(count, self.rank).normal_() / math.sqrt(2 * (self.rank - 1))
        drawn = {}
        for path, mean in self.mean.items():
            own = mean.new_empty(count, *mean.shape).normal_() * (0.5 * self.variance[path]).sqrt()
            drawn[path] = mean + own + torch.tensordot(shared, self.deviations[path], dims=1)
        return drawn

    def covariance(self, path: str) -> Tensor:
        """Return the covariance ``(size, size)`` of the weights of one path, for small ones."""
        columns = self.deviations[path].flatten(1)
        return 0.5 * (self.variance[path].flatten().diag() + columns.T @ columns / (self.rank - 1))
