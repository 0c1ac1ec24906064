r"""A mixture of Gaussians over whole images, whose posterior, evidence and denoising are known in closed form.

Zoran & Weiss 2011, *From Learning Models of Natural Image Patches to Whole Image Restoration*, give the posterior of a
patch under such a mixture. With weights w, means m and covariances S, pixels x and noise s,

.. math:: x \sim \sum_k w_k N(m_k, S_k), \qquad \tilde x \mid x \sim N(x, s^2 I),

a component's posterior given seen pixels (rows W of the identity, over s) has mean
:math:`m_k + S_k W^\top A_k^{-1} W (\tilde x - m_k)` and covariance :math:`S_k - S_k W^\top A_k^{-1} W S_k`, where
:math:`A_k = I + W S_k W^\top`, and its evidence follows from the same matrix. Noise on all pixels alike is a special
case, so that the mean of x given x + noise, the score of every noise level, is exact too. With several separated modes
it is the yardstick of samplers that denoise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.densities.mixture_denoising import MixtureDenoising
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.shapes import (
    Image,
    ImageShape,
    Mask,
    check_image,
    check_shape,
    refuse_eight_bits,
    seen_part,
)

__all__ = ["MixtureField"]


class MixtureField(ImageModel):
    """Pixels by a mixture of Gaussians, seen under noise; its guide is the exact posterior over ``pixels``.

    Parameters
    ----------
    weights
        ``(component,)``, positive; their sum is brought to 1.
    means
        ``(component, pixel)``, pixels in the order ``(channel, row, column)``.
    covariances
        ``(component, pixel, pixel)``, positive definite.
    image_shape
        ``(channel, row, column)``.
    noise
        Standard deviation of a seen pixel.

    Raises
    ------
    ValueError
        For shapes that do not belong together, a weight or noise that is not positive, or a covariance that is not
        positive definite.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = MixtureField.fit(images, components=3)
    >>> mask = observations.half(model.image_shape, hide="bottom")
    >>> posterior = model.exact_posterior(images[0], mask)
    >>> tuple(posterior.mean.shape), bool(model.log_evidence(images[0], mask).isfinite())
    ((64,), True)
    """

    guide_is_exact = True
    takes_measurements = True
    noise_is_of_seeing = True

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        image_shape: ImageShape,
        noise: float = 0.1,
    ):
        super().__init__()
        self.image_shape = tuple(check_shape(image_shape))
        count, pixels = len(weights), math.prod(image_shape)
        if tuple(means.shape) != (count, pixels) or tuple(covariances.shape) != (count, pixels, pixels):
            raise ValueError(
                f"means has shape {tuple(means.shape)}, covariances {tuple(covariances.shape)}; expected "
                f"({count}, {pixels}) and ({count}, {pixels}, {pixels}) for {count} weights and images of "
                f"{self.image_shape}"
            )
        if not bool((weights > 0).all()) or not noise > 0:
            raise ValueError(f"weights={weights.tolist()}, noise={noise}; expected positive numbers")
        scales, failed = torch.linalg.cholesky_ex(covariances.double())
        if bool(failed.any()):
            raise ValueError(f"covariance {int(failed.nonzero()[0])} is not positive definite")
        self.noise = float(noise)
        self.register_buffer("log_weights", (weights / weights.sum()).double().log())
        self.register_buffer("means", means.double())
        self.register_buffer("covariances", covariances.double())
        self.register_buffer("scales", scales)

    @classmethod
    def fit(cls, images: Image, components: int, noise: float = 0.1, seed: int = 0) -> MixtureField:
        """Fit by expectation and maximisation, every covariance kept above a twentieth of the pixels' own spread.

        Parameters
        ----------
        images
            ``(n, channel, row, column)``.
        components, noise
            As for the class.
        seed
            Of the first means.
        """
        from sklearn.mixture import GaussianMixture

        check_image(images)
        refuse_eight_bits(images)
        flat = images.flatten(1).double()
        floor = float(flat.std()) / 20
        found = GaussianMixture(components, reg_covar=floor**2, random_state=seed).fit(flat.numpy())
        weights, means, covariances = map(torch.as_tensor, (found.weights_, found.means_, found.covariances_))
        return cls(weights, means, covariances, tuple(images.shape[1:]), noise)

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw pixels from the mixture, then the image around them."""
        with self.images_plate(image):
            pixels = pyro.sample("pixels", _mixture(self.log_weights, self.means, self.scales))
            completion = pixels.unflatten(-1, self.image_shape)
            return self.observe(dist.Normal(completion, self.noise), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Tensor:
        """Draw pixels from their exact posterior."""
        with self.images_plate(image):
            return pyro.sample("pixels", self.exact_posterior(image, mask))

    def exact_posterior(self, image: Image | None = None, mask: Mask | None = None) -> dist.MixtureSameFamily:
        """Return p(pixels | x~), batch shape that of the images, event shape ``(pixel,)``."""
        log_weights, means, covariances = self._conditioned(image, mask)
        return _mixture(log_weights - log_weights.logsumexp(-1, keepdim=True), means, _root(covariances))

    def log_evidence(self, image: Image | None = None, mask: Mask | None = None) -> Tensor:
        """Return log p(x~) in nats, batch shape that of the images, float64."""
        return self._conditioned(image, mask)[0].logsumexp(-1)

    def kept(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep pixels as completions, which they are."""
        return {"completion": latents["pixels"].unflatten(-1, self.image_shape)}

    def draw_completions(self, image: Image, mask: Mask | None = None, *, draws: int) -> dict[str, Tensor]:
        """Draw completions from their exact posterior."""
        return self.kept({"pixels": self.exact_posterior(image, mask).sample((draws,))})

    def law_of_kept(self, kept: dict[str, Tensor]) -> dist.TorchDistribution:
        """Return the law of pixels around completions."""
        return dist.Normal(kept["completion"], self.noise)

    def reverse_diffusion(self) -> MixtureDenoising:
        """Return the mixture as samplers by denoising ask for it."""
        parts = self.log_weights, self.means, self.covariances
        return MixtureDenoising(*parts, self.image_shape, self.noise)

    def _conditioned(
        self, image: Image | None, mask: Mask | Instrument | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log weight times evidence, mean and covariance of each component, ``(*batch, component, ...)``."""
        on_rows, residual, scale = self._seen_in_units_of_noise(image, mask)
        weighted = on_rows(self.covariances)
        inner = on_rows(weighted.transpose(-1, -2))
        inner = torch.linalg.cholesky(inner + torch.eye(inner.shape[-1]).to(inner))
        gain = torch.cholesky_solve(weighted.transpose(-1, -2), inner)
        means = self.means + (gain.transpose(-1, -2) @ residual.unsqueeze(-1)).squeeze(-1)
        half = torch.linalg.solve_triangular(inner, residual.unsqueeze(-1), upper=False)
        log_det = inner.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        evidence = self.log_weights - 0.5 * half.square().sum((-1, -2)) - log_det - scale
        return evidence, means, self.covariances - weighted @ gain

    def _seen_in_units_of_noise(
        self, image: Image | None, mask: Mask | Instrument | None
    ) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
        """Return how matrices ``(..., pixel)`` are multiplied by W', W the rows of what was seen, and two parts more.

        What was seen less ``W m_k`` of each component, ``(*batch, component, value)``, and the log of the scale,
        ``(*batch, 1)``.
        """
        if isinstance(mask, Instrument):
            assert image is not None
            rows, root, log_det = mask.whitened(0.0, self.means)
            values = image.flatten(-3).to(rows).unsqueeze(-1)
            values = torch.linalg.solve_triangular(root, values, upper=False).squeeze(-1)
            scale = log_det + len(rows) * 0.5 * math.log(2 * math.pi)
            return lambda m: m @ rows.T, values.unsqueeze(-2) - self.means @ rows.T, scale.unsqueeze(-1)
        image, seen = seen_part(image, mask, self.image_shape, self.means)
        seen = seen.flatten(-3).unsqueeze(-2)
        root = seen.double() / self.noise  # of the precision that each pixel is seen with
        residual = torch.where(seen, image.flatten(-3).unsqueeze(-2) - self.means, 0.0) * root
        scale = seen.sum(-1) * math.log(self.noise * math.sqrt(2 * math.pi))
        return lambda matrix: matrix * root.unsqueeze(-2), residual, scale


class _Mixture(dist.MixtureSameFamily):
    """Mixture of multivariate normals, which is one in its support: samplers need not change coordinates."""

    @property
    def support(self):
        """All vectors."""
        return constraints.real_vector


def _mixture(log_weights: Tensor, means: Tensor, scales: Tensor) -> dist.MixtureSameFamily:
    """Return the mixture in single precision, as everything else in a model is."""
    parts = dist.MultivariateNormal(means.float(), scale_tril=scales.float())
    return _Mixture(dist.Categorical(logits=log_weights.float()), parts)


def _root(covariances: Tensor) -> Tensor:
    """Return Cholesky factors of covariances that may have lost their last digits to rounding."""
    size = covariances.shape[-1]
    tiny = 1e-10 * covariances.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    symmetric = 0.5 * (covariances + covariances.transpose(-1, -2))
    return torch.linalg.cholesky(symmetric + tiny * torch.eye(size).to(covariances))
