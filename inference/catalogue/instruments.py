"""The instruments by name: how each is written, and what images it measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from posterior_inpainting.models import operators
from posterior_inpainting.models.operators import LinearOperator
from posterior_inpainting.models.operators.blurring import reach_of
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["INSTRUMENTS", "InstrumentEntry", "instrument"]


@dataclass(frozen=True)
class InstrumentEntry:
    """One kind of instrument.

    Parameters
    ----------
    name
        The word before the colon.
    make
        From ``(channel, row, column)`` of the image, and the number, to an operator.
    image_of
        From the shape of what was measured, and the number, to that of the image; ``None`` where there is no such one.
    argument
        What the number is called, ``""`` for none.
    kind
        Its type.
    what
        What it does, in one line.
    """

    name: str
    make: Callable[..., LinearOperator]
    image_of: Callable[..., ImageShape | None]
    argument: str
    kind: type
    what: str

    @property
    def usage(self) -> str:
        """How it is written."""
        return f"{self.name}:{self.argument}" if self.argument else self.name


def _enlarged(shape: ImageShape, factor: int) -> ImageShape:
    return (shape[0], factor * shape[1], factor * shape[2])


def _in_colour(shape: ImageShape) -> ImageShape | None:
    return (3, *shape[1:]) if shape[0] == 1 else None


def _with_border(shape: ImageShape, width: float) -> ImageShape:
    return (shape[0], *(side + 2 * reach_of(width) for side in shape[1:]))


_ENTRIES = (
    InstrumentEntry(
        "average",
        operators.average,
        _enlarged,
        "FACTOR",
        int,
        "the mean of each square of FACTOR x FACTOR pixels: super-resolution",
    ),
    InstrumentEntry(
        "luminance",
        operators.luminance,
        _in_colour,
        "",
        int,
        "how bright each pixel of a colour image is: colourisation",
    ),
    InstrumentEntry(
        "blur",
        operators.blur,
        _with_border,
        "WIDTH",
        float,
        "a Gaussian kernel of standard deviation WIDTH, in pixels: sharpening",
    ),
)

#: Every kind of instrument by name.
INSTRUMENTS: dict[str, InstrumentEntry] = {one.name: one for one in _ENTRIES}


def instrument(spec: str, shape: ImageShape, *, measured: bool = False) -> LinearOperator:
    """Make an operator from how it is written, such as ``average:4``, ``luminance`` or ``blur:2``.

    Parameters
    ----------
    spec
        Name of the instrument, and its number after a colon.
    shape
        ``(channel, row, column)`` of the image, or of what was ``measured`` of it.
    measured
        Which of the two the shape is of.

    Raises
    ------
    ValueError
        For an unknown name, a number that it does not take, or shapes that it does not.

    Examples
    --------
    >>> instrument("average:4", (3, 8, 8)).output_shape, instrument("average:4", (3, 8, 8), measured=True).image_shape
    ((3, 2, 2), (3, 32, 32))
    """
    name, _, rest = spec.partition(":")
    if name not in INSTRUMENTS:
        usages = "; ".join(one.usage for one in INSTRUMENTS.values())
        raise ValueError(f"unknown instrument {spec!r}; there are {usages}")
    one = INSTRUMENTS[name]
    try:
        if bool(rest) != bool(one.argument):
            raise ValueError
        numbers = [one.kind(rest)] if rest else []
        if numbers and not numbers[0] > 0:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"instrument {spec!r} is not understood; expected {one.usage} ({one.what})"
        ) from None
    image = one.image_of(shape, *numbers) if measured else shape
    if image is None:
        raise ValueError(f"{spec} gives a grey image, and {shape[0]} channels were measured; expected 1")
    return one.make(image, *numbers)
