r"""Filters of images, and the heavy-tailed laws of what they respond: the parameters of a field of experts.

Roth & Black 2005, *Fields of Experts*, with Gaussian scale mixtures as experts (Weiss & Freeman 2007; Schmidt, Gao &
Roth 2010, *A Generative Perspective on MRFs in Low-Level Vision*): for filters :math:`k_f` and standard deviations
:math:`s_j`,

.. math:: \log p(x) = -\tfrac\epsilon2 \lVert x - c \rVert^2 + \sum_{f, i} \log \sum_j w_{fj} N((k_f * x)_i; 0, s_j^2)
          + \mathrm{const}.

Given which component j each response comes from, the image is Gaussian with precision
:math:`\epsilon I + \sum_f K_f^\top D_f K_f`, D holding :math:`1 / s_j^2`: images and components can be drawn in turn.

A level higher the filters see the image blurred by two pixels, and are spread twice as wide.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.networks.scale_mixture import drawn_precisions, log_scale_mixture
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Experts"]


class Experts(nn.Module):
    """Filters without a mean in any channel, on one or more levels, and the mixture weights of each.

    Parameters
    ----------
    channels
        1 for grey images, 3 for colour.
    count
        Filters on each level.
    side
        Of the square filters, in pixels of their level.
    levels
        1 for filters of pixels side by side; each further one is twice as wide.
    components
        Gaussians of a scale mixture; their standard deviations are 1, 1/2, 1/4, and so on.
    ridge
        The precision epsilon of a pixel about the centre, which makes the law proper.
    centre
        c, about which nothing else is known.
    gain
        What ``filters`` are multiplied with: experts of photographs overlap, and each says little.

    Raises
    ------
    ValueError
        For numbers below 1, or a ridge that is not positive.

    Examples
    --------
    >>> experts = Experts(channels=1, count=4, side=3)
    >>> tuple(experts.log_density(torch.rand(5, 1, 16, 16)).shape)
    (5,)
    """

    def __init__(
        self,
        channels: int = 3,
        count: int = 24,
        side: int = 5,
        levels: int = 2,
        components: int = 8,
        *,
        ridge: float = 1e-2,
        centre: float = 0.5,
        gain: float = 1.0,
    ):
        super().__init__()
        if min(channels, count, levels, components) < 1 or side < 2 or not ridge > 0:
            raise ValueError(
                f"channels={channels}, count={count}, side={side}, levels={levels}, components={components}, "
                f"ridge={ridge}; expected at least 1 of each, a side of at least 2 and a positive ridge"
            )
        self.channels, self.count, self.side, self.levels = channels, count, side, levels
        self.components, self.ridge, self.centre, self.gain = components, ridge, centre, gain
        self.filters = nn.Parameter(torch.randn(levels, count, channels, side, side) / side)
        self.raw_weights = nn.Parameter(torch.zeros(levels, count, components))

    def configuration(self) -> dict:
        """Return what it is made with."""
        return {
            "channels": self.channels,
            "count": self.count,
            "side": self.side,
            "levels": self.levels,
            "components": self.components,
            "ridge": self.ridge,
            "centre": self.centre,
            "gain": self.gain,
        }

    @property
    def reach(self) -> int:
        """Pixels from the middle of a filter to those that it sees farthest, on the widest level."""
        return 2 ** (self.levels - 1) * self.side // 2 + 1

    @property
    def scales(self) -> Tensor:
        """Standard deviations of the components, ``(components,)``."""
        return 2.0 ** -torch.arange(self.components, dtype=self.filters.dtype, device=self.filters.device)

    def kernels(self) -> Tensor:
        """Return the filters times the gain, less their means in each channel.

        A colour that an image has everywhere moves no expert: filters of differences between channels would make what
        is hidden grey beside saturated colours.
        """
        return self.gain * (self.filters - self.filters.mean((-2, -1), keepdim=True))

    def responses(self, images: Image) -> list[Tensor]:
        """Return what the filters of each level say of images ``(n, channel, row, column)``."""
        return [
            F.conv2d(_blurred(images, level), kernel, dilation=2**level)
            for level, kernel in enumerate(self.kernels())
        ]

    def seen_by_filters(self, images: Image, level: int) -> Tensor:
        """Return what filters of a level are multiplied with at every place, less its colour, ``(place, value)``."""
        blurred = _blurred(images, level)
        seen = F.unfold(blurred, self.side, dilation=2**level).transpose(1, 2).reshape(-1, self.side**2)
        return (seen - seen.mean(1, keepdim=True)).reshape(-1, self.channels * self.side**2)

    def places_seen(self, masks: Mask) -> list[Tensor]:
        """Return of each level where filters see nothing that is missing, ``(n, 1, row, column)``.

        >>> masks = torch.ones(1, 1, 8, 8, dtype=torch.bool)
        >>> masks[..., 0, 0] = False
        >>> [int((~seen).sum()) for seen in Experts(1, side=3, levels=2).places_seen(masks)]
        [1, 1]
        """
        missing = (~masks).any(1, keepdim=True).to(self.filters)
        return [
            F.max_pool2d(F.max_pool2d(missing, 2**level, 1), self.side, 1, dilation=2**level) == 0
            for level in range(self.levels)
        ]

    def log_density(self, images: Image, masks: Mask | None = None) -> Tensor:
        """Return the log density of images ``(n, channel, row, column)``, but for a constant, ``(n,)``.

        With masks, that of what is seen as if there were nothing else, as of a patch there is.
        """
        squares = (images - self.centre).square()
        squares = squares if masks is None else torch.where(masks, squares, 0.0)
        return -0.5 * self.ridge * squares.sum((-3, -2, -1)) + self.log_experts(images, masks)

    def log_experts(self, images: Image, masks: Mask | None = None) -> Tensor:
        """Return the same without the ridge."""
        return self.log_of_levels(images, masks).sum(0)

    def log_of_levels(self, images: Image, masks: Mask | None = None) -> Tensor:
        """Return the sums of what the filters of each level say, where they see nothing missing, ``(level, n)``."""
        each = [
            log_scale_mixture(responses, weights)
            for responses, weights in zip(self.responses(images), self._log_weights(), strict=True)
        ]
        if masks is not None:
            seen = self.places_seen(masks)
            each = [torch.where(where, one, 0.0) for where, one in zip(seen, each, strict=True)]
        return torch.stack([one.sum((-3, -2, -1)) for one in each])

    @torch.no_grad()
    def mean_precisions(self, like: Image) -> list[Tensor]:
        """Return the mean precision of each response when nothing is known of it, for images shaped as ``like``."""
        precisions = self.scales.reciprocal().square()
        return [
            (weights.exp() @ precisions)[:, None, None].expand_as(responses)
            for responses, weights in zip(self.responses(like), self._log_weights(), strict=True)
        ]

    @torch.no_grad()
    def draw_precisions(self, images: Image, generator: Generator) -> list[Tensor]:
        """Draw a component for each response, given the images; return their precisions :math:`1 / s_j^2`."""
        return [
            drawn_precisions(responses, weights, generator)
            for responses, weights in zip(self.responses(images), self._log_weights(), strict=True)
        ]

    def precision_times(self, images: Image, precisions: Sequence[Tensor]) -> Image:
        """Multiply images by the precision of the Gaussian that the components leave."""
        weighted = [r * d for r, d in zip(self.responses(images), precisions, strict=True)]
        return self.adjoint(weighted, images) + self.ridge * images

    def adjoint(self, responses: Sequence[Tensor], like: Image) -> Image:
        """Return the sum over levels of the filters' adjoints, shaped as images ``like``."""
        found = torch.zeros_like(like)
        for level, (kernel, part) in enumerate(zip(self.kernels(), responses, strict=True)):
            found += _blurred_adjoint(F.conv_transpose2d(part, kernel, dilation=2**level), level)
        return found

    def diagonal(self, precisions: Sequence[Tensor]) -> Image:
        """Return the diagonal of that precision, to condition a solver with."""
        total: Tensor = torch.zeros((), dtype=self.filters.dtype, device=self.filters.device)
        for level, (kernel, part) in enumerate(zip(self.kernels(), precisions, strict=True)):
            total = total + F.conv_transpose2d(part, _on_pixels(kernel, level).square())
        return total + self.ridge

    def _log_weights(self) -> Tensor:
        return self.raw_weights.log_softmax(-1)


def _blurred(images: Image, level: int) -> Image:
    """Average squares of ``2**level`` pixels, at every place."""
    return images if level == 0 else F.avg_pool2d(images, 2**level, stride=1)


def _blurred_adjoint(images: Image, level: int) -> Image:
    if level == 0:
        return images
    around = 2**level - 1
    return F.avg_pool2d(F.pad(images, (around,) * 4), around + 1, stride=1)


def _on_pixels(kernel: Tensor, level: int) -> Tensor:
    """Return filters of a level as filters of the image itself: spread, and blurred."""
    if level == 0:
        return kernel
    apart, side = 2**level, kernel.shape[-1]
    spread = kernel.new_zeros(*kernel.shape[:-2], apart * (side - 1) + 1, apart * (side - 1) + 1)
    spread[..., ::apart, ::apart] = kernel
    return _blurred_adjoint(spread, level)
