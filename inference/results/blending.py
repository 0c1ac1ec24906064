"""Poisson blending: the completion's gradients in the hole, the seen pixels on its border.

Perez et al. 2003, *Poisson Image Editing*, as used by Yeh et al. 2017, section 3.4.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

from posterior_inpainting.models.shapes import Image, Mask, check_image, check_mask

__all__ = ["blend"]


def blend(completion: Image, image: Image, mask: Mask) -> Image:
    r"""Blend a completion into the seen pixels; these stay exactly as seen.

    Solves, over the hidden pixels i and their neighbours j inside the image,
    :math:`\sum_j (v_i - v_j) = \sum_j (g_i - g_j)` with g the completion and v the seen pixels where
    seen. A channel of which nothing is seen keeps the completion.

    Parameters
    ----------
    completion
        ``(*batch, channel, row, column)``; each image of a batch is blended on its own.
    image, mask
        ``(channel, row, column)``, ``True`` = seen; hidden values are not read.

    Returns
    -------
    Tensor
        Blended images, shaped as the completion; hidden values are clipped to [0, 1].

    Raises
    ------
    ValueError
        If the shapes do not belong together.

    Examples
    --------
    >>> mask = torch.tensor([[[True, False, True]]])
    >>> blend(torch.full((1, 1, 3), 0.5), torch.tensor([[[0.2, 0.0, 0.4]]]), mask).tolist()[0][0]
    [0.20000000298023224, 0.30000001192092896, 0.4000000059604645]
    """
    check_image(image)
    check_mask(mask, tuple(image.shape))
    check_image(completion, tuple(image.shape))
    mask = mask.expand(image.shape)
    blended = torch.where(mask, image, completion.clamp(0, 1))
    for channel in range(image.shape[0]):
        hidden = (~mask[channel]).cpu().numpy()
        if not hidden.any() or hidden.all():
            continue
        guide = completion[..., channel, :, :].reshape(-1, *hidden.shape).cpu().numpy().astype(float)
        seen = image[channel].cpu().numpy().astype(float)
        values = torch.from_numpy(_solve(guide, seen, hidden)).to(blended)
        target = blended[..., channel, :, :]
        target[..., ~mask[channel]] = values.clamp(0, 1).reshape(*completion.shape[:-3], -1)
    return blended


def _solve(guide: np.ndarray, seen: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Values of the hidden pixels ``(n, hidden pixel)`` for guides ``(n, row, column)``.

    Something is seen, so that every hidden region has a seen neighbour and the system one solution.
    """
    number = np.full(hidden.shape, -1)
    number[hidden] = np.arange(hidden.sum())
    count = int(hidden.sum())
    diagonal = np.zeros(count)
    right = np.zeros((len(guide), count))
    rows, columns = [], []
    for axis, shift in ((0, 1), (0, -1), (1, 1), (1, -1)):
        here, there = _pairs(hidden.shape, axis, shift)
        inside = hidden[here]
        i, j = number[here][inside], number[there][inside]
        diagonal[i] += 1
        right[:, i] += guide[(slice(None), *here)][:, inside] - guide[(slice(None), *there)][:, inside]
        border = j < 0
        right[:, i[border]] += seen[there][inside][border]
        rows.append(i[~border])
        columns.append(j[~border])
    everything = np.arange(count)
    values = np.concatenate([diagonal, *(-np.ones(len(i)) for i in rows)])
    places = (np.concatenate([everything, *rows]), np.concatenate([everything, *columns]))
    matrix = coo_matrix((values, places), shape=(count, count))
    return splu(matrix.tocsc()).solve(right.T).T


def _pairs(shape: tuple[int, int], axis: int, shift: int) -> tuple[tuple, tuple]:
    """Slices of pixels and of their neighbours one step along an axis, without wrapping round."""
    here, there = [slice(None)] * 2, [slice(None)] * 2
    here[axis] = slice(0, -1) if shift > 0 else slice(1, None)
    there[axis] = slice(1, None) if shift > 0 else slice(0, -1)
    return tuple(here), tuple(there)
