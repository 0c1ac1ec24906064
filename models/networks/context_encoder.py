"""An encoder that also says what it saw: a law of the code, and a summary of the seen pixels for the decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.networks.multilayer import MaskedEncoder
from posterior_inpainting.models.shapes import Code, Image, ImageShape, Mask

__all__ = ["ContextEncoder"]


class ContextEncoder(MaskedEncoder):
    r"""Encoder :math:`(\tilde x, M) \mapsto` location and scale of :math:`p(z \mid \tilde x)`, and a summary h(x~).

    Parameters
    ----------
    latent, image_shape, widths
        As for ``MaskedEncoder``.
    context
        Length of the summary.

    Examples
    --------
    >>> encoder = ContextEncoder(2, (1, 8, 8), widths=(16,), context=5)
    >>> loc, scale, summary = encoder(torch.rand(3, 1, 8, 8), torch.ones(3, 1, 8, 8, dtype=torch.bool))
    >>> tuple(loc.shape), tuple(summary.shape)
    ((3, 2), (3, 5))
    """

    def __init__(
        self, latent: int, image_shape: ImageShape, widths: Sequence[int] = (400, 400), context: int = 64
    ):
        super().__init__(latent, image_shape, widths)
        self.context = context
        self.context_head = nn.Linear(widths[-1], context)

    def configuration(self) -> dict:
        """Return the arguments that make this encoder again."""
        return super().configuration() | {"context": self.context}

    def forward(self, image: Image, mask: Mask) -> tuple[Code, Code, Tensor]:  # type: ignore[override]
        """Return location and scale ``(*batch, latent)`` and summary ``(*batch, context)``."""
        mask = mask.expand(image.shape)
        seen = torch.where(mask, 2 * image - 1, 0.0)
        hidden = self.trunk(torch.cat([seen, mask.to(seen.dtype)], -3).flatten(-3))
        loc, raw = self.head(hidden).chunk(2, -1)
        return loc, F.softplus(raw) + 1e-4, self.context_head(hidden)
