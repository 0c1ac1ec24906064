"""Denoising by a mixture of Gaussians over images: exact mean, variance and draws at every noise level."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from posterior_inpainting.models.densities.reverse_diffusion import ReverseDiffusion
from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["MixtureDenoising"]


class MixtureDenoising(ReverseDiffusion):
    """Exact mean, variance and draws of x given x + noise, for the mixture of a ``MixtureField``.

    Parameters
    ----------
    log_weights, means, covariances
        Of the components: ``(component,)``, ``(component, pixel)`` and ``(component, pixel, pixel)``, float64.
    image_shape, noise
        The model's.
    """

    takes_levels_of_pixels = True

    def __init__(
        self, log_weights: Tensor, means: Tensor, covariances: Tensor, image_shape: ImageShape, noise: float
    ):
        values, self.vectors = torch.linalg.eigh(covariances)
        self.values, self.means, self.log_weights = values.clamp(min=0.0), means, log_weights
        self.covariances = covariances
        self.image_shape, self.noise, self.device = image_shape, noise, means.device
        weights = self.log_weights.exp().unsqueeze(-1)
        self.centre = float((weights * self.means).sum(0).mean())
        second = self.means.square() + covariances.diagonal(dim1=-2, dim2=-1)
        self.spread = math.sqrt(float((weights * second).sum(0).mean()) - self.centre**2)
        self.highest, self.lowest = 30 * self.spread, 0.003 * self.spread

    def denoised(self, noisy: Image, level: Tensor) -> tuple[Image, Image]:
        """Return mean and variance of each pixel of x given x + level * noise."""
        if torch.as_tensor(level).dim() == noisy.dim():
            return self._denoised_by_pixel(noisy, level)
        share, mean, values = self._components(noisy, level)
        rotated = _by_component(values.expand_as(mean), self.vectors.square().mT)
        first = (share.unsqueeze(-1) * mean).sum(-2)
        second = (share.unsqueeze(-1) * (mean - first.unsqueeze(-2)).square()).sum(-2)
        variance = second + (share.unsqueeze(-1) * rotated).sum(-2)
        return tuple(part.to(noisy.dtype).reshape(noisy.shape) for part in (first, variance))  # type: ignore[return-value]

    def draw(self, noisy: Image, level: Tensor, steps: int | None, generator: Generator) -> Image:
        """Draw x given x + level * noise; without steps from its exact law."""
        if steps is not None:
            return super().draw(noisy, level, steps, generator)
        share, mean, values = self._components(noisy, level)
        cumulated = share.cumsum(-1)
        uniform = torch.rand(
            cumulated.shape[:-1], generator=generator, dtype=share.dtype, device=share.device
        )
        chosen = (cumulated < uniform.unsqueeze(-1)).sum(-1).clamp(max=share.shape[-1] - 1)
        pick = chosen[..., None, None].expand(*chosen.shape, 1, mean.shape[-1])
        mean, values = mean.gather(-2, pick).squeeze(-2), values.expand_as(mean).gather(-2, pick).squeeze(-2)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        turned = (self.vectors[chosen] @ (values.sqrt() * noise).unsqueeze(-1)).squeeze(-1)
        return (mean + turned).to(noisy.dtype).reshape(noisy.shape)

    def _denoised_by_pixel(self, noisy: Image, level: Tensor) -> tuple[Image, Image]:
        """Return the same where every pixel has a level of its own, one row of them or a row an image."""
        variances = level.flatten(-3).double().square()
        total = self.covariances + torch.diag_embed(variances).unsqueeze(-3)
        root = torch.linalg.cholesky(total)
        precision = torch.cholesky_inverse(root)
        residual = noisy.flatten(-3).double().unsqueeze(-2) - self.means
        if precision.shape[:-3].numel() == 1:  # all images have the same levels
            solved = _by_component(residual, precision.reshape(precision.shape[-3:]))
        else:
            solved = (residual.unsqueeze(-2) @ precision).squeeze(-2)
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        share = (self.log_weights - 0.5 * (residual * solved).sum(-1) - log_det).softmax(-1).unsqueeze(-1)
        mean = self.means + _by_component(solved, self.covariances)
        gain = precision @ self.covariances
        left = self.covariances.diagonal(dim1=-2, dim2=-1) - (self.covariances * gain).sum(-2)
        first = (share * mean).sum(-2)
        variance = (share * (left + (mean - first.unsqueeze(-2)).square())).sum(-2)
        return tuple(part.to(noisy.dtype).reshape(noisy.shape) for part in (first, variance))  # type: ignore[return-value]

    def _components(self, noisy: Image, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each component's share, mean ``(*batch, component, pixel)`` and variances along its axes."""
        t2 = torch.as_tensor(level).double()[..., None, None].square()
        residual = noisy.flatten(-3).double().unsqueeze(-2) - self.means
        along = _by_component(residual, self.vectors)
        total = self.values + t2
        log_share = self.log_weights - 0.5 * (along.square() / total + total.log()).sum(-1)
        shrunk = _by_component(along * self.values / total, self.vectors.mT)
        return log_share.softmax(-1), self.means + shrunk, self.values * t2 / total


def _by_component(values: Tensor, matrices: Tensor) -> Tensor:
    """Multiply rows ``(*batch, component, pixel)`` by their component's matrix, without copying it for each row."""
    flat = values.reshape(-1, *values.shape[-2:]).transpose(0, 1)
    return (flat @ matrices).transpose(0, 1).reshape(values.shape)
