r"""Pluralistic completion as published: two paths, the hidden pixels of one judged by a discriminator alone.

Zheng, Cham & Cai 2019, *Pluralistic Image Completion*, section 3. With the seen part :math:`I_m`, the hidden part
:math:`I_c`, n the share of pixels that is seen, and weights that both paths share:

* reconstructive path: :math:`z \sim q(z \mid I_c)`, tied to :math:`N(0, s^2(n))`, decodes to the whole truth;
* generative path: :math:`z \sim p(z \mid I_m)`, pulled to q (whose gradient is stopped), is scored on *seen* pixels
  only. What it paints into the hole is judged by a discriminator alone.

.. math:: s(n) = 1 / (1 + e^{8 (n - 0.8)})

Completion is the generative path: z from p(z | I_m), decode, keep the seen pixels. No likelihood ever scored the hole
on that path, so that its draws are diverse as far as a discriminator asks for it, and calibrated only by accident.
The objective itself is `TwoPathObjective` of the inference layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import pyro_method
from torch import Tensor

from posterior_inpainting.models import pretrained
from posterior_inpainting.models.base import ImageModel, TrainingModel
from posterior_inpainting.models.shapes import Code, Image, Mask, seen_mask, seen_part

__all__ = ["Paths", "PluralisticTwoPath", "prior_scale"]


def prior_scale(mask: Mask) -> Tensor:
    """Return s(n) of masks ``(*batch, channel, row, column)``: the more is seen, the less is left to the code.

    >>> half = torch.tensor([[[True, False]]])
    >>> round(float(prior_scale(half)), 3)
    0.917
    """
    return torch.sigmoid(-8 * (mask.float().mean((-3, -2, -1)) - 0.8))


@dataclass(frozen=True)
class Paths:
    """Both paths for a batch of n images: what the published objective is made of.

    Parameters
    ----------
    hidden_law, seen_law
        q(z | I_c) and p(z | I_m), batch shape ``(n, latent)``.
    prior
        N(0, s^2(n)), of the same shape.
    reconstructed, generated
        Decoded images of either path, at every scale, smallest first.
    """

    hidden_law: dist.Normal
    seen_law: dist.Normal
    prior: dist.Normal
    reconstructed: list[Image]
    generated: list[Image]


class PluralisticTwoPath(ImageModel):
    r"""The published form: p(z | x~) in the model, nothing scored; a generator of completions, not a density.

    Given the seen pixels, the law of z *is* p(z | x~), so that ``infer(model, seen, Exact())`` draws as published. But
    no joint density of code and pixels stands behind it: ``is_pseudo_posterior`` is true, there is no evidence, and
    importance weights (all equal) mean nothing. Train it with ``train(model.training_model, model.training_guide,
    images, masks=masks, loss=TwoPathObjective())``; with the default loss that pair is the reconstructive path alone.

    Parameters
    ----------
    encoder
        From image and mask to features, and from these to laws of z (``from_seen``, ``from_hidden``); see
        ``PluralisticEncoder``.
    decoder
        From z, features and mask to images of several sizes, with ``noise``; see ``PluralisticDecoder``.
        The published method has no noise: there a draw is ``completion``, with the seen pixels kept.

    Raises
    ------
    ValueError
        If the two have different codes.

    Examples
    --------
    >>> from posterior_inpainting.models.networks.pluralistic import PluralisticDecoder, PluralisticEncoder
    >>> shape = (1, 8, 8)
    >>> model = PluralisticTwoPath(PluralisticEncoder(shape, 2, (8, 8)), PluralisticDecoder(shape, 2, (8, 8)))
    >>> image, mask = torch.rand(shape), torch.rand(shape) < 0.5
    >>> tuple(model(image, mask).shape), tuple(model.guide(image, mask).shape)
    ((1, 8, 8), (8,))
    """

    guide_is_exact = True
    is_pseudo_posterior = True

    def __init__(self, encoder: Any, decoder: Any):
        super().__init__()
        if encoder.latent != decoder.latent:
            raise ValueError(
                f"the encoder's code has {encoder.latent} entries and the decoder's {decoder.latent}; "
                "expected as many"
            )
        self.encoder, self.decoder = encoder, decoder
        self.image_shape, self.latent = tuple(decoder.image_shape), decoder.latent

    @classmethod
    def load(cls, name: str | Path = "fashion-mnist-pluralistic-two-path") -> PluralisticTwoPath:
        """Return a bundled one, or what ``pretrained.save_parts`` wrote to a folder; its weights are frozen."""
        parts = pretrained.load_parts(name, "encoder", "decoder")
        return cls(parts["encoder"], parts["decoder"]).requires_grad_(False).eval()

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw z from p(z | x~), then the hidden pixels; seen pixels are input and score nothing."""
        seen, shown = self._shown(image, mask)
        features = self.encoder(seen, shown)
        with self.images_plate(image):
            z = pyro.sample("z", dist.Normal(*self.encoder.from_seen(features[1])).to_event(1))
            law = dist.Laplace(self.decoder(z, features, shown)[-1], self.decoder.noise)
            return self.observe(law if image is None else law.mask(False), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Code:
        """Draw z from p(z | x~)."""
        seen, shown = self._shown(image, mask)
        law = dist.Normal(*self.encoder.from_seen(self.encoder(seen, shown)[1]))
        with self.images_plate(image):
            return pyro.sample("z", law.to_event(1))

    @property
    def training_model(self) -> TrainingModel:
        """The reconstructive path as a Pyro model: z from N(0, s^2(n)), then the whole image."""
        return TrainingModel(self, self.score_whole)

    @pyro_method
    def score_whole(self, image: Image, mask: Mask) -> None:
        """Draw z from N(0, s^2(n)) and score all pixels around its decoding."""
        features = self.encoder(image, mask)
        with self.images_plate(image):
            z = pyro.sample("z", self._prior(image, mask).to_event(1))
            law = dist.Laplace(self.decoder(z, features, mask)[-1], self.decoder.noise)
            pyro.sample("image", law.to_event(3), obs=image)

    @pyro_method
    def training_guide(self, image: Image, mask: Mask | None = None) -> Code:
        """Draw z from q(z | I_c), which sees the hidden pixels."""
        mask = seen_mask(image, mask)
        law = dist.Normal(*self.encoder.from_hidden(self.encoder(image, ~mask)[1]))
        with self.images_plate(image):
            return pyro.sample("z", law.to_event(1))

    def two_paths(self, image: Image, mask: Mask) -> Paths:
        """Run both paths for a batch ``(n, channel, row, column)``, with draws that carry gradients.

        The generative path reads the seen pixels alone; the reconstructive one reads both parts.
        """
        mask = mask.expand(image.shape)
        features = self.encoder(image, mask)
        hidden_law = dist.Normal(*self.encoder.from_hidden(self.encoder(image, ~mask)[1]))
        seen_law = dist.Normal(*self.encoder.from_seen(features[1]))
        codes = torch.stack([hidden_law.rsample(), seen_law.rsample()])
        both = self.decoder(codes, features, mask)
        return Paths(
            hidden_law,
            seen_law,
            self._prior(image, mask),
            [scale[0] for scale in both],
            [scale[1] for scale in both],
        )

    def _prior(self, image: Image, mask: Mask) -> dist.Normal:
        scale = prior_scale(mask.expand(image.shape)).to(image)
        return dist.Normal(image.new_zeros(self.latent), scale[..., None])

    def _shown(self, image: Image | None, mask: Mask | None) -> tuple[Image, Mask]:
        """Image and mask as the networks take them, checked."""
        return seen_part(image, mask, self.image_shape, next(self.encoder.parameters()))
