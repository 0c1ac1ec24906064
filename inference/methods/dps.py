r"""`DPS`: each reverse step, then a step against the gradient of the distance of the denoised image to what is seen.

Chung, Kim, McCann, Klasky & Ye 2023, *Diffusion Posterior Sampling for General Noisy Inverse Problems*, algorithm 1,
for images with values between -1 and 1 and a variance-preserving chain; here in noise levels t of images in [0, 1],
where that chain scales images by :math:`a(t) = 1 / \sqrt{1 + 4 t^2}`:

.. math:: x_s \leftarrow x_s' - \frac{\zeta}{4 a(t) a(s)} \nabla_{x_t} \| 2 (\tilde x - D(x_t)_{seen}) \|.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posterior_inpainting.inference.methods.guided_diffusion import GuidedDiffusion
from posterior_inpainting.inference.methods.reverse_chain import Step

__all__ = ["DPS"]


@dataclass(frozen=True)
class DPS(GuidedDiffusion):
    """Diffusion posterior sampling. Approximate.

    Parameters
    ----------
    steps
        Of the reverse chain.
    scale
        Length of a step against the gradient, zeta; the paper's is between 0.3 and 1.

    Examples
    --------
    >>> DPS(steps=100).is_approximate
    True
    """

    steps: int = 100
    scale: float = 1.0

    def __post_init__(self):
        if self.steps < 1 or not self.scale > 0:
            raise ValueError(
                f"steps={self.steps}, scale={self.scale}; expected at least 1, and a positive number"
            )

    def step(self, step: Step) -> Tensor:
        """Go down without regard to what is seen, then against the gradient at where it came from."""
        with torch.enable_grad():
            images = step.images.detach().requires_grad_()
            mean = step.denoised(images)
            residual = torch.where(step.seen, step.target - mean, 0.0)
            distance = 2 * residual.square().sum((-1, -2, -3)).clamp(min=1e-20).sqrt()
            (slope,) = torch.autograd.grad(distance.sum(), images)
        scaling = ((1 + 4 * step.now.square()) * (1 + 4 * step.following.square())).sqrt() / 4
        return step.towards(mean.detach(), step.images) - self.scale * scaling * slope
