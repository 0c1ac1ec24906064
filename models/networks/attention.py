r"""Short and long term attention: a decoder looks at itself, and at what the encoder made of the seen pixels.

Zheng, Cham & Cai 2019, *Pluralistic Image Completion*, section 3.3. With decoder features d, encoder features e
of the seen image, mask M (1 = seen) and positions i, j,

.. math:: A_{ij} = \mathrm{softmax}_j (q_i \cdot q_j), \quad q = Q d, \qquad
          s_i = \gamma \sum_j A_{ij} d_j + d_i, \qquad
          l_i = \alpha (1 - M_i) \sum_j A_{ij} e_j + M_i e_i.

Both factors start at 0, so that attention is learnt beside a network that works without it (Zhang et al. 2019,
*Self-Attention Generative Adversarial Networks*).

As published, features attend at 32 x 32 positions at most: larger maps are averaged down to that, and the two sums over
j are brought back bilinearly. A itself is never made: its rows are summed block by block (Dao et al. 2022,
*FlashAttention*), the same numbers but for rounding, with memory that grows with positions, not with their square.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ShortLongAttention"]


class ShortLongAttention(nn.Module):
    """Self-attention over the decoder's features, and attention by the same scores over the encoder's.

    Parameters
    ----------
    channels
        Of the decoder's features.
    query_channels
        Length of the vectors q that are compared; a quarter of ``channels`` by default.
    side
        Most rows and columns that attend; maps up to that size are taken as they are.

    Raises
    ------
    ValueError
        For a ``side`` below 1.

    Examples
    --------
    >>> attention = ShortLongAttention(8)
    >>> decoded, encoded, seen = torch.rand(2, 8, 4, 4), torch.rand(2, 6, 4, 4), torch.ones(2, 1, 4, 4)
    >>> out = attention(decoded, encoded, seen)
    >>> tuple(out.shape), bool((out[:, :8] == decoded).all()), bool((out[:, 8:] == encoded).all())
    ((2, 14, 4, 4), True, True)
    """

    def __init__(self, channels: int, query_channels: int | None = None, side: int = 32):
        super().__init__()
        if side < 1:
            raise ValueError(f"side={side}; expected at least 1")
        self.side = side
        self.query = nn.Conv2d(channels, query_channels or max(1, channels // 4), 1)
        self.gamma = nn.Parameter(torch.zeros(()))
        self.alpha = nn.Parameter(torch.zeros(()))

    def scores(self, decoded: Tensor) -> Tensor:
        """Return A ``(n, position, position)`` of features ``(n, channel, row, column)``; its rows sum to 1.

        To be looked at, of small maps: :meth:`forward` never makes it.
        """
        query = self.query(decoded).flatten(2)
        return torch.softmax(query.transpose(1, 2) @ query, -1)

    def forward(self, decoded: Tensor, encoded: Tensor, seen: Tensor) -> Tensor:
        """Return s and l, one after the other along the channels.

        Parameters
        ----------
        decoded, encoded
            ``(n, channel, row, column)``, of the same rows and columns.
        seen
            Share of each position's pixels that are seen, ``(n, 1, row, column)``.
        """
        both = torch.cat([decoded, encoded], 1)
        looked_at = self._attended(both, decoded.shape[1])
        short, long = looked_at.split([decoded.shape[1], encoded.shape[1]], 1)
        short = self.gamma * short + decoded
        long = self.alpha * (1 - seen) * long + seen * encoded
        return torch.cat([short, long], 1)

    def _attended(self, features: Tensor, channels: int) -> Tensor:
        """Sum over j of A_ij times features at j, by scores of their first ``channels``; of the features' shape."""
        size = features.shape[-2:]
        times = math.ceil(max(size) / self.side)
        if times > 1:
            features = F.adaptive_avg_pool2d(
                features, (math.ceil(size[0] / times), math.ceil(size[1] / times))
            )
        query = self.query(features[:, :channels]).flatten(2).transpose(1, 2)
        value = features.flatten(2).transpose(1, 2)
        # Of vectors of one length, which zeros change nothing of, and that lie in one piece, torch goes through blocks.
        length = max(query.shape[-1], value.shape[-1])
        query, value = (
            F.pad(one, (0, length - one.shape[-1])).contiguous().unsqueeze(1) for one in (query, value)
        )
        looked_at = F.scaled_dot_product_attention(query, query, value, scale=1.0)
        looked_at = looked_at[:, 0, :, : features.shape[1]].transpose(1, 2).reshape(features.shape)
        return F.interpolate(looked_at, size, mode="bilinear") if times > 1 else looked_at


def coarse_mask(mask: Tensor, size: int) -> Tensor:
    """Return the share of seen pixels in squares of ``size`` pixels, all channels together.

    >>> coarse_mask(torch.tensor([[[True, True, False, False], [True, False, False, False]]]), 2).tolist()
    [[[0.75, 0.0]]]
    """
    share = mask.to(torch.get_default_dtype()).mean(-3, keepdim=True)
    pooled = F.avg_pool2d(share.reshape(-1, *share.shape[-3:]), size)
    return pooled.reshape(*mask.shape[:-3], *pooled.shape[1:])
