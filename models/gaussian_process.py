r"""A stationary Gaussian field seen with noise: the wide limit of the deep image prior, with an exact posterior.

Cheng et al. 2019, *A Bayesian Perspective on the Deep Image Prior*. With kernel k of pixel distance, channels'
covariance B, means m and noise s,

.. math:: f \sim N(m, B \otimes K), \qquad x \mid f \sim N(f, s^2 I), \qquad f = m + (B^{1/2} \otimes R) z.

What is random to the samplers is white noise z on a torus a little larger than the image, through which a
draw from the prior costs one FFT (:mod:`~posterior_inpainting.models.fields.circulant`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.fields.channel_prior import (
    ChannelPrior,
    channel_prior,
    words_of_unseen,
)
from posterior_inpainting.models.fields.circulant import CirculantEmbedding
from posterior_inpainting.models.fields.completed_field import ConjugateGradients
from posterior_inpainting.models.fields.marginal_likelihood import DEEP_IMAGE_PRIORS, best_fit
from posterior_inpainting.models.fields.matheron import WhitePosterior
from posterior_inpainting.models.fields.measured_covariance import measured_covariance
from posterior_inpainting.models.fields.seen_covariance import Cholesky, SeenCovariance, mixed
from posterior_inpainting.models.fields.stationary_kernels import StationaryKernel
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, ImageShape, Mask, seen_part

__all__ = ["GaussianProcess"]


class GaussianProcess(ImageModel):
    """Stationary Gaussian process over pixels; its guide is the exact posterior over ``z``.

    Up to ``dense_limit`` seen values the posterior is found by a Cholesky factor of their covariance, beyond by
    conjugate gradients on convolutions, without any matrix; draws of the two agree to 1e-3. The model's
    covariance is that of the embedding, within 1e-6 of the kernel.

    Parameters
    ----------
    kernel
        k, with k(0) = 1.
    image_shape
        ``(channel, row, column)``.
    mean
        m, one number or one for each channel.
    covariance
        B, the variance of a pixel, or the covariance ``(channel, channel)`` of a pixel's channels. One
        number for several channels makes these independent.
    noise
        s > 0, in the image's units.
    dense_limit
        Largest number of seen values (pixels times channels) that are solved by Cholesky factorisation.
    tolerance
        Largest relative residual of conjugate gradients beyond.

    Raises
    ------
    ValueError
        For numbers out of range, a shape that does not fit, or a lengthscale too long for the image.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets, observations
    >>> from posterior_inpainting.models.fields.stationary_kernels import Matern
    >>> image = datasets.load("digits")[0]
    >>> model = GaussianProcess(Matern(2.0), image.shape, mean=0.3, covariance=0.1, noise=0.05)
    >>> mask = observations.scatter(image.shape, keep=0.5)
    >>> z = model.exact_posterior(image, mask).sample((5,))
    >>> tuple(model.completion(z).shape), bool(model.log_evidence(image, mask).isfinite())
    ((5, 1, 8, 8), True)
    """

    guide_is_exact = True
    takes_measurements = True
    noise_is_of_seeing = True

    def __init__(
        self,
        kernel: StationaryKernel,
        image_shape: ImageShape,
        *,
        mean: float | Sequence[float] | Tensor = 0.5,
        covariance: float | Tensor = 0.1,
        noise: float | Tensor = 0.05,
        dense_limit: int = 6144,
        tolerance: float = 3e-6,
    ):
        super().__init__()
        channels, rows, columns = image_shape
        mean, covariance, noise = (torch.as_tensor(v, dtype=torch.double) for v in (mean, covariance, noise))
        if covariance.dim() == 0:
            covariance = covariance * torch.eye(channels, dtype=torch.double)
        if covariance.shape != (channels, channels) or mean.numel() not in (1, channels):
            raise ValueError(
                f"mean has {mean.numel()} elements and covariance shape {tuple(covariance.shape)}; "
                f"expected {channels} (or 1) and ({channels}, {channels})"
            )
        if noise.dim() or not noise > 0:
            raise ValueError(f"noise={noise}; expected one positive number")
        if not torch.equal(covariance, covariance.T) or not torch.linalg.eigvalsh(covariance)[0] > 0:
            raise ValueError("covariance is not symmetric and positive definite")
        self.kernel, self.image_shape = kernel, tuple(image_shape)
        self.dense_limit, self.tolerance = dense_limit, tolerance
        #: Channels of which :meth:`fit` saw no value: what it says of them is its prior's, given the others.
        self.unseen_channels: tuple[int, ...] = ()
        self.embedding = CirculantEmbedding(kernel, rows, columns)
        self.latent = channels * math.prod(self.embedding.torus)
        self.register_buffer("mean", mean.expand(channels).reshape(-1, 1, 1).float())
        self.register_buffer("noise", noise.float())
        self.register_buffer("covariance", covariance)
        self.register_buffer("factor", torch.linalg.cholesky(covariance))

    @classmethod
    def fit(
        cls,
        observation: Observation,
        kernel: StationaryKernel | Sequence[StationaryKernel] = DEEP_IMAGE_PRIORS,
        *,
        noise_floor: float = 0.004,
        colours: ChannelPrior | str | None = "photographs",
        seed: int = 0,
        dense_limit: int = 6144,
        each: Callable[[], Any] | None = None,
    ) -> GaussianProcess:
        """Fit to the seen pixels of one image by maximum marginal likelihood (type II).

        Exact where the seen values number at most 3,000. Beyond, it is the product of the marginal
        likelihoods of square blocks at random places that is maximised (a composite likelihood, Varin et al.
        2011), 8 times 512 seen values: cheap at any size, and blind to what varies beyond a block.

        Of several channels, mean and covariance have a prior, and the likelihood times the prior is maximised. Where
        one channel is seen at many pixels and another at none, nothing in the image says how the two go together: the
        hidden one's mean, its slope on the seen one and its variance are the prior's, and a warning says so.

        Parameters
        ----------
        observation
            What is seen; hidden pixels are not read.
        kernel
            A kernel with its starting lengthscale, or several, of which the one with the highest marginal
            likelihood is kept: by default deep image priors of several depths, and one that resamples.
        noise_floor
            Smallest noise, in the image's units: a grey level of 8 bits.
        colours
            Prior of the channels' mean and covariance; ``"photographs"`` is that of photographs where there are three,
            and none otherwise, and None is none: then a hidden channel is as the start of the fit has it.
        seed
            Of the places of the blocks.
        dense_limit
            As for the class.
        each
            Called whenever a kernel has been fitted, to show that something goes on.

        Raises
        ------
        ValueError
            If fewer than 3 values are seen, the floor is not positive, or the prior is of other channels.

        Warns
        -----
        UserWarning
            If a channel is not seen at all; ``unseen_channels`` names those.

        Examples
        --------
        >>> from posterior_inpainting.models import Observation, datasets, observations
        >>> image = datasets.load("digits")[0]
        >>> seen = Observation(image, observations.scatter(image.shape, keep=0.5))
        >>> model = GaussianProcess.fit(seen)
        >>> model.kernel.lengthscale > 0, bool(model.noise >= 0.004)
        (True, True)
        """
        kernels = [kernel] if isinstance(kernel, StationaryKernel) else list(kernel)
        prior = channel_prior(colours, observation.shape[0])
        found = best_fit(observation, kernels, noise_floor=noise_floor, seed=seed, colours=prior, each=each)
        if found.unseen:
            warnings.warn(words_of_unseen(found.unseen, observation.shape[0], prior), stacklevel=2)
        model = cls(
            found.kernel,
            observation.shape,
            mean=found.mean,
            covariance=found.covariance,
            noise=found.noise,
            dense_limit=dense_limit,
        )
        model.unseen_channels = found.unseen
        return model

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw white noise z, filter it to a field, and draw the image around it."""
        with self.images_plate(image):
            z = pyro.sample("z", dist.Normal(self.mean.new_zeros(self.latent), 1.0).to_event(1))
            return self.observe(dist.Normal(self.completion(z), self.noise), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Tensor:
        """Draw z from its exact posterior."""
        with self.images_plate(image):
            return pyro.sample("z", self.exact_posterior(image, mask))

    def completion(self, z: Tensor) -> Image:
        """Return the noiseless image ``(*batch, channel, row, column)`` of white noise ``(*batch, latent)``."""
        white = z.unflatten(-1, (self.image_shape[0], *self.embedding.torus))
        return self.mean + mixed(self.factor.to(z.dtype), self.embedding.field(white))

    def exact_posterior(self, image: Image | None = None, mask: Mask | None = None) -> WhitePosterior:
        """Return p(z | x~), batch shape that of the images, event shape ``(latent,)``."""
        residual, covariances = self._residual_and_covariances(image, mask)
        return WhitePosterior(covariances, self.factor.double(), residual, self.mean.dtype)

    def log_evidence(self, image: Image | None = None, mask: Mask | None = None) -> Tensor:
        """Return log p(x~) in nats, batch shape that of the images, float64; NaN above ``dense_limit``."""
        return self.exact_posterior(image, mask).log_evidence()

    def pixel_posterior(self, image: Image, mask: Mask | None = None) -> dist.Normal:
        """Return the posterior law of every noiseless pixel by itself, in closed form.

        Parameters
        ----------
        image, mask
            One image ``(channel, row, column)``; the law is of that batch shape, in float64, and without noise.

        Raises
        ------
        ValueError
            If more than ``dense_limit`` values are seen.
        """
        if isinstance(mask, Instrument):
            raise ValueError(
                "the law of single pixels is that of an image behind a mask; take draws of a measurement"
            )
        residual, (covariance, *_) = self._residual_and_covariances(image, mask)
        if not isinstance(covariance, Cholesky) or residual.dim() > 3:
            raise ValueError(
                f"image has shape {tuple(image.shape)} with {covariance.seen} seen values; expected one image "
                f"with at most {self.dense_limit}"
            )
        variances = self.covariance.diagonal().reshape(-1, 1, 1).expand(self.image_shape)
        everything = torch.arange(residual.numel(), device=residual.device)
        across = covariance.whitened(covariance.covariance(covariance.index, everything))
        error = covariance.whitened(residual.flatten()[covariance.index, None])
        mean = self.mean + (across.T @ error).view_as(residual)
        explained = across.square().sum(0).view_as(residual)
        return dist.Normal(mean, (variances - explained).clamp(min=1e-12).sqrt())

    def _residual_and_covariances(
        self, image: Image | None, mask: Mask | None
    ) -> tuple[Image, list[SeenCovariance]]:
        """``x - m``, 0 where hidden, float64, and the covariance of each mask; the same of values."""
        if isinstance(mask, Instrument):
            assert image is not None
            values = image - mask.operator(self.mean.expand(self.image_shape))
            channels = self.covariance.double()
            limits = self.dense_limit, self.tolerance
            return values.double(), [measured_covariance(self.embedding, channels, mask, *limits)]
        several = mask is not None and mask.dim() > 3  # else one mask, whose covariance is found once
        image, whole = seen_part(image, mask, self.image_shape, self.mean)
        residual = torch.where(whole, image - self.mean, 0.0).double()
        masks = whole.reshape(-1, *self.image_shape)
        return residual, [self._covariance(one) for one in (masks if several else masks[:1])]

    def _covariance(self, mask: Mask) -> SeenCovariance:
        parts = self.embedding, self.covariance.double(), self.noise.double(), mask
        if int(mask.sum()) <= self.dense_limit:
            return Cholesky(*parts)
        return ConjugateGradients(*parts, tolerance=self.tolerance)
