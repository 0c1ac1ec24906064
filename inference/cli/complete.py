"""`complete`: draw from the posterior of one image, and write what it says."""

from __future__ import annotations

import csv
import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterior_inpainting.inference.cli.app import app, check_folder, picture, write_all
from posterior_inpainting.inference.cli.measured import Instruments, said_of
from posterior_inpainting.inference.cli.options import DATA_FOLDER, Drawing, laid_out
from posterior_inpainting.inference.cli.own_sizes import at_own_size, fitted, shape_for
from posterior_inpainting.inference.cli.pixels import Pixels

if TYPE_CHECKING:
    import numpy as np

    from posterior_inpainting.models.observations import Observation
    from posterior_inpainting.models.shapes import Image


@app.command()
@laid_out
def complete(
    pixels: Pixels,
    instruments: Instruments,
    drawing: Drawing,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a model, see `list models`, or folder of a prior; one that fits the image if not given."
        ),
    ] = None,
    root: DATA_FOLDER = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show no progress, and say nothing but mistakes.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 3 where the draws are not to be trusted.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="Time or gradients after which to end, such as '60 s', '5 min', '2e6 gradients'."),
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option(help="Memory that it may need, in GB; all that there is if not given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for pictures, posterior.nc and summary.csv.")] = Path(
        "out"
    ),
) -> None:
    """Complete one image: draw from the posterior of its hidden pixels, and say how far to trust it.

    A transparent pixel is missing if neither --mask, --seen nor --missing is given. With --measure nothing of the image
    is seen itself: a small one is enlarged, a grey one coloured, a blurred one sharpened. Exit code 0 where there is a
    result, 2 for a mistake, and with --strict 3 for draws that are not to be trusted.
    """
    from posterior_inpainting.inference import catalogue, diagnostics
    from posterior_inpainting.inference.comparison.figures import figures
    from posterior_inpainting.inference.evaluation.pictures import pictures
    from posterior_inpainting.models import Measurement

    observation, whole = _read(pixels, instruments)
    check_folder(out)
    said, measured = [], isinstance(observation, Measurement)
    if model is None:
        model, reason = catalogue.fitting(observation.shape, measured=measured)
        said.append(f"{model}: {reason}; --model takes another")
    entry = catalogue.entry(model)
    own, lines = observation, list[str]()
    if not measured:
        observation, whole, lines = fitted(observation, whole, shape_for(entry, observation.shape))
        said += lines
        if entry.channels == 3 and observation.shape[0] == 1:
            said.append(f"{model}: a prior of colours; the grey image is completed as one of three channels")
            observation, whole = _in_colour(observation, whole)
    approach = drawing.of(entry, root, observation.shape)
    entry.check(observation, approach, _bytes(max_memory))
    catalogue.check_shape_of(model, observation.shape, measured=measured)
    said.append(said_of(own, str(instruments.measure)) if measured else _share_hidden(own))
    say = _silent if quiet else typer.echo
    for line in said:
        say(line)
    posterior = approach.complete(observation, seed=drawing.seed, progress=not quiet, budget=budget)
    table = diagnostics.summary(posterior)
    if whole is not None and table["draws"] > 1:
        table |= figures(posterior, whole)
    shown = at_own_size(pictures(posterior), own) if lines else pictures(posterior)
    _write(out, posterior, whole, table, shown)
    kind = posterior.attrs["draws_are"]
    drawn = "optima and no draws, scored as if they were" if kind == "restarts" else f"{kind} draws"
    say(f"{model}: {posterior.attrs['model']} by {posterior.attrs['method']}: {drawn}")
    for line in _lines(table):
        say(line)
    say(f"Wrote completions.png, mean.png, sd.png, draw-01.png ..., posterior.nc and summary.csv to {out}/")
    verdict = diagnostics.verdict(posterior)
    say(f"{'' if verdict.may_be_used else 'Not to be trusted as they are: '}{verdict}")
    if strict and not verdict.may_be_used:
        raise typer.Exit(3)


def _read(pixels: Pixels, instruments: Instruments) -> tuple[Any, Image | None]:
    """Return what is seen or was measured, and the whole image where it is known."""
    if instruments.measure is None:
        return pixels.read()
    if pixels.mask or pixels.seen or pixels.missing:
        raise ValueError("--measure and a mask are given; expected one of them")
    return instruments.read(pixels.image, pixels.truth)


def _write(
    out: Path, posterior: Any, whole: Image | None, table: dict[str, float], shown: dict[str, np.ndarray]
) -> None:
    """Write every file of a result, or none."""
    from posterior_inpainting.inference import plots
    from posterior_inpainting.inference.results.containers import save

    axes = plots.completions(posterior, truth=whole)
    write_all(
        out,
        {
            **{name: functools.partial(_write_picture, values) for name, values in shown.items()},
            "completions.png": lambda path: picture(axes[0], path),
            "posterior.nc": lambda path: save(posterior, path),
            "summary.csv": lambda path: _write_table(table, path),
        },
        replaced="draw-*.png",
    )


def _bytes(gigabytes: float | None) -> float | None:
    if gigabytes is not None and not gigabytes > 0:
        raise ValueError(f"--max-memory {gigabytes:g}; expected a positive number of GB")
    return None if gigabytes is None else 1e9 * gigabytes


def _in_colour(observation: Observation, whole: Image | None) -> tuple[Observation, Image | None]:
    """Return the same with three equal channels."""
    image, mask = (part.expand(3, -1, -1).contiguous() for part in (observation.image, observation.mask))
    return replace(observation, image=image, mask=mask), None if whole is None else whole.expand(3, -1, -1)


def _write_picture(values: np.ndarray, path: Path) -> None:
    from skimage.io import imsave

    imsave(path, values, check_contrast=False)


def _write_table(table: dict[str, float], path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("quantity", "value"), *table.items()])


def _lines(table: dict[str, float]) -> list[str]:
    width = max(map(len, table))
    numbers = {
        name: f"{value:d}" if isinstance(value, int) else f"{value:.4g}" for name, value in table.items()
    }
    return [f"  {name:<{width}}  {number:>10}" for name, number in numbers.items()]


def _share_hidden(observation: Observation) -> str:
    """Say how much is hidden: who gave a mask the wrong way round sees it here."""
    share = float((~observation.mask).float().mean())
    inverted = "; if that is the wrong way round, exchange --seen and --missing" if share > _MUCH else ""
    return f"{share:.1%} of the image is hidden{inverted}"


def _silent(line: str) -> None:
    pass


#: Share of hidden values from which a mask may be the wrong way round.
_MUCH = 0.8
