r"""A variational autoencoder whose decoder has random weights: one set for all images, a code for each.

Blundell et al. 2015, *Weight Uncertainty in Neural Networks*, for the weights; Kingma & Welling 2014, appendix F
(*full variational Bayes*), for code and weights together. With codes z, images x and weights theta:

.. math:: \theta \sim p(\theta), \qquad z_n \sim N(0, I), \qquad
          x_{ni} \mid z_n, \theta \sim N(f_\theta(z_n)_i, \sigma_\theta(z_n)_i^2),

and the guide :math:`q(\theta) \prod_n q_\phi(z_n \mid x_n, M_n)` with a mean-field Gaussian
:math:`q(\theta) = N(\mu, \mathrm{diag}\, s^2)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from posterior_inpainting.models import pretrained
from posterior_inpainting.models.base import ImageModel, frozen
from posterior_inpainting.models.likelihoods import likelihood_of
from posterior_inpainting.models.networks.decoder import Decoder
from posterior_inpainting.models.random_weights.given_weights import Weights
from posterior_inpainting.models.random_weights.layers import BayesianModule, Prior, bayesian
from posterior_inpainting.models.random_weights.weight_priors import FanIn
from posterior_inpainting.models.shapes import Code, Image, Mask, seen_part

__all__ = [
    "BayesianDecoder",
    "decode_with",
    "posterior_scales_of",
    "set_posterior_scales",
    "with_random_weights",
    "bare",
]


class BayesianDecoder(ImageModel):
    """Many images' model with ``z`` for each image and decoder weights that all of them share.

    Train it with ``train(model, model.guide, images, loss=BayesByBackprop())``. It is the model of a *data set*:
    with a single image its weights have their prior and one image to learn from. For the completion of an image
    given q(theta | data set), hand it to :class:`~posterior_inpainting.models.code_and_weights.CodeAndWeights` or
    :class:`~posterior_inpainting.models.code_and_weights.WeightDraws`.

    Parameters
    ----------
    decoder
        Module from z ``(*batch, latent)`` to means and scales (``mean_and_scale``), with ``latent`` and
        ``image_shape``. A copy is made; its weights become the means of q(theta).
    encoder
        Module from image and mask to location and scale of q(z | x~); adopted.
    prior
        Law of a single weight; by default ``FanIn(gain=3.0)``, about the size that trained weights have.
    posterior_scale
        Standard deviation of q(theta) to start from: a number, or path -> tensor.
    random
        Which parameters are random, from their path; all by default.
    local_reparametrisation
        Whether to draw the noise at the units while training, which makes its gradient less noisy. In ``eval``
        mode weights are drawn, one network for all pixels.

    Raises
    ------
    ValueError
        If no parameter is random, or posterior scales do not fit them.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> model = BayesianDecoder(MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,)))
    >>> tuple(model(torch.rand(5, 1, 8, 8)).shape), sorted(model.guide(torch.rand(5, 1, 8, 8)))[:2]
    ((5, 1, 8, 8), ['mean_head.bias', 'mean_head.weight'])
    """

    takes_measurements = True

    def __init__(
        self,
        decoder: Any,
        encoder: Any,
        *,
        prior: Prior | None = None,
        posterior_scale: float | Weights = 0.01,
        random: Callable[[str], bool] = lambda path: True,
        local_reparametrisation: bool = False,
    ):
        super().__init__()
        settings: dict = {"random": random, "local_reparametrisation": local_reparametrisation}
        decoder = bare(decoder)
        self.decoder = with_random_weights(decoder, prior, posterior_scale, **settings)
        self.encoder = encoder
        self.latent = decoder.latent
        self.image_shape = tuple(decoder.image_shape)

    @classmethod
    def load(cls, name: str = "fashion-mnist-bayesian-decoder") -> BayesianDecoder:
        """Return a bundled one, or what ``pretrained.save(..., posterior_scales=...)`` wrote to a folder."""
        decoder: Any = pretrained.load(name)
        return cls(decoder, decoder.encoder, posterior_scale=pretrained.posterior_scales(name)).eval()

    @property
    def guide_is_trained(self) -> bool:
        """Whether there is an encoder."""
        return frozen(self, "encoder") is not None

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw one network, a code for each image, then the images around their decodings."""
        plate = self.images_plate(image)
        local = self.decoder.local_reparametrisation and self.training
        # Outside the plate: the weights, and the divergence that stands for them, are those of all images.
        weights = None if local else self.decoder.sample_weights()
        with plate:
            z = pyro.sample("z", dist.Normal(self._zeros(self.latent), 1.0).to_event(1))
        if weights is None:
            mean, scale = self.decoder(z, method="mean_and_scale")
        else:
            mean, scale = decode_with(self.decoder, weights, z)
        with plate:
            likelihood = likelihood_of(frozen(self.decoder, "mean"))
            return self.observe(likelihood(mean, scale), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> dict[str, Tensor]:
        """Draw the weights from q(theta) and the codes from the encoder's law given the seen pixels."""
        shown = seen_part(image, mask, self.image_shape, self._zeros(0))
        weights = self.decoder.guide()
        with self.images_plate(image):
            z = pyro.sample("z", dist.Normal(*self.encoder(*shown)).to_event(1))
        return {**weights, "z": z}

    def _zeros(self, *shape: int) -> Tensor:
        return next(frozen(self, "decoder").parameters()).new_zeros(shape)


def decode_with(decoder: BayesianModule, weights: Weights, z: Code) -> tuple[Image, Image]:
    """Return means and scales of codes under one network, or of each draw's codes under its own.

    Parameters
    ----------
    weights
        Path -> ``(*draws, *shape)``; trailing ``draws`` dims of size 1 are plates of images.
    z
        ``(*draws, *images, latent)``.
    """
    path, value = next(iter(weights.items()))
    leading = value.shape[: value.dim() - decoder.mean.get_parameter(path).dim()]
    while len(leading) > 1 and leading[-1] == 1:
        leading = leading[:-1]
    return decoder.forward_with(weights, z, method="mean_and_scale", paired=bool(leading))


def with_random_weights(
    network: Any, prior: Prior | None, posterior_scale: float | Weights, **settings: Any
) -> BayesianModule:
    """Turn a trained network into one with random, trainable weights; ``posterior_scale`` for all, or by path."""
    one = posterior_scale if isinstance(posterior_scale, float) else 0.01
    prior = FanIn(gain=3.0) if prior is None else prior
    made = bayesian(network, prior, posterior_scale=one, **settings)
    made.requires_grad_(True)
    if not isinstance(posterior_scale, float):
        set_posterior_scales(made, posterior_scale)
    return made


def set_posterior_scales(network: BayesianModule, scales: Weights) -> None:
    """Set the standard deviations of q(theta), path -> tensor."""
    expected = {path.replace("/", "."): raw for path, raw in network.raw_scale.items()}
    if set(expected) != set(scales):
        raise ValueError(f"posterior scales are of {sorted(scales)}; expected {sorted(expected)}")
    with torch.no_grad():
        for path, raw in expected.items():
            raw.copy_(torch.log(torch.expm1(scales[path].clamp(min=1e-7))))


def posterior_scales_of(network: BayesianModule) -> Weights:
    """Return the standard deviations of q(theta), path -> tensor, without gradients."""
    return {path: law.scale.detach() for path, law in network.posterior().items()}


def bare(decoder: Any) -> Any:
    """Return a decoder without what a bundled one carries beside its weights: encoder, law of codes and domain."""
    if not isinstance(decoder, Decoder):
        return decoder
    if decoder.encoder is decoder.law_of_codes is decoder.domain is None:
        return decoder
    alone = copy.deepcopy(decoder)
    alone.encoder = alone.law_of_codes = alone.domain = None
    return alone
