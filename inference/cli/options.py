"""Options that several commands share, as dataclasses; a command takes one of them as one parameter."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from posterior_inpainting.inference.catalogue import Approach, Entry
    from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = ["DATA_FOLDER", "Drawing", "HeldOut", "laid_out"]

#: Option of a data set's folder.
DATA_FOLDER = Annotated[Path | None, typer.Option(help="Folder with the data set's IDX files.")]


def laid_out(command: Callable) -> Callable:
    """Return a command whose parameters that are dataclasses stand as an option a field on the command line."""
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    laid: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name not in groups:
            laid.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        kind = groups[parameter.name]
        types = typing.get_type_hints(kind, include_extras=True)
        for one in fields(kind):
            default = inspect.Parameter.empty if one.default is MISSING else one.default
            laid.append(parameter.replace(name=one.name, default=default, annotation=types[one.name]))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        """Call the command with its options put into groups."""
        made = {
            name: kind(**{one.name: given.pop(one.name) for one in fields(kind)})
            for name, kind in groups.items()
        }
        command(**given, **made)

    laid.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    laid = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in laid]
    run.__signature__ = inspect.Signature(laid)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in laid}
    return run


@dataclass(frozen=True)
class Drawing:
    """By which method, and how much, to draw: a model's own settings where nothing else is said."""

    method: Annotated[str | None, typer.Option(help="Name of a method, if not the model's own.")] = None
    draws: Annotated[int | None, typer.Option(help="Kept draws a chain, if not the model's own.")] = None
    chains: Annotated[int | None, typer.Option(help="Chains, if not the model's own.")] = None
    warmup: Annotated[int | None, typer.Option(help="Iterations that adapt, if not the method's own.")] = None
    seed: Annotated[int, typer.Option(help="Seed: the same one gives the same numbers.")] = 0

    def of(self, entry: Entry, root: Path | None = None, shape: ImageShape | None = None) -> Approach:
        """Return the approach of an entry, to images of a shape, with these settings in place of its own."""
        from posterior_inpainting.inference import catalogue

        approach = entry.approach(root)
        if shape is not None:
            approach = changed(approach, draws=entry.draws_for(shape))
        if self.method is not None:
            other = catalogue.method(self.method)
            numbers = catalogue.METHODS[self.method]
            finish = approach.finish if other.draws_are == "restarts" else None
            approach = changed(
                approach, method=other, draws=numbers.draws, chains=numbers.chains, finish=finish
            )
        if self.warmup is not None:
            approach = changed(approach, method=approach.method.warmed(self.warmup))
        draws = approach.draws if self.draws is None else self.draws
        chains = approach.chains if self.chains is None else self.chains
        return changed(approach, draws=draws, chains=chains)


@dataclass(frozen=True)
class HeldOut:
    """Which images of a data set's test split, behind which masks."""

    dataset: Annotated[str, typer.Option(help="A data set with a test split.")] = "fashion-mnist"
    images: Annotated[str, typer.Option(help="Test images, such as 0-19 or 7.")] = "0-19"
    mask: Annotated[
        list[str] | None, typer.Option("--mask", "--masks", help="Such as half:bottom; may be repeated.")
    ] = None
    root: DATA_FOLDER = None

    def read(self, masks: tuple[str, ...]) -> tuple[Image, dict[str, Mask]]:
        """Return the images and the masks by how they are written, ``masks`` where none is named."""
        from posterior_inpainting.inference import catalogue
        from posterior_inpainting.models import datasets

        images = self._some(datasets.load(self.dataset, root=self.root))
        shape = tuple(images.shape[1:])
        return images, {name: catalogue.mask(name, shape) for name in self.mask or masks}

    @property
    def first(self) -> int:
        """Number of the first image."""
        return int(self.images.partition("-")[0])

    def _some(self, images: Image) -> Image:
        first, dash, last = self.images.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"--images {self.images!r} is not understood; expected FIRST-LAST or a number")
        low, high = int(first), int(last or first)
        if low > high or high >= len(images):
            raise ValueError(f"--images {self.images}: {self.dataset} has images 0-{len(images) - 1}")
        return images[low : high + 1]
