r"""The law of a whole image as one Pyro distribution: its log density in one pass, its draws pixel by pixel.

.. math:: p(x) = \prod_i p(x_i \mid x_{<i}), \qquad
          q(x_h \mid \tilde x) = \prod_{i \,\mathrm{hidden}} \mathrm{law}\big(\mathrm{prior}(x_{<i})
          + \mathrm{constraint}(\tilde x, M)\big)(x_i)

where in both the seen pixels among :math:`x_{<i}` are as they were seen.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from posterior_inpainting.models.autoregressive.pixel_laws import PixelLaw
from posterior_inpainting.models.networks.incremental import IncrementalPixelCNN
from posterior_inpainting.models.shapes import Code, Image, InputError, Mask, check_image, seen_mask

__all__ = ["AutoregressiveImage", "PixelsGivenEarlier"]

_CHUNK = 256
_ONE = torch.Size()


class _OnTheLattice(constraints.Constraint):
    """Images of levels between 0 and 1: discrete, so that no sampler takes gradients of them."""

    is_discrete = True
    event_dim = 3

    def check(self, value: Tensor) -> Tensor:
        """Say of each image whether it lies in [0, 1]."""
        return ((value >= 0) & (value <= 1)).flatten(-3).all(-1)


class AutoregressiveImage(TorchDistribution):
    """Law of an image's hidden pixels, or of all of them where no mask is given; event ``(channel, row, column)``.

    A value is a complete image on the lattice of levels. What it holds at seen pixels is not read: there the seen
    values count, to the nearest level, and draws hold them.

    Parameters
    ----------
    network
        Pixel network, as :class:`~posterior_inpainting.models.networks.masked_convolution.GatedPixelCNN`.
    law
        Law of a pixel given the network's output.
    image, mask
        Seen image ``(*batch, channel, row, column)`` in [0, 1] and its mask, ``True`` = seen.
    constraint
        Added to the network's output: ``(*batch, outputs, row, column)``.
    code
        Conditioning code ``(*batch, code)``.
    temperature
        Of every pixel's law: below 1 it draws the likely levels more often than it should.

    Raises
    ------
    ValueError
        For a temperature that is not positive, or a value of another shape.

    Examples
    --------
    >>> from posterior_inpainting.models.autoregressive.pixel_laws import CategoricalPixels
    >>> from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN
    >>> network = GatedPixelCNN((1, 6, 6), outputs=2, features=4, layers=2)
    >>> image_law = AutoregressiveImage(network, CategoricalPixels(2))
    >>> draws = image_law.sample((5,))
    >>> tuple(draws.shape), tuple(image_law.log_prob(draws).shape)
    ((5, 1, 6, 6), (5,))
    """

    arg_constraints: ClassVar[dict] = {}
    has_rsample = False
    support = _OnTheLattice()

    def __init__(
        self,
        network: Any,
        law: PixelLaw,
        *,
        image: Image | None = None,
        mask: Mask | None = None,
        constraint: Tensor | None = None,
        code: Code | None = None,
        temperature: float = 1.0,
    ):
        if not temperature > 0:
            raise InputError(f"temperature={temperature}; expected a positive number")
        event = torch.Size(network.image_shape)
        self.network, self.law, self.temperature = network, law, temperature
        if image is not None:
            mask = seen_mask(image, mask)
            image = law.quantise(torch.where(mask, image, 0.0))
        self.image, self.mask, self.constraint, self.code = image, mask, constraint, code
        leading = [part.shape[:-3] for part in (image, constraint) if part is not None]
        leading += [code.shape[:-1]] if code is not None else []
        # Shared by the copies that `expand` makes: the model asks twice for the conditionals of one draw.
        self._last: dict[str, Any] = {}
        super().__init__(torch.broadcast_shapes(torch.Size(), *leading), event, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        """Return the same law for a larger batch."""
        new = self._get_checked_instance(AutoregressiveImage, _instance)
        batch = torch.Size(batch_shape)
        for name in ("network", "law", "temperature", "_last"):
            setattr(new, name, getattr(self, name))
        for name, dims in (("image", 3), ("mask", 3), ("constraint", 3), ("code", 1)):
            part = getattr(self, name)
            setattr(new, name, None if part is None else part.expand(batch + part.shape[-dims:]))
        super(AutoregressiveImage, new).__init__(batch, self.event_shape, validate_args=False)
        return new

    def complete(self, value: Image) -> Image:
        """Return the image on the lattice whose hidden pixels are those of ``value``."""
        value = self.law.quantise(value)
        return value if self.image is None else torch.where(self.mask, self.image, value)  # type: ignore[arg-type]

    def log_conditionals(self, value: Image) -> Image:
        """Return log p of each pixel given those before it, seen ones too: ``(*batch, channel, row, column)``."""
        # The same pixels under the same weights: both may be changed in place, which counts their versions up.
        state = torch.is_grad_enabled(), value._version, sum(p._version for p in self.network.parameters())
        if self._last.get("value") is not value or self._last["state"] != state:
            check_image(value, tuple(self.event_shape))
            found = self._log_conditionals(self.complete(value))
            self._last.update(value=value, log_prob=found, state=state)
        return self._last["log_prob"]

    def log_prob(self, value: Image) -> Tensor:
        """Return the log density of the hidden pixels, in nats: ``(*batch,)``."""
        log_prob = self.log_conditionals(value)
        if self.mask is not None:
            log_prob = torch.where(self.mask, 0.0, log_prob)
        log_prob = log_prob.sum((-3, -2, -1))
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape=_ONE) -> Image:
        """Draw complete images; a pixel's cost does not depend on the image's size."""
        shape = self._extended_shape(sample_shape)
        flat = [self._flat(part, shape[:-3], dims) for part, dims in self._parts()]
        count = shape[:-3].numel()
        with torch.no_grad():
            draws = [
                self._draw(min(_CHUNK, count - first), *(p and p(first) for p in flat))
                for first in range(0, count, _CHUNK)
            ]
        return torch.cat(draws).reshape(shape)

    def _parts(self):
        return ((self.image, 3), (self.mask, 3), (self.constraint, 3), (self.code, 1))

    @staticmethod
    def _flat(part: Tensor | None, batch: torch.Size, dims: int):
        """Return a function from the first row to a chunk of ``part`` with its batch dims made one."""
        if part is None:
            return None
        if part.shape[:-dims].numel() == 1:  # one for all: no copy for every draw
            one = part.reshape(1, *part.shape[-dims:])
            return lambda first: one.expand(min(_CHUNK, batch.numel() - first), *one.shape[1:])
        whole = part.expand(batch + part.shape[-dims:]).reshape(-1, *part.shape[-dims:])
        return lambda first: whole[first : first + _CHUNK]

    def _log_conditionals(self, image: Image) -> Image:
        batch = torch.broadcast_shapes(image.shape[:-3], self.batch_shape)
        count = batch.numel()
        flat = [
            self._flat(part, batch, dims) for part, dims in ((image, 3), (self.constraint, 3), (self.code, 1))
        ]
        found = []
        for first in range(0, count, _CHUNK):
            pixels, constraint, code = (part and part(first) for part in flat)
            raw = self.network(pixels, code) if code is not None else self.network(pixels)
            raw = raw if constraint is None else raw + constraint
            found.append(self.law.log_prob(raw, pixels, self.temperature))
        return torch.cat(found).reshape(batch + self.event_shape)

    def _draw(self, count, image, mask, constraint, code) -> Image:
        """Fill ``count`` images in raster order; rows after the last hidden pixel cost nothing."""
        weight = next(self.network.parameters())
        filled = weight.new_zeros(count, *self.event_shape) if image is None else image.clone()
        hidden = torch.ones_like(filled, dtype=torch.bool) if mask is None else ~mask
        wanted = hidden.flatten(0, 1).any(0)
        filling = IncrementalPixelCNN(self.network, count, code)
        last = int(wanted.any(1).nonzero().max()) if wanted.any() else -1
        for row in range(last + 1):
            filling.begin_row(filled, row)
            for column in wanted[row].nonzero().flatten().tolist():
                raw = filling.advance(filled, column + 1)
                if constraint is not None:
                    raw = raw + constraint[:, :, row, column]
                for channel in range(filled.shape[1]):
                    level = self.draw_level(raw, filled[:, :, row, column], channel)
                    free = hidden[:, channel, row, column]
                    filled[:, channel, row, column] = torch.where(
                        free, level, filled[:, channel, row, column]
                    )
        return filled

    def draw_level(self, raw: Tensor, pixel: Tensor, channel: int) -> Tensor:
        """Draw one channel of one pixel given its earlier channels, by inverting the distribution function."""
        table = self.law.log_probabilities(raw, pixel)[:, channel]
        below = torch.softmax(table / self.temperature, dim=-1).cumsum(-1)
        level = (below < torch.rand_like(below[:, :1]) * below[:, -1:]).sum(-1)
        return level.to(pixel) / (self.law.levels - 1)


class PixelsGivenEarlier(TorchDistribution):
    """Every pixel given those before it in a completion; batch ``(*batch, channel, row, column)``, no event.

    The law of the ``image`` site once the hidden pixels are known: seen pixels are scored by it, and it draws (and its
    mean is) the completion itself.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real
    has_rsample = False

    def __init__(self, completion: Image, log_conditionals: Image):
        self.completion, self.log_conditionals = completion, log_conditionals
        shape = torch.broadcast_shapes(completion.shape, log_conditionals.shape)
        super().__init__(shape, validate_args=False)

    @property
    def mean(self) -> Image:
        """The completion."""
        return self.completion

    def expand(self, batch_shape, _instance=None):
        """Return the same law for a larger batch."""
        batch = torch.Size(batch_shape)
        return PixelsGivenEarlier(self.completion.expand(batch), self.log_conditionals.expand(batch))

    def log_prob(self, value: Image) -> Image:
        """Return log p of each pixel of the completion; a value that differs from it where seen is not asked for."""
        return self.log_conditionals

    def sample(self, sample_shape=_ONE) -> Image:
        """Return the completion."""
        return self.completion.expand(self._extended_shape(sample_shape))
