r"""The published completion of sparse measurements: every hidden pixel is told the value of its nearest well.

Dupont et al. 2018, *Generating Realistic Geology Conditioned on Physical Measurements with Generative
Adversarial Networks*, look, as Yeh et al. 2017 do, for codes with a small loss. A few wells alone say little to an
optimiser, so each hidden pixel i gets a *target*, the nearest measurement :math:`y_{n(i)}` at distance
:math:`d_i`, and a weight that falls with that distance,

.. math:: L(z) = \sum_{d_i \le r} \frac{|f(z)_i - y_{n(i)}|}{\sqrt{d_i + 1}} + \lambda P(z),

with P the discriminator's log(1 - D(f(z))) and lambda 10; the optima of 300 restarts are called samples. Targets are
made up, so :math:`e^{-L}` is a pseudo-posterior; ``LatentCode`` with the wells alone is the honest one. Glossary: r
radius, P prior loss.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from posterior_inpainting.models.abilities import JointDensity
from posterior_inpainting.models.base import frozen
from posterior_inpainting.models.densities.code_prior import CodePrior
from posterior_inpainting.models.geology.wells import nearest_seen
from posterior_inpainting.models.latent_code import LatentCode, PriorLoss
from posterior_inpainting.models.likelihoods import Weighted, laplace
from posterior_inpainting.models.networks.decoder import Decoder
from posterior_inpainting.models.shapes import (
    Image,
    ImageShape,
    InputError,
    Mask,
    check_image,
    check_mask,
    seen_mask,
)

__all__ = ["RADII", "NearestMeasurement", "nearest_measurement", "published_radius"]

#: Published radii in pixels of images of 128 x 128, by the number of wells.
RADII = {4: 18.0, 8: 12.0, 20: 7.0}
_SIDE = 128


def published_radius(count: int, shape: ImageShape) -> float:
    """Return the published radius for a number of wells in pixels of an image of another size.

    Parameters
    ----------
    count
        Of wells: 4, 8 or 20.
    shape
        ``(channel, row, column)``; the shorter side is compared with the published images' 128 pixels.

    Raises
    ------
    ValueError
        For a number of wells of which no radius is published.

    Examples
    --------
    >>> published_radius(8, (1, 64, 64))
    6.0
    """
    if count not in RADII:
        raise ValueError(
            f"count={count}; expected one of {', '.join(map(str, RADII))}, of which a radius is published"
        )
    return RADII[count] * min(shape[-2:]) / _SIDE


def nearest_measurement(image: Image, mask: Mask, radius: float) -> tuple[Image, Tensor]:
    """Return each pixel's target and its weight.

    Parameters
    ----------
    image, mask
        ``(*batch, channel, row, column)``; hidden values are not read.
    radius
        In pixels; beyond it a pixel weighs nothing.

    Returns
    -------
    tuple
        Targets, the values of the nearest seen pixel of the same channel (0 beyond the radius), and weights
        ``1 / sqrt(distance + 1)``, both shaped as the image.

    Examples
    --------
    >>> image, mask = torch.tensor([[[0.7, 0.0, 0.0]]]), torch.tensor([[[True, False, False]]])
    >>> target, weight = nearest_measurement(image, mask, radius=1)
    >>> [round(v, 4) for v in target.flatten().tolist()], [round(v, 4) for v in weight.flatten().tolist()]
    ([0.7, 0.7, 0.0], [1.0, 0.7071, 0.0])
    """
    check_image(image)
    check_mask(mask, tuple(image.shape))
    if not radius > 0:
        raise InputError(f"radius={radius}; expected a positive number of pixels")
    mask = mask.expand(image.shape)
    if image.dim() > 3:
        pairs = [nearest_measurement(one, some, radius) for one, some in zip(image, mask, strict=True)]
        targets, weights = zip(*pairs, strict=True)
        return torch.stack(targets), torch.stack(weights)
    distance, index = nearest_seen(mask)
    inside = distance <= radius
    target = torch.where(mask, image, 0.0).flatten(1).gather(1, index.flatten(1)).reshape(image.shape)
    weight = torch.where(inside, (distance + 1).rsqrt(), 0.0).to(image.dtype)
    return torch.where(inside, target, 0.0), weight


class NearestMeasurement(LatentCode):
    r"""Pseudo-posterior over the code of a frozen decoder, given nearest-measurement targets; for ``MAP``.

    Parameters
    ----------
    decoder
        As for ``LatentCode``; its noise is not used.
    radius
        r in pixels; the published ones are those of :func:`published_radius`.
    prior
        p(z), as for ``LatentCode``.
    prior_weight
        Factor on log p(z), of which the paper has none: what keeps codes where decodings look like the images.
    prior_loss
        lambda P of the published method: ``PriorLoss(discriminator, 10.0)``, beside p(z). No discriminator of river
        channels is bundled, so that without one of your own this is the published method but for that term.

    Raises
    ------
    ValueError
        For a radius or weight that is not positive.

    Examples
    --------
    >>> from posterior_inpainting.models import pretrained
    >>> from posterior_inpainting.models.geology.wells import wells
    >>> model = NearestMeasurement(pretrained.load("digits-vae-2d"), radius=3.0)
    >>> model.is_pseudo_posterior, tuple(model(torch.rand(1, 8, 8), wells((1, 8, 8), 4)).shape)
    (True, (1, 8, 8))
    """

    takes_measurements = False  # its targets are made of pixels that are seen

    def __init__(
        self,
        decoder: Any,
        radius: float,
        *,
        prior: TorchDistribution | None = None,
        prior_weight: float = 1.0,
        prior_loss: PriorLoss | None = None,
    ):
        # A Laplace law of scale 1, whose standard deviation is the root of 2, makes the loss what the paper writes.
        super().__init__(
            decoder,
            prior=prior,
            likelihood=laplace,
            noise=math.sqrt(2),
            prior_weight=prior_weight,
            prior_loss=prior_loss,
        )
        if not radius > 0:
            raise ValueError(f"radius={radius}; expected a positive number of pixels")
        self.radius = radius

    @property
    def is_pseudo_posterior(self) -> bool:  # type: ignore[override]
        """Always: made-up targets are no data."""
        return True

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw z from its prior and score its decoding against the targets, each with its weight."""
        with self.images_plate(image):
            law = self._drawn_law()
            if image is not None and mask is not None:
                check_image(image, self.image_shape)
                image, weight = nearest_measurement(image, mask, self.radius)
                law, mask = Weighted(law, weight), weight > 0
            return self.observe(law, image, mask)

    def log_densities(self, image: Image, mask: Mask | None = None) -> JointDensity | None:  # type: ignore[override]
        """Return the same numbers as :meth:`forward` scores as a fast function, or ``None``.

        ``None`` with a discriminator, and for a decoder that cannot be restricted to some pixels.
        """
        decoder = self._frozen_decoder
        if frozen(self, "discriminator") is not None or not decoder.has_restriction:
            return None
        target, weight = nearest_measurement(image, seen_mask(image, mask), self.radius)
        return _WeightedDensity(
            decoder, target.flatten(-3), weight.flatten(-3), self._law_of_codes(), self.prior_weight
        )


