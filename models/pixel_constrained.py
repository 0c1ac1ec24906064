r"""Pixel Constrained CNN: an autoregressive model whose latents are the hidden pixels themselves.

Dupont & Suresha 2019, *Probabilistic Semantic Inpainting with Pixel Constrained CNNs*. A prior network f is a model of
whole images, a constraint network g reads what is seen, and the law of completions adds their logits (equation 5):

.. math:: p(x) = \prod_i \mathrm{softmax}(f(x_{<i}))_{x_i}, \qquad
          q(x_h \mid \tilde x) = \prod_{i \,\mathrm{hidden}} \mathrm{softmax}\big(f(x_{<i})
          + g(\tilde x, M)\big)_{x_i}.

The model is p, the guide is q. They are not the same law: a sequence that goes from the first pixel to the last cannot
look ahead to what is seen below, which is what g is for, and g is learnt. The importance weights p(x) / q(x_h) of q's
draws, and their Pareto k-hat, say how far q is from p's own conditional; ``ParticleGibbs()`` draws from that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor
from torch.distributions import kl_divergence

from posterior_inpainting.models import pretrained
from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage, PixelsGivenEarlier
from posterior_inpainting.models.autoregressive.pixel_laws import CategoricalPixels, PixelLaw, law_from
from posterior_inpainting.models.autoregressive.pixel_steps import PixelSteps
from posterior_inpainting.models.base import ImageModel, frozen
from posterior_inpainting.models.shapes import Code, Image, InputError, Mask, seen_mask, seen_part

__all__ = ["PixelConstrained"]


class PixelConstrained(ImageModel):
    """Autoregressive model of images; its latent site ``hidden`` is a complete image on the lattice of levels.

    The networks see images to the nearest level; ``completion`` holds seen pixels exactly as they were given, and
    hidden ones at levels k / (K - 1). Only hidden pixels of ``hidden`` count. ``infer(model, seen, Exact())`` draws
    from the guide, independently. Train both networks with ``train(model, model.guide, images, masks=masks,
    loss=PixelCrossEntropy())``.

    Parameters
    ----------
    prior
        Pixel network, as :class:`~posterior_inpainting.models.networks.masked_convolution.GatedPixelCNN`.
    constraint
        From image and mask to as many outputs; ``None`` overwrites the seen pixels and looks at none ahead.
    law
        Law of a pixel; K categorical levels by default, as many as the prior's outputs give.
    encoder
        q(z | x~) as ``MaskedEncoder``, for a prior network with a ``code``; z is standard normal.
    temperature
        Of the guide's draws; 1 draws from the law that was learnt.

    Raises
    ------
    ValueError
        For networks that do not fit each other or the law, a code without an encoder, or a temperature that is not
        positive; later for an image of another shape or with seen values outside [0, 1].

    Examples
    --------
    >>> from posterior_inpainting.models.networks.constraint import ConstraintNetwork
    >>> from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN
    >>> shape = (1, 8, 8)
    >>> model = PixelConstrained(GatedPixelCNN(shape, 2, features=4), ConstraintNetwork(shape, 2, features=4))
    >>> image, mask = torch.rand(shape), torch.arange(8)[:, None].expand(shape) < 4
    >>> completed = model.guide(image, mask)
    >>> tuple(completed.shape), bool((completed[mask] == (image > 0.5).float()[mask]).all())
    ((1, 8, 8), True)
    """

    #: Draws of the guide are independent and exact, of the law that `law_of_draws` names.
    guide_is_exact = True

    def __init__(
        self,
        prior: Any,
        constraint: Any = None,
        *,
        law: PixelLaw | None = None,
        encoder: Any = None,
        temperature: float = 1.0,
    ):
        super().__init__()
        self.image_shape = tuple(prior.image_shape)
        channels = self.image_shape[0]
        if law is None:
            groups = CategoricalPixels(2).outputs(channels) // 2
            law = CategoricalPixels(max(2, prior.outputs // groups))
        if law.outputs(channels) != prior.outputs:
            raise ValueError(
                f"the prior network has {prior.outputs} outputs; {law.levels} levels and {channels} channels "
                f"of {type(law).__name__} need {law.outputs(channels)}"
            )
        if constraint is not None:
            pair = (tuple(constraint.image_shape), constraint.outputs)
            if pair != (self.image_shape, prior.outputs):
                raise ValueError(
                    f"the constraint network has shape {pair[0]} and {pair[1]} outputs; "
                    f"the prior network has {self.image_shape} and {prior.outputs}"
                )
        if (encoder is None) != (prior.code == 0) or (encoder is not None and encoder.latent != prior.code):
            given = "no encoder" if encoder is None else f"an encoder of length {encoder.latent}"
            raise ValueError(f"the prior network takes a code of length {prior.code}; there is {given}")
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}; expected a positive number")
        self.prior, self.constraint, self.encoder = prior, constraint, encoder
        self.law, self.temperature = law, temperature

    @classmethod
    def load(
        cls,
        name: str | Path = "fashion-mnist-pixels-16",
        temperature: float = 1.0,
        law: PixelLaw | None = None,
    ) -> PixelConstrained:
        """Return a bundled pair, frozen, or what :meth:`save` or ``pretrained.save_parts`` wrote to a folder.

        Parameters
        ----------
        name
            Of a bundled pair, or a folder.
        temperature
            As for the class.
        law
            The law of pixels; by default the one that :meth:`save` wrote, or a categorical one where none was
            written: weights do not say which law their outputs are parameters of.

        Raises
        ------
        ValueError
            For an unknown name, damaged weights, or a law that does not fit the networks.
        """
        parts = pretrained.load_parts(name, "prior")
        stored = pretrained.words(name, "prior").get("law")
        if law is None and stored is not None:
            law = law_from(stored)
        beside = parts.get("constraint"), parts.get("encoder")
        model = cls(parts["prior"], beside[0], law=law, encoder=beside[1], temperature=temperature)
        return model.requires_grad_(False).eval()

    def save(self, folder: str | Path, stem: str = "") -> None:
        """Write the networks in half precision, and the law of pixels beside them, for :meth:`load`.

        Parameters
        ----------
        folder
            Where to write; made if it is not there.
        stem
            Put before each file's name.

        Examples
        --------
        >>> import tempfile
        >>> from posterior_inpainting.models.autoregressive import LogisticMixturePixels
        >>> from posterior_inpainting.models.networks import GatedPixelCNN
        >>> law = LogisticMixturePixels(16, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     PixelConstrained(GatedPixelCNN((1, 8, 8), law.outputs(1), features=4), law=law).save(folder)
        ...     PixelConstrained.load(folder).law
        LogisticMixturePixels(levels=16, components=2)
        """
        parts = {part: frozen(self, part) for part in ("prior", "constraint", "encoder")}
        there = {part: network for part, network in parts.items() if network is not None}
        pretrained.save_parts(folder, stem, there, words={"law": self.law.to_json()})

    @property
    def law_of_draws(self) -> str:  # type: ignore[override]
        """What ``Exact()`` draws from, in words."""
        which = "overwritten prior" if frozen(self, "constraint") is None else "constrained law"
        warm = "" if self.temperature == 1 else f" at temperature {self.temperature}"
        return f"{which}{warm}; the posterior is that of its importance weights"

    def overwritten(self) -> PixelConstrained:
        """Return the prior network alone: seen pixels are overwritten, and none below or to the right is heeded."""
        encoder = frozen(self, "encoder")
        prior, warm = self._network("prior"), self.temperature
        return PixelConstrained(prior, law=self.law, encoder=encoder, temperature=warm).eval()

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw the hidden pixels from the prior network, score the seen ones, each given those before it."""
        image, mask = self._checked(image, mask)
        with self.images_plate(image):
            code = self._code(None)
            law = self._image_law(image, mask, None, code, 1.0)
            hidden = pyro.sample("hidden", law)
            completion = law.complete(hidden) if image is None else torch.where(mask, image, hidden)
            pixels = PixelsGivenEarlier(completion, self._scored(law, hidden))
            return self.observe(pixels, image, mask)

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw the hidden pixels from the constrained law."""
        image, mask = self._checked(image, mask)
        with self.images_plate(image):
            code = self._code((image, mask))
            return pyro.sample("hidden", self._law_of_guide(image, mask, code))

    def constrained_law(self, image: Image, mask: Mask, code: Code | None = None) -> AutoregressiveImage:
        """Return q(x_h | x~), the law of the guide, as one distribution."""
        image, mask = self._checked(image, mask)
        return self._law_of_guide(image, mask, code)

    def sequential(  # type: ignore[override]
        self, image: Image | None = None, mask: Mask | None = None
    ) -> PixelSteps | None:
        """Return the hidden pixels in raster order, for draws of the prior network's own p(hidden | seen).

        ``None`` for networks with a code, or without an image.
        """
        image, mask = self._checked(image, mask)
        if image is None or frozen(self, "encoder") is not None:
            return None
        return PixelSteps(self.constrained_law, image, mask)

    def cross_entropies(
        self, image: Image, mask: Mask | None = None, joint: bool = False
    ) -> dict[str, Tensor]:
        """Return what the published loss adds up, of complete images and the masks that hide part of them.

        The constrained law's gradient reaches the prior network only if ``joint``.

        Returns
        -------
        dict
            Minus the log probability of each pixel, ``(n, channel, row, column)`` in nats, under ``"prior"``, under
            the ``"constrained"`` law and under the ``"constraint"`` alone; with a code also the ``"divergence"``
            KL[q(z | x~) || p(z)], ``(n,)``, which makes the others parts of a bound.
        """
        image, _ = self._checked(image, None)
        mask = seen_mask(image, mask)
        pixels, found, code = self.law.quantise(image), {}, None
        if self.encoder is not None:
            posterior = dist.Normal(*self.encoder(image, mask)).to_event(1)
            code = posterior.rsample()
            standard = dist.Normal(torch.zeros_like(code), 1.0).to_event(1)
            found["divergence"] = kl_divergence(posterior, standard)
        prior = self._network("prior")(pixels, code).float()
        found["prior"] = -self.law.log_prob(prior, pixels)
        constraint = self._constraint(image, mask)
        if constraint is not None:
            given = prior if joint else prior.detach()
            found["constrained"] = -self.law.log_prob(given + constraint.float(), pixels)
            found["constraint"] = -self.law.log_prob(constraint.float(), pixels)
        return found

    def _law_of_guide(self, image, mask, code) -> AutoregressiveImage:
        """Only draws are tempered: the model, which their weights refer to, is not."""
        return self._image_law(image, mask, self._constraint(image, mask), code, self.temperature)

    def _image_law(self, image, mask, constraint, code, temperature: float) -> AutoregressiveImage:
        given = {"image": image, "mask": mask, "constraint": constraint, "code": code}
        return AutoregressiveImage(self._network("prior"), self.law, **given, temperature=temperature)

    def _scored(self, law: AutoregressiveImage, hidden: Image) -> Tensor:
        """Log conditionals of the draw; without a need for them, and only then, the pass is left out."""
        return law.log_conditionals(hidden) if am_i_wrapped() else torch.zeros_like(hidden)

    def _constraint(self, image: Image | None, mask: Any) -> Tensor | None:
        if frozen(self, "constraint") is None:
            return None
        network = self._network("constraint")
        image, mask = self._shown(image, mask)
        flat = self.law.quantise(image).reshape(-1, *self.image_shape)
        raw = network(flat, mask.reshape(flat.shape))
        return raw.reshape(*image.shape[:-3], *raw.shape[1:])

    def _code(self, seen: tuple | None) -> Code | None:
        """Draw z from its prior, or from q(z | x~) given what is seen."""
        if frozen(self, "encoder") is None:
            return None
        length = self._network("prior").code
        if seen is None:
            zeros = next(self._network("prior").parameters()).new_zeros(length)
            return pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
        return pyro.sample("z", dist.Normal(*self._network("encoder")(*self._shown(*seen))).to_event(1))

    def _checked(self, image: Image | None, mask: Mask | None) -> tuple[Any, Any]:
        """Check shapes and values; zero-fill what is hidden, spread the mask over the image."""
        if image is None:
            return None, None
        image, mask = seen_part(image, mask, self.image_shape, image)
        if not ((image >= 0) & (image <= 1)).all():
            bad = int((~((image >= 0) & (image <= 1))).sum())
            raise InputError(
                f"{bad} seen pixels are outside [0, 1]; expected values of {self.law.levels} levels"
            )
        return image, mask

    def _shown(self, image: Image | None, mask: Mask | None) -> tuple[Image, Mask]:
        return seen_part(image, mask, self.image_shape, next(self._network("prior").parameters()))

    def _network(self, name: str) -> Any:
        """Return a network, past Pyro where it is frozen: Pyro would warn of that at every reading."""
        network = frozen(self, name)
        return getattr(self, name) if any(p.requires_grad for p in network.parameters()) else network
