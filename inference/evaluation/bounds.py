r"""How well a model explains whole images: the ELBO and its importance-weighted tightening.

Burda, Grosse & Salakhutdinov 2016, *Importance Weighted Autoencoders*, equation 8:

.. math:: L_k = E\, \log \frac1k \sum_{j=1}^k \frac{p(x, z_j)}{q(z_j \mid x)} \le \log p(x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.tracing import batched_trace, log_prob_by_draw
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Bounds", "bounds"]


@dataclass(frozen=True)
class Bounds:
    """Means over images, nats an image: ``elbo`` and the bound with ``samples`` importance samples."""

    elbo: float
    importance_weighted: float
    samples: int
    images: int


def bounds(
    model: ImageModel, images: Image, mask: Mask | None = None, *, samples: int = 500, seed: int = 0
) -> Bounds:
    """Estimate both bounds with the model's own guide as the proposal.

    Parameters
    ----------
    model
        A model whose every site lies in the plate of images.
    images
        ``(n, channel, row, column)``.
    mask
        Seen pixels; all by default.
    samples
        Importance samples an image.
    seed
        Seed of the samples.

    Examples
    --------
    >>> from posterior_inpainting.models import LinearGaussian, datasets
    >>> digits = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(digits, latent=5)
    >>> found = bounds(model, digits[:10], samples=20)
    >>> abs(found.importance_weighted - float(model.log_evidence(digits[:10]).mean())) < 0.01
    True
    """
    problem = Problem(model, (images, mask), guide=model.guide)
    with torch.no_grad(), Streams(seed).seeded("importance samples"):
        weights = []
        for start in range(0, samples, 25):
            count = min(25, samples - start)
            drawn = batched_trace(model.guide, problem, count, 1)
            scored = batched_trace(model, problem, count, 1, drawn)
            weights.append(
                log_prob_by_draw(scored, count, 1, by_plate=True)
                - log_prob_by_draw(drawn, count, 1, by_plate=True)
            )
        log_weights = torch.cat(weights)
    bound = torch.logsumexp(log_weights, 0) - math.log(samples)
    return Bounds(float(log_weights.mean()), float(bound.mean()), samples, len(images))
