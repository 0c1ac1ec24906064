r"""One image's code and the decoder's weights, both random: the joint posterior p(z, theta | x~, D).

With q(theta | D) learnt from a data set D as the law of the weights (Blundell et al. 2015), and one observation,

.. math:: p(z, \theta \mid \tilde x, D) \propto q(\theta \mid D)\, p(z) \prod_{i \,\mathrm{seen}}
          N(\tilde x_i; f_\theta(z)_i, \sigma_\theta(z)_i^2).

Two models of it: :class:`CodeAndWeights` over all weights, and :class:`WeightDraws` over a number of networks drawn
once, which is cheap, since its posterior is one over z for each network and an evidence for each. ``WeightDraws`` takes
any other law of the weights too: samples of them, a deep ensemble, a Gaussian of low rank or of the last layer.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.base import ImageModel, frozen
from posterior_inpainting.models.bayesian_decoder import BayesianDecoder, decode_with
from posterior_inpainting.models.latent_code import LatentCode
from posterior_inpainting.models.likelihoods import likelihood_of
from posterior_inpainting.models.random_weights.given_weights import Weights
from posterior_inpainting.models.random_weights.weight_laws import WeightLaw
from posterior_inpainting.models.shapes import Code, Image, Mask, seen_part

__all__ = ["CodeAndWeights", "WeightDraws"]


class CodeAndWeights(ImageModel):
    r"""Latent sites ``z`` and ``weights``, all of the random ones in white coordinates and one after another.

    :math:`\theta = \mu + s \epsilon` with :math:`\epsilon \sim N(0, I)` the site, so that every coordinate has the
    same prior and scale, and moves that keep N(0, I) keep q(theta | D). Each image of a batch has its own weights:
    posteriors of images that are each alone.

    Parameters
    ----------
    trained
        The decoder's q(theta | D) and the encoder; it stays as it is, and what it learns later is not seen here.

    Attributes
    ----------
    latent, size
        Length of ``z`` and of ``weights``.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> decoder, encoder = MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,))
    >>> model = CodeAndWeights(BayesianDecoder(decoder, encoder, random=lambda path: "mean_head" in path))
    >>> model.size, tuple(model(torch.rand(1, 8, 8)).shape)
    (1088, (1, 8, 8))
    """

    _loc: Tensor
    _scale: Tensor

    takes_measurements = True

    def __init__(self, trained: BayesianDecoder):
        super().__init__()
        self.decoder = copy.deepcopy(trained.decoder).requires_grad_(False).eval()
        self.encoder = trained.encoder
        self.image_shape = trained.image_shape
        self.latent = trained.latent
        laws = frozen(self, "decoder").posterior()
        self._shapes = {path: law.loc.shape for path, law in laws.items()}
        self.size = sum(shape.numel() for shape in self._shapes.values())
        for name in ("loc", "scale"):
            flat = torch.cat([getattr(law, name).detach().flatten() for law in laws.values()])
            self.register_buffer(f"_{name}", flat, persistent=False)

    def theta(self, white: Tensor) -> Weights:
        """Return the weights, path -> ``(*batch, *shape)``, of white coordinates ``(*batch, size)``."""
        pieces = (self._loc + self._scale * white).split([s.numel() for s in self._shapes.values()], -1)
        return {
            path: piece.reshape((*white.shape[:-1], *shape))
            for (path, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }

    @property
    def guide_is_trained(self) -> bool:
        """Always: the encoder and q(theta | D) are."""
        return True

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw weights and code, then the image around the decoding."""
        with self.images_plate(image):
            white = pyro.sample("weights", dist.Normal(self._zeros(self.size), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(self._zeros(self.latent), 1.0).to_event(1))
            law = likelihood_of(frozen(frozen(self, "decoder"), "mean"))(*self._decode(white, z))
            return self.observe(law, image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> dict[str, Tensor]:
        """Draw the weights as q(theta | D) has them, and z from the encoder's law: no seen pixel moves a weight."""
        with self.images_plate(image):
            white = pyro.sample("weights", dist.Normal(self._zeros(self.size), 1.0).to_event(1))
            z = pyro.sample("z", _encoded(self.encoder, self._zeros(*self.image_shape), image, mask))
        return {"weights": white, "z": z}

    def _decode(self, white: Tensor, z: Code) -> tuple[Tensor, Tensor]:
        batch = torch.broadcast_shapes(white.shape[:-1], z.shape[:-1])
        flat = white.expand(*batch, -1).reshape(-1, self.size)
        weights = self.theta(flat if batch else flat[0])
        mean, scale = decode_with(
            frozen(self, "decoder"), weights, z.expand(*batch, -1).reshape(-1, self.latent) if batch else z
        )
        return mean.reshape(*batch, *self.image_shape), scale.reshape(*batch, *self.image_shape)

    def _zeros(self, *shape: int) -> Tensor:
        return self._loc.new_zeros(shape)


class WeightDraws(ImageModel):
    """A number of networks drawn from a law of the weights, as probable one as the other: sites ``network`` and ``z``.

    The Monte Carlo form of the integral over weights. Its posterior is that of
    :class:`~posterior_inpainting.inference.methods.nested.Nested`;
    a method for continuous latents cannot take it, because
    ``network`` is an index.

    Parameters
    ----------
    trained
        The decoder's q(theta | D) and the encoder, or a ``WeightLaw`` of a decoder: what ``sample_weights``, ``swag``
        or ``last_layer_laplace`` returns, or ``WeightSamples.of_networks(...)``.
    count
        Number of networks.
    seed
        Of the networks: the same seed draws the same ones.
    encoder
        Beside a ``WeightLaw``: from image and mask to location and scale of q(z | x~), one for all networks. By default
        each decoder's own ``encoder``.

    Attributes
    ----------
    networks
        A :class:`~posterior_inpainting.models.latent_code.LatentCode` for each network, with z its only latent.
    encoders
        One for all networks, or one for each.

    Raises
    ------
    ValueError
        For a count below 1, or where there is no encoder.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> trained = BayesianDecoder(MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,)))
    >>> model = WeightDraws(trained, count=3)
    >>> len(model.networks), tuple(model(torch.rand(1, 8, 8)).shape)
    (3, (1, 8, 8))
    """

    takes_measurements = True

    def __init__(
        self, trained: BayesianDecoder | WeightLaw, count: int = 16, seed: int = 0, *, encoder: Any = None
    ):
        super().__init__()
        if count < 1:
            raise ValueError(f"count={count}; expected at least 1 network")
        if isinstance(trained, WeightLaw):
            law: Any = trained
            decoder: Any = trained.network
        else:
            law, decoder, encoder = trained.decoder, frozen(trained.decoder, "mean"), trained.encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            weights = law.draw_weights(count)
        self.networks = nn.ModuleList(
            LatentCode(_with_weights(decoder, weights, index), encoder=encoder) for index in range(count)
        )
        networks = frozen(self, "networks")
        encoders = [frozen(network, "encoder") for network in networks]
        if None in encoders:
            raise ValueError(f"{type(decoder).__name__} carries no encoder; give encoder=...")
        self.encoders = nn.ModuleList(encoders if encoder is None else encoders[:1])
        self.image_shape = networks[0].image_shape
        self.latent = networks[0].latent

    @property
    def guide_is_trained(self) -> bool:
        """Always: the encoder and q(theta | D) are."""
        return True

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw one of the networks and a code, then the image around the decoding."""
        with self.images_plate(image):
            network = pyro.sample("network", self._uniform())
            z = pyro.sample("z", frozen(self, "networks")[0].prior())
            likelihood = frozen(self, "networks")[0].likelihood
            return self.observe(likelihood(*self._decode(network, z)), image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> dict[str, Tensor]:
        """Draw a network whatever is seen, and z from the encoder's law."""
        with self.images_plate(image):
            network = pyro.sample("network", self._uniform())
            z = pyro.sample("z", self._encode(network, image, mask))
        return {"network": network, "z": z}

    def _encode(self, network: Tensor, image: Image | None, mask: Mask | None) -> dist.Independent:
        """Return the law of z under the encoder of each of ``network``, ``(*batch,)``."""
        zeros = frozen(self, "networks")[0]._zeros(*self.image_shape)
        laws = [_encoded(encoder, zeros, image, mask).base_dist for encoder in self.encoders]
        if len(laws) == 1:
            return laws[0].to_event(1)
        chosen = F.one_hot(network, len(laws)).unsqueeze(
            -1
        )  # a choice that is right in any batch, and under vmap
        loc, scale = (
            (torch.stack(values, -2) * chosen).sum(-2)
            for values in ([law.loc for law in laws], [law.scale for law in laws])
        )
        return dist.Normal(loc, scale).to_event(1)

    def _uniform(self) -> dist.Categorical:
        networks = frozen(self, "networks")
        return dist.Categorical(logits=networks[0]._zeros(len(networks)))

    def _decode(self, network: Tensor, z: Code) -> tuple[Tensor, Tensor]:
        batch = torch.broadcast_shapes(network.shape, z.shape[:-1])
        which, codes = network.expand(batch).reshape(-1), z.expand(*batch, -1).reshape(-1, self.latent)
        out = codes.new_empty(2, math.prod(batch), *self.image_shape)
        for index in which.unique().tolist():
            chosen = which == index
            decoder = frozen(frozen(self, "networks")[index], "decoder")
            out[:, chosen] = torch.stack(torch.broadcast_tensors(*decoder.mean_and_scale(codes[chosen])))
        mean, scale = out.reshape(2, *batch, *self.image_shape)
        return mean, scale


def _encoded(encoder: Any, nothing: Image, image: Image | None, mask: Mask | None) -> dist.Independent:
    """Return the encoder's law of z given the seen pixels, all of them without a mask, none without an image."""
    shown = seen_part(image, mask, nothing.shape, nothing)
    return dist.Normal(*encoder(*shown)).to_event(1)


def _with_weights(network: Any, weights: Weights, index: int) -> Any:
    """Copy a network and put one draw of the weights in it."""
    one = copy.deepcopy(network)
    with torch.no_grad():
        for path, draws in weights.items():
            one.get_parameter(path).copy_(draws[index])
    return one
