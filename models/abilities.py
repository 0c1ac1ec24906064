"""What a model may offer to inference beyond being a Pyro model: all of it, each with a default.

Inference asks for these names and no others, and never looks whether a model has one. A class that means to offer
something under a name that is nearly one of these is refused when it is defined, instead of silently taking the
slow or the wrong route.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pyro.distributions import TorchDistribution
from torch import Tensor

from posterior_inpainting.models.densities.conditionals import Conditionals
from posterior_inpainting.models.densities.reverse_diffusion import ReverseDiffusion
from posterior_inpainting.models.densities.sequential import SequentialModel
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Abilities", "JointDensity", "refuse_misspelt"]


class JointDensity(ABC):
    """Log prior and log likelihood of latents, apart from each other, for one observation or a batch of them.

    What ``Abilities.log_densities`` returns: the same numbers as Pyro's trace of the model, computed faster.
    """

    #: Whether :meth:`gradient` is written by hand; otherwise autograd goes through a call.
    has_gradient: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, latents: dict[str, Tensor], which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, both ``(..., chain)``, differentiable.

        Parameters
        ----------
        latents
            Site -> ``(chain, *event)``, or ``(image, chain, *event)`` for a batch of observations, in the model's
            own space.
        which
            Indices of the observations that the latents belong to; all of them by default.
        """

    def gradient(
        self, latents: dict[str, Tensor], inverse_temperature: float | Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood, and the gradient of ``prior + inverse_temperature * likelihood``.

        The gradient is with respect to the one real-valued latent site, shaped as it. Asked for only where
        ``has_gradient`` says so.
        """
        raise NotImplementedError(f"{type(self).__name__} has no gradient by hand")


def refuse_misspelt(kind: type, base: type) -> None:
    """Raise ``TypeError`` where a class defines a name that is nearly one that its base declares.

    >>> class Misspelt:
    ...     is_biassed = True
    >>> class Base:
    ...     is_biased = False
    >>> refuse_misspelt(Misspelt, Base)
    Traceback (most recent call last):
    TypeError: Misspelt defines 'is_biassed'; is 'is_biased' meant, which inference asks for?
    """
    declared = {name for name in vars(base) if not name.startswith("_")}
    inherited = {name for one in kind.__mro__[1:] for name in vars(one)}
    for name in vars(kind):
        if name.startswith("_") or name in declared or name in inherited:
            continue
        near = difflib.get_close_matches(name, declared, n=1, cutoff=0.8)
        if near:
            raise TypeError(
                f"{kind.__name__} defines {name!r}; is {near[0]!r} meant, which inference asks for?"
            )


class Abilities:
    """The declared abilities of a model, each with what it means where a model does not have it.

    ``ImageModel`` inherits them; a Pyro model of someone else's has the defaults.
    """

    #: Whether the guide is the posterior itself, so that its draws are exact and independent.
    guide_is_exact: bool = False
    #: Whether the density is no joint density of latents and pixels: weighted likelihoods, made-up targets, or none
    #: at all. There is no evidence then, and no verdict recommends the draws as a posterior's.
    is_pseudo_posterior: bool = False
    #: Whether the model may be called with what an ``Instrument`` gave and the instrument, in place of image and mask.
    takes_measurements: bool = False
    #: Whether the noise of pixels around the completion is that of seeing them, and not the image's own: another
    #: instrument's takes its place.
    noise_is_of_seeing: bool = False
    #: What the guide's draws are of, in words, where not they but their importance weights are the posterior's.
    law_of_draws: str = ""

    @property
    def guide_is_trained(self) -> bool:
        """Whether the guide can be drawn from as it is: exact, or an encoder trained on many images."""
        return self.guide_is_exact

    def log_densities(self, image: Image, mask: Mask | None = None) -> JointDensity | None:
        """Return log prior and log likelihood in closed form, or ``None``: Pyro's trace is used then.

        Parameters
        ----------
        image, mask
            ``(channel, row, column)``, or ``(image, channel, row, column)`` for a batch; without a mask all is seen.
        """
        return None

    def log_evidence(self, image: Image | None = None, mask: Mask | None = None) -> Tensor | None:
        """Return log p(seen pixels) in nats, batch shape that of the images, or ``None`` where it is not known.

        NaN says that this observation's is not known.
        """
        return None

    def reverse_diffusion(self) -> ReverseDiffusion | None:
        """Return the prior of images as samplers by denoising ask for it, or ``None`` where there is none.

        The pixels' law is then the normal one around the completion, with the model's ``noise``.
        """
        return None

    def conditionals(self, image: Image, mask: Mask | None = None) -> Conditionals | None:
        """Return exact draws of some latents given the others, for ``Gibbs``, or ``None`` where there are none.

        Parameters
        ----------
        image, mask
            ``(channel, row, column)``; without a mask all is seen.
        """
        return None

    def sequential(self, *args: Any, **kwargs: Any) -> SequentialModel | None:
        """Return the latents one after another, for ``ParticleGibbs`` and ``TwistedSMC``, or ``None`` without an order.

        Called with what the model is called with: for an image model ``(image, mask)``, of one image.
        """
        return None

    def kept(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what a run keeps of draws, site -> ``(*batch, *event)``: by default the latents themselves.

        A model with too many latents returns ``completion``, ``(*batch, channel, row, column)``, and whatever else
        :meth:`law_of_kept` needs.
        """
        return latents

    def law_of_kept(self, kept: dict[str, Tensor]) -> TorchDistribution:
        """Return the law of single pixels given what :meth:`kept` or :meth:`draw_completions` kept of draws.

        Batch shape ``(*batch, channel, row, column)``. Asked for only where ``completion`` was kept.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps its latents")

    def draw_completions(
        self, image: Image, mask: Mask | None = None, *, draws: int
    ) -> dict[str, Tensor] | None:
        """Return what is kept of ``draws`` draws of the exact guide, ``(draws, ...)``, or ``None``.

        For models whose latents are too many to be carried along; ``None`` says to draw latents from the guide.
        """
        return None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls, Abilities)
