r"""The importance-weighted bound on the density of what is seen, image by image, for training with pixels missing.

Burda, Grosse & Salakhutdinov 2016, *Importance Weighted Autoencoders*, equation 8, of the seen pixels alone (Mattei &
Frellsen 2019, *MIWAE*, equation 4):

.. math:: \log \frac1K \sum_k \frac{p(x_o \mid z_k) p(z_k)}{q(z_k \mid x_o)} \le \log p(x_o) \textrm{ on average},
          \qquad z_k \sim q(z \mid x_o).

With K = 1 it is the ELBO.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from posterior_inpainting.inference.training.loss import Loss
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["ImportanceBound", "log_weights"]


def log_weights(model: Any, guide: Any, images: Image, masks: Mask | None, samples: int) -> Tensor:
    """Return log importance weights of draws of the guide, ``(samples, n)``, with gradients of both.

    Parameters
    ----------
    model, guide
        A pair whose every site lies in the plate of images.
    images, masks
        ``(n, channel, row, column)``; without masks all is seen.
    samples
        Draws an image.

    >>> from posterior_inpainting.models import LinearGaussian, datasets
    >>> digits = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(digits, latent=5)
    >>> found = log_weights(model, model.guide, digits[:2], None, 3)
    >>> bool(((found - model.log_evidence(digits[:2])).abs() < 1e-2).all())
    True
    """
    count = len(images)
    images = images.repeat(samples, 1, 1, 1)
    if masks is not None:
        masks = masks.expand(count, *images.shape[1:]).repeat(samples, 1, 1, 1)
    drawn = poutine.trace(guide).get_trace(images, masks)
    scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(images, masks)
    total = images.new_zeros(len(images))
    for trace, sign in ((scored, 1.0), (drawn, -1.0)):
        trace.compute_log_prob()
        for site in trace.nodes.values():
            if site["type"] == "sample" and "log_prob" in site:
                total = total + sign * site["log_prob"]
    return total.reshape(samples, count)


class ImportanceBound(Loss):
    """Minus the bound as a loss for ``train``.

    Parameters
    ----------
    samples
        K, draws an image and step.

    Raises
    ------
    ValueError
        For no draw.

    Examples
    --------
    >>> from posterior_inpainting.models import VariationalAutoencoder
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> vae = VariationalAutoencoder(MultilayerDecoder(2, (1, 8, 8)), MaskedEncoder(2, (1, 8, 8)))
    >>> images = torch.rand(3, 1, 8, 8)
    >>> ImportanceBound(samples=5).differentiable_loss(vae, vae.guide, images, images < 0.5).requires_grad
    True
    """

    def __init__(self, samples: int = 5):
        if samples < 1:
            raise ValueError(f"samples={samples}; expected at least 1")
        self.samples = samples

    def differentiable_loss(
        self, model: Any, guide: Any, images: Tensor, masks: Mask | Tensor | None = None
    ) -> Tensor:
        """Return minus the bound of a minibatch, summed over its images."""
        found = log_weights(model, guide, images, masks, self.samples)
        return -(torch.logsumexp(found, 0) - math.log(self.samples)).sum()
