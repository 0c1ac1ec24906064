r"""From an image under Gaussian noise back to the image: what samplers ask of a prior that knows how to denoise.

With :math:`x_t = x_0 + t \epsilon` and the mean D and variance v of :math:`x_0` given :math:`x_t`, pixel by pixel, a
step down from level t to level s draws from

.. math:: x_s \mid x_t \sim N\Big( D + \frac{s^2}{t^2} (x_t - D),\;
          \frac{s^2 (t^2 - s^2)}{t^2} + \Big( \frac{t^2 - s^2}{t^2} \Big)^2 v \Big),

which has the mean and the pixels' variances of the true law of :math:`x_s` given :math:`x_t` (Ho et al. 2020 without
the second variance, Bao et al. 2022 with it). What it lacks is that the true law is no normal one, and that pixels
depend on each other: both vanish as the steps become small.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from posterior_inpainting.models.networks.denoiser import level_of_pixels
from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["ReverseDiffusion", "noise_levels"]


def noise_levels(count: int, highest: float | Tensor, lowest: float, curvature: float = 7.0) -> Tensor:
    """Return decreasing noise levels, close together where they are low, and 0 (Karras et al. 2022, equation 5).

    Parameters
    ----------
    count
        How many of them are positive.
    highest, lowest
        The first of them, one number or ``(*batch,)``, and the last; of a single one the first.
    curvature
        1 for even steps; higher for smaller steps at low levels.

    Returns
    -------
    Tensor
        ``(count + 1, *batch)``.

    Raises
    ------
    ValueError
        For no level, or a lowest that is not positive or above the highest.

    Examples
    --------
    >>> [round(t, 3) for t in noise_levels(4, highest=10.0, lowest=0.01).tolist()]
    [10.0, 1.936, 0.226, 0.01, 0.0]
    """
    first = torch.as_tensor(highest, dtype=torch.get_default_dtype())
    if count < 1 or not 0 < lowest <= float(first.max()):
        raise ValueError(
            f"steps={count}, highest={float(first.max()):g}, lowest={lowest:g}; expected at least one step, and "
            "0 < lowest <= highest"
        )
    ends = first ** (1 / curvature), first.clamp(max=lowest) ** (1 / curvature)
    share = torch.linspace(0, 1, count, device=first.device).reshape(-1, *[1] * first.dim())
    levels = (ends[0] + share * (ends[1] - ends[0])) ** curvature
    levels[0] = first  # to the last bit
    return torch.cat([levels, torch.zeros_like(levels[:1])])


class ReverseDiffusion(ABC):
    """Abstract prior of images as samplers by denoising know it.

    Attributes
    ----------
    image_shape
        ``(channel, row, column)``.
    highest, lowest
        Noise levels between which it can denoise. At the highest next to nothing is left of the image.
    centre, spread
        Mean and standard deviation of pixels.
    noise
        Standard deviation of a seen pixel around the image.
    takes_levels_of_pixels
        Whether it denoises images whose pixels have levels of their own.
    own_steps
        Steps of the reverse chain that the model itself is; ``None`` where its law is that of no chain.
    device
        Where it computes.
    """

    noise: float
    own_steps: int | None = None
    takes_levels_of_pixels: bool = False
    device: torch.device
    image_shape: ImageShape
    highest: float
    lowest: float
    centre: float
    spread: float

    @abstractmethod
    def denoised(self, noisy: Image, level: Tensor) -> tuple[Image, Image]:
        """Return mean and variance of each pixel of x given x + level * noise.

        Parameters
        ----------
        noisy
            ``(*batch, channel, row, column)``.
        level
            ``(*batch,)``, or of fewer dimensions; or one a pixel, shaped as the images,
            where it :attr:`takes_levels_of_pixels`.
        """

    def step(self, noisy: Image, level: Tensor, following: Tensor) -> tuple[Image, Image]:
        """Return mean and standard deviation of the image at the following level, given the image at this one.

        Both levels are as for :meth:`denoised`; where they are the same the image stays as it is.
        """
        mean, variance = self.denoised(noisy, level)
        t, s = (level_of_pixels(noisy, torch.as_tensor(value)).square() for value in (level, following))
        kept = s / t
        spread = s * (1 - kept) + (1 - kept).square() * variance
        return mean + kept * (noisy - mean), spread.clamp(min=0.0).sqrt()

    def draw(self, noisy: Image, level: Tensor, steps: int | None, generator: Generator) -> Image:
        """Draw x given x + level * noise, ``(*batch, channel, row, column)``, in so many steps down to 0.

        Parameters
        ----------
        noisy
            ``(*batch, channel, row, column)``.
        level
            ``(*batch,)``, or of fewer dimensions.
        steps
            Evaluations of the denoiser for each image; ``None`` for a prior that needs none.
        generator
            Of the steps' noises.
        """
        if steps is None:
            raise ValueError(f"steps=None; {type(self).__name__} denoises step by step")
        levels = noise_levels(steps, level, self.lowest).to(noisy)
        for now, following in itertools.pairwise(levels):
            mean, spread = self.step(noisy, now, following)
            noise = torch.randn(noisy.shape, generator=generator, dtype=noisy.dtype, device=noisy.device)
            noisy = mean + spread * noise
        return noisy

    def draw_prior(self, count: int, steps: int | None, generator: Generator) -> Image:
        """Draw ``count`` images of the prior, from noise alone."""
        noise = torch.randn((count, *self.image_shape), generator=generator, device=generator.device)
        total = (self.highest**2 + self.spread**2) ** 0.5
        highest = torch.tensor(self.highest, device=noise.device)
        return self.draw(self.centre + total * noise, highest, steps, generator)
