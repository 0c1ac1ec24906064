r"""How far held-out images are from what a generator can draw: the pixel noise of a GAN.

A GAN has no likelihood. Its density over images becomes one with a noise around the generated image, and the
honest size of that noise is what is left of images that the generator was not trained on, once each has been
projected on what it can draw:

.. math:: z_n = \arg\max_z \log p(z) + \log N(x_n; f(z), \sigma), \qquad
   \sigma_i^2 = \max\left(\textrm{floor}^2,\ \tfrac1N \sum_n (x_{ni} - f(z_n)_i)^2\right),

one after the other until neither moves: hard expectation maximisation for sigma. A code takes up as many
directions of the residual as it has numbers, so that sigma is too small by about latent / (2 * pixels) of itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.optimum import climb
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import LatentCode
from posterior_inpainting.models.shapes import Code, Image, check_image, describe, refuse_eight_bits

__all__ = ["FittedNoise", "Projection", "fit_noise", "project"]


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
        As for ``MAP``.
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
    generator: Any,
    images: Image,
    *,
    start: Code | None = None,
    search: Projection = Projection(),
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
    search = replace(search, **settings)
    potential = Potential(Problem(LatentCode(generator), (images,)), groups=len(images))
    if start is None:
        with Streams(search.seed).seeded("starts"):
            position = potential.draw_prior(search.restarts).repeat(len(images), 1, 1)
    else:
        position = start.unsqueeze(1)
    position = climb(potential, position, search.steps, search.learning_rate)
    with torch.no_grad():
        log_prior, log_likelihood = potential(position)
    best = (log_prior + log_likelihood).argmax(1)
    return position[torch.arange(len(images), device=best.device), best].detach()


def fit_noise(
    generator: Any,
    images: Image,
    *,
    per_pixel: bool = True,
    floor: float = 0.03,
    rounds: int = 4,
    progress: bool = True,
    search: Projection = Projection(),
    **settings: Any,
) -> FittedNoise:
    """Fit the pixel noise of a generator to the residuals of held-out images, and set it.

    Parameters
    ----------
    generator
        A ``Generator``; its noise is set round by round, its weights are frozen and stay as they are.
    images
        Held-out images ``(n, channel, row, column)``, two at least and some hundreds for one noise a pixel.
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
    _check(generator, images, floor, rounds)
    search = replace(search, **settings)
    codes, error = None, []
    for _ in progress_bar(range(rounds), desc="fitting noise", disable=not progress, unit="round"):
        codes = project(generator, images, start=codes, search=search)
        with torch.no_grad():
            squares = (images - generator(codes)).square()
        error.append(float(squares.mean().sqrt()))
        scale = squares.mean(0) if per_pixel else squares.mean().expand(generator.image_shape)
        generator.set_noise(scale.sqrt().clamp(min=floor))
    assert codes is not None
    return FittedNoise(generator.pixel_scale.clone(), error, codes)


def _check(generator: Any, images: Image, floor: float, rounds: int) -> None:
    check_image(images, generator.image_shape)
    refuse_eight_bits(images)
    if images.dim() != 4 or len(images) < 2:
        raise ValueError(f"images is {describe(images)}; expected at least 2 as (n, channel, row, column)")
    if floor <= 0 or rounds < 1:
        raise ValueError(f"floor={floor}, rounds={rounds}; expected a positive floor and at least 1 round")
