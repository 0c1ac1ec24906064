r"""The density of a code given seen pixels, with its gradient by hand: what samplers ask for, and nothing else.

For a Gaussian likelihood with unit weights,

.. math:: \log p(z) + \beta \sum_{i \,\mathrm{seen}} \log N(x_i; f(z)_i, \sigma(z)_i),

evaluated at seen pixels only. No graph is built, which for few chains costs more than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from posterior_inpainting.models.abilities import JointDensity
from posterior_inpainting.models.shapes import Code, Image, Mask

__all__ = ["PixelDensity", "PullBack", "Restricted"]

#: From derivatives with respect to mean and scale (``None`` where the scale is fixed) to that with respect to z.
PullBack = Callable[[Tensor, Tensor | None], Tensor]

#: From codes to means and scales ``(*batch, pixel)`` of some pixels, and the function that pulls gradients back.
Restricted = Callable[[Code], tuple[Tensor, Tensor, PullBack]]


class PixelDensity(JointDensity):
    """Log prior and log likelihood of codes, apart from each other, and the gradient of their tempered sum.

    Parameters
    ----------
    restrict
        From indices into the flattened ``(channel, row, column)`` to a ``Restricted`` decoder.
    image, mask
        One image, or a batch ``(image, channel, row, column)``; without a mask everything is seen.
    latent
        Length of z.
    prior
        p(z), event shape ``(latent,)``; standard normal by default.

    Examples
    --------
    >>> def restrict(pixels):
    ...     return lambda z: (z[..., pixels], torch.tensor(0.5), lambda slope, _: slope)
    >>> density = PixelDensity(restrict, torch.ones(1, 1, 2), latent=2)
    >>> density.gradient({"z": torch.zeros(1, 2)}, 1.0)[2]
    tensor([[4., 4.]])
    """

    has_gradient = True

    def __init__(
        self,
        restrict: Callable[[Tensor], Restricted],
        image: Image,
        mask: Mask | None = None,
        *,
        latent: int,
        prior: TorchDistribution | None = None,
    ):
        seen = torch.ones_like(image, dtype=torch.bool) if mask is None else mask.expand(image.shape)
        seen = seen.flatten(-3)
        anywhere = seen if image.dim() == 3 else seen.any(0)
        pixels = anywhere.nonzero().flatten()
        # One row of pixels for each image, broadcast over its chains.
        self._target = image.flatten(-3)[..., pixels].unsqueeze(-2)
        self._weight = None
        if image.dim() > 3 and not bool(seen[:, pixels].all()):
            self._weight = seen[:, None, pixels].to(self._target)
            self._target = torch.where(self._weight > 0, self._target, 0.0)
        self._count = len(pixels) if self._weight is None else self._weight.sum(-1)
        self._decode = restrict(pixels)
        self._prior = prior
        self._constant = 0.5 * math.log(2 * math.pi) * latent

    def __call__(self, latents: dict[str, Tensor], which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, ``(..., chain)``, differentiable.

        Parameters
        ----------
        latents
            ``{"z": (chain, latent)}``, or ``(image, chain, latent)`` for a batch of images.
        which
            Indices of the images that the codes belong to; all of them by default.
        """
        z = latents["z"]
        mean, scale, _ = self._decode(z)
        target, weight, count = self._of(which)
        pixelwise = 0.5 * ((target - mean) / scale).square() + scale.log()
        pixelwise = pixelwise if weight is None else pixelwise * weight
        return self._log_prior(z), -pixelwise.sum(-1) - 0.5 * math.log(2 * math.pi) * count

    def gradient(
        self, latents: dict[str, Tensor], inverse_temperature: float | Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood, and the gradient of ``prior + inverse_temperature * likelihood``."""
        z = latents["z"]
        prior_slope = self._prior_slope(z)
        with torch.no_grad():
            mean, scale, pull_back = self._decode(z)
            target, weight, count = self._of(which)
            residual = target - mean
            residual = residual if weight is None else residual * weight
            if scale.dim() == 0:  # one scale for every pixel: it leaves the sums
                exponent = residual.square().sum(-1).mul_(-0.5 / scale**2) - count * scale.log()
                slope = pull_back(residual, None) / scale**2
            else:
                residual = residual / scale
                squares = residual.square()
                pixelwise = squares.mul(0.5).add_(scale.log())
                exponent = -(pixelwise if weight is None else pixelwise * weight).sum(-1)
                scale_slope = squares.sub_(1.0 if weight is None else weight).div_(scale)
                slope = pull_back(residual.div_(scale), scale_slope)
            beta = inverse_temperature
            slope = slope * (beta.unsqueeze(-1) if isinstance(beta, Tensor) else beta)
            log_likelihood = exponent - 0.5 * math.log(2 * math.pi) * count
            return self._log_prior(z), log_likelihood, slope + prior_slope

    def _of(self, which: Tensor | None) -> tuple[Tensor, Tensor | None, int | Tensor]:
        """Target, weight and number of seen pixels of some images."""
        if which is None:
            return self._target, self._weight, self._count
        weight = None if self._weight is None else self._weight[which]
        count = self._count[which] if isinstance(self._count, Tensor) else self._count
        return self._target[which], weight, count

    def _log_prior(self, z: Code) -> Tensor:
        if self._prior is None:
            return -0.5 * z.square().sum(-1) - self._constant
        return self._prior.log_prob(z)

    def _prior_slope(self, z: Code) -> Tensor:
        if self._prior is None:
            return -z
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            return torch.autograd.grad(self._prior.log_prob(z).sum(), z)[0]
