r"""Teaching a denoiser the mean and the variance of images given noisy ones, at every noise level.

The mean is learnt by the weighted squared error of Karras et al. 2022 (equation 8): with their weight
:math:`1 / o(t)^2` every level counts alike, and what is compared are the network's output and what it should have been,

.. math:: L = \tfrac12 E_{t, x, \epsilon} \Big[ (F_1 - r)^2 + \big( (F_1 - r)^2 e^{-F_2} + F_2 \big) \Big],
          \qquad r = \frac{x - c - s(t) (u - c)}{o(t)}, \quad u = x + t \epsilon.

The second part, in which F_1 is held fixed, is the normal log density of what the mean leaves (Nichol & Dhariwal 2021
stop the same gradient), so that learning the variance costs the mean nothing. Where errors differ by orders of
magnitude, at an edge and in the sky, those of the edges are all that the first part hears of: its squares may be
multiplied by :math:`e^{-\beta F_2}`, which moves no optimum (Seitzer et al. 2022, *On the Pitfalls of Heteroscedastic
Uncertainty Estimation with Probabilistic Neural Networks*).

With masks the level t is lower at seen pixels: the network learns to denoise the others given those. What it says of
the seen ones hardly matters, and at low noise little can be said: they count for less, which takes noise from the
gradient. Pixels that are not known at all have the highest level, as if there were nothing below the noise, and count
for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.training.loss import Loss
from posterior_inpainting.inference.training.low_precision import low_precision

__all__ = ["DenoisingScoreMatching", "FillLikelihood"]


class DenoisingScoreMatching(Loss):
    """The loss of a ``Denoiser``, averaged over noise levels and summed over pixels.

    Parameters
    ----------
    mean_log_level, sd_log_level
        Of the normal law of the levels' logarithms; the published ones for images whose spread is 0.5.
    lowest, most, whole
        With masks, seen pixels have less noise, from ``most`` down to ``lowest``, evenly in the logarithm; the share
        ``whole`` of the images has one level nevertheless.
    seen_weight
        What a seen pixel counts beside a hidden one, positive.
    evenness
        The power beta to which the variance that is claimed divides the squares; 0 for none, 1 for all of it.
    low_precision
        Whether to compute the network in bfloat16 where the processor has it, which costs a half.

    Examples
    --------
    >>> from posterior_inpainting.inference import train
    >>> from posterior_inpainting.models import DiffusionPrior, datasets
    >>> from posterior_inpainting.models.networks import Denoiser
    >>> model = DiffusionPrior(Denoiser(features=(8, 16)), (1, 8, 8), steps=8)
    >>> images = datasets.load("digits", split="train")
    >>> loss = DenoisingScoreMatching()
    >>> training = train(model, model.guide, images, loss=loss, epochs=3, averaging=0.9, progress=False)
    >>> training.losses[-1] < training.losses[0]
    True
    """

    def __init__(
        self,
        mean_log_level: float = -1.2,
        sd_log_level: float = 1.2,
        *,
        lowest: float = 0.005,
        most: float = 0.2,
        whole: float = 0.25,
        seen_weight: float = 0.05,
        evenness: float = 0.0,
        low_precision: bool = False,
    ):
        if not min(sd_log_level, lowest, seen_weight) > 0 or not most >= lowest:
            raise ValueError(
                f"sd_log_level={sd_log_level}, lowest={lowest}, most={most}, seen_weight={seen_weight}; expected "
                "positive numbers, the most noise no less than the lowest"
            )
        if not 0 <= whole <= 1:
            raise ValueError(f"whole={whole}; expected a share from 0 to 1")
        if not 0 <= evenness <= 1:
            raise ValueError(f"evenness={evenness}; expected a power from 0 to 1")
        self.mean_log_level, self.sd_log_level = mean_log_level, sd_log_level
        self.lowest, self.most, self.whole, self.seen_weight = lowest, most, whole, seen_weight
        self.evenness, self.low_precision = evenness, low_precision

    def differentiable_loss(
        self,
        model: Any,
        guide: Any,
        images: Tensor,
        masks: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a minibatch; the guide is not read, and the loss is of all pixels, seen or not.

        Parameters
        ----------
        model
            With a ``denoiser``.
        guide
            Any.
        images
            ``(n, channel, row, column)``.
        masks
            Which pixels are to have little noise, shaped as the images.
        known
            Which pixels there are at all, if not every one; nothing is read of the others.
        """
        with _in_training_mode(model.denoiser):
            each, seen = self.of_pixels(model, images, masks, known)
        return self._total(each, seen)

    def of_pixels(
        self, model: Any, images: Tensor, masks: Tensor | None = None, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of each pixel, 0 where it is not known, and which have little noise; all as in the loss."""
        level, images, seen = self._under_noise(model, images, masks, known)
        noisy = images + level * torch.randn_like(images)
        with low_precision(images.device, self.low_precision):
            left, log_variance, (guess, out) = model.denoiser.residual(noisy, level, known)
        left, log_variance = left.float(), log_variance.float()
        wanted = (images - guess.float()) / out
        squares = (left - wanted).square()
        weighed = squares * (-self.evenness * log_variance.detach()).exp() if self.evenness else squares
        each = 0.5 * (weighed + squares.detach() * (-log_variance).exp() + log_variance)
        return (each if known is None else torch.where(known, each, 0.0)), seen

    def _under_noise(
        self, model: Any, images: Tensor, masks: Tensor | None, known: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the noise level of every pixel, images of what is known, and which pixels have little noise."""
        level, seen = self._levels(images, masks)
        if known is not None:
            level = torch.where(known, level, torch.full_like(level, model.highest))
            images = torch.where(known, images, torch.full_like(images, model.denoiser.centre))
        return level, images, seen

    def _total(self, each: Tensor, seen: Tensor) -> Tensor:
        return torch.where(seen, self.seen_weight * each, each).sum()

    def _levels(self, images: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the noise level of every pixel, and which are seen, both shaped as the images."""
        normal, share, coin = torch.randn(len(images), 3, dtype=images.dtype, device=images.device).unbind(1)
        log_level = self.mean_log_level + self.sd_log_level * normal
        if masks is None:
            levels = log_level.exp()[:, None, None, None].expand_as(images)
            return levels, torch.zeros_like(images, dtype=torch.bool)
        # A normal number's rank is uniform; of the observation's noise all that is known is that it is small.
        share, coin = (0.5 * torch.erfc(-number / 2**0.5) for number in (share, coin))
        least = torch.full_like(log_level, math.log(self.lowest)).minimum(log_level)
        seen_level = least + share * (log_level.clamp(max=math.log(self.most)).maximum(least) - least)
        seen = masks & (coin >= self.whole)[:, None, None, None]
        return torch.where(seen, seen_level[:, None, None, None], log_level[:, None, None, None]).exp(), seen


class FillLikelihood(DenoisingScoreMatching):
    """Minus the normal log density of images about the fill that a ``Denoiser`` with a pyramid begins with.

    A fill has a few hundred parameters, and is fast to learn; what it leaves, in units of the variance that it claims,
    is what the network is for. Its parameters are those of ``DenoisingScoreMatching``.

    Raises
    ------
    ValueError
        In training, for a denoiser without a pyramid.

    Examples
    --------
    >>> from posterior_inpainting.inference import train
    >>> from posterior_inpainting.models import DiffusionPrior, datasets
    >>> from posterior_inpainting.models.networks import Denoiser
    >>> model = DiffusionPrior(Denoiser(features=(8, 16), pyramid=2), (1, 8, 8), steps=8)
    >>> images = datasets.load("digits", split="train")
    >>> training = train(model, model.guide, images, loss=FillLikelihood(), epochs=2, progress=False)
    >>> training.losses[-1] < training.losses[0]
    True
    """

    def of_pixels(
        self, model: Any, images: Tensor, masks: Tensor | None = None, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return minus the log density of each pixel, but for a constant; the rest of the network does not matter."""
        if model.denoiser.fill is None:
            raise ValueError("the denoiser begins with no fill; expected Denoiser(pyramid=1) or more levels")
        level, images, seen = self._under_noise(model, images, masks, known)
        fill, variance = model.denoiser.fill(images + level * torch.randn_like(images), level)
        each = 0.5 * ((images - fill).square() / variance + variance.log())
        return (each if known is None else torch.where(known, each, 0.0)), seen


@contextmanager
def _in_training_mode(network: torch.nn.Module) -> Iterator[None]:
    """Let dropout drop, here alone: the network that is trained draws in between and afterwards without it."""
    before = network.training
    network.train()
    try:
        yield
    finally:
        network.train(before)
