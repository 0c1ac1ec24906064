"""What a decoder is to the models: from a code to the means and scales of an image's pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from posterior_inpainting.models.shapes import Code, Image, ImageShape

__all__ = ["Decoder", "PlainDecoder", "PullBack", "Restricted", "as_decoder"]

#: From derivatives with respect to mean and scale (``None`` where the scale is fixed) to that with respect to z.
PullBack = Callable[[Tensor, Tensor | None], Tensor]

#: From codes to means and scales ``(*batch, pixel)`` of some pixels, and the function that pulls gradients back.
Restricted = Callable[[Code], tuple[Tensor, Tensor, PullBack]]


class Decoder(nn.Module):
    """Abstract decoder: called with codes it returns pixel means, and it knows its noise.

    A subclass writes :meth:`forward` and :meth:`mean_and_scale`. To be saved and loaded with the bundled networks it
    also has a ``configuration()``.

    Parameters
    ----------
    latent
        Length of z.
    image_shape
        ``(channel, row, column)`` of what is decoded.

    Attributes
    ----------
    encoder
        Masked-input encoder that was trained beside it, from image and mask to location and scale of q(z | x~);
        ``None`` where there is none.
    law_of_codes
        ``CodeMixture`` of the codes of the images that it was trained on; ``None`` for standard normal ones.
    domain
        ``DomainJudge`` of the images that it was trained on, for ``diagnostics.fit``; ``None`` where there is none.
    likelihood
        Name in ``models.likelihoods`` of the law of pixels that it was trained with.

    Examples
    --------
    >>> class Grey(Decoder):
    ...     def forward(self, z):
    ...         return z.unflatten(-1, self.image_shape).sigmoid()
    ...     def mean_and_scale(self, z):
    ...         mean = self(z)
    ...         return mean, torch.full_like(mean, 0.1)
    >>> grey = Grey(4, (1, 2, 2))
    >>> tuple(grey.mean_and_scale(torch.zeros(3, 4))[1].shape), grey.has_restriction, grey.encoder
    ((3, 1, 2, 2), False, None)
    """

    #: Whether :meth:`restrict` is written: the posterior then costs no more than its seen pixels.
    has_restriction: ClassVar[bool] = False

    def __init__(self, latent: int, image_shape: ImageShape):
        super().__init__()
        self.latent = latent
        self.image_shape: ImageShape = tuple(image_shape)
        # Not on the class, where it would hide the module of that name that is set later.
        self.encoder: nn.Module | None = None
        self.law_of_codes: nn.Module | None = None
        self.domain: nn.Module | None = None
        self.likelihood = "normal"

    def forward(self, z: Code) -> Image:
        """Return pixel means ``(*batch, channel, row, column)`` of codes ``(*batch, latent)``."""
        raise NotImplementedError

    def mean_and_scale(self, z: Code) -> tuple[Image, Image]:
        """Return pixel means and scales; both broadcast to ``(*batch, channel, row, column)``."""
        raise NotImplementedError

    def restrict(self, pixels: Tensor) -> Restricted:
        """Return a function from codes to means and scales ``(*batch, len(pixels))`` of some pixels, and a chain rule.

        Asked for only where ``has_restriction`` says so.

        Parameters
        ----------
        pixels
            Indices into the flattened ``(channel, row, column)``.
        """
        raise NotImplementedError(f"{type(self).__name__} decodes whole images only")


class PlainDecoder(Decoder):
    """A module that is no :class:`Decoder` and carries its noise in one of the documented ways.

    Parameters
    ----------
    module
        From z to the mean, with ``latent`` and ``image_shape``, and one of ``mean_and_scale(z)``, ``scale(z)`` or
        ``noise`` (a number, or a tensor that broadcasts to the image); an ``encoder`` or ``likelihood`` that it has is
        taken over.
    noise
        Pixel scale to use instead of the module's own.

    Raises
    ------
    ValueError
        For a module without a length of z, an image shape, or noise.

    Examples
    --------
    >>> import torch
    >>> line = nn.Sequential(nn.Linear(2, 4), nn.Unflatten(-1, (1, 2, 2)))
    >>> line.latent, line.image_shape, line.noise = 2, (1, 2, 2), 0.1
    >>> mean, scale = PlainDecoder(line).mean_and_scale(torch.zeros(3, 2))
    >>> tuple(mean.shape), scale
    ((3, 1, 2, 2), tensor(0.1000))
    """

    def __init__(self, module: nn.Module, noise: float | Tensor | None = None):
        name = type(module).__name__
        missing = [part for part in ("latent", "image_shape") if not hasattr(module, part)]
        if missing:
            raise ValueError(f"{name} has no {' and no '.join(missing)}; expected those of a decoder")
        given: Any = module
        super().__init__(given.latent, given.image_shape)
        ways = ("mean_and_scale", "scale", "noise")
        self._way = "given" if noise is not None else next((w for w in ways if hasattr(module, w)), "")
        if not self._way:
            raise ValueError(
                f"{name} carries no noise; give it mean_and_scale(z), scale(z) or noise, or pass noise=..."
            )
        self.module: Any = module
        self.encoder = getattr(module, "encoder", None)
        self.likelihood = getattr(module, "likelihood", "normal")
        self._noise = noise

    def forward(self, z: Code) -> Image:
        """Return what the module returns."""
        return self.module(z)

    def mean_and_scale(self, z: Code) -> tuple[Image, Image]:
        """Return the module's means, and its scales or the ones that were given instead."""
        if self._way == "mean_and_scale":
            return self.module.mean_and_scale(z)
        mean = self.module(z)
        if self._way == "scale":
            return mean, self.module.scale(z)
        noise = self.module.noise if self._way == "noise" else self._noise
        return mean, torch.as_tensor(noise, dtype=mean.dtype, device=mean.device)


def as_decoder(module: Any, noise: float | Tensor | None = None) -> Decoder:
    """Return a decoder as it is, or another module by :class:`PlainDecoder`, which is told its noise if it has none."""
    return module if isinstance(module, Decoder) else PlainDecoder(module, noise)
