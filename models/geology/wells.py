"""Where a section of ground is measured: isolated wells, whole columns, and how far each pixel is from either.

The makers return boolean masks ``(channel, row, column)``, ``True`` = seen, like those of ``observations``.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from posterior_inpainting.models.images.free_form_masks import as_generator
from posterior_inpainting.models.shapes import ImageShape, Mask, check_mask, check_shape

__all__ = ["columns", "nearest_seen", "wells"]

#: Distances that are held in memory at a time.
_CHUNK = 4_000_000


def wells(shape: ImageShape, count: int, seed: int | Generator = 0) -> Mask:
    """See ``count`` isolated pixels (all their channels), no two of them neighbours (Dupont et al. 2018).

    Parameters
    ----------
    shape
        ``(channel, row, column)``.
    count
        Number of wells, exactly; 0 is legal and sees nothing.
    seed
        An integer, or a ``torch.Generator`` to go on with.

    Raises
    ------
    ValueError
        For more wells than were found room for.

    Examples
    --------
    >>> int(wells((1, 64, 64), count=8, seed=0).sum())
    8
    """
    _, rows, across = _check(shape, count, "wells")
    generator = as_generator(seed)
    mask = torch.zeros(rows, across, dtype=torch.bool)
    around = torch.zeros(rows + 2, across + 2, dtype=torch.bool)  # taken, with a border that saves the edges
    found = 0
    for place in torch.randperm(rows * across, generator=generator).tolist():
        if found == count:
            break
        row, column = divmod(place, across)
        if not around[row + 1, column + 1]:
            mask[row, column] = True
            around[row : row + 3, column : column + 3] = True
            found += 1
    if found < count:
        raise ValueError(f"wells count={count}; only {found} that are not neighbours fit {rows} x {across}")
    return mask.expand(tuple(shape)).clone()


def columns(shape: ImageShape, count: int, seed: int | Generator = 0) -> Mask:
    """See ``count`` whole columns, at random and different places: wells that are logged all the way down.

    >>> mask = columns((1, 64, 48), count=3, seed=0)
    >>> int(mask.sum()), int(mask.any(1).sum())
    (192, 3)
    """
    _, _, across = _check(shape, count, "columns")
    if count > across:
        raise ValueError(f"columns count={count}; the image has {across}")
    generator = as_generator(seed)
    mask = torch.zeros(tuple(shape), dtype=torch.bool)
    mask[:, :, torch.randperm(across, generator=generator)[:count]] = True
    return mask


def nearest_seen(mask: Mask) -> tuple[Tensor, Tensor]:
    """Return for every pixel of every channel its distance to the nearest seen pixel, and which that is.

    Parameters
    ----------
    mask
        ``(channel, row, column)``, ``True`` = seen.

    Returns
    -------
    tuple
        Distances in pixels, float32, infinite where the channel shows nothing; and indices into the flattened
        ``(row, column)``, the first of those equally near. Both ``(channel, row, column)``.

    Examples
    --------
    >>> distance, index = nearest_seen(torch.tensor([[[True, False, False, True]]]))
    >>> distance.flatten().tolist(), index.flatten().tolist()
    ([0.0, 1.0, 1.0, 0.0], [0, 0, 3, 3])
    """
    check_mask(mask, tuple(mask.shape))
    if mask.dim() != 3:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; expected (channel, row, column)")
    rows, across = mask.shape[-2:]
    places = torch.cartesian_prod(*(torch.arange(n, device=mask.device) for n in (rows, across)))
    squares, indices = [], []
    for channel in mask:
        seen = channel.flatten().nonzero().flatten()
        if not len(seen):
            squares.append(torch.full((rows * across,), torch.inf, device=mask.device))
            indices.append(torch.zeros(rows * across, dtype=torch.long, device=mask.device))
            continue
        for some in places.split(max(1, _CHUNK // len(seen))):
            # In whole numbers, so that equally near is equal.
            between = (some[:, None] - places[seen]).square().sum(-1)
            least = between.min(1)
            squares.append(least.values.float())
            indices.append(seen[least.indices])
    return torch.cat(squares).sqrt().reshape(mask.shape), torch.cat(indices).reshape(mask.shape)


def _check(shape: ImageShape, count: int, name: str) -> ImageShape:
    check_shape(shape)
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"{name} count={count!r}; expected a whole number of at least 0")
    return shape
