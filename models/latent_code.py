r"""A frozen decoder with a random code: the posterior over z given the seen pixels.

Yeh et al. 2017, *Semantic Image Inpainting with Deep Generative Models*, look for the best z; here z
is random and the whole of

.. math:: p(z \mid \tilde x) \propto p(z) \prod_{i \,\mathrm{seen}} p(x_i \mid f_\theta(z)_i, \sigma_\theta(z)_i)

is the answer. Glossary: z code, f decoder, sigma pixel scale, M mask (1 = seen).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from posterior_inpainting.models.base import ImageModel, frozen
from posterior_inpainting.models.densities.pixel_density import PIXELS, PixelDensity, pixels_of
from posterior_inpainting.models.fitted_noise import Projection, give_noise
from posterior_inpainting.models.likelihoods import Weighted, context_weights, likelihood_of
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.mixture_prior import MixturePrior
from posterior_inpainting.models.networks.decoder import Decoder, as_decoder
from posterior_inpainting.models.networks.rows_of_codes import Speed, is_vectorised
from posterior_inpainting.models.networks.wrapped import OutputPath, WrappedDecoder
from posterior_inpainting.models.prior_loss import PriorLoss
from posterior_inpainting.models.shapes import Code, Image, ImageShape, Mask, seen_part

__all__ = ["LatentCode", "PriorLoss"]


class LatentCode(ImageModel):
    r"""Posterior over the code of a pre-trained decoder; its only latent site is ``z``.

    With the defaults the density is an honest joint density. ``context_window``, ``prior_weight`` and
    ``prior_loss`` are the devices of Yeh et al. 2017 (equations 3 and 5), which make it a
    pseudo-posterior: ``LatentCode(generator, likelihood=laplace, noise=0.1, context_window=15,
    prior_loss=PriorLoss(discriminator, 0.04))`` with ``MAP`` and ``blend`` is the published method.

    Parameters
    ----------
    decoder
        Module from z ``(*batch, latent)`` to the mean ``(*batch, channel, row, column)``, with
        ``latent`` and ``image_shape``, and its noise as ``mean_and_scale(z)``, ``scale(z)`` or
        ``noise``. It is frozen here: ``requires_grad_(False).eval()``.
    prior
        p(z): a distribution with event shape ``(latent,)``; by default the decoder's own ``law_of_codes``, and standard
        normal for a decoder that has none.
    likelihood
        ``(mean, scale) -> distribution`` of single pixels: ``normal``, ``laplace``, ``bernoulli`` for
        binary and ``continuous_bernoulli`` for grey images, from ``models.likelihoods``; the decoder's own by default.
    noise
        Pixel scale to use instead of the decoder's own, in the image's units.
    encoder
        Masked-input encoder for the guide q(z | x~); the decoder's own ``encoder`` by default. With
        neither, or with a prior of bounded support, the guide is an ``AutoNormal``.
    context_window
        Side in pixels of Yeh's context weights; ``None`` weights every seen pixel 1.
    prior_weight
        Factor on log p(z).
    prior_loss
        A discriminator's judgement of the completion, and its weight; the discriminator is frozen here.

    Raises
    ------
    ValueError
        For a decoder without noise, a prior of the wrong event shape, a weight that is not positive, or a
        discriminator of other images.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets, observations, pretrained
    >>> model = LatentCode(pretrained.load("digits-vae-2d"))
    >>> image = datasets.load("digits")[0]
    >>> mask = observations.half(image.shape, hide="bottom")
    >>> tuple(model.guide(image, mask).shape), tuple(model(image, mask).shape)
    ((2,), (1, 8, 8))
    """

    takes_measurements = True

    def __init__(
        self,
        decoder: Any,
        *,
        prior: TorchDistribution | None = None,
        likelihood: Callable[..., TorchDistribution] | None = None,
        noise: float | Tensor | None = None,
        encoder: Any = None,
        context_window: int | None = None,
        prior_weight: float = 1.0,
        prior_loss: PriorLoss | None = None,
    ):
        super().__init__()
        declared = as_decoder(decoder, noise)
        if prior is not None and tuple(prior.event_shape) != (declared.latent,):
            raise ValueError(
                f"prior has event shape {tuple(prior.event_shape)}; expected ({declared.latent},)"
            )
        if prior_weight <= 0:
            raise ValueError(f"prior_weight={prior_weight}; expected a positive number")
        discriminator = None if prior_loss is None else prior_loss.discriminator
        if discriminator is not None and tuple(discriminator.image_shape) != declared.image_shape:
            raise ValueError(
                f"the discriminator judges images of shape {tuple(discriminator.image_shape)}; "
                f"the decoder makes {declared.image_shape}"
            )
        self.decoder = decoder.requires_grad_(False).eval()
        self.image_shape = declared.image_shape
        self.latent = declared.latent
        self.likelihood = likelihood_of(declared) if likelihood is None else likelihood
        self.noise = noise
        self.context_window = context_window
        self.prior_weight = prior_weight
        self.given_prior = prior
        self.discriminator = None if discriminator is None else discriminator.requires_grad_(False).eval()
        self.discriminator_weight = 1.0 if prior_loss is None else prior_loss.weight
        encoder = encoder if encoder is not None else declared.encoder
        bounded = prior is not None and not _is_real(prior)
        # The encoder may travel inside the decoder; it stays trainable, so that SVI can refine it.
        self.encoder = None if bounded or encoder is None else encoder.requires_grad_(True)

    @classmethod
    def wrap(
        cls,
        module: nn.Module,
        *,
        latent: int | Sequence[int],
        image_shape: ImageShape,
        noise: float | Tensor | str = "fit",
        images: Image | None = None,
        search: Projection = Projection(),  # noqa: B008 - frozen
        method: str = "forward",
        output: OutputPath | None = None,
        channels_last: bool = False,
        value_range: tuple[float, float] = (0.0, 1.0),
        **settings: Any,
    ) -> Self:
        """Return the posterior over the code of any torch network; :attr:`speed` says how fast it will be.

        Parameters
        ----------
        module, latent, image_shape, method, output, channels_last, value_range
            The network, and how it is called and read; see ``networks.wrapped.WrappedDecoder``, which freezes it.
        noise
            Pixel scale in units of [0, 1]: a number, one for each pixel, ``"fit"`` for one number fitted to the
            residuals of ``images``, or ``"fit each pixel"``, for which there should be some hundreds of them.
        images, search
            Images that the network was not trained on, ``(n, channel, row, column)`` in [0, 1], two at least; how
            their codes are searched for.
        settings
            Of ``LatentCode``: ``prior`` where the network's codes are not standard normal, ``likelihood``, and others.

        Raises
        ------
        ValueError
            As ``WrappedDecoder``; or for a noise to be fitted to fewer than two images, or images for none.

        Examples
        --------
        >>> from posterior_inpainting.models import datasets
        >>> generator = torch.nn.Sequential(torch.nn.ConvTranspose2d(16, 1, 8), torch.nn.Tanh())
        >>> shapes = dict(latent=(16, 1, 1), image_shape=(1, 8, 8), value_range=(-1, 1))
        >>> model = LatentCode.wrap(generator, images=datasets.load("digits")[:9], **shapes)
        >>> model.speed, bool(model.decoder.pixel_scale.min() > 0.1)
        ('closed form', True)
        """
        decoder = WrappedDecoder(
            module,
            latent,
            image_shape,
            method=method,
            output=output,
            channels_last=channels_last,
            value_range=value_range,
        )
        model = cls(decoder, **settings)
        give_noise(model, noise, images, search)
        return model

    @property
    def speed(self) -> Speed:
        """How the density of many chains is computed, fastest first: ``"closed form"``, ``"vmap"`` or ``"loop"``.

        A closed form decodes all chains in one call, without a trace of Pyro's. Without one the model is traced, under
        ``torch.func.vmap`` where that goes through the decoder, which is tried here, and chain after chain elsewhere.
        """
        if self._has_closed_form:
            return "closed form"
        some = self._zeros(2, self.latent)
        return "vmap" if is_vectorised(self._frozen_decoder, some) else "loop"

    @property
    def is_pseudo_posterior(self) -> bool:  # type: ignore[override]
        """Whether one of Yeh's devices makes the density something else than a joint density."""
        judged = frozen(self, "discriminator") is not None
        return judged or self.context_window is not None or self.prior_weight != 1.0

    @property
    def guide_is_trained(self) -> bool:
        """Whether there is an encoder."""
        return frozen(self, "encoder") is not None

    def prior(self) -> TorchDistribution:
        """Return p(z), event shape ``(latent,)``."""
        given = self._law_of_codes()
        if given is not None:
            return given
        return dist.Normal(self._zeros(self.latent), 1.0).to_event(1)

    def _law_of_codes(self) -> TorchDistribution | None:
        """Return p(z) where it is not standard normal: the one that was given, or that of the decoder's own codes."""
        if self.given_prior is not None:
            return self.given_prior
        mixture: Any = self._frozen_decoder.law_of_codes
        return None if mixture is None else MixturePrior(mixture)

    def pixel_law(self, z: Code) -> TorchDistribution:
        """Return the law of single pixels given z, batch shape ``(*batch, channel, row, column)``."""
        decoder = self._frozen_decoder
        if self.noise is not None:
            return self.likelihood(decoder(z), torch.as_tensor(self.noise, dtype=z.dtype, device=z.device))
        return self.likelihood(*decoder.mean_and_scale(z))

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw z from its prior, then the image around its decoding."""
        with self.images_plate(image):
            law = self._drawn_law()
            if self.context_window is not None and isinstance(mask, Tensor):
                whole = mask.expand(torch.broadcast_shapes(mask.shape, self.image_shape))
                law = Weighted(law, context_weights(whole, self.context_window))
            return self.observe(law, image, mask)

    def _drawn_law(self) -> TorchDistribution:
        """Draw z and return the law of single pixels given it; count Yeh's prior loss of its mean."""
        with poutine.scale(scale=self.prior_weight):
            z = pyro.sample("z", self.prior())
        law = self.pixel_law(z)
        if (discriminator := frozen(self, "discriminator")) is not None:
            # Image by image: the mean over a batch would let the others of the batch pull at this one. A
            # factor is tempered with the likelihood, so that the hot end is the p(z) that can be drawn from.
            loss = discriminator.prior_loss(law.mean)
            pyro.factor("discriminator", -self.discriminator_weight * loss)
        return law

    def log_densities(self, image: Image, mask: Mask | None = None) -> PixelDensity | None:
        """Return the same numbers as :meth:`forward` scores as a fast function, or ``None``.

        For normal and clipped normal pixels with unit weights; ``None`` otherwise, and for a decoder that cannot
        be restricted to some pixels.
        """
        if not self._has_closed_form:
            return None
        pixels = pixels_of(self.likelihood, image, mask)
        return PixelDensity(self._frozen_decoder.restrict, pixels, prior=self._law_of_codes())

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Any:
        """Draw z from the encoder's q(z | x~), or from an ``AutoNormal`` where there is no encoder."""
        if self.encoder is None or isinstance(mask, Instrument):
            return super().guide(image, mask)
        shown = seen_part(image, mask, self.image_shape, self._zeros(0))
        with self.images_plate(image):
            return pyro.sample("z", dist.Normal(*self.encoder(*shown)).to_event(1))

    @property
    def _has_closed_form(self) -> bool:
        altered = self.is_pseudo_posterior or self.noise is not None
        return self.likelihood in PIXELS and not altered and self._frozen_decoder.has_restriction

    @property
    def _frozen_decoder(self) -> Decoder:
        return as_decoder(frozen(self, "decoder"), self.noise)

    def _zeros(self, *shape: int) -> Tensor:
        """Zeros of the decoder's type on the decoder's device."""
        decoder = self._frozen_decoder
        return next(chain(decoder.parameters(), decoder.buffers()), torch.empty(0, device="cpu")).new_zeros(
            shape
        )


def _is_real(prior: TorchDistribution) -> bool:
    base: Any = prior.support
    while isinstance(base, dist.constraints.independent):
        base = base.base_constraint
    return base in (dist.constraints.real, dist.constraints.real_vector)
