"""Any network that turns codes into images, as a decoder: its shapes, its range and its output by arguments.

The generator of a GAN takes codes of shape (100, 1, 1) and returns values in [-1, 1], a library's autoencoder an
object with the image in a field, a network from elsewhere the channels last. All of them are z -> image here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from posterior_inpainting.models.networks.decoder import Restricted
from posterior_inpainting.models.networks.generator import FixedNoise
from posterior_inpainting.models.networks.rows_of_codes import decode_rows, find_speed
from posterior_inpainting.models.shapes import Code, Image, ImageShape, check_shape, describe

__all__ = ["OutputPath", "WrappedDecoder"]

#: Where the image is in what a network returns: a key, a field or an index, or several, from the outside to the inside.
OutputPath = str | int | Sequence[str | int]

#: Codes that a network is tried with.
_TRIED = 3
#: How far outside [0, 1] images are taken to be in another range than the one that was said.
_SLACK = 0.5


class WrappedDecoder(FixedNoise):
    """A network of someone else's as a decoder with a fixed noise for each pixel.

    The network is tried with a few codes when it is wrapped. It is frozen and put into evaluation mode, in place: batch
    normalisation then uses its running statistics, and dropout does nothing.

    Parameters
    ----------
    module
        From a batch of codes to a batch of images.
    latent
        Shape of one code as the network takes it, without the batch: ``(4, 8, 8)``, or a number for a vector. Here z is
        flat, ``(*batch, prod(latent))``.
    image_shape
        ``(channel, row, column)`` of the images; a network may return them flat, too.
    noise
        Pixel scale until :meth:`set_noise` gives another, in units of [0, 1]: a number, or one for each pixel.
    method
        Name of the module's method that decodes, ``"decode"`` of an autoencoder.
    output
        Where the image is in what it returns: ``"sample"``, ``0``, or a path such as ``("images", 0)``.
    channels_last
        Whether it returns ``(batch, row, column, channel)``.
    value_range
        What it returns for black and for white; images here are in [0, 1].

    Attributes
    ----------
    speed
        ``"closed form"`` if a batch is decoded in one call as every code alone, else ``"vmap"`` if
        ``torch.func.vmap`` goes through the network, else ``"loop"``.

    Raises
    ------
    ValueError
        For a network that refuses such codes or returns anything but one finite image of that shape for each, another
        one at a second call, or one that lets no gradient through; for a noise that is not positive.

    Examples
    --------
    >>> generator = nn.Sequential(nn.ConvTranspose2d(16, 1, 8), nn.Tanh())
    >>> decoder = WrappedDecoder(generator, (16, 1, 1), (1, 8, 8), value_range=(-1, 1))
    >>> tuple(decoder(torch.zeros(5, 2, 16)).shape), decoder.speed
    ((5, 2, 1, 8, 8), 'closed form')
    """

    def __init__(
        self,
        module: nn.Module,
        latent: int | Sequence[int],
        image_shape: ImageShape,
        *,
        noise: float | Tensor = 0.1,
        method: str = "forward",
        output: OutputPath | None = None,
        channels_last: bool = False,
        value_range: tuple[float, float] = (0.0, 1.0),
    ):
        code_shape = (latent,) if isinstance(latent, int) else tuple(latent)
        if not code_shape or min(code_shape) < 1:
            raise ValueError(f"latent={latent}; expected a positive number, or some as the shape of a code")
        if not isinstance(module, nn.Module):
            raise ValueError(f"module is {describe(module)}; expected a torch module")
        if not hasattr(module, method):
            raise ValueError(
                f"module is a {type(module).__name__} without a method {method!r}; expected one that decodes"
            )
        if value_range[0] == value_range[1]:
            raise ValueError(f"value_range={value_range}; expected two values, of black and of white")
        super().__init__(math.prod(code_shape), check_shape(tuple(image_shape)))
        self.module = module.requires_grad_(False).eval()
        self.code_shape = code_shape
        self.method = method
        self.output = () if output is None else (output,) if isinstance(output, str | int) else tuple(output)
        self.channels_last = channels_last
        self.value_range = value_range
        like = next(
            (t for t in chain(module.parameters(), module.buffers()) if t.is_floating_point()), torch.empty(0)
        )
        self.register_buffer("pixel_scale", like.new_empty(self.image_shape))
        self.set_noise(noise)
        self._look_at(rows := self._some_codes())
        self.speed = find_speed(self._decode, rows)

    @property
    def has_restriction(self) -> bool:  # type: ignore[override]
        """Whether a batch is decoded in one call: then no trace of Pyro's is needed."""
        return self.speed == "closed form"

    def forward(self, z: Code) -> Image:
        """Return pixel means ``(*batch, channel, row, column)`` in [0, 1] of codes ``(*batch, prod(latent))``."""
        images = decode_rows(self._decode, z.reshape(-1, self.latent), self.speed)
        return images.reshape(*z.shape[:-1], *self.image_shape)

    def mean_and_scale(self, z: Code) -> tuple[Image, Image]:
        """Return pixel means, and the fixed scales ``(channel, row, column)``."""
        return self(z), self.pixel_scale

    def restrict(self, pixels: Tensor) -> Restricted:
        """Return a function from codes to means and scales of some pixels, with autograd's chain rule.

        The whole image is computed: of a network of someone else's no part can be left out.
        """
        scale = self.pixel_scale.flatten()[pixels]

        def decode(z: Code) -> tuple[Tensor, Tensor, Any]:
            """Return means and scales of the pixels, and the way back."""
            with torch.enable_grad():
                leaf = z if z.requires_grad else z.detach().requires_grad_()
                mean = self(leaf).flatten(-3)[..., pixels]

            def pull_back(slope: Tensor, _: Tensor | None) -> Tensor:
                """Return the derivative with respect to z."""
                return torch.autograd.grad(mean, leaf, slope)[0]

            return mean if z.requires_grad else mean.detach(), scale, pull_back

        return decode

    def extra_repr(self) -> str:
        """Return what the network was wrapped with, and its speed."""
        scale = self.pixel_scale
        return (
            f"latent={self.code_shape}, image_shape={self.image_shape}, value_range={self.value_range}, "
            f"noise {float(scale.min()):.3g} to {float(scale.max()):.3g}, speed={self.speed!r}"
        )

    def _decode(self, rows: Code) -> Image:
        """Images ``(n, channel, row, column)`` in [0, 1] of codes ``(n, latent)``, in one call of the network."""
        return self._images_in(self._called(rows), len(rows))

    def _called(self, rows: Code) -> Any:
        return getattr(self.module, self.method)(rows.reshape(-1, *self.code_shape))

    def _images_in(self, found: Any, count: int) -> Image:
        """Find the images in what the network returned, and make them such as images are here."""
        images = _picked(found, self.output, type(self.module).__name__)
        given, whole = tuple(images.shape), (count, *self.image_shape)
        if self.channels_last and images.dim() == 4:
            images = images.movedim(-1, -3)
        if given == (count, math.prod(self.image_shape)):
            images = images.reshape(whole)
        if images.shape != whole:
            channel, row, column = self.image_shape
            expected = (count, row, column, channel) if self.channels_last else whole
            raise ValueError(
                f"{type(self.module).__name__} returns shape {given} for codes of shape "
                f"{(count, *self.code_shape)}; expected {expected} for image_shape={self.image_shape}"
            )
        black, white = self.value_range
        return (images - black) / (white - black)

    def _some_codes(self) -> Code:
        """Draws of a standard normal, the same at every call."""
        generator = torch.Generator(self.pixel_scale.device).manual_seed(0)
        return self.pixel_scale.new_empty(_TRIED, self.latent).normal_(generator=generator)

    def _look_at(self, rows: Code) -> None:
        """Raise where the network refuses a code or its images are none, and warn of another range."""
        name, shape = type(self.module).__name__, (1, *self.code_shape)
        try:
            with torch.no_grad():
                first = self._called(rows[:1])
        except Exception as error:  # a network of someone else's may raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ValueError(
                f"{name} fails at codes of shape {shape}: {reason}; expected latent= the shape that it takes"
            ) from error
        self._images_in(first, 1)
        with torch.no_grad():
            images = decode_rows(self._decode, rows, "loop")
        if not bool(images.isfinite().all()):
            raise ValueError(
                f"{name} returns NaN or infinity for standard normal codes of shape {shape}; expected numbers"
            )
        low, high = float(images.min()), float(images.max())
        if low < -_SLACK or high > 1 + _SLACK:
            black, white = self.value_range
            low, high = (black + (white - black) * value for value in (low, high))
            warnings.warn(
                f"{name} returns values from {low:.3g} to {high:.3g}; expected about value_range={self.value_range}",
                stacklevel=4,
            )


def _picked(found: Any, path: Sequence[str | int], name: str) -> Tensor:
    """Return the tensor at a path of keys, fields and indices."""
    for step in path:
        parts = _parts(found)
        if step not in parts:
            raise ValueError(f"output={step!r} is not in what {name} returns; expected {_options(parts)}")
        found = parts[step]
    if not isinstance(found, Tensor):
        raise ValueError(
            f"{name} returns a {type(found).__name__}; expected an image: say output={_options(_parts(found))}"
        )
    return found


def _parts(found: Any) -> dict[Any, Any]:
    """Return what is in a mapping, a sequence or an object, by key, index or field."""
    if isinstance(found, Tensor):
        return {}
    fields = getattr(found, "_fields", ())
    if isinstance(found, Mapping):
        return dict(found)
    if isinstance(found, Sequence) and not isinstance(found, str):
        return dict(enumerate(found)) | {field: getattr(found, field) for field in fields}
    return dict(getattr(found, "__dict__", {}))


def _options(parts: Mapping[Any, Any]) -> str:
    return " or ".join(repr(part) for part in parts) or "nothing inside"
