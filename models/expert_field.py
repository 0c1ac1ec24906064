r"""Images whose filter responses have heavy-tailed laws: a prior for photographs of any size.

Roth & Black 2005, *Fields of Experts*. With ``Experts`` as prior of the pixels x and noise s,

.. math:: p(x) \propto \exp\Big( -\tfrac\epsilon2 \lVert x - c \rVert^2 \Big)
          \prod_{f, i} \sum_j w_{fj} N((k_f * x)_i; 0, s_j^2), \qquad \tilde x \mid x \sim N(x, s^2 I).

Given the component j of each response the posterior is Gaussian, and it is drawn exactly by perturbing what is solved
for (Papandreou & Yuille 2010, *Gaussian Sampling by Local Perturbations*; Schmidt, Gao & Roth 2010, section 3; what is
now called the Gaussian latent machine, Kuric et al. 2025):

.. math:: Q x = \epsilon c + \sqrt\epsilon n_0 + \sum_f K_f^\top D_f^{1/2} n_f + M (\tilde x + s\, n) / s^2, \qquad
          Q = \epsilon I + \sum_f K_f^\top D_f K_f + M / s^2,

M picking what is seen and all n white. Components and image in turn are a Gibbs sampler without a step size.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.runtime import am_i_wrapped
from torch import Generator, Tensor

from posterior_inpainting.models import pretrained
from posterior_inpainting.models.base import ImageModel, frozen
from posterior_inpainting.models.densities.conditionals import Conditionals
from posterior_inpainting.models.fields.channel_prior import ChannelPrior
from posterior_inpainting.models.fields.conjugate_gradients import conjugate_gradients
from posterior_inpainting.models.fields.mean_colour import MeanColour
from posterior_inpainting.models.fields.seen_of_field import seen_of_field
from posterior_inpainting.models.networks.experts import Experts
from posterior_inpainting.models.shapes import Image, ImageShape, Mask, check_shape

__all__ = ["ExpertField"]


class ExpertField(ImageModel):
    """Field of experts over ``pixels``, seen under noise; ``Gibbs()`` draws from its posterior.

    The density has no constant that is known, so that there is no evidence. Without an image the model draws pixels
    from the ridge alone, and their weight is in the factor ``experts``: draws of the prior are those of ``Gibbs()``
    where nothing is seen.

    Parameters
    ----------
    experts
        Filters and their laws.
    image_shape
        ``(channel, row, column)``, at least as large as the widest filter.
    noise
        Standard deviation of a seen pixel around the completion.
    tolerance
        Of the solver: largest residual relative to the right-hand side.
    colours
        Law of the mean colour of images (``MeanColour``), of which filters say nothing and a grey photograph neither:
        ``ChannelPrior.of_photographs()``. Seen pixels say it by themselves, and need none.

    Raises
    ------
    ValueError
        For other channels than the experts' or the colours', an image smaller than a filter, or noise that is not
        positive.

    Examples
    --------
    >>> model = ExpertField(Experts(channels=1, count=4, side=3), (1, 16, 16))
    >>> tuple(model(torch.rand(1, 16, 16)).shape)
    (1, 16, 16)
    """

    takes_measurements = True
    noise_is_of_seeing = True

    def __init__(
        self,
        experts: Experts,
        image_shape: ImageShape,
        *,
        noise: float = 0.02,
        tolerance: float = 1e-4,
        colours: ChannelPrior | None = None,
    ):
        super().__init__()
        self.image_shape = tuple(check_shape(image_shape))
        if experts.channels != self.image_shape[0]:
            raise ValueError(
                f"the experts take {experts.channels} channel(s), and shape={image_shape} has others"
            )
        least = 2 ** (experts.levels - 1) * experts.side
        if min(self.image_shape[1:]) < least:
            raise ValueError(
                f"shape={image_shape} is smaller than the widest filter, {least} x {least} pixels"
            )
        if not noise > 0 or not 0 < tolerance < 1:
            raise ValueError(
                f"noise={noise}, tolerance={tolerance}; expected positive numbers, tolerance below 1"
            )
        if colours is not None and colours.channels != experts.channels:
            raise ValueError(f"colours is of {colours.channels} channels, the experts of {experts.channels}")
        self.experts = experts
        self.mean_colour = None if colours is None else MeanColour(colours)
        self.noise, self.tolerance = noise, tolerance

    @classmethod
    def load(cls, name: str | Path, image_shape: ImageShape, **settings: Any) -> ExpertField:
        """Make the model of bundled experts, or of a folder that ``pretrained.save_parts`` wrote.

        Parameters
        ----------
        name
            Name of the set.
        image_shape, settings
            As for the class.
        """
        experts: Any = pretrained.load_parts(name, "experts")["experts"]
        return cls(experts.requires_grad_(False).eval(), image_shape, **settings)

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw pixels, weigh them by the experts, then the image around them."""
        experts = frozen(self, "experts")
        with self.images_plate(image):
            ridge = experts.filters.new_full(self.image_shape, experts.centre)
            pixels = pyro.sample("pixels", dist.Normal(ridge, experts.ridge**-0.5).to_event(3))
            if am_i_wrapped():  # called as a plain function: there is no one to weigh for
                flat = pixels.reshape(-1, *self.image_shape)
                factor = experts.log_experts(flat).reshape(pixels.shape[:-3])
                colour = frozen(self, "mean_colour")
                pyro.factor("experts", factor if colour is None else factor + colour.log_factor(pixels))
            return self.observe(dist.Normal(pixels, self.noise), image, mask)

    def conditionals(self, image: Image, mask: Mask | None = None) -> ExpertConditionals:
        """Return the draws of components and pixels in turn."""
        return ExpertConditionals(self, image, mask)

    def kept(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the pixels once: they are the completion."""
        return {"completion": latents["pixels"]}

    def law_of_kept(self, kept: dict[str, Tensor]) -> dist.TorchDistribution:
        """Return the law of pixels around completions."""
        return dist.Normal(kept["completion"], self.noise)


class ExpertConditionals(Conditionals):
    """Components given pixels, and pixels given components and what is seen."""

    def __init__(self, model: ExpertField, image: Image, mask: Mask | None = None):
        self.experts: Experts = frozen(model, "experts")
        self.colour: MeanColour | None = frozen(model, "mean_colour")
        self.shape, self.noise, self.tolerance = model.image_shape, model.noise, model.tolerance
        self.seen = seen_of_field(image, mask, self.shape, self.noise, self.experts.filters)

    @torch.no_grad()
    def start(self, chains: int, generator: Generator) -> dict[str, Tensor]:
        """Draw pixels as if every response had its mean precision: smoothly from what is seen."""
        like = self.experts.filters.new_zeros(chains, *self.shape)
        return {"pixels": self._pixels(self.experts.mean_precisions(like), like, generator)}

    @torch.no_grad()
    def sweep(self, latents: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """Draw components, then pixels."""
        pixels = latents["pixels"]
        precisions = self.experts.draw_precisions(pixels, generator)
        return {"pixels": self._pixels(precisions, pixels, generator)}

    @torch.no_grad()
    def expected(self, latents: dict[str, Tensor], generator: Generator) -> Tensor:
        """Return the mean of pixels given components that are drawn given these."""
        pixels = latents["pixels"]
        return self._pixels(self.experts.draw_precisions(pixels, generator), pixels, None)

    @torch.no_grad()
    def log_density(self, latents: dict[str, Tensor]) -> Tensor:
        """Return that of pixels and seen pixels."""
        pixels = latents["pixels"]
        found = self.experts.log_density(pixels) + self.seen.log_density(pixels)
        return found if self.colour is None else found + self.colour.log_factor(pixels)

    def _pixels(self, precisions: list[Tensor], like: Image, generator: Generator | None) -> Image:
        """Draw pixels given the precisions of responses, or return their mean where there is no generator."""

        def noise(shaped: Tensor) -> Tensor:
            """Return white noise, shaped as what is given."""
            if generator is None:
                return torch.zeros_like(shaped)
            return torch.randn(shaped.shape, generator=generator, dtype=like.dtype, device=like.device)

        experts, seen, colour = self.experts, self.seen, self.colour
        right = experts.adjoint([noise(d) * d.sqrt() for d in precisions], like)
        right += experts.ridge * experts.centre + math.sqrt(experts.ridge) * noise(like)
        right += seen.adjoint(seen.values + noise(seen.values.expand(len(like), *seen.values.shape[1:])))

        diagonal = experts.diagonal(precisions) + seen.diagonal
        if colour is not None:
            right += colour.right(noise, like)
            diagonal = diagonal + colour.diagonal(like)

        def times(x: Image) -> Image:
            """Multiply images by the precision that the components leave, and by that of what is seen."""
            found = experts.precision_times(x, precisions) + seen.adjoint(seen.measured(x))
            return found if colour is None else found + colour.precision_times(x)

        # Solved for is what is left of a guess, in units in which the diagonal is 1: the sharp precisions of seen
        # pixels would be all that the tolerance is about otherwise.
        guess = seen.guess(like)
        unit = diagonal.rsqrt()
        left = conjugate_gradients(
            lambda y: unit * times(unit * y),
            lambda y: y,
            unit * (right - times(guess)),
            self.tolerance,
            _ITERATIONS,
            # Nothing is nearer than rounding leaves the product of a matrix of unit diagonal and a whole image.
            8 * torch.finfo(like.dtype).eps * (guess / unit).square().sum((1, 2, 3), keepdim=True).sqrt(),
        )
        return guess + unit * left


#: Of the solver, before it gives up.
_ITERATIONS = 2_000
