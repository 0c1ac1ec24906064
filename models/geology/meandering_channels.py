r"""Simulated geology: meandering river channels, the kind of images that Dupont et al. 2018 complete from wells.

The direction :math:`\theta` of a river along its path s is the disturbed periodic process of Ferguson 1976,
*Disturbed periodic model for river meanders*, as in Pyrcz, Boisvert & Deutsch 2009 (Alluvsim),

.. math:: \theta + \frac{2h}{k} \theta' + \frac{1}{k^2} \theta'' = \varepsilon(s), \qquad k = 2 \pi / \lambda,

sampled at steps of one pixel as a second-order autoregression,

.. math:: \theta_i = 2 e^{-kh} \cos(k \sqrt{1 - h^2})\, \theta_{i-1} - e^{-2kh} \theta_{i-2} + \varepsilon_i .

With h = 0 it would be the sine-generated curve of Langbein & Leopold 1966. Glossary: lambda wavelength, h damping;
the *indicator* is the share of a pixel that is channel; the *nugget*, a word of geostatistics, is what differs between
neighbouring pixels of the same rock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["MeanderingChannels", "simulate"]

Range = tuple[float, float]


@dataclass(frozen=True)
class MeanderingChannels:
    """The law of a family of images; every range is that of a uniform draw, lengths are in pixels.

    The channels of one image belong to one river: they share orientation, wavelength, swing and width.

    Parameters
    ----------
    channels
        Least and greatest number of channels, both possible.
    orientation
        Of the flow, in radians; 0 is from left to right, positive turns downwards.
    wavelength
        Of the meanders, along the path.
    swing
        Standard deviation of the direction about the flow, in radians: sinuosity is about ``exp(swing**2 / 2)``.
    damping
        h in (0, 1): the smaller, the more regular the meanders.
    width
        Of a channel.
    edge
        Distance over which channel passes into background; 1 is a binary image without jagged edges.
    background, sand
        Grey value of either rock.
    nugget
        Standard deviation of independent pixel noise, which is part of the rock.

    Raises
    ------
    ValueError
        For a range that is empty or outside what it can be.

    Examples
    --------
    >>> images = MeanderingChannels().simulate(3, (1, 64, 64), seed=0)
    >>> tuple(images.shape), bool(((images >= 0) & (images <= 1)).all())
    ((3, 1, 64, 64), True)
    """

    channels: tuple[int, int] = (1, 2)
    orientation: Range = (-0.4, 0.4)
    wavelength: Range = (40.0, 70.0)
    swing: Range = (0.25, 0.5)
    damping: float = 0.05
    width: Range = (6.0, 10.0)
    edge: float = 2.0
    background: float = 0.2
    sand: float = 0.8
    nugget: float = 0.06

    def __post_init__(self):
        floors = {"channels": 1, "orientation": -math.pi, "wavelength": 4, "swing": 0, "width": 1}
        for name, least in floors.items():
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ValueError(f"{name}=({low}, {high}); expected {least:.4g} <= low <= high")
        if not 0 < self.damping < 1:
            raise ValueError(f"damping={self.damping}; expected a number between 0 and 1")
        if self.edge <= 0 or self.nugget < 0:
            raise ValueError(f"edge={self.edge}, nugget={self.nugget}; expected edge > 0 and nugget >= 0")
        if not (0 <= self.background <= 1 and 0 <= self.sand <= 1):
            raise ValueError(
                f"background={self.background}, sand={self.sand}; expected grey values in [0, 1]"
            )

    def simulate(self, count: int, shape: ImageShape = (1, 64, 64), seed: int = 0) -> Image:
        """Return grey images ``(count, 1, row, column)`` in [0, 1]: rock by the indicator, and its nugget."""
        indicator = self.indicator(count, shape, seed)
        noise = torch.randn(indicator.shape, generator=torch.Generator().manual_seed(seed + 2**32))
        clean = self.grey(indicator)
        return (clean + self.nugget * noise).clamp_(0, 1)

    def grey(self, indicator: Image) -> Image:
        """Return the grey values of indicators, without nugget."""
        return self.background + (self.sand - self.background) * indicator

    def indicator(self, count: int, shape: ImageShape = (1, 64, 64), seed: int = 0) -> Image:
        """Return the share of each pixel that is channel, ``(count, 1, row, column)``.

        ``>= 0.5`` makes it binary. The images of :meth:`simulate` with the same seed are made of it.
        """
        if count < 1 or len(shape) != 3 or shape[0] != 1 or min(shape) < 1:
            raise ValueError(f"count={count}, shape={tuple(shape)}; expected count >= 1 and (1, row, column)")
        _, rows, columns = shape
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.cartesian_prod(torch.arange(rows).float(), torch.arange(columns).float())
        images = []
        for start in range(0, count, 256):  # what fits a cache, and the same draws whatever the count
            some = min(256, count - start)
            lines, widths, there = (part[:some] for part in self.centre_lines(256, shape, generator))
            images.append(self._drawn(lines, widths, there, pixels))
        return torch.cat(images).reshape(count, *shape)

    def centre_lines(
        self, count: int, shape: ImageShape, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the centre lines of ``count`` images.

        Returns
        -------
        tuple
            Points ``(count, channel, step, 2)`` as row and column, a pixel apart; widths ``(count,)``; which of the
            channels are there, boolean ``(count, channel)``.
        """
        most, side = self.channels[1], max(shape)

        def uniform(low: float, high: float, *size: int) -> Tensor:
            """Draw uniform numbers."""
            return low + (high - low) * torch.rand(size, generator=generator)

        number = torch.randint(self.channels[0], most + 1, (count, 1), generator=generator)
        orientation, swing = (uniform(*r, count, 1) for r in (self.orientation, self.swing))
        wavelength, width = (uniform(*r, count, 1) for r in (self.wavelength, self.width))
        half = math.ceil(2.5 * side)  # long enough to leave the image on both sides, however it winds
        noise = torch.randn(2 * half, count, most, generator=generator)
        direction = orientation + swing * disturbed_periodic(noise, wavelength, self.damping)
        path = torch.stack([direction.sin(), direction.cos()], -1).cumsum(0)
        # Each channel passes through a point of its own band across the flow.
        band = (torch.arange(most) + torch.rand(count, most, generator=generator)) / number - 0.5
        across = torch.stack([orientation.cos(), -orientation.sin()], -1)
        centre = torch.tensor([(shape[1] - 1) / 2, (shape[2] - 1) / 2])
        anchor = centre + side * band.unsqueeze(-1) * across
        lines = (path - path[half] + anchor).permute(1, 2, 0, 3)
        return lines, width.squeeze(1), torch.arange(most) < number

    def _drawn(self, lines: Tensor, widths: Tensor, there: Tensor, pixels: Tensor) -> Tensor:
        """Return indicators ``(count, pixel)``: 1 within half a width of a centre line, falling to 0 over the edge."""
        found = []
        for line, width, some in zip(lines, widths, there, strict=True):
            points = line[some].flatten(0, 1)
            near = ((points > -width) & (points < pixels.max(0).values + width)).all(-1)
            distance = _distances(pixels, points[near])
            found.append(((width / 2 - distance) / self.edge + 0.5).clamp_(0, 1))
        return torch.stack(found)