class _WeightedDensity(JointDensity):
    """Log prior and log likelihood of codes with weighted absolute errors, and the gradient by hand."""

    has_gradient = True

    def __init__(
        self,
        decoder: Decoder,
        target: Tensor,
        weight: Tensor,
        prior: TorchDistribution | None,
        prior_weight: float,
    ):
        pixels = (weight > 0).reshape(-1, weight.shape[-1]).any(0).nonzero().flatten()
        self._decode = decoder.restrict(pixels)
        # One row of pixels for each image, broadcast over its chains.
        self._target, self._weight = (part[..., pixels].unsqueeze(-2) for part in (target, weight))
        self._prior, self._prior_weight = CodePrior(prior), prior_weight

    def __call__(self, latents: dict[str, Tensor], which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, ``(..., chain)``, differentiable."""
        z = latents["z"]
        target, weight = self._of(which)
        log_prior = self._prior_weight * self._prior.log_prob(z)
        return log_prior, self._log_likelihood((self._decode(z)[0] - target).abs(), weight)

    def gradient(
        self, latents: dict[str, Tensor], inverse_temperature: float | Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood, and the gradient of ``prior + inverse_temperature * likelihood``."""
        z = latents["z"]
        with torch.no_grad():
            mean, _, pull_back = self._decode(z)
            target, weight = self._of(which)
            error = mean - target
            slope = pull_back(-weight * error.sign(), None)
            beta = inverse_temperature
            slope = slope * (beta.unsqueeze(-1) if isinstance(beta, Tensor) else beta)
            log_likelihood = self._log_likelihood(error.abs_(), weight)
            log_prior, score = (self._prior_weight * part for part in self._prior.log_prob_and_score(z))
            return log_prior, log_likelihood, slope + score

    def _of(self, which: Tensor | None) -> tuple[Tensor, Tensor]:
        return (self._target, self._weight) if which is None else (self._target[which], self._weight[which])

    @staticmethod
    def _log_likelihood(error: Tensor, weight: Tensor) -> Tensor:
        return -((error + math.log(2)) * weight).sum(-1)
