"""An image that an instrument gave, and what is said of it: what `complete --measure` completes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from posterior_inpainting.models.measurements import Measurement
    from posterior_inpainting.models.shapes import Image

__all__ = ["Instruments", "said_of"]


@dataclass(frozen=True)
class Instruments:
    """What gave the image, where it is not pixels that are missing."""

    measure: Annotated[
        str | None,
        typer.Option(
            help="What gave the image: average:4, luminance or blur:2, see `list instruments`. A file is what was "
            "measured; a sample is the whole image, and is measured first."
        ),
    ] = None
    measurement_noise: Annotated[
        float, typer.Option(help="Standard deviation of a measured value around what the instrument gives.")
    ] = 0.01

    def read(self, name: str, truth: Path | None) -> tuple[Measurement, Image | None]:
        """Return what was measured, and the whole image where it is known.

        Parameters
        ----------
        name
            Of the image: a path, or ``sample:DATASET/NUMBER``.
        truth
            The whole image.
        """
        import torch

        from posterior_inpainting.inference import catalogue
        from posterior_inpainting.inference.cli.pixels import image_named
        from posterior_inpainting.models import Measurement, image_files
        from posterior_inpainting.models.shapes import check_image, check_values

        assert self.measure is not None
        given, opaque = image_named(name)
        if opaque is not None and not bool(opaque.all()):
            raise ValueError(
                f"{name} has transparent pixels; expected a whole image to be measured by {self.measure}"
            )
        check_values(given, "pixels")
        whole = None if truth is None else image_files.read_image(truth)[0]
        if name.startswith("sample:"):
            operator = catalogue.instrument(self.measure, tuple(given.shape))
            whole = given if whole is None else whole
            noise = torch.randn(operator.output_shape, generator=torch.Generator().manual_seed(0))
            given = operator(given) + self.measurement_noise * noise
        else:
            operator = catalogue.instrument(self.measure, tuple(given.shape), measured=True)
        if whole is not None:
            check_image(whole, operator.image_shape)
            check_values(whole, "pixels of the truth")
        return Measurement(operator, given, noise=self.measurement_noise), whole


def said_of(measurement: Measurement, name: str) -> str:
    """Say what was measured of how much.

    >>> import torch
    >>> from posterior_inpainting.models import Measurement, operators
    >>> small = operators.average((1, 8, 8), 4)
    >>> said_of(Measurement(small, torch.zeros(1, 2, 2)), "average:4")
    'average:4: 4 values were measured of an image of 1 x 8 x 8, 64 values'
    """
    size = " x ".join(map(str, measurement.shape))
    values = f"{measurement.values.numel():,} values were measured of an image of {size}"
    return f"{name}: {values}, {math.prod(measurement.shape):,} values"
