"""Which image to complete, and which of its pixels are seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from posterior_inpainting.models.observations import Observation
    from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Pixels", "image_named"]


@dataclass(frozen=True)
class Pixels:
    """An image and the one way in which its missing pixels are told."""

    image: Annotated[str, typer.Argument(help="A PNG, JPEG or NPY file, or sample:fashion-mnist/7.")]
    mask: Annotated[
        str | None, typer.Option(help="Such as box:14,0,14,28, scatter:0.3, half:bottom; see `list masks`.")
    ] = None
    seen: Annotated[Path | None, typer.Option(help="Image file whose marked pixels are seen.")] = None
    missing: Annotated[Path | None, typer.Option(help="Image file whose marked pixels are missing.")] = None
    truth: Annotated[Path | None, typer.Option(help="The whole image, to score against.")] = None

    def read(self) -> tuple[Observation, Image | None]:
        """Return what is seen, and the whole image where it is known."""
        from posterior_inpainting.models import image_files
        from posterior_inpainting.models.shapes import check_image, check_values

        observation, whole = self._read()
        _check(observation)
        if self.truth is not None:
            whole = image_files.read_image(self.truth)[0]
            check_image(whole, observation.shape)
            hidden = whole[~observation.mask]
            if not hidden.isfinite().all():
                raise ValueError(
                    f"{int((~hidden.isfinite()).sum())} hidden pixels of the truth are NaN or infinite"
                )
            check_values(hidden, "hidden pixels of the truth")
        return observation, whole

    def _read(self) -> tuple[Observation, Image | None]:
        from posterior_inpainting.inference import catalogue
        from posterior_inpainting.models import Observation, image_files

        ways = {"--mask": self.mask, "--seen": self.seen, "--missing": self.missing}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; expected one of them")
        if self.mask is None and not self.image.startswith("sample:"):
            return image_files.read_observation(Path(self.image), seen=self.seen, missing=self.missing), None
        pixels, opaque = image_named(self.image)
        if self.mask is not None:
            known = catalogue.mask(self.mask, tuple(pixels.shape))  # type: ignore[arg-type]
            # What is hidden may be anything, but is no truth then.
            inside = bool(((pixels >= 0) & (pixels <= 1)).all()) and (opaque is None or bool(opaque.all()))
            return Observation(pixels, known), pixels if inside else None
        for path, polarity in ((self.seen, "seen"), (self.missing, "missing")):
            if path is not None:
                return Observation(pixels, image_files.read_mask(path, pixels, polarity)), None
        raise ValueError(f"{self.image} has no transparent pixel; give --mask, --seen or --missing")


def image_named(name: str) -> tuple[Image, Mask | None]:
    """Read an image from a path, or from a data set as ``sample:DATASET/NUMBER``.

    ``sample:fashion-mnist/N`` with N below 64 needs nothing but the package.

    >>> tuple(image_named("sample:fashion-mnist/7")[0].shape)
    (1, 28, 28)
    """
    from posterior_inpainting.models import datasets, image_files

    if not name.startswith("sample:"):
        return image_files.read_image(Path(name))
    dataset, _, number = name.removeprefix("sample:").partition("/")
    if not number.isdigit():
        raise ValueError(f"{name!r} is not understood; expected sample:DATASET/NUMBER")
    bundled = dataset == "fashion-mnist" and int(number) < 64
    images = datasets.load("fashion-mnist-samples" if bundled else dataset)
    if int(number) >= len(images):
        raise ValueError(f"{name!r}: {dataset} has images 0..{len(images) - 1}")
    return images[int(number)], None


def _check(observation: Observation) -> None:
    """Raise ``ValueError`` unless something is seen and something hidden."""
    if not observation.mask.any():
        raise ValueError("the mask hides every pixel; expected at least one seen pixel")
    if observation.mask.all():
        raise ValueError("the mask hides nothing, so that there is nothing to complete")
