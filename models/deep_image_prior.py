r"""The weights of an untrained network as the random variable: the deep image prior, read as a posterior.

Ulyanov et al. 2018, *Deep Image Prior*, fit a network with a fixed input to the seen pixels and stop
early; Cheng et al. 2019, *A Bayesian Perspective on the Deep Image Prior*, draw its weights instead from

.. math:: p(\theta \mid \tilde x) \propto N(\theta; 0, I) \prod_{i \,\mathrm{seen}} N(x_i; f_\theta(\zeta)_i, s^2).

Glossary: theta weights, zeta fixed input, f network, s noise. The weights are whitened: a convolution
multiplies them by 1 / sqrt(fan in), so that every one of them is standard normal a priori.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from posterior_inpainting.models.abilities import JointDensity
from posterior_inpainting.models.base import ImageModel, frozen
from posterior_inpainting.models.images.available_memory import check_memory
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.networks.hourglass import Hourglass
from posterior_inpainting.models.shapes import Image, ImageShape, Mask, seen_mask

__all__ = ["DeepImagePrior"]


class DeepImagePrior(ImageModel):
    r"""Posterior over the weights of an hourglass network; its only latent site is ``weights``.

    ``MAP`` on it is Ulyanov's method (with a weight prior that 4,000 steps do not feel), ``MALA`` and ``ULA``
    are the Langevin dynamics of Cheng et al., the latter without Metropolis's test, as published. Runs keep
    the completions of their draws, not the weights.

    Parameters
    ----------
    image_shape
        ``(channel, row, column)``, any size, grey or colour.
    network
        Module that is called with nothing and returns ``(channel, row, column)``, its parameters standard
        normal a priori; ``Hourglass(image_shape)`` by default. It is frozen here.
    noise
        s, in the image's units.
    output
        ``"sigmoid"`` of the network's output, or ``"linear"``: one half plus a quarter of it.
    keep_weights
        Whether a run keeps the weights of every draw too.

    Raises
    ------
    ValueError
        If the network's output has another shape, or a number is out of range.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import Hourglass
    >>> model = DeepImagePrior((1, 16, 16), Hourglass((1, 16, 16), channels=4, scales=2))
    >>> tuple(model.complete(torch.randn(3, model.latent)).shape)
    (3, 1, 16, 16)
    """

    takes_measurements = True
    noise_is_of_seeing = True

    def __init__(
        self,
        image_shape: ImageShape,
        network: Any = None,
        *,
        noise: float = 0.05,
        output: str = "sigmoid",
        keep_weights: bool = False,
    ):
        super().__init__()
        if noise <= 0:
            raise ValueError(f"noise={noise}; expected a positive number")
        if output not in ("sigmoid", "linear"):
            raise ValueError(f"output={output!r}; expected 'sigmoid' or 'linear'")
        self.image_shape = tuple(image_shape)
        if network is None:
            # What a gradient keeps: some twenty layers of 32 channels, and the skips' maps.
            pixels = math.prod(self.image_shape[1:])
            side = int(math.sqrt(pixels))
            check_memory(4 * 20 * 32 * pixels, f"a network for {' x '.join(map(str, image_shape))}", side)
            network = Hourglass(self.image_shape)
        self.network = network.requires_grad_(False).eval()
        self._parameters_of = dict(network.named_parameters())
        self.latent = sum(parameter.numel() for parameter in self._parameters_of.values())
        self.noise, self.output, self.keep_weights = float(noise), output, keep_weights
        with torch.no_grad():
            shape = tuple(network().shape)
        if shape != self.image_shape:
            raise ValueError(f"the network returns {shape}; expected {self.image_shape}")

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw weights from their prior, then the image around the network's output."""
        with self.images_plate(image):
            like = next(frozen(self, "network").parameters())
            weights = pyro.sample("weights", dist.Normal(like.new_zeros(self.latent), 1.0).to_event(1))
            return self.observe(dist.Normal(self.complete(weights), self.noise), image, mask)

    def law_of_kept(self, kept: dict[str, Tensor]) -> TorchDistribution:
        """Return the law of single pixels around the kept completions ``(*batch, channel, row, column)``."""
        return dist.Normal(kept["completion"], self.noise)

    def complete(self, weights: Tensor) -> Image:
        """Return the completions ``(*batch, channel, row, column)`` of weights ``(*batch, latent)``.

        One after another: on a CPU a batch of networks is slower as grouped convolutions than in turn.
        """
        if weights.dim() > 1:
            return torch.stack([self.complete(one) for one in weights.unbind()])
        pieces = weights.split([parameter.numel() for parameter in self._parameters_of.values()])
        parameters = {
            name: piece.view(parameter.shape)
            for piece, (name, parameter) in zip(pieces, self._parameters_of.items(), strict=True)
        }
        return self.squash(functional_call(frozen(self, "network"), parameters, ()))

    def squash(self, output: Tensor) -> Image:
        """Return the completion that a network's output stands for."""
        return torch.sigmoid(output) if self.output == "sigmoid" else 0.5 + 0.25 * output

    def kept(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what a run keeps of draws ``{"weights": (*batch, latent)}``: completions, and weights on request."""
        with torch.no_grad():
            kept = {"completion": self.complete(latents["weights"])}
        return {**kept, **latents} if self.keep_weights else kept

    def log_densities(self, image: Image, mask: Mask | None = None) -> WeightDensity | None:
        """Return the same numbers as :meth:`forward` scores, and their gradient chain after chain; of pixels alone."""
        if isinstance(mask, Instrument):
            return None
        return WeightDensity(self, image, mask)


class WeightDensity(JointDensity):
    """Log prior and log likelihood of weights, and the gradient of their tempered sum.

    Parameters
    ----------
    model
        A ``DeepImagePrior``.
    image, mask
        One image, or a batch of them; without a mask everything is seen.
    """

    has_gradient = True

    def __init__(self, model: DeepImagePrior, image: Image, mask: Mask | None = None):
        self.model = model
        self._seen = seen_mask(image, mask)
        self._image = torch.where(self._seen, image, 0.0)
        self._constant = 0.5 * math.log(2 * math.pi)
        # A network of its own, whose parameters take each chain's weights in turn: nothing is rebuilt.
        self._network = copy.deepcopy(frozen(model, "network")).requires_grad_(True)
        self._parameters = list(self._network.parameters())

    def __call__(self, latents: dict[str, Tensor], which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood of weights ``([image,] chain, latent)``, differentiable."""
        weights = latents["weights"]
        completion = self.model.complete(weights)
        image, seen = self._of(which)
        return self._log_prior(weights), self._log_likelihood(completion, image, seen)

    def gradient(
        self, latents: dict[str, Tensor], inverse_temperature: float | Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood and the gradient of ``prior + inverse_temperature * likelihood``."""
        weights = latents["weights"]
        image, seen = self._of(which)
        batch = weights.shape[:-1]
        images, masks = (part.expand(*batch, *part.shape[-3:]).flatten(0, -4) for part in (image, seen))
        likelihoods, slopes = [], []
        for one, target, known in zip(weights.reshape(-1, weights.shape[-1]), images, masks, strict=True):
            with torch.no_grad():
                vector_to_parameters(one, self._parameters)
            with torch.enable_grad():
                likelihood = self._log_likelihood(self.model.squash(self._network()), target, known)
                pieces = torch.autograd.grad(likelihood, self._parameters)
            slopes.append(parameters_to_vector(pieces))
            likelihoods.append(likelihood.detach())
        slope = torch.stack(slopes).reshape(weights.shape)
        beta = inverse_temperature
        slope = slope * (beta.unsqueeze(-1) if isinstance(beta, Tensor) else beta)
        return self._log_prior(weights), torch.stack(likelihoods).reshape(batch), slope - weights

    def _of(self, which: Tensor | None) -> tuple[Image, Mask]:
        """Image and mask, with a dimension for chains where there are several images."""
        image, seen = (part if which is None else part[which] for part in (self._image, self._seen))
        return (image, seen) if image.dim() == 3 else (image.unsqueeze(1), seen.unsqueeze(1))

    def _log_prior(self, weights: Tensor) -> Tensor:
        return -0.5 * weights.square().sum(-1) - self._constant * weights.shape[-1]

    def _log_likelihood(self, completion: Image, image: Image, seen: Mask) -> Tensor:
        residual = torch.where(seen, completion - image, 0.0) / self.model.noise
        constant = seen.flatten(-3).sum(-1) * (self._constant + math.log(self.model.noise))
        return -0.5 * residual.square().flatten(-3).sum(-1) - constant
