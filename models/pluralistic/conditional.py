r"""Pluralistic completion as a conditional variational autoencoder, trained on the hidden pixels.

Sohn, Lee & Yan 2015, *Learning Structured Output Representation using Deep Conditional Generative Models*, equation 4.
With seen pixels x~, hidden pixels :math:`x_c` and a summary h(x~) of what is seen,

.. math:: z \sim p(z \mid \tilde x), \qquad x_i \mid z, \tilde x \sim N(f(z, h)_i, \sigma(z, h)_i^2) \quad
          \text{for hidden } i, \\
          \log p(x_c \mid \tilde x) \ge E_{q(z \mid x)} \log p(x_c \mid z, \tilde x)
          - \mathrm{KL}[q(z \mid x) \,\|\, p(z \mid \tilde x)].

Zheng et al. 2019 (section 3.1) expect it to collapse: each image is one truth for its seen pixels, so that a decoder
that reads the summary alone, and leaves the rest to noise, need not pay for the code. How far it does here is measured,
as the share of the predictive variance that the code accounts for (`tests/benchmarks/pluralistic.md`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import pyro_method

from posterior_inpainting.models import pretrained
from posterior_inpainting.models.base import ImageModel, TrainingModel
from posterior_inpainting.models.likelihoods import likelihood_of
from posterior_inpainting.models.shapes import Code, Image, InputError, Mask, seen_mask, seen_part

__all__ = ["PluralisticConditional"]


class PluralisticConditional(ImageModel):
    r"""The conditional form: p(z | x~) in the model, the likelihood on hidden pixels, ``Exact()`` by ancestry.

    Seen pixels are input, and scored nowhere: they must not count twice. Given them, the posterior of z therefore *is*
    p(z | x~), the guide is exact, and there is nothing to refine. Train it with ``train(model.training_model,
    model.training_guide, images, masks=masks)``.

    Parameters
    ----------
    prior_encoder
        From image and mask to location and scale of p(z | x~), and the summary h(x~); see ``ContextEncoder``.
    decoder
        From z and h, one after the other, to means and scales (``mean_and_scale``); see ``MultilayerDecoder``.
    posterior_encoder
        From seen and hidden part, as an image and a mask of twice the channels, to location and scale of
        q(z | x); see ``MaskedEncoder``. Only training needs it.

    Raises
    ------
    ValueError
        If the decoder does not take as many numbers as z and h have.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> from posterior_inpainting.models.networks.context_encoder import ContextEncoder
    >>> model = PluralisticConditional(
    ...     ContextEncoder(2, (1, 8, 8), (16,), context=4),
    ...     MultilayerDecoder(2 + 4, (1, 8, 8), (16,)),
    ...     MaskedEncoder(2, (2, 8, 8), (16,)),
    ... )
    >>> image, mask = torch.rand(1, 8, 8), torch.rand(1, 8, 8) < 0.5
    >>> completed = model(image, mask)
    >>> bool((completed == image)[mask].all()), tuple(model.guide(image, mask).shape)
    (True, (2,))
    """

    guide_is_exact = True

    def __init__(self, prior_encoder: Any, decoder: Any, posterior_encoder: Any = None):
        super().__init__()
        expected = prior_encoder.latent + prior_encoder.context
        if decoder.latent != expected:
            raise ValueError(
                f"the decoder takes {decoder.latent} numbers; expected {prior_encoder.latent} of the code and "
                f"{prior_encoder.context} of the summary"
            )
        self.prior_encoder, self.decoder = prior_encoder, decoder
        self.posterior_encoder = posterior_encoder
        self.image_shape, self.latent = tuple(decoder.image_shape), prior_encoder.latent

    @classmethod
    def load(cls, name: str | Path = "fashion-mnist-pluralistic-conditional") -> PluralisticConditional:
        """Return a bundled one, or what ``pretrained.save_parts`` wrote to a folder; its weights are frozen."""
        parts = pretrained.load_parts(name, "prior_encoder", "decoder")
        model = cls(parts["prior_encoder"], parts["decoder"], parts.get("posterior_encoder"))
        return model.requires_grad_(False).eval()

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw z from p(z | x~), then the hidden pixels; seen pixels are input and score nothing."""
        with self.images_plate(image):
            law = self._decoded(image, mask)
            return self.observe(law if image is None else law.mask(False), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Code:
        """Draw z from p(z | x~)."""
        loc, scale, _ = self.prior_encoder(*self._seen(image, mask))
        with self.images_plate(image):
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    @property
    def training_model(self) -> TrainingModel:
        """The Pyro model to train: z from p(z | x~), then the hidden pixels, which are the data."""
        return TrainingModel(self, self.score_hidden)

    @pyro_method
    def score_hidden(self, image: Image, mask: Mask) -> None:
        """Draw z from p(z | x~) and score the hidden pixels."""
        with self.images_plate(image):
            law = self._decoded(image, mask)
            pyro.sample("image", law.mask(~mask).to_event(3), obs=image)

    @pyro_method
    def training_guide(self, image: Image, mask: Mask | None = None) -> Code:
        """Draw z from q(z | x), which sees both parts, and which is which."""
        if self.posterior_encoder is None:
            raise InputError("there is no posterior_encoder, which training needs")
        mask = seen_mask(image, mask)
        loc, scale = self.posterior_encoder(torch.cat([image, image], -3), torch.cat([mask, ~mask], -3))
        with self.images_plate(image):
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def _decoded(self, image: Image | None, mask: Mask | None) -> dist.TorchDistribution:
        """Draw z from p(z | x~) and return the law of all pixels given it."""
        loc, scale, summary = self.prior_encoder(*self._seen(image, mask))
        z = pyro.sample("z", dist.Normal(loc, scale).to_event(1))
        summary = summary.expand(*z.shape[:-1], summary.shape[-1])
        return likelihood_of(self.decoder)(*self.decoder.mean_and_scale(torch.cat([z, summary], -1)))

    def _seen(self, image: Image | None, mask: Mask | None) -> tuple[Image, Mask]:
        return seen_part(image, mask, self.image_shape, next(self.prior_encoder.parameters()))
