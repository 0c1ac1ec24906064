"""Whether seen pixels are of a prior's domain: a network that was told its images from made-up ones, and some to rank.

Sugiyama et al. 2012, *Density Ratio Estimation in Machine Learning*, section 3.2: a classifier of two kinds of images
whose number is equal has the log ratio of their densities as its logit. What a logit is worth, images of the domain say
that nothing was trained on: those held back, kept here. Glossary: reference, an image held back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from posterior_inpainting.models.networks.fully_connected import hidden_layers
from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = ["DomainJudge"]


class DomainJudge(nn.Module):
    """From seen pixels to the log odds that they are of no image of the domain; with images of it held back.

    Parameters
    ----------
    image_shape
        ``(channel, row, column)``.
    references
        Number of images that are kept.
    widths
        Units of the hidden layers, first to last.

    Attributes
    ----------
    references
        The images, ``(reference, channel, row, column)`` in [0, 1].

    Raises
    ------
    ValueError
        For less than one reference.

    Examples
    --------
    >>> judge = DomainJudge((1, 8, 8), references=20, widths=(16,))
    >>> image, mask = torch.rand(3, 1, 8, 8), torch.rand(1, 8, 8) < 0.5
    >>> tuple(judge(image, mask).shape), tuple(judge.references.shape)
    ((3,), (20, 1, 8, 8))
    """

    references: Tensor

    def __init__(self, image_shape: ImageShape, references: int, widths: Sequence[int] = (128, 128)):
        super().__init__()
        if references < 1:
            raise ValueError(f"references={references}; expected at least 1")
        self.image_shape: ImageShape = tuple(image_shape)
        self.widths = tuple(widths)
        self.layers = hidden_layers(2 * math.prod(image_shape) + _SUMMARIES, widths)
        self.head = nn.Linear(widths[-1], 1)
        self.register_buffer("references", torch.zeros(references, *image_shape))

    def configuration(self) -> dict:
        """Return the arguments that make this network again, as they are stored beside its weights."""
        return {"image_shape": self.image_shape, "references": len(self.references), "widths": self.widths}

    def forward(self, image: Image, mask: Mask) -> Tensor:
        """Return log odds ``(n,)`` of images ``(n, channel, row, column)``, of whose hidden pixels nothing is read."""
        seen = mask.expand(image.shape).flatten(1)
        shown = torch.where(seen, image.flatten(1), 0.0)
        weight = seen.to(shown)
        summaries = _summaries(shown, weight)
        return self.head(self.layers(torch.cat([shown, weight, summaries], 1)))[:, 0]


#: Numbers that :func:`_summaries` returns.
_SUMMARIES = 4


def _summaries(shown: Tensor, weight: Tensor) -> Tensor:
    """Return ``(n, 4)``: the share that is seen, and of it mean, standard deviation and share of black.

    A network of few layers adds up pixels, and is slow to learn that few of them must count for more.
    """
    share = weight.mean(1, True)
    each = 1 / weight.sum(1, True).clamp(min=1)
    mean = shown.sum(1, True) * each
    sd = ((shown - mean).square() * weight).sum(1, True).mul(each).sqrt()
    black = ((shown <= 0) * weight).sum(1, True) * each
    return torch.cat([share, mean, sd, black], 1)
