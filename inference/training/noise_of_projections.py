"""How far held-out images are from what a generator can draw: the pixel noise of a GAN.

The search is that of ``models.fitted_noise``, here with a generator by itself, a progress bar, and a named stream.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import LatentCode, fitted_noise
from posterior_inpainting.models.fitted_noise import FittedNoise, Projection
from posterior_inpainting.models.shapes import Code, Image, Mask

__all__ = ["FittedNoise", "Projection", "fit_noise", "project"]


def project(
    generator: Any,
    images: Image,
    *,
    start: Code | None = None,
    search: Projection = Projection(),  # noqa: B008 - frozen
    **settings: Any,
) -> Code:
    """Return the most probable code of each whole image under the generator's present noise: ``(n, latent)``.

    Parameters
    ----------
    generator
        As for ``LatentCode``.
    images
        ``(n, channel, row, column)``.
    start
        One code an image to start from, ``(n, latent)``, instead of draws of the prior.
    search, settings
        A ``Projection``, and fields of it to change: ``restarts``, ``steps``, ``learning_rate``, ``seed``.

    >>> from posterior_inpainting.models import datasets, pretrained
    >>> codes = project(pretrained.load("digits-vae-2d"), datasets.load("digits")[:3], steps=20)
    >>> tuple(codes.shape)
    (3, 2)
    """
    return fitted_noise.project(LatentCode(generator), images, start, _streamed(search, settings))


def fit_noise(
    generator: Any,
    images: Image,
    *,
    masks: Mask | None = None,
    per_pixel: bool = True,
    floor: float = 0.03,
    rounds: int = 4,
    progress: bool = True,
    search: Projection = Projection(),  # noqa: B008 - frozen
    **settings: Any,
) -> FittedNoise:
    """Fit the pixel noise of a generator to the residuals of held-out images, and set it.

    Parameters
    ----------
    generator
        A ``Generator`` or a ``WrappedDecoder``; its noise is set round by round, its weights are frozen and stay as
        they are.
    images
        Held-out images ``(n, channel, row, column)``, two at least and some hundreds for one noise a pixel.
    masks
        What is seen of each, of the same shape; all if not given.
    per_pixel, floor
        Whether each pixel has a value of its own; the smallest: what is black here need not be so elsewhere.
    rounds
        Projections; the first begins at draws of the prior, the others where the last one ended.
    progress, search, settings
        Whether to show a progress bar; as for :func:`project`.

    Raises
    ------
    ValueError
        If the images do not fit, or a number is out of range.

    >>> from posterior_inpainting.models import datasets
    >>> from posterior_inpainting.models.networks.generator import Generator
    >>> generator = Generator(2, (1, 8, 8), (16,))
    >>> fitted = fit_noise(generator, datasets.load("digits")[:20], rounds=2, steps=20, progress=False)
    >>> bool((generator.pixel_scale == fitted.scale).all()), bool(fitted.scale.min() >= 0.03)
    (True, True)
    """
    bar = functools.partial(progress_bar, desc="fitting noise", disable=not progress, unit="round")
    search = _streamed(search, settings)
    model = LatentCode(generator)
    return fitted_noise.fit_noise(
        model, images, masks=masks, per_pixel=per_pixel, floor=floor, rounds=rounds, search=search, each=bar
    )


def _streamed(search: Projection, settings: dict[str, Any]) -> Projection:
    """Return the search with its changes, and the number of its seed's own stream for a seed."""
    search = replace(search, **settings)
    return replace(search, seed=Streams(search.seed).number("starts"))
