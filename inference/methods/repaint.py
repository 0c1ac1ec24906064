"""`RePaint`: seen pixels are overwritten, with the level's noise on them, at every step, and steps are made again.

Lugmayr, Danelljan, Romero, Yu, Timofte & Van Gool 2022, *RePaint: Inpainting Using Denoising Diffusion Probabilistic
Models*, algorithm 1. Going back up by the noise of a step and down again lets the hidden pixels see the seen ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posterior_inpainting.inference.methods.guided_diffusion import GuidedDiffusion
from posterior_inpainting.inference.methods.reverse_chain import Step

__all__ = ["RePaint"]


@dataclass(frozen=True)
class RePaint(GuidedDiffusion):
    """Overwriting of seen pixels in the reverse chain. Approximate.

    Parameters
    ----------
    steps
        Of the reverse chain.
    repeats
        How often each step is made.

    Examples
    --------
    >>> RePaint(repeats=5).steps
    50
    """

    steps: int = 50
    repeats: int = 4

    def __post_init__(self):
        if self.steps < 1 or self.repeats < 1:
            raise ValueError(f"steps={self.steps}, repeats={self.repeats}; expected at least 1 of each")

    def step(self, step: Step) -> Tensor:
        """Go down and overwrite, as often as is asked, going up again in between."""
        for again in range(self.repeats):
            with torch.no_grad():
                down = step.towards(step.denoised(step.images), step.images)
            down = torch.where(step.seen, step.target + step.following * step.noise(), down)
            if again + 1 < self.repeats:
                up = (step.now.square() - step.following.square()).sqrt()
                step = replace(step, images=down + up * step.noise())
        return down
