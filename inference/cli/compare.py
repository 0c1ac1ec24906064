"""`compare`: every approach on the same images behind the same masks, as a table and a figure."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from posterior_inpainting.inference.cli.app import app, check_folder, picture, some_of, write_all

_MASKS = ("half:bottom", "scatter:0.3", "box:8,8,12,12")


@app.command()
def compare(
    dataset: Annotated[str, typer.Option(help="A data set with a test split.")] = "fashion-mnist",
    images: Annotated[str, typer.Option(help="Test images, such as 0-19 or 7.")] = "0-19",
    mask: Annotated[list[str] | None, typer.Option("--mask", "--masks", help="May be repeated.")] = None,
    approach: Annotated[
        list[str] | None, typer.Option(help="One of them; may be repeated; all if none.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Gradients that an approach may take for one image.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed: the same one gives the same draws.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes side by side, a thread each.")] = 2,
    root: Annotated[Path | None, typer.Option(help="Folder with the data set's IDX files.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for comparison.nc, table.md, comparison.png, cells/.")
    ] = Path("out"),
) -> None:
    """Complete the same images behind the same masks by every approach: one table, one figure.

    Every cell is kept in OUT/cells as soon as it is done: the same command goes on after a kill.
    """
    from posterior_inpainting.inference.cli.catalogue import mask_named
    from posterior_inpainting.inference.comparison import APPROACHES, markdown, sheet, table
    from posterior_inpainting.inference.comparison import compare as compared
    from posterior_inpainting.models import datasets

    check_folder(out)
    whole = some_of(datasets.load(dataset, root=root), images, dataset)
    shape = tuple(whole.shape[1:])
    masks = {name: mask_named(name, shape) for name in mask or _MASKS}
    names = approach or list(APPROACHES)
    found = compared(names, whole, masks, budget=budget, seed=seed, store=out / "cells", jobs=jobs, root=root)
    first = int(images.partition("-")[0])
    found = found.assign_coords(image=found["image"] + first)
    tables = [f"All masks\n\n{markdown(found)}"] + [f"{name}\n\n{markdown(found, name)}" for name in masks]
    sheets = {
        f"comparison-{number}.png": functools.partial(_draw, sheet, found, name)
        for number, name in enumerate(masks, start=1)
    }
    write_all(
        out,
        {
            "comparison.nc": lambda path: found.to_netcdf(path, engine="h5netcdf"),
            "table.md": lambda path: path.write_text("\n".join(tables)),
            "scores.csv": table(found).to_csv,
            **sheets,
        },
    )
    typer.echo(f"{dataset} {images}, {len(masks)} masks, mean over images and masks; hidden pixels only")
    shown = table(found).sort_values("CRPS")
    typer.echo(shown.to_string(float_format=lambda value: f"{value:.4g}", na_rep=""))
    typer.echo(f"Wrote comparison.nc, table.md, scores.csv and {len(masks)} sheets to {out}/")


def _draw(sheet, found, mask: str, path: Path) -> None:
    first = int(found["image"][0])
    picture(sheet(found, image=first, mask=mask, title=f"image {first}, {mask}")[0, 0], path)
