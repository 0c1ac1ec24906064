"""The command line's frame: the application, its one way to fail, and what its commands share."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["app", "check_folder", "main", "picture", "write_all"]

app = typer.Typer(
    name="posterior-inpainting",
    help="Everything that could fill the missing pixels of an image, and how likely each is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"posterior-inpainting {version('posterior-inpainting')}")
        raise typer.Exit


@app.callback()
def application(
    show: Annotated[
        bool,
        typer.Option("--version", help="Print the version, and end.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Everything that could fill the missing pixels of an image, and how likely each is."""


def main() -> None:
    """Run the command line; a mistake of the caller is one line on standard error and exit code 2.

    A warning is a line there too.
    """
    os.environ["MPLBACKEND"] = "Agg"  # pictures go to files; read when matplotlib is imported
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
        warnings.showwarning = lambda message, *where, **told: _say(message)
        try:
            app()
        except (ValueError, OSError) as error:
            _say(error)
            sys.exit(2)


def _say(what: Exception | str) -> None:
    sys.stderr.write(f"posterior-inpainting: {' '.join(str(what).split())}\n")


def check_folder(out: Path, option: str = "--out") -> None:
    """Raise ``ValueError`` where results cannot be written to a folder, before any work is done for them."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{option} {out} is a file; expected a folder")
    there = next(one for one in (out, *out.absolute().parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"{option} {out} cannot be written: {error.strerror or error}") from None


def write_all(out: Path, writers: dict[str, Callable[[Path], Any]], replaced: str | None = None) -> None:
    """Write every file of a result, or none; files of an earlier one, by a pattern, are removed then.

    They are staged inside the folder, so that what is renamed in the end does not leave its file system.
    """
    made = [one for one in (out, *out.absolute().parents) if not one.exists()]
    out.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))
    try:
        for name, write in writers.items():
            write(staging / name)
        for old in out.glob(replaced) if replaced is not None else ():
            old.unlink()
        for name in writers:
            (staging / name).replace(out / name)
    except BaseException:
        shutil.rmtree(staging)
        for folder in made:
            folder.rmdir()
        raise
    staging.rmdir()


def picture(axis: Any, path: Path) -> None:
    """Save the figure that an axis belongs to."""
    axis.figure.savefig(path, dpi=150)
