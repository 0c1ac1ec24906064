r"""Training images themselves as the prior: one of them, seen under noise.

With images :math:`x_1, \dots, x_n`, an index i and noise s,

.. math:: p(i) = 1 / n, \qquad \tilde x \mid i \sim N(x_i, s^2 I), \qquad
          p(i \mid \tilde x) \propto \exp\big( -\| \tilde x - x_{i, seen} \|^2 / (2 s^2) \big).

It is a kernel density estimate (Parzen 1962), whose posterior is exact, and the yardstick of every prior that was
trained on the same images: a network that does no better has not learnt more than to remember. The nearest neighbours
on the seen pixels, each alike (Hays & Efros 2007, *Scene Completion Using Millions of Photographs*, choose among them),
are kept beside it, because they are commonly compared with; they are the posterior of no model.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.shapes import Image, Mask, check_image, refuse_eight_bits, seen_part

__all__ = ["EmpiricalPrior"]


class EmpiricalPrior(ImageModel):
    """One of the given images, under noise; its guide is the exact posterior over ``index``, or the nearest ones.

    Parameters
    ----------
    images
        ``(n, channel, row, column)``.
    noise
        Standard deviation of a pixel around the image.
    nearest
        Draw the nearest this many on the seen pixels, one after another and again from the first, in place of the
        posterior, which ``None`` draws.

    Raises
    ------
    ValueError
        For images that are no batch, noise that is not positive, or more neighbours than there are images.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = EmpiricalPrior(images, noise=0.1)
    >>> mask = observations.half(model.image_shape, hide="bottom")
    >>> int(model.exact_posterior(images[7], mask).probs.argmax())
    7
    """

    guide_is_exact = True
    takes_measurements = True

    def __init__(self, images: Image, noise: float = 0.1, nearest: int | None = None):
        super().__init__()
        check_image(images)
        refuse_eight_bits(images)
        if images.dim() != 4 or len(images) == 0:
            raise ValueError(
                f"images has shape {tuple(images.shape)}; expected (n, channel, row, column), n > 0"
            )
        if not noise > 0:
            raise ValueError(f"noise={noise}; expected a positive number")
        if nearest is not None and not 1 <= nearest <= len(images):
            raise ValueError(f"nearest={nearest}; expected 1 to {len(images)}, the number of images")
        self.image_shape = tuple(images.shape[1:])
        self.noise, self.nearest = float(noise), nearest
        self.register_buffer("images", images, persistent=False)

    @property
    def is_pseudo_posterior(self) -> bool:  # type: ignore[override]
        """Whether it draws the nearest ones, which are no posterior's."""
        return self.nearest is not None

    @property
    def law_of_draws(self) -> str:  # type: ignore[override]
        """What the draws are of, where they are not the posterior's."""
        return "" if self.nearest is None else f"{self.nearest} nearest images, each alike"

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw one of the images, then the pixels around it."""
        with self.images_plate(image):
            index = pyro.sample("index", dist.Categorical(logits=self.images.new_zeros(len(self.images))))
            return self.observe(self.law_of_kept(self.kept({"index": index})), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Tensor:
        """Draw an index from the exact posterior, or one of the nearest."""
        with self.images_plate(image):
            return pyro.sample("index", self.exact_posterior(image, mask))

    def exact_posterior(self, image: Image | None = None, mask: Mask | None = None) -> dist.Categorical:
        """Return the law of the index given what is seen, batch shape that of the images."""
        likelihood = self._log_likelihoods(image, mask)
        if self.nearest is not None:
            near = likelihood.topk(self.nearest, dim=-1).indices
            likelihood = torch.full_like(likelihood, -torch.inf).scatter(-1, near, 0.0)
        return dist.Categorical(logits=likelihood)

    def draw_completions(
        self, image: Image, mask: Mask | None = None, *, draws: int
    ) -> dict[str, Tensor] | None:
        """Return the nearest images, each as often as the others but for one, in random order; otherwise ``None``."""
        if self.nearest is None:
            return None
        near = self._log_likelihoods(image, mask).topk(self.nearest, dim=-1).indices
        rounds = -(-draws // self.nearest)
        index = torch.cat([near[torch.randperm(len(near), device="cpu")] for _ in range(rounds)])[:draws]
        return self.kept({"index": index})

    def kept(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the index, and the image that it names as the completion."""
        index = latents["index"]
        drawn = self.images.index_select(0, index.long().reshape(-1)).reshape(*index.shape, *self.image_shape)
        return {"index": index, "completion": drawn}

    def law_of_kept(self, kept: dict[str, Tensor]) -> dist.TorchDistribution:
        """Return the law of pixels around completions."""
        return dist.Normal(kept["completion"], self.noise)

    def log_evidence(self, image: Image | None = None, mask: Mask | None = None) -> Tensor:
        """Return log p(x~) in nats, batch shape that of the images, float64."""
        likelihood = self._log_likelihoods(image, mask).double()
        return likelihood.logsumexp(-1) - math.log(len(self.images))

    def _log_likelihoods(self, image: Image | None, mask: Mask | None) -> Tensor:
        """Return the log density of the seen pixels given each of the images, ``(*batch, n)``."""
        if isinstance(mask, Instrument):
            assert image is not None
            variance = self.images.new_full((1, 1, 1), self.noise**2)
            return mask.law(self.images, variance).log_prob(image.flatten(-3).unsqueeze(-2))
        image, seen = seen_part(image, mask, self.image_shape, self.images)
        flat = self.images.flatten(1)
        target, where = image.flatten(-3), seen.flatten(-3).to(flat)
        # |x~ - x_i|^2 over seen pixels, as three products of matrices.
        square = target.square().sum(-1, keepdim=True) - 2 * target @ flat.T + where @ flat.square().T
        constant = where.sum(-1, keepdim=True) * math.log(self.noise * math.sqrt(2 * math.pi))
        return -0.5 * square.clamp(min=0.0) / self.noise**2 - constant
