"""Laws of single pixels around a decoder's output, and Yeh's weighted law.

A *likelihood* is any function ``(mean, scale) -> distribution`` over single pixels; ``scale`` is the
decoder's noise and is ignored where a law has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn import functional as F

from posterior_inpainting.models.censored_normal import CensoredNormal
from posterior_inpainting.models.networks.decoder import as_decoder
from posterior_inpainting.models.shapes import Image, InputError, Mask

__all__ = [
    "Likelihood",
    "Weighted",
    "bernoulli",
    "censored_normal",
    "context_weights",
    "continuous_bernoulli",
    "laplace",
    "likelihood_of",
    "normal",
]

#: From a decoder's mean and scale to the law of single pixels.
Likelihood = Callable[[Tensor, Tensor], TorchDistribution]


def normal(mean: Image, scale: Image) -> TorchDistribution:
    """Gaussian pixels: the squared error of Yeh et al. 2017, with its scale."""
    return dist.Normal(mean, scale)


def censored_normal(mean: Image, scale: Image) -> TorchDistribution:
    """Gaussian pixels clipped to [0, 1] (Tobin 1958): exactly black or white ones have a probability of their own.

    The decoder's output is the mean before clipping, and lies beyond 0 and 1 where a pixel surely is black or white.
    """
    return CensoredNormal(mean, scale)


def laplace(mean: Image, scale: Image) -> TorchDistribution:
    """Laplace pixels with standard deviation ``scale``: the absolute error of Yeh et al. 2017."""
    return dist.Laplace(mean, scale / 2**0.5)


def bernoulli(mean: Image, scale: Image | None = None) -> TorchDistribution:
    """Binary pixels: the decoder's output is the probability of 1."""
    return dist.Bernoulli(probs=mean)


def continuous_bernoulli(mean: Image, scale: Image | None = None) -> TorchDistribution:
    """Grey pixels in [0, 1] (Loaiza-Ganem & Cunningham 2019); the output is the law's parameter.

    Unlike a Bernoulli applied to grey values this is normalised. Its mean, the ``completion``, is not
    its parameter.
    """
    return dist.ContinuousBernoulli(probs=mean)


def likelihood_of(decoder: Any) -> Likelihood:
    """Return the likelihood that a decoder was trained with: what its ``likelihood`` names, or the normal one.

    Raises
    ------
    ValueError
        For a name that is none of theirs.

    >>> from posterior_inpainting.models.networks import MultilayerDecoder
    >>> likelihood_of(MultilayerDecoder(2, (1, 8, 8))) is normal
    True
    """
    ours = {law.__name__: law for law in (normal, censored_normal, laplace, bernoulli, continuous_bernoulli)}
    name = as_decoder(decoder).likelihood
    if name not in ours:
        raise ValueError(
            f"{type(decoder).__name__} has likelihood={name!r}; expected one of {', '.join(ours)}"
        )
    return ours[name]


def context_weights(mask: Mask, window: int) -> Tensor:
    """Weight seen pixels by how much of their neighbourhood is hidden (Yeh et al. 2017, equation 3).

    ``W = M * conv(1 - M, ones(window, window) / window**2)``: 0 for hidden pixels and for seen ones
    with no hidden pixel around them.

    Parameters
    ----------
    mask
        ``(*batch, channel, row, column)``, ``True`` = seen.
    window
        Odd side of the neighbourhood in pixels; outside the image nothing is hidden.

    Returns
    -------
    Tensor
        Weights in [0, 1), shaped as the mask.

    Examples
    --------
    >>> mask = torch.tensor([[[True, True, True, False]]])
    >>> [round(w, 3) for w in context_weights(mask, window=3).flatten().tolist()]
    [0.0, 0.0, 0.111, 0.0]
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"context window={window}; expected an odd number of pixels")
    planes = mask.reshape(-1, 1, *mask.shape[-2:])
    hidden_share = F.avg_pool2d(
        (~planes).float(), window, stride=1, padding=window // 2, count_include_pad=True
    )
    return torch.where(mask, hidden_share.reshape(mask.shape), 0.0)


class Weighted(TorchDistribution):
    """A law whose log density is multiplied, pixel by pixel, by a weight; draws are the law's own.

    The product is not normalised, so a model that scores with it has a pseudo-posterior.

    >>> law = Weighted(dist.Normal(0.0, 1.0).expand((2,)), torch.tensor([0.5, 2.0]))
    >>> [round(v, 4) for v in law.log_prob(torch.zeros(2)).tolist()]
    [-0.4595, -1.8379]
    """

    arg_constraints: ClassVar[dict] = {}

    def __init__(self, law: TorchDistribution, weights: Tensor):
        self.law = law
        self.weights = weights
        shape = torch.broadcast_shapes(law.batch_shape, weights.shape)
        super().__init__(shape, law.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """Whether draws carry gradients, as for the law itself."""
        return self.law.has_rsample

    @property
    def support(self):
        """The law's support."""
        return self.law.support

    @property
    def mean(self) -> Tensor:
        """The law's mean."""
        return self.law.mean.expand(self.batch_shape)

    def expand(self, batch_shape, _instance=None) -> Weighted:
        """Broadcast law and weights to a larger batch."""
        return Weighted(self.law.expand(batch_shape), self.weights.expand(batch_shape))

    def sample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw from the law, unweighted."""
        return self.law.expand(self.batch_shape).sample(sample_shape)

    def rsample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw from the law, unweighted, with gradients."""
        return self.law.expand(self.batch_shape).rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return weight times log density, elementwise."""
        return self.weights * self.law.log_prob(value)
