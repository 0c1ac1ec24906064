"""What every model of the collection is: a joint density over latents and an image with seen pixels.

Glossary: *latents* are whatever is random besides the image (a code z, weights, hidden pixels);
the *completion* is the noiseless image that the latents imply; the *law* of the pixels is the
distribution of the image around it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from pyro.poutine.runtime import am_i_wrapped
from torch import nn

from posterior_inpainting.models.abilities import Abilities
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.shapes import (
    Image,
    ImageShape,
    InputError,
    Mask,
    check_image,
    check_mask,
    check_support,
)

__all__ = ["ImageModel", "TrainingModel", "frozen"]


def frozen(owner: nn.Module, name: str) -> Any:
    """Return a part of a model without Pyro's noticing, or ``None`` where the model has no such part.

    Reading the attribute while the model runs would register the part's weights as Pyro parameters, and warn of
    those that are frozen.

    Parameters
    ----------
    owner, name
        A Pyro module, and the attribute.

    >>> from pyro.nn import PyroModule
    >>> owner = PyroModule()
    >>> owner.network = torch.nn.Linear(2, 1)
    >>> frozen(owner, "network"), frozen(owner, "encoder")
    (Linear(in_features=2, out_features=1, bias=True), None)
    """
    return owner._modules.get(name)


class ImageModel(Abilities, PyroModule):
    """Abstract Pyro model p(latents) p(image | latents), scored on seen pixels only.

    A subclass sets ``image_shape`` and writes ``forward(image=None, mask=None)``: its priors, then one
    call of :meth:`observe`. It *is* the Pyro model, so ``MCMC(NUTS(model))``, ``SVI(model,
    model.guide, ...)``, ``Predictive(model)`` and ``AutoNormal(model)`` take it as it is. Site names
    are API: ``completion`` (deterministic), ``image`` (observed) and the latents' own.

    ``image`` is ``(channel, row, column)``, or ``(n, channel, row, column)`` for n independent images;
    ``mask`` is boolean, ``True`` = seen, and broadcasts to it. No image means nothing is observed; an
    image without a mask is wholly seen. Where ``takes_measurements``, the two may be the values and the ``Instrument``
    of a ``Measurement``: the observed site is ``measurement`` then.
    """

    image_shape: ImageShape

    def __init__(self):
        # Made so that it works under either value of Pyro's setting: a PyroModule made while
        # `module_local_params` is off breaks when a caller switches it on later.
        with pyro.settings.context(module_local_params=True):
            super().__init__()

    def forward(self, image: Image | None = None, mask: Mask | None = None) -> Image:
        """Draw the latents, score the seen pixels, return an image."""
        raise NotImplementedError

    def guide(self, image: Image | None = None, mask: Mask | None = None) -> Any:
        """Draw the latents of :meth:`forward` from an approximation of their posterior.

        Unless a model has something better this is a mean-field ``AutoNormal``, made at the first
        call and to be fitted by SVI to the image it is called with.
        """
        if frozen(self, "automatic_guide") is None:
            self.automatic_guide = AutoNormal(poutine.block(self, hide=["image", "completion"]))
        return self.automatic_guide(image, mask)

    def images_plate(self, image: Image | None) -> AbstractContextManager:
        """Return the plate of independent images: of size n for a batch, none for a single image."""
        if image is None or image.dim() == 3:
            return nullcontext()
        return pyro.plate("images", image.shape[0], dim=-1)

    def observe(
        self, law: dist.TorchDistribution, image: Image | None, mask: Mask | Instrument | None
    ) -> Image:
        """Register ``completion`` and ``image``: score seen pixels, let nothing read a hidden one.

        Under an instrument it is ``completion`` and ``measurement``, and the completion is returned.

        Parameters
        ----------
        law
            Distribution of single pixels, batch shape ``(*batch, channel, row, column)``.
        image, mask
            As given to :meth:`forward`.
        """
        # Masked before `to_event`: a mask on a site that is one event already scores wrongly.
        pyro.deterministic("completion", law.mean, event_dim=3)
        if isinstance(mask, Instrument):
            assert image is not None
            measured = mask.law(law.mean, None if self.noise_is_of_seeing else law.variance)
            pyro.sample("measurement", measured, obs=image.flatten(-3))
            return law.mean
        if image is not None:
            check_image(image, self.image_shape)
            if mask is not None:
                check_mask(mask, image.shape)
                image = torch.where(mask, image, 0.0)
            if law._validate_args:  # not where values may not be looked at, under vmap
                check_support(image, law.support)
            law = law if mask is None else law.mask(mask)
            if not am_i_wrapped():  # called as a plain function: there is no one to score for
                return image
        return pyro.sample("image", law.to_event(3), obs=image)


class TrainingModel:
    """The Pyro model that is trained where it differs from the one that completes images: hidden pixels are data.

    Parameters
    ----------
    owner
        The model whose weights are trained.
    program
        Pyro model, called with ``(images, masks)``.

    Raises
    ------
    ValueError
        When called without masks: with everything seen there is no hidden pixel to learn from.
    """

    def __init__(self, owner: ImageModel, program: Callable[[Image, Mask], Any]):
        self.owner, self.program, self.image_shape = owner, program, owner.image_shape

    def __call__(self, image: Image, mask: Mask | None = None) -> Any:
        """Run the program."""
        if mask is None:
            raise InputError(
                f"{type(self.owner).__name__} learns from hidden pixels; pass masks=random_masks(...) to train"
            )
        return self.program(image, mask)
