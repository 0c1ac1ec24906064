"""`complete`: draw from the posterior of one image, and write what it says."""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posterior_inpainting.inference.cli.app import app, check_folder, picture, write_all
from posterior_inpainting.inference.cli.options import DATA_FOLDER, Drawing, laid_out
from posterior_inpainting.inference.cli.pixels import Pixels

if TYPE_CHECKING:
    import numpy as np


@app.command()
@laid_out
def complete(
    pixels: Pixels,
    drawing: Drawing,
    model: Annotated[
        str | None,
        typer.Option(help="Name of a model, see `list models`; one that fits the image if not given."),
    ] = None,
    root: DATA_FOLDER = None,
    out: Annotated[Path, typer.Option(help="Folder for pictures, posterior.nc and summary.csv.")] = Path(
        "out"
    ),
) -> None:
    """Complete one image: draw from the posterior of its hidden pixels, and say how far to trust it.

    A transparent pixel is missing if neither --mask, --seen nor --missing is given.
    """
    from posterior_inpainting.inference import catalogue, diagnostics, infer, plots
    from posterior_inpainting.inference.comparison.figures import figures
    from posterior_inpainting.inference.evaluation.pictures import pictures
    from posterior_inpainting.inference.results.convert import save

    observation, whole = pixels.read()
    check_folder(out)
    if model is None:
        model, reason = catalogue.fitting(observation.shape)
        typer.echo(f"{model}: {reason}; --model takes another")
    approach = drawing.of(catalogue.entry(model), root).made_for(observation)
    posterior = infer(
        approach.model_for(observation),
        observation,
        approach.method,
        draws=approach.draws,
        chains=approach.chains,
        seed=drawing.seed,
    )
    table = diagnostics.summary(posterior)
    if whole is not None and table["draws"] > 1:
        table |= figures(posterior, whole)
    axes = plots.completions(posterior, truth=whole)
    shown = pictures(posterior)
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
    kind = posterior.attrs["draws_are"]
    said = "optima and no draws, scored as if they were" if kind == "restarts" else f"{kind} draws"
    typer.echo(f"{model}: {posterior.attrs['model']} by {posterior.attrs['method']}: {said}")
    _print(table)
    typer.echo(
        f"Wrote completions.png, mean.png, sd.png, draw-01.png ..., posterior.nc and summary.csv to {out}/"
    )


def _write_picture(values: np.ndarray, path: Path) -> None:
    from skimage.io import imsave

    imsave(path, values, check_contrast=False)


def _write_table(table: dict[str, float], path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("quantity", "value"), *table.items()])


def _print(table: dict[str, float]) -> None:
    width = max(map(len, table))
    for name, value in table.items():
        number = f"{value:d}" if isinstance(value, int) else f"{value:.4g}"
        typer.echo(f"  {name:<{width}}  {number:>10}")
