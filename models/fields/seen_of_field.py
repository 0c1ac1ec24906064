"""What is seen of the pixels of a field, in units of its noise: some of them, or what an instrument gives of all.

With rows W, over the noise, and values v = W x + white noise, a Gibbs sampler of pixels needs W x, W' v and about the
diagonal of W' W.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.shapes import Image, ImageShape, InputError, Mask, seen_part

__all__ = ["SeenOfField", "seen_of_field"]


class SeenOfField(ABC):
    """Abstract rows W and values v.

    Attributes
    ----------
    values
        v, ``(n, ...)``: of one observation for all chains, or of one each.
    diagonal
        About that of W' W, ``(channel, row, column)`` or ``(n, ...)``.
    """

    values: Tensor
    diagonal: Tensor
    #: The logarithm of the product of noises, for each observation.
    log_scale: Tensor

    @abstractmethod
    def measured(self, pixels: Image) -> Tensor:
        """Return W x of pixels ``(n, channel, row, column)``."""

    @abstractmethod
    def adjoint(self, values: Tensor) -> Image:
        """Return W' v, ``(n, channel, row, column)``."""

    @abstractmethod
    def guess(self, like: Image) -> Image:
        """Return pixels from which to begin to solve: the present ones, or better."""

    def log_density(self, pixels: Image) -> Tensor:
        """Return log p(v | x), ``(n,)``."""
        residual = (self.measured(pixels) - self.values).flatten(1)
        return -0.5 * residual.square().sum(1) - self.log_scale


def seen_of_field(
    image: Tensor, mask: Mask | Instrument | None, shape: ImageShape, noise: float, like: Tensor
) -> SeenOfField:
    """Return what is seen.

    Parameters
    ----------
    image, mask
        As a model is called with them; of several images there is a chain each.
    shape
        ``(channel, row, column)``.
    noise
        Of a seen pixel; an instrument has its own.
    like
        A tensor of the type and device that absent values take.

    Examples
    --------
    >>> seen = seen_of_field(torch.ones(1, 1, 2), torch.tensor([[[True, False]]]), (1, 1, 2), 0.5, torch.zeros(1))
    >>> seen.adjoint(seen.values).tolist()
    [[[[4.0, 0.0]]]]
    """
    if isinstance(mask, Instrument):
        return _Measured(image, mask)
    return _Pixels(*seen_part(image, mask, shape, like), noise)


class _Pixels(SeenOfField):
    """Some of the pixels."""

    def __init__(self, image: Image, mask: Mask, noise: float):
        target, seen = (one.reshape(-1, *image.shape[-3:]).to(image) for one in (image, mask))
        self._root, self._target, self._seen = seen / noise, target, seen > 0
        self.values = target * self._root
        self.diagonal = self._root.square()
        self.log_scale = seen.flatten(1).sum(1) * math.log(noise * math.sqrt(2 * math.pi))

    def measured(self, pixels: Image) -> Tensor:
        """Return seen pixels over their noise, 0 elsewhere."""
        return pixels * self._root

    def adjoint(self, values: Tensor) -> Image:
        """Return the same once more."""
        return values * self._root

    def guess(self, like: Image) -> Image:
        """Return what is seen where it is."""
        return torch.where(self._seen, self._target, like)


class _Measured(SeenOfField):
    """What an instrument gives."""

    def __init__(self, values: Tensor, instrument: Instrument):
        if not instrument.noise:
            raise InputError(
                "noise=0 leaves a measurement of this model no density; expected a positive noise"
            )
        self.operator, self.noise = instrument.operator, instrument.noise
        self.values = values.reshape(-1, *self.operator.output_shape) / self.noise
        self.diagonal = self.operator.diagonal(self.values) / self.noise**2
        count = math.prod(self.operator.output_shape)
        self.log_scale = self.values.new_tensor(count * math.log(self.noise * math.sqrt(2 * math.pi)))

    def measured(self, pixels: Image) -> Tensor:
        """Return values over their noise."""
        return self.operator(pixels) / self.noise

    def adjoint(self, values: Tensor) -> Image:
        """Return the adjoint's image."""
        return self.operator.adjoint(values) / self.noise

    def guess(self, like: Image) -> Image:
        """Return the present pixels."""
        return like
