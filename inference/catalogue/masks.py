"""The masks by name: how each is written, and whether it names what is hidden or what is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posterior_inpainting.models import geology, observations
from posterior_inpainting.models.shapes import ImageShape, Mask

__all__ = ["MASKS", "MaskEntry", "mask"]


@dataclass(frozen=True)
class MaskEntry:
    """One kind of mask.

    Parameters
    ----------
    name
        The word before the colon.
    make
        From ``(channel, row, column)`` and numbers to a mask, ``True`` = seen.
    arguments
        What each of the numbers is called; those in brackets may be left out.
    types
        Types of the arguments; the last one's is that of all further ones where ``repeats``.
    names
        Whether the arguments name what is ``hidden`` or what is ``seen``.
    what
        What it hides or sees, in one line.
    repeats
        Whether there may be any number of the last argument.
    """

    name: str
    make: Callable[..., Mask]
    arguments: str
    types: tuple[type, ...]
    names: str
    what: str
    repeats: bool = False

    @property
    def usage(self) -> str:
        """How it is written."""
        return f"{self.name}:{self.arguments}"

    def read(self, words: Sequence[str]) -> list:
        """Return the arguments of the maker.

        Raises ``ValueError`` for a wrong number of words or one that is no such number.
        """
        least = self.arguments.split("[")[0].count(",") + 1
        most = len(words) if self.repeats else len(self.types)
        if not least <= len(words) <= most:
            raise ValueError(f"{len(words)} are given")
        types = (*self.types, *[self.types[-1]] * len(words))
        return [kind(word) for kind, word in zip(types, words, strict=False)]


def _channels(shape: ImageShape, *keep: int) -> Mask:
    return observations.channels(shape, keep)


_ENTRIES = (
    MaskEntry(
        "box",
        observations.box,
        "TOP,LEFT,HEIGHT,WIDTH",
        (int, int, int, int),
        "hidden",
        "a rectangle, in pixels",
    ),
    MaskEntry(
        "half",
        observations.half,
        "top|bottom|left|right",
        (str,),
        "hidden",
        "one half; a middle line stays seen",
    ),
    MaskEntry(
        "strokes",
        observations.strokes,
        "COUNT,WIDTH[,SEED]",
        (int, int, int),
        "hidden",
        "free-form brush strokes of a width in pixels (Yu et al. 2019)",
    ),
    MaskEntry(
        "blobs",
        observations.blobs,
        "COUNT[,SEED]",
        (int, int),
        "hidden",
        "blobs that grow from random pixels (Dupont & Suresha 2019)",
    ),
    MaskEntry(
        "scatter",
        observations.scatter,
        "SHARE[,SEED]",
        (float, int),
        "seen",
        "each pixel with that probability, by itself",
    ),
    MaskEntry(
        "grid",
        observations.grid,
        "FACTOR",
        (int,),
        "seen",
        "every FACTOR-th pixel of every FACTOR-th row: super-resolution",
    ),
    MaskEntry(
        "channels",
        _channels,
        "C[,C...]",
        (int,),
        "seen",
        "whole channels, counted from 0: colourisation",
        repeats=True,
    ),
    MaskEntry(
        "wells",
        geology.wells,
        "COUNT[,SEED]",
        (int, int),
        "seen",
        "isolated pixels, no two of them neighbours (Dupont et al. 2018)",
    ),
    MaskEntry(
        "columns",
        geology.columns,
        "COUNT[,SEED]",
        (int, int),
        "seen",
        "whole columns: wells logged all the way down",
    ),
)

#: Every kind of mask by name.
MASKS: dict[str, MaskEntry] = {one.name: one for one in _ENTRIES}


def mask(spec: str, shape: ImageShape) -> Mask:
    """Make a mask from how it is written, such as ``box:14,0,14,28`` or ``half:bottom``.

    Parameters
    ----------
    spec
        Name of the mask, a colon, and its numbers with commas between them.
    shape
        ``(channel, row, column)`` of the image.

    Raises
    ------
    ValueError
        For an unknown name, numbers that it does not take, or a mask that leaves the image.

    Examples
    --------
    >>> int(mask("grid:2", (1, 8, 8)).sum())
    16
    """
    name, _, rest = spec.partition(":")
    if name not in MASKS:
        raise ValueError(f"unknown mask {spec!r}; there are {'; '.join(one.usage for one in MASKS.values())}")
    one = MASKS[name]
    try:
        arguments = one.read(rest.split(",") if rest else [])
    except ValueError:
        raise ValueError(
            f"mask {spec!r} is not understood; expected {one.usage} ({one.names}: {one.what})"
        ) from None
    return one.make(shape, *arguments)
