"""`compare`: every approach on the same images behind the same masks, as a table and a figure."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from posterior_inpainting.inference.cli.app import app, check_folder, picture, write_all
from posterior_inpainting.inference.cli.options import HeldOut, laid_out

_MASKS = ("half:bottom", "scatter:0.3", "box:8,8,12,12")


@app.command()
@laid_out
def compare(
    held_out: HeldOut,
    approach: Annotated[
        list[str] | None,
        typer.Option(
            help="A model, a folder of a prior, or biharmonic; may be repeated; all that suit if none."
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Gradients that an approach may take for one image.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every image, as for `complete`.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes side by side, a thread each.")] = 2,
    out: Annotated[
        Path, typer.Option(help="Folder for comparison.nc, table.md, comparison.png, cells/.")
    ] = Path("out"),
) -> None:
    """Complete the same images behind the same masks by every approach: one table, one figure.

    Every cell is kept in OUT/cells as soon as it is done: the same command goes on after a kill.
    """
    from posterior_inpainting.inference.comparison import APPROACHES, FILLINGS
    from posterior_inpainting.inference.comparison import compare as compared
    from posterior_inpainting.inference.comparison.fillings import named

    check_folder(out)
    names = approach or [*APPROACHES, *FILLINGS]
    chosen = {name: named(name, held_out.root) for name in names}
    images, masks = held_out.read(_MASKS)
    found = compared(chosen, images, masks, budget=budget, seed=seed, store=out / "cells", jobs=jobs)
    found = found.assign_coords(image=found["image"] + held_out.first)
    _write(found, list(masks), out)
    _print(found, f"{held_out.dataset} {held_out.images}, {len(masks)} masks", len(masks), out)


def _write(found, masks: list[str], out: Path) -> None:
    """Write data set, tables and sheets, all or none."""
    from posterior_inpainting.inference.comparison import markdown, sheet, table
    from posterior_inpainting.inference.results.containers import check_room

    tables = [f"All masks\n\n{markdown(found)}"] + [f"{name}\n\n{markdown(found, name)}" for name in masks]
    sheets = {
        f"comparison-{number}.png": functools.partial(_draw, sheet, found, name)
        for number, name in enumerate(masks, start=1)
    }

    def netcdf(path: Path) -> None:
        """Write the data set."""
        check_room(path, found)
        found.to_netcdf(path, engine="h5netcdf")

    write_all(
        out,
        {
            "comparison.nc": netcdf,
            "table.md": lambda path: path.write_text("\n".join(tables)),
            "scores.csv": table(found).to_csv,
            **sheets,
        },
    )


def _print(found, title: str, sheets: int, out: Path) -> None:
    from posterior_inpainting.inference.comparison import table

    typer.echo(f"{title}, mean over images and masks; hidden pixels only")
    shown = table(found).sort_values("CRPS")
    typer.echo(shown.to_string(float_format=lambda value: f"{value:.4g}", na_rep=""))
    typer.echo(f"Wrote comparison.nc, table.md, scores.csv and {sheets} sheets to {out}/")


def _draw(sheet, found, mask: str, path: Path) -> None:
    first = int(found["image"][0])
    picture(sheet(found, image=first, mask=mask, title=f"image {first}, {mask}")[0, 0], path)
