"""`train`: make a bundled network anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posterior_inpainting.inference.cli.app import app, check_folder


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Name of a bundled prior.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, digests and card.")],
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints; after a kill the same command goes on.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder with the data set's files.")] = None,
    device: Annotated[str, typer.Option(help="Where to train: cpu or cuda.")] = "cpu",
) -> None:
    """Train a bundled prior by its recipe and write its weights and card."""
    from posterior_inpainting.inference.recipes import train_bundled

    check_folder(out)
    if checkpoints is not None:
        check_folder(checkpoints, "--checkpoints")
    typer.echo(train_bundled(name, out, root, checkpoints=checkpoints, device=device))
