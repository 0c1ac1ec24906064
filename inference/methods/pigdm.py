r"""`PiGDM`: the score of the seen pixels by a normal approximation, through the denoiser's derivative.

Song, Vahdat, Mardani & Kautz 2023, *Pseudoinverse-Guided Diffusion Models for Inverse Problems*. Given :math:`x_t`,
images are taken to be normal around the denoised one with variance :math:`r_t^2 = t^2 d^2 / (t^2 + d^2)`, d the spread
of pixels, so that

.. math:: \nabla \log p(\tilde x \mid x_t) \approx \Big( \frac{\partial D}{\partial x_t} \Big)^\top
          \frac{(\tilde x - D(x_t))_{seen}}{r_t^2 + s^2},

which, times :math:`t^2`, is added to the denoised image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posterior_inpainting.inference.methods.guided_diffusion import GuidedDiffusion
from posterior_inpainting.inference.methods.reverse_chain import Step

__all__ = ["PiGDM"]


@dataclass(frozen=True)
class PiGDM(GuidedDiffusion):
    """Pseudoinverse-guided diffusion. Approximate.

    Parameters
    ----------
    steps
        Of the reverse chain.

    Examples
    --------
    >>> PiGDM(steps=100).draws_are
    'independent'
    """

    steps: int = 100

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}; expected at least 1")

    def step(self, step: Step) -> Tensor:
        """Correct the denoised image by the approximate score, then go down."""
        reverse = step.density.reverse
        t2 = step.now.square()
        variance = t2 * reverse.spread**2 / (t2 + reverse.spread**2) + reverse.noise**2
        with torch.enable_grad():
            images = step.images.detach().requires_grad_()
            mean = step.denoised(images)
            residual = torch.where(step.seen, step.target - mean, 0.0).detach() / variance
            (score,) = torch.autograd.grad((mean * residual).sum(), images)
        return step.towards(mean.detach() + t2 * score, step.images)
