r"""The pixel noise around a decoder that has none: what is left of images once each is projected on what can be drawn.

A network from codes to images has no likelihood. Its density over images becomes one with a noise around the decoded
image, and the honest size of that noise is the residual of images that the network was not trained on:

.. math:: z_n = \arg\max_z \log p(z) + \log p(x_n \mid f(z), \sigma), \qquad
   \sigma_i^2 = \max\left(\textrm{floor}^2,\ \tfrac1N \sum_n (x_{ni} - f(z_n)_i)^2\right),

one after the other until neither moves: hard expectation maximisation for sigma. A code takes up as many directions
of the residual as it has numbers, so that sigma is too small by about latent / (2 * pixels) of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from posterior_inpainting.models.base import frozen
from posterior_inpainting.models.shapes import Code, Image, Mask, check_image, describe, refuse_eight_bits

__all__ = ["FittedNoise", "Projection", "fit_noise", "give_noise", "project"]

#: Images whose codes are searched for at once, so that memory does not grow with their number.
_TOGETHER = 64
#: Images, beside those that show a pixel, that have the noise of all pixels, where there are masks.
_FEW = 5
#: Words for a noise that is fitted.
_FITS = ("fit", "fit each pixel")


@dataclass(frozen=True)
class FittedNoise:
    """What `fit_noise` found.

    Parameters
    ----------
    scale
        Pixel noise ``(channel, row, column)``, in the image's units.
    error
        Root mean square residual of all pixels and images after each round.
    codes
        Codes of the projected images, ``(n, latent)``.
    """

    scale: Image
    error: list[float]
    codes: Code


@dataclass(frozen=True)
class Projection:
    """How codes of images are searched for; ``project(..., steps=100)`` is short for ``search=Projection(steps=100)``.

    Parameters
    ----------
    restarts
        Draws of the prior to start from, the same for every image; the best end wins, image by image.
    steps, learning_rate
        Adam's steps and first step size, which falls to 0 along half a cosine.
    seed
        Seed of the restarts.

    Raises
    ------
    ValueError
        For a number out of range.
    """

    restarts: int = 4
    steps: int = 300
    learning_rate: float = 0.05
    seed: int = 0

    def __post_init__(self):
        if min(self.restarts, self.steps) < 1:
            raise ValueError(f"restarts={self.restarts}, steps={self.steps}; expected at least 1 of each")


def project(
    model: Any,
    images: Image,
    start: Code | None = None,
    search: Projection = Projection(),
    masks: Mask | None = None,
) -> Code:
    """Return the most probable code of what is seen of each image under the model's present noise: ``(n, latent)``.

    Parameters
    ----------
    model
        A ``LatentCode``.
    images
        ``(n, channel, row, column)``.
    start
        One code an image to start from, ``(n, latent)``, instead of draws of the prior.
    search
        Restarts, steps, and their seed.
    masks
        What is seen of each image, ``(n, channel, row, column)``; all if not given.

    Examples
    --------
    >>> from posterior_inpainting.models import LatentCode, datasets, pretrained
    >>> model = LatentCode(pretrained.load("digits-vae-2d"))
    >>> tuple(project(model, datasets.load("digits")[:3], search=Projection(steps=20)).shape)
    (3, 2)
    """
    if start is None:
        # Distributions draw from the global generator only.
        with torch.random.fork_rng(devices=[*range(torch.cuda.device_count())]):
            torch.manual_seed(search.seed)
            start = model.prior().sample((search.restarts,)).expand(len(images), -1, -1)
    else:
        start = start.unsqueeze(1)
    seen = _all_or(masks, images)
    parts = zip(*(one.split(_TOGETHER) for one in (images, seen, start)), strict=True)
    return torch.cat([_climbed(model, some, shown, codes, search) for some, shown, codes in parts])


def fit_noise(
    model: Any,
    images: Image,
    *,
    per_pixel: bool = True,
    floor: float = 0.03,
    rounds: int = 4,
    search: Projection = Projection(),
    masks: Mask | None = None,
    each: Callable[[range], Iterable] = iter,
) -> FittedNoise:
    """Fit the pixel noise of a model's decoder to the residuals of held-out images, and set it.

    Parameters
    ----------
    model
        A ``LatentCode`` whose decoder has ``set_noise`` and ``pixel_scale``; its weights stay as they are.
    images
        Held-out images ``(n, channel, row, column)``, two at least and some hundreds for one noise a pixel.
    per_pixel, floor
        Whether each pixel has a value of its own; the smallest: what is black here need not be so elsewhere.
    rounds
        Projections; the first begins at draws of the prior, the others where the last one ended.
    search, masks
        As for :func:`project`. The noise of a pixel that few images show is drawn towards that of all.
    each
        What counts the rounds, a progress bar for instance.

    Raises
    ------
    ValueError
        If the images do not fit, or a number is out of range.

    Examples
    --------
    >>> from posterior_inpainting.models import LatentCode, datasets
    >>> from posterior_inpainting.models.networks import Generator
    >>> model = LatentCode(Generator(2, (1, 8, 8), (16,)))
    >>> fitted = fit_noise(model, datasets.load("digits")[:20], rounds=2, search=Projection(steps=20))
    >>> bool((model.decoder.pixel_scale == fitted.scale).all()), bool(fitted.scale.min() >= 0.03)
    (True, True)
    """
    decoder = frozen(model, "decoder")
    _check(images, decoder.image_shape, floor, rounds)
    images = images.to(decoder.pixel_scale)
    codes, error = None, []
    for _ in each(range(rounds)):
        codes = project(model, images, codes, search, masks)
        squares, count = _square_residuals(decoder, images, _all_or(masks, images), codes)
        mean = squares.sum() / count.sum()
        error.append(float(mean.sqrt()))
        few = 0 if masks is None else _FEW
        scale = (squares + few * mean) / (count + few) if per_pixel else mean.expand(decoder.image_shape)
        decoder.set_noise(scale.sqrt().clamp(min=floor))
    assert codes is not None
    return FittedNoise(decoder.pixel_scale.clone(), error, codes)


def give_noise(model: Any, noise: float | Tensor | str, images: Image | None, search: Projection) -> None:
    """Set the pixel noise of a model's decoder to what is given, or fit it to images.

    Parameters
    ----------
    model
        A ``LatentCode`` whose decoder has ``set_noise``.
    noise
        A scale, ``"fit"`` for one number, or ``"fit each pixel"``.
    images, search
        What it is fitted to, and how; no images where it is given.

    Raises
    ------
    ValueError
        As :func:`fit_noise`; or for a noise to be fitted to no images, or images for none.

    >>> from posterior_inpainting.models import LatentCode
    >>> from posterior_inpainting.models.networks import Generator
    >>> give_noise(LatentCode(Generator(2, (1, 8, 8))), "fit", None, Projection())
    Traceback (most recent call last):
    ValueError: noise='fit' and no images; expected images to fit it to
    """
    if not isinstance(noise, str):
        if images is not None:
            raise ValueError(f"noise is {describe(noise)}, and there are images; expected one of the two")
        frozen(model, "decoder").set_noise(noise)
        return
    if noise not in _FITS:
        raise ValueError(f"noise={noise!r}; expected a number, a tensor, or one of {', '.join(_FITS)}")
    if images is None:
        raise ValueError(f"noise={noise!r} and no images; expected images to fit it to")
    fit_noise(model, images, per_pixel=noise == "fit each pixel", search=search)


def _climbed(model: Any, images: Image, seen: Mask, start: Tensor, search: Projection) -> Code:
    """Go up by Adam from ``(n, restart, latent)``, each by itself, and return the best ends ``(n, latent)``."""
    prior, images, seen = model.prior(), images.unsqueeze(1), seen.unsqueeze(1)
    to_code = biject_to(prior.support)
    position = to_code.inv(start).detach().clone().requires_grad_()

    def log_joint() -> tuple[Code, Tensor]:
        """Return the codes, and log p(z) + log p(x | z)."""
        z = to_code(position)
        return z, prior.log_prob(z) + model.pixel_law(z).mask(seen).log_prob(images).sum((-3, -2, -1))

    optimiser = torch.optim.Adam([position], lr=search.learning_rate, maximize=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, search.steps)
    with torch.enable_grad():
        for _ in range(search.steps):
            (position.grad,) = torch.autograd.grad(log_joint()[1].sum(), position)
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        z, height = log_joint()
    return z.detach()[torch.arange(len(z), device=z.device), height.argmax(1)]


def _square_residuals(decoder: Any, images: Image, seen: Mask, codes: Code) -> tuple[Image, Tensor]:
    """Sum over the images of squared residuals of what is seen, and how many show it: ``(channel, row, column)``."""
    with torch.no_grad():
        parts = zip(*(one.split(_TOGETHER) for one in (images, seen, codes)), strict=True)
        squares = sum(torch.where(shown, some - decoder(z), 0.0).square().sum(0) for some, shown, z in parts)
    return squares, seen.sum(0)  # type: ignore[return-value]


def _all_or(masks: Mask | None, images: Image) -> Mask:
    """Return what is seen of images, also where that is all."""
    return images.new_ones((), dtype=torch.bool).expand(images.shape) if masks is None else masks


def _check(images: Image, image_shape: tuple[int, ...], floor: float, rounds: int) -> None:
    check_image(images, image_shape)
    refuse_eight_bits(images)
    if images.dim() != 4 or len(images) < 2:
        raise ValueError(f"images is {describe(images)}; expected at least 2 as (n, channel, row, column)")
    if floor <= 0 or rounds < 1:
        raise ValueError(f"floor={floor}, rounds={rounds}; expected a positive floor and at least 1 round")
