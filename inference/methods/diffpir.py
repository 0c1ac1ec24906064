r"""`DiffPIR`: the denoised image, drawn to what is seen in proportion to how sure either is, at every step.

Zhu, Zhang, Liang, Cao, Wen, Timofte & Van Gool 2023, *Denoising Diffusion Models for Plug-and-Play Image Restoration*,
algorithm 1. With :math:`\rho_t = \lambda s^2 / t^2` the seen pixels become
:math:`\hat x_0 = (\tilde x + \rho_t D(x_t)) / (1 + \rho_t)`, hidden ones stay denoised, and the noise of the next level
is partly the one that was there and partly new.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posterior_inpainting.inference.methods.guided_diffusion import GuidedDiffusion
from posterior_inpainting.inference.methods.reverse_chain import Step

__all__ = ["DiffPIR"]


@dataclass(frozen=True)
class DiffPIR(GuidedDiffusion):
    """Plug-and-play restoration by a denoiser. Approximate.

    Parameters
    ----------
    steps
        Of the reverse chain.
    weight
        Of the denoised image beside what is seen, lambda.
    fresh
        Share of the next level's noise that is new, zeta.

    Examples
    --------
    >>> DiffPIR(fresh=1.0).steps
    100
    """

    steps: int = 100
    weight: float = 8.0
    fresh: float = 0.3

    def __post_init__(self):
        if self.steps < 1 or not self.weight > 0 or not 0 <= self.fresh <= 1:
            raise ValueError(
                f"steps={self.steps}, weight={self.weight}, fresh={self.fresh}; expected at least 1, a positive number "
                "and a share"
            )

    def step(self, step: Step) -> Tensor:
        """Denoise, go to what is seen, and put noise back on."""
        with torch.no_grad():
            mean = step.denoised(step.images)
        doubt = self.weight * (step.density.reverse.noise / step.now).square()
        mean = torch.where(step.seen, (step.target + doubt * mean) / (1 + doubt), mean)
        old = (step.images - mean) / step.now
        return mean + step.following * ((1 - self.fresh) ** 0.5 * old + self.fresh**0.5 * step.noise())