def simulate(count: int, shape: ImageShape = (1, 64, 64), seed: int = 0) -> Image:
    """Return ``count`` images of :class:`MeanderingChannels` with its usual settings.

    >>> torch.equal(simulate(2, seed=3), simulate(2, seed=3)), torch.equal(simulate(2, seed=3), simulate(2, seed=4))
    (True, False)
    """
    return MeanderingChannels().simulate(count, shape, seed)


def disturbed_periodic(noise: Tensor, wavelength: Tensor, damping: float) -> Tensor:
    """Turn white noise ``(step, *batch)`` into stationary directions with standard deviation 1.

    Parameters
    ----------
    noise
        Standard normal.
    wavelength
        In steps; broadcasts to the batch.
    damping
        h in (0, 1).
    """
    k = 2 * math.pi / wavelength
    first = 2 * (-k * damping).exp() * (k * math.sqrt(1 - damping**2)).cos()
    second = -(-2 * k * damping).exp()
    correlation = first / (1 - second)
    # The variance of a second-order autoregression is 1 / innovation**2 times that of its noise.
    innovation = ((1 + second) * ((1 - second) ** 2 - first**2) / (1 - second)).sqrt()
    angles = [noise[0], correlation * noise[0] + (1 - correlation**2).sqrt() * noise[1]]
    for step in noise[2:]:
        angles.append(first * angles[-1] + second * angles[-2] + innovation * step)
    return torch.stack(angles)


def _distances(pixels: Tensor, points: Tensor) -> Tensor:
    """Distance ``(pixel,)`` of each pixel to the nearest point; infinite where there is none."""
    if not len(points):
        return pixels.new_full((len(pixels),), math.inf)
    return torch.cdist(pixels, points).min(1).values
