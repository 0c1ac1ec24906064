r"""`ConditionalDiffusion`: the posterior's own reverse diffusion, for denoisers that know each pixel's noise level.

A seen pixel is a pixel under little noise: that of the observation, s. Hidden ones begin under all the noise there is.
A denoiser that takes a level for every pixel then has the mean of x given *both*,

.. math:: D(u, t) = E[x \mid u_{seen} = x_{seen} + s \epsilon,\; u_{hidden} = x_{hidden} + t \epsilon],

which is the score of the posterior's own diffusion, and the hidden pixels go down from the highest level to s while
the seen ones stay; the last steps are of all pixels, from s to 0. Nothing is guided, replaced or weighted, and what
error there is, is that of the steps, as for the prior's own draws. With a network it is *learnt* that this law is the
posterior of that prior, not so by construction: ``calibrate`` tests it.

The conditional denoiser is due to Saharia et al. 2022 (*Palette*) and Batzolis et al. 2021 (*Conditional Image
Generation with Score-Based Diffusion Models*), noise levels of their own for parts of the data to Chen et al. 2024
(*Diffusion Forcing*); that seen pixels have the noise of the observation, so that one network is prior and posterior
and each tests the other, is not theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Plan
from posterior_inpainting.inference.density.denoised_images import DenoisedImages
from posterior_inpainting.inference.methods.reverse_chain import ReverseChain, Step

__all__ = ["ConditionalDiffusion"]


@dataclass(frozen=True)
class ConditionalDiffusion(ReverseChain):
    """Independent draws by the reverse diffusion of hidden pixels given the seen ones.

    Parameters
    ----------
    steps
        Of the reverse diffusion from the highest noise level. Their error is the method's own: draw again with twice
        as many, and what moves is that error.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import MixtureField, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = MixtureField.fit(images, components=2)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> posterior = infer(model, seen, ConditionalDiffusion(steps=40), draws=100, chains=1, progress=False)
    >>> posterior.attrs["draws_are"], posterior.attrs["biased"], posterior.attrs["approximate"]
    ('independent', 1, 0)
    """

    steps: int = 40

    is_biased = True

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}; expected at least 1")

    def begin(self, noise: Tensor, target: Tensor, seen: Tensor) -> Tensor:
        """Return noise alone at hidden pixels, and what was seen at the others."""
        return torch.where(seen, target, noise)

    def step(self, step: Step) -> Tensor:
        """Go down where the level is above the observation's noise: everywhere once hidden pixels have come to it."""
        step.density.count(len(step.images))
        now, following = (_levels(step, level) for level in (step.now, step.following))
        with torch.no_grad():
            mean, spread = step.density.reverse.step(step.images, now, following)
        return mean + spread * step.noise()

    def expected(self, step: Step) -> Tensor:
        """Return the denoiser's mean: it is given what is seen."""
        step.density.count(len(step.images))
        with torch.no_grad():
            return step.density.reverse.denoised(step.images, _levels(step, step.now))[0]

    def _run(self, density: DenoisedImages, plan: Plan) -> list[Draws]:
        if not density.reverse.takes_levels_of_pixels:
            raise ValueError(
                f"the denoiser of {type(density.problem.model).__name__} takes one noise level an image, not one a "
                "pixel; use NoiseMatchedGibbs()"
            )
        return super()._run(density, plan)


def _levels(step: Step, level: Tensor) -> Tensor:
    """Return the level of each pixel: no higher than the observation's noise where it is seen."""
    return torch.where(step.seen, level.clamp(max=step.density.reverse.noise), level)
