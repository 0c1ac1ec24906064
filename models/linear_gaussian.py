r"""Probabilistic principal components, whose posterior and evidence are known in closed form.

Tipping & Bishop 1999, *Probabilistic Principal Component Analysis*. With loadings W, mean m and noise s,

.. math:: z \sim N(0, I), \qquad x \mid z \sim N(W z + m, s^2 I).

Given the seen rows (subscript M) the posterior over z is Gaussian with precision
:math:`I + W_M^\top W_M / s^2`, and the evidence is the density of :math:`N(m_M, W_M W_M^\top + s^2 I)`.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.densities.pixel_density import PixelDensity, pixels_of
from posterior_inpainting.models.likelihoods import normal
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.networks.decoder import Restricted
from posterior_inpainting.models.principal_components import fit_of_seen, spectrum_of
from posterior_inpainting.models.shapes import (
    Image,
    ImageShape,
    Mask,
    check_image,
    check_mask,
    refuse_eight_bits,
    seen_part,
)

__all__ = ["LinearGaussian"]


class LinearGaussian(ImageModel):
    """Linear decoder with Gaussian noise; its guide is the exact posterior over ``z``.

    Parameters
    ----------
    loadings
        W, ``(channel * row * column, latent)``.
    mean
        m, ``(channel, row, column)``.
    noise
        s > 0, in the image's units.

    Raises
    ------
    ValueError
        If the shapes do not belong together or the noise is not positive.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=10)
    >>> mask = observations.half(model.image_shape, hide="bottom")
    >>> posterior = model.exact_posterior(images[0], mask)
    >>> tuple(posterior.mean.shape), bool(model.log_evidence(images[0], mask).isfinite())
    ((10,), True)
    """

    guide_is_exact = True
    takes_measurements = True

    def __init__(self, loadings: Tensor, mean: Image, noise: float | Tensor):
        super().__init__()
        check_image(mean)
        noise = torch.as_tensor(noise, dtype=loadings.dtype)
        if loadings.dim() != 2 or loadings.shape[0] != mean.numel():
            raise ValueError(
                f"loadings has shape {tuple(loadings.shape)}; expected ({mean.numel()}, latent) "
                f"for a mean of shape {tuple(mean.shape)}"
            )
        if noise.dim() or not noise > 0:
            raise ValueError(f"noise={noise}; expected one positive number")
        self.image_shape = tuple(mean.shape)
        self.latent = loadings.shape[1]
        self.register_buffer("loadings", loadings)
        self.register_buffer("mean", mean)
        self.register_buffer("noise", noise)

    @classmethod
    def fit(cls, images: Image, latent: int, masks: Mask | None = None) -> LinearGaussian:
        """Fit by maximum likelihood: in closed form, or by expectation maximisation where pixels are missing.

        Tipping & Bishop 1999, equations 7 and 8; see ``principal_components``.

        Parameters
        ----------
        images
            ``(n, channel, row, column)``.
        latent
            Number of components, below both n and the number of pixels.
        masks
            What is seen of each image, ``(n, channel, row, column)``; all if not given.
        """
        check_image(images)
        refuse_eight_bits(images)
        n, pixels = images.flatten(1).shape
        if not 1 <= latent < min(n, pixels):
            raise ValueError(
                f"latent={latent}; expected 1..{min(n, pixels) - 1} for {n} images of {pixels} pixels"
            )
        if masks is None:
            return cls.of(spectrum_of(images).fit(latent), tuple(images.shape[1:]))
        check_mask(masks, images.shape)
        return cls.of(fit_of_seen(images, masks, latent), tuple(images.shape[1:]))

    @classmethod
    def of(cls, fitted: tuple[Tensor, Tensor, Tensor], image_shape: ImageShape) -> LinearGaussian:
        """Make the model of loadings ``(pixel, latent)``, mean ``(pixel,)`` and noise, as they are fitted."""
        loadings, mean, noise = (one.float() for one in fitted)
        return cls(loadings, mean.reshape(image_shape), noise)

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw z from the standard normal, then the image around ``W z + m``."""
        with self.images_plate(image):
            z = pyro.sample("z", dist.Normal(self.mean.new_zeros(self.latent), 1.0).to_event(1))
            completion = (z @ self.loadings.T).unflatten(-1, self.image_shape) + self.mean
            return self.observe(dist.Normal(completion, self.noise), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Tensor:
        """Draw z from its exact posterior."""
        with self.images_plate(image):
            return pyro.sample("z", self.exact_posterior(image, mask))

    def log_densities(self, image: Image, mask: Mask | None = None) -> PixelDensity:
        """Return the same numbers as :meth:`forward` scores as a fast function."""
        return PixelDensity(self._restrict, pixels_of(normal, image, mask))

    def exact_posterior(
        self, image: Image | None = None, mask: Mask | None = None
    ) -> dist.MultivariateNormal:
        """Return p(z | x~), batch shape that of the images, event shape ``(latent,)``."""
        precision, weighted, _, _ = self._conditioned(image, mask)
        loc = torch.linalg.solve(precision, weighted)
        dtype = self.mean.dtype
        # The covariance is factorised in double precision: in single it is not always symmetric enough.
        scale = torch.linalg.cholesky(torch.linalg.inv(precision))
        return dist.MultivariateNormal(loc.to(dtype), scale_tril=scale.to(dtype))

    def log_evidence(self, image: Image | None = None, mask: Mask | None = None) -> Tensor:
        """Return log p(x~) in nats, batch shape that of the images, float64.

        By the matrix determinant and inversion lemmas, so that only latent x latent systems are solved.
        """
        precision, weighted, square, log_scale = self._conditioned(image, mask)
        explained = (weighted * torch.linalg.solve(precision, weighted)).sum(-1)
        return -0.5 * (square - explained + torch.logdet(precision)) - log_scale

    def _restrict(self, pixels: Tensor) -> Restricted:
        loadings, mean = self.loadings[pixels], self.mean.flatten()[pixels]
        return lambda z: (z @ loadings.T + mean, self.noise, lambda slope, _: slope @ loadings)

    def _conditioned(
        self, image: Image | None, mask: Mask | Instrument | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return p(z | x~)'s precision, that times its mean, and the square and log scale of what was seen.

        All float64: ``(*batch, latent, latent)``, ``(*batch, latent)`` and ``(*batch,)`` twice, of values in units of
        their noise.
        """
        loadings = self.loadings.double()
        identity = torch.eye(self.latent, dtype=loadings.dtype, device=loadings.device)
        if isinstance(mask, Instrument):
            assert image is not None
            rows, root, log_det = mask.whitened(self.noise.double() ** 2, loadings)
            loadings = rows @ loadings
            values = torch.linalg.solve_triangular(
                root, image.flatten(-3).double().unsqueeze(-1), upper=False
            )
            residual = values.squeeze(-1) - rows @ self.mean.flatten().double()
            log_scale = log_det + len(rows) * 0.5 * math.log(2 * math.pi)
            precision = identity + loadings.T @ loadings
        else:
            image, whole = seen_part(image, mask, self.image_shape, self.mean)
            noise, seen = self.noise.double(), whole.flatten(-3).double()
            loadings = loadings / noise
            residual = torch.where(whole, image - self.mean, 0.0).flatten(-3).double() / noise
            log_scale = seen.sum(-1) * (noise * math.sqrt(2 * math.pi)).log()
            precision = identity + (loadings.T * seen.unsqueeze(-2)) @ loadings
        return precision, residual @ loadings, residual.square().sum(-1), log_scale
