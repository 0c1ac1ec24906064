"""An entry of the catalogue: a model by name, its default method, and what a person needs to choose it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from posterior_inpainting.inference.catalogue.approach import Approach, ModelMaker
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.drawing_in_windows import side_of_pieces
from posterior_inpainting.inference.windows import windows
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.images.available_memory import check_memory
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = ["Entry", "Given", "MadeFrom", "written"]

#: ``weights``: loaded from the package. ``data``: fitted to the training images of a data set. ``patches``: the same,
#: cut to the size of the image. ``image``: made for each image, from its shape or fitted to its seen pixels.
MadeFrom = Literal["weights", "data", "patches", "image"]

#: Values of all draws together, beyond which there are fewer draws by default.
_MOST_VALUES = 2**22

#: Bytes for each value of a draw: completion and image, in single precision, once more while they are written.
_KEPT = 24


@dataclass(frozen=True)
class Given:
    """What a model may be made from.

    Parameters
    ----------
    shape
        ``(channel, row, column)`` of the images to complete.
    observation
        One of them, behind its mask or measured; ``None`` where there is none yet.
    root
        Folder of the data set, where it is not found by itself.
    """

    shape: ImageShape
    observation: Observation | Measurement | None = None
    root: str | Path | None = None


@dataclass(frozen=True)
class _Maker(ModelMaker):
    """The model of an entry, made when an observation comes."""

    make: Callable[[Given], ImageModel]
    root: str | Path | None
    for_each_image: bool

    def __call__(self, observation: Observation | Measurement) -> ImageModel:
        return self.make(Given(observation.shape, observation, self.root))


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue with its one default method and settings.

    Parameters
    ----------
    name
        What the command line, ``compare`` and Python call it.
    random
        What is random in it, in one line.
    source
        Authors and year of the paper.
    make
        From what is given to the model; a function at the top of a module, so that it can be sent to a process.
    method, draws, chains
        As for ``infer``, where the caller names none: the most draws of a method with a goal.
    seconds, gradients
        Order of magnitude for one image on one core.
    made_from
        See ``MadeFrom``.
    shape
        ``(channel, row, column)`` of the images that it takes, ``None`` for any. Of ``patches``, one of them.
    largest
        Of ``patches``: the longest side in pixels.
    priors
        Names of the bundled networks that it needs.
    channels
        Of the images, where it takes any number of rows and columns; ``None`` for any channels too.
    margin, least
        As for ``Approach``; an image has at least ``least`` rows and columns.
    bytes_a_value
        Memory that it needs for each value of the largest window, a chain, beside that of the draws.
    fits
        Whether ``complete`` brings images of other sizes and channels to those that it takes, and their completions
        back.
    measured
        Whether it takes a ``Measurement`` too.
    finish
        As for ``Approach``: what is done to the completions of an optimiser afterwards.
    """

    name: str
    random: str
    source: str
    make: Callable[[Given], ImageModel]
    method: Method
    draws: int
    chains: int
    seconds: float
    gradients: int
    made_from: MadeFrom = "weights"
    shape: ImageShape | None = (1, 28, 28)
    largest: int | None = None
    priors: tuple[str, ...] = ()
    channels: int | None = None
    margin: int | None = None
    least: int = 1
    bytes_a_value: float = 0.0
    fits: bool = False
    measured: bool = False
    finish: Callable[[Image, Image, Mask], Image] | None = None

    @property
    def shapes(self) -> str:
        """Shapes of the images that it takes, in words."""
        if self.channels is not None:
            return f"{self.channels} x any"
        if self.shape is None:
            return "any"
        if self.largest is not None:
            return f"{self.shape[0]} x n x n, n <= {self.largest}"
        return " x ".join(map(str, self.shape))

    @property
    def settings(self) -> str:
        """Method, draws and chains by default, in words, and what is done afterwards."""
        restarts = self.method.draws_are == "restarts"
        most = "" if self.method.goal is None else "at most "
        numbers = "" if restarts else f", {most}{self.draws} draws x {self.chains}"
        return (
            written(self.method) + numbers + ("" if self.finish is None else f", then {self.finish.__name__}")
        )

    def takes(self, shape: ImageShape) -> bool:
        """Whether it takes images of a shape.

        >>> from posterior_inpainting.inference.catalogue import entry
        >>> entry("vae").takes((1, 28, 28)), entry("vae").takes((1, 8, 8)), entry("natural-linear").takes((3, 16, 16))
        (True, False, True)
        """
        if self.largest is not None and self.shape is not None:
            return shape[0] == self.shape[0] and shape[1] == shape[2] <= self.largest
        if self.shape is not None:
            return tuple(shape) == tuple(self.shape)
        return self.channels in (None, shape[0]) and min(shape[1:]) >= self.least

    def draws_for(self, shape: ImageShape) -> int:
        """Return how many draws a chain are kept of images of a shape: fewer of large ones, at least 8 of all chains.

        With a goal they are the most that there may be, and as given.

        >>> from posterior_inpainting.inference.catalogue import entry
        >>> entry("gaussian-process").draws_for((1, 28, 28)), entry("gaussian-process").draws_for((3, 256, 256))
        (400, 21)
        """
        if self.method.goal is not None:
            return self.draws
        fit = _MOST_VALUES // (math.prod(shape) * self.chains)
        return min(self.draws, max(fit, math.ceil(8 / self.chains)))

    def approach(self, root: str | Path | None = None) -> Approach:
        """Return model, method and draws; the model is made when an observation is there."""
        maker = _Maker(self.make, root, self.made_from in ("patches", "image"))
        return Approach(maker, self.method, self.draws, self.chains, self.margin, self.least, self.finish)

    def check(
        self, observation: Observation | Measurement, approach: Approach, available: float | None = None
    ) -> None:
        """Raise ``ValueError`` for an image that it cannot complete: too small, or too large for the memory.

        Parameters
        ----------
        observation
            The image and its mask.
        approach
            This entry's, with the draws and chains that are asked for.
        available
            Bytes of memory; those of this machine where ``None``.
        """
        rows, columns = observation.shape[1:]
        if min(rows, columns) < self.least:
            raise ValueError(
                f"the image is {rows} x {columns} pixels; {self.name} takes at least {self.least} x {self.least}"
            )
        if self.margin is not None:
            side = side_of_pieces(approach.method)
            largest = max(part.pixels for part in windows(observation.mask, self.margin, self.least, side))
            values = observation.shape[0] * largest * self.bytes_a_value * approach.chains
            kept = math.prod(observation.shape) * approach.draws * approach.chains * _KEPT
            size = " x ".join(map(str, observation.shape))
            check_memory(values + kept, f"{self.name} on an image of {size}", available=available)

    def model(self, root: str | Path | None = None) -> ImageModel:
        """Return the model where it can be made without an image.

        Raises ``ValueError`` for one that is made for each image.
        """
        if self.shape is None:
            raise ValueError(
                f"{self.name} is made for each image; `complete` and `compare` take it, and build(name, observation)"
            )
        return self.make(Given(self.shape, None, root))


def written(method: Method) -> str:
    """Return a method as it is written in Python, settings that are not its defaults alone.

    >>> from posterior_inpainting.inference import MALA, ChEES
    >>> written(MALA(warmup=40)), written(ChEES())
    ('MALA(warmup=40)', 'ChEES()')
    """
    plain: Any = type(method)()
    given: list[str] = []
    for one in fields(method):  # type: ignore[arg-type]
        value = vars(method)[one.name]
        if value != vars(plain)[one.name]:
            given.append(f"{one.name}={written(value) if isinstance(value, Method) else repr(value)}")
    return f"{type(method).__name__}({', '.join(given)})"
