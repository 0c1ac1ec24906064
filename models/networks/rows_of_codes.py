"""How a network of someone else's decodes many codes: all in one call, under ``torch.func.vmap``, or one by one.

It is tried, once, with values and gradients: a network may normalise over its batch, branch in Python on what it
computes, or call what vmap has no rule for. What each code gives alone, in a batch of one, is right by definition;
the fastest way that gives the same is taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from posterior_inpainting.models.shapes import Code, Image

__all__ = ["Speed", "decode_rows", "find_speed", "is_vectorised"]

#: The way in which many codes are decoded, the fastest first, in the words of ``Potential.route``.
Speed = Literal["closed form", "vmap", "loop"]
SPEEDS: tuple[Speed, ...] = ("closed form", "vmap", "loop")


def decode_rows(call: Callable[[Code], Image], rows: Code, speed: Speed) -> Image:
    """Return the images ``(n, channel, row, column)`` of codes ``(n, latent)``, in one of the three ways.

    Parameters
    ----------
    call
        The network, from a batch of codes to as many images.
    rows, speed
        The codes, and how it goes through them.

    Examples
    --------
    >>> norm = lambda z: (z / z.norm()).reshape(-1, 1, 1, 2)
    >>> decode_rows(norm, torch.tensor([[3.0, 4.0], [0.0, 2.0]]), "vmap").flatten(1)
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """
    if speed == "closed form":
        return call(rows)

    def alone(row: Tensor) -> Image:
        """Return the image of one code."""
        return call(row.unsqueeze(0)).squeeze(0)

    if speed == "vmap":
        return torch.func.vmap(alone)(rows)
    return torch.stack([alone(row) for row in rows])


def find_speed(call: Callable[[Code], Image], rows: Code) -> Speed:
    """Return the fastest way in which a network decodes every code as it does alone, its gradient too.

    Parameters
    ----------
    call
        The network, from a batch of codes to as many images.
    rows
        Some codes to try it with, ``(n, latent)``.

    Raises
    ------
    ValueError
        For a network that gives another image of the same code at a second call, or lets no gradient through.

    Examples
    --------
    >>> rows = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    >>> find_speed(lambda z: z.sigmoid().reshape(-1, 1, 1, 2), rows)
    'closed form'
    >>> find_speed(lambda z: (z / z.norm()).reshape(-1, 1, 1, 2), rows)
    'vmap'
    """
    right = _image_and_slope(call, rows, "loop")
    again = _image_and_slope(call, rows, "loop")
    if not _agree(right, again):
        raise ValueError(
            "the same code gives another image at each call (noise or dropout inside?); "
            "expected a function of the code alone"
        )
    for speed in SPEEDS[:-1]:
        found = _attempt(call, rows, speed)
        if found is not None and _agree(found, right):
            return speed
    return "loop"


def is_vectorised(call: Callable[[Code], Image], rows: Code) -> bool:
    """Whether ``torch.func.vmap`` goes through a network and its gradient.

    >>> is_vectorised(lambda z: z.sigmoid().reshape(-1, 1, 1, 2), torch.ones(3, 2))
    True
    >>> is_vectorised(lambda z: z if z.sum() > 0 else -z, torch.ones(3, 2))
    False
    """
    return _attempt(call, rows, "vmap") is not None


def _attempt(call: Callable[[Code], Image], rows: Code, speed: Speed) -> tuple[Image, Code] | None:
    try:
        return _image_and_slope(call, rows, speed)
    except Exception:  # whatever a network of someone else's may raise where it cannot go this way
        return None


def _image_and_slope(call: Callable[[Code], Image], rows: Code, speed: Speed) -> tuple[Image, Code]:
    """Images, and the gradient of half their sum of squares, which no two pixels cancel in."""
    with torch.enable_grad(), warnings.catch_warnings():
        # Where vmap has no rule for an operation torch loops by itself, and says so.
        warnings.filterwarnings("ignore", "There is a performance drop")
        leaf = rows.detach().requires_grad_()
        images = decode_rows(call, leaf, speed)
        if not images.requires_grad:
            raise ValueError(
                "no gradient goes from the image to the code (no_grad or detach inside?); expected a smooth network"
            )
        (slope,) = torch.autograd.grad(images.square().sum() / 2, leaf)
    return images.detach(), slope


def _agree(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """Whether images and slopes differ by no more than another order of summation makes."""
    return all(
        a.shape == b.shape and float((a - b).norm()) <= 10 * torch.finfo(a.dtype).eps ** 0.5 * float(b.norm())
        for a, b in zip(one, other, strict=True)
    )
