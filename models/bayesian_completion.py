r"""Completion by one pass of a network with random weights, from the seen pixels to all of them.

The review's integral over networks (Blundell et al. 2015 for the weights): with the seen image and its mask as input
and data D of whole images,

.. math:: p(x \mid \tilde x, D) \approx \int q(\theta \mid D) \prod_i N(x_i; f_\theta(\tilde x, M)_i,
          \sigma_\theta(\tilde x, M)_i^2) \, d\theta,

drawn from by ancestry: a network theta, then the pixels. Given theta, pixels are independent, so a draw is
coherent only as far as networks differ: with many data they hardly do, and what the seen pixels leave open
(a shirt's sleeves or none) becomes pixel noise instead of different shirts. It is the fast answer, not the best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import pyro_method
from torch import Tensor, nn

from posterior_inpainting.models import pretrained
from posterior_inpainting.models.base import ImageModel, TrainingModel
from posterior_inpainting.models.bayesian_decoder import bare, with_random_weights
from posterior_inpainting.models.likelihoods import likelihood_of, normal
from posterior_inpainting.models.random_weights.given_weights import Weights
from posterior_inpainting.models.random_weights.layers import Prior
from posterior_inpainting.models.shapes import Image, Mask, seen_mask, seen_part

__all__ = ["BayesianCompletion", "CompletionNetwork"]


class CompletionNetwork(nn.Module):
    """From image and mask through a bottleneck to mean and scale of every pixel.

    Parameters
    ----------
    encoder
        From image and mask to a location (and a scale, which is not used), as ``MaskedEncoder``.
    decoder
        From that location to means and scales, as ``MultilayerDecoder``.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> net = CompletionNetwork(MaskedEncoder(4, (1, 8, 8), (16,)), MultilayerDecoder(4, (1, 8, 8), (16,)))
    >>> mean, scale = net(torch.rand(5, 1, 8, 8), torch.ones(5, 1, 8, 8, dtype=torch.bool))
    >>> tuple(mean.shape)
    (5, 1, 8, 8)
    """

    def __init__(self, encoder: Any, decoder: Any):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.image_shape = tuple(decoder.image_shape)

    def forward(self, image: Image, mask: Mask) -> tuple[Image, Image]:
        """Return means and scales, both shaped as the image."""
        return self.decoder.mean_and_scale(self.encoder(image, mask)[0])


class BayesianCompletion(ImageModel):
    """Completion by a network with random weights; the latents are its weights and nothing else.

    Two ways to be called. In training, by ``train(model.training_model, model.guide, images, masks=masks,
    loss=BayesByBackprop())``, the mask hides the *input* and the hidden pixels are the target. As an ``ImageModel``,
    for one image and its mask, the weights have q(theta | D) as their law, the seen pixels are input and not data,
    so that this law is also their posterior: the guide is exact, ``infer(model, seen, Exact())`` draws a network,
    then the hidden pixels. It is exact for the *predictive* of the approximation q(theta | D), and the joint law of
    theta and pixels is that of a regression: seen pixels do not choose among networks.

    Parameters
    ----------
    network
        From ``(image, mask)`` to means and scales, with ``image_shape``; adopted as it is.
    prior, posterior_scale, random, local_reparametrisation
        As for :class:`~posterior_inpainting.models.bayesian_decoder.BayesianDecoder`.

    Raises
    ------
    ValueError
        For a decoder whose pixels are not normal: mean and scale of a draw are what is kept of it.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> net = CompletionNetwork(MaskedEncoder(4, (1, 8, 8), (16,)), MultilayerDecoder(4, (1, 8, 8), (16,)))
    >>> model = BayesianCompletion(net)
    >>> tuple(model(torch.rand(1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)).shape)
    (1, 8, 8)
    """

    guide_is_exact = True

    def __init__(
        self,
        network: Any,
        *,
        prior: Prior | None = None,
        posterior_scale: float | Weights = 0.01,
        random: Callable[[str], bool] = lambda path: True,
        local_reparametrisation: bool = False,
    ):
        super().__init__()
        settings: dict = {"random": random, "local_reparametrisation": local_reparametrisation}
        if likelihood_of(network.decoder) is not normal:
            raise ValueError(f"the decoder has {network.decoder.likelihood} pixels; expected normal ones")
        network = CompletionNetwork(network.encoder, bare(network.decoder))
        self.network = with_random_weights(network, prior, posterior_scale, **settings)
        self.image_shape = tuple(network.image_shape)

    @classmethod
    def load(cls, name: str = "fashion-mnist-bayesian-completion") -> BayesianCompletion:
        """Return a bundled one, or what ``pretrained.save(..., posterior_scales=...)`` wrote to a folder."""
        decoder: Any = pretrained.load(name)
        network = CompletionNetwork(decoder.encoder, decoder)
        return cls(network, posterior_scale=pretrained.posterior_scales(name)).eval()

    @property
    def training_model(self) -> TrainingModel:
        """The Pyro model to train: the mask hides the input, and the hidden pixels are the target."""
        return TrainingModel(self, self.score_hidden)

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw a network from q(theta | D), then the image; seen pixels are its input and score nothing."""
        weights = self.network.guide()
        law = dist.Normal(*self._complete(weights, image, mask))
        with self.images_plate(image):
            return self.observe(law if image is None else law.mask(False), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Weights:
        """Draw a network from q(theta | D)."""
        return self.network.guide()

    def predict(self, image: Image, mask: Mask, draws: int = 32, chunk: int | None = 16) -> dist.Normal:
        """Return the law of the pixels under each of ``draws`` networks: batch shape ``(draws, *image.shape)``.

        Without the networks themselves, of which ``Exact`` carries one a draw: the cheap way to many images.
        """
        with torch.no_grad():
            seen, weights = torch.where(mask, image, 0.0), self.network.draw_weights(draws)
            return dist.Normal(
                *self.network.forward_with(weights, seen, mask.expand(image.shape), chunk=chunk)
            )

    def draw_completions(
        self, image: Image, mask: Mask | None = None, *, draws: int, chunk: int = 32
    ) -> dict[str, Tensor]:
        """Return ``completion`` and ``scale`` ``(draws, *image.shape)`` under networks that are not kept.

        What ``Exact`` takes: a network a draw would be hundreds of thousands of numbers.
        """
        mask = seen_mask(image, mask)
        sizes = [min(chunk, draws - first) for first in range(0, draws, chunk)]
        laws = [self.predict(image, mask, draws=size) for size in sizes]
        return {
            "completion": torch.cat([law.loc for law in laws]),
            "scale": torch.cat([law.scale for law in laws]),
        }

    def law_of_kept(self, kept: dict[str, Tensor]) -> dist.Normal:
        """Return the law of the pixels whose mean and scale were kept as ``completion`` and ``scale``."""
        return dist.Normal(kept["completion"], kept["scale"])

    @pyro_method
    def score_hidden(self, image: Image, mask: Mask) -> None:
        """Draw a network from its prior and score the hidden pixels given the seen ones."""
        if self.network.local_reparametrisation and self.training:
            mean, scale = self.network(image, mask)
        else:
            mean, scale = self._complete(self.network.sample_weights(), image, mask)
        with self.images_plate(image):
            pyro.sample("image", dist.Normal(mean, scale).mask(~mask).to_event(3), obs=image)

    def _complete(self, weights: Weights, image: Image | None, mask: Mask | None) -> tuple[Tensor, Tensor]:
        shown = seen_part(image, mask, self.image_shape, next(iter(weights.values())))
        return self.network.forward_with(weights, *shown)
