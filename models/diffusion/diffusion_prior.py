"""`DiffusionPrior`: images as a denoiser makes them of noise, in a fixed number of steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor

from posterior_inpainting.models import pretrained
from posterior_inpainting.models.base import ImageModel, frozen
from posterior_inpainting.models.densities.reverse_diffusion import ReverseDiffusion, noise_levels
from posterior_inpainting.models.shapes import Image, ImageShape, Mask, check_shape

__all__ = ["Denoising", "DiffusionPrior", "check_denoiser"]


class Denoising(ReverseDiffusion):
    """The network of a ``DiffusionPrior`` as a prior of images."""

    def __init__(self, model: DiffusionPrior):
        self.denoiser: Any = frozen(model, "denoiser")
        self.takes_levels_of_pixels = self.denoiser.takes_levels_of_pixels
        self.image_shape, self.noise = model.image_shape, model.noise
        self.highest, self.lowest, self.own_steps = model.highest, model.lowest, model.steps
        self.centre, self.spread = self.denoiser.centre, self.denoiser.spread
        self.device = model.levels.device

    def denoised(self, noisy: Image, level: Tensor) -> tuple[Image, Image]:
        """Return what the network says."""
        return self.denoiser(noisy, level)


class DiffusionPrior(ImageModel):
    r"""The discrete reverse chain of a diffusion, every noise of it a latent, with pixels around its end.

    Ho, Jain & Abbeel 2020, *Denoising Diffusion Probabilistic Models*, in the noise levels and with the network of
    Karras et al. 2022. The law is that of the chain as it runs, in ``steps`` steps, and not of the diffusion that it
    approximates:

    .. math:: x_T = c + \sqrt{t_T^2 + d^2}\, \epsilon_T, \quad x_s = \mu(x_t) + \sigma(x_t) \epsilon_t, \quad
              \tilde x \sim N(x_0, \mathrm{noise}^2).

    Latent sites are ``start``, the image of noise alone, and ``noises``, those of the steps; all are standard normal.

    Parameters
    ----------
    denoiser
        ``Denoiser``, or a network that is called as it is and has its ``centre``, ``spread``, ``channels``, ``size``
        and ``takes_levels_of_pixels``.
    image_shape
        ``(channel, row, column)``; of any size that the network takes.
    steps
        Of the reverse chain.
    noise
        Standard deviation of a seen pixel around the completion.
    highest, lowest
        Noise levels at which the chain begins, and from which it jumps to 0.

    Raises
    ------
    ValueError
        For no step, noise that is not positive, levels out of order, or a network of other channels.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import Denoiser
    >>> model = DiffusionPrior(Denoiser(features=(8, 16)), (1, 8, 8), steps=4)
    >>> tuple(model().shape)
    (1, 8, 8)
    """

    def __init__(
        self,
        denoiser: Any,
        image_shape: ImageShape,
        *,
        steps: int = 20,
        noise: float = 0.05,
        highest: float = 10.0,
        lowest: float = 0.01,
    ):
        super().__init__()
        self.image_shape = tuple(check_shape(image_shape))
        check_denoiser(denoiser, self.image_shape, noise)
        self.denoiser = denoiser
        self.steps, self.noise, self.highest, self.lowest = steps, noise, highest, lowest
        self.register_buffer("levels", noise_levels(steps, highest, lowest), persistent=False)

    @classmethod
    def load(cls, name: str | Path, image_shape: ImageShape = (1, 28, 28), **settings: Any) -> DiffusionPrior:
        """Make the model of a bundled denoiser, or of a folder that ``pretrained.save_parts`` wrote.

        Parameters
        ----------
        name
            Name of the set.
        image_shape, settings
            As for the class.
        """
        denoiser = pretrained.load_parts(name, "denoiser")["denoiser"]
        return cls(denoiser.requires_grad_(False).eval(), image_shape, **settings)

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw the noises, run the chain, score the seen pixels."""
        with self.images_plate(image):
            latents = self._noises()
            return self.observe(self._law(self.decode(**latents)), image, mask)

    @property
    def guide_is_trained(self) -> bool:
        """Always: it has nothing to train."""
        return True

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> dict[str, Tensor]:
        """Draw the noises from their prior: what is seen moves nothing, and the importance weights say so."""
        with self.images_plate(image):
            return self._noises()

    def decode(self, start: Tensor, noises: Tensor) -> Image:
        """Return the end of the chain.

        Parameters
        ----------
        start
            ``(*batch, channel, row, column)``.
        noises
            ``(*batch, step, channel, row, column)``.
        """
        reverse = self.reverse_diffusion()
        x = reverse.centre + math.hypot(reverse.highest, reverse.spread) * start
        for index in range(self.steps):
            mean, spread = reverse.step(x, self.levels[index], self.levels[index + 1])
            x = mean + spread * noises[..., index, :, :, :]
        return x

    def reverse_diffusion(self) -> Denoising:
        """Return the denoiser as samplers ask for it."""
        return Denoising(self)

    def kept(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep completions alone: the noises are as many as ``steps`` images."""
        return {"completion": self.decode(latents["start"], latents["noises"])}

    def law_of_kept(self, kept: dict[str, Tensor]) -> dist.TorchDistribution:
        """Return the law of pixels around completions."""
        return self._law(kept["completion"])

    def _law(self, completion: Image) -> dist.TorchDistribution:
        return dist.Normal(completion, self.noise)

    def _noises(self) -> dict[str, Tensor]:
        zeros = self.levels.new_zeros(self.image_shape)
        return {
            "start": pyro.sample("start", dist.Normal(zeros, 1.0).to_event(3)),
            "noises": pyro.sample(
                "noises", dist.Normal(zeros.expand(self.steps, *zeros.shape), 1.0).to_event(4)
            ),
        }


def check_denoiser(denoiser: Any, image_shape: ImageShape, noise: float) -> None:
    """Raise ``ValueError`` for a network of images of another shape, or noise that is not positive."""
    if denoiser.channels != image_shape[0]:
        raise ValueError(
            f"the denoiser takes {denoiser.channels} channel(s), and shape={image_shape} has {image_shape[0]}"
        )
    size = denoiser.size
    if size is not None and tuple(size) != tuple(image_shape[1:]):
        raise ValueError(
            f"the denoiser takes {size[0]} x {size[1]} pixels, and shape={image_shape} has others"
        )
    if not noise > 0:
        raise ValueError(f"noise={noise}; expected a positive number")
