"""The command line's frame: the application, its one way to fail, and what its commands share."""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

__all__ = ["app", "check_folder", "main", "method_warmed", "picture", "some_of", "write_all"]

app = typer.Typer(
    name="posterior-inpainting",
    help="Everything that could fill the missing pixels of an image, and how likely each is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; a mistake of the caller is one line on standard error and exit code 2."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
    import matplotlib

    matplotlib.use("Agg")
    try:
        app()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"posterior-inpainting: {' '.join(str(error).split())}\n")
        sys.exit(2)


def check_folder(out: Path) -> None:
    """Raise `ValueError` where the folder that results go to is a file."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; expected a folder")


def write_all(out: Path, writers: dict[str, Callable[[Path], Any]]) -> None:
    """Write every file of a result, or none."""
    with tempfile.TemporaryDirectory() as folder:
        for name, write in writers.items():
            write(Path(folder) / name)
        out.mkdir(parents=True, exist_ok=True)
        for name in writers:
            shutil.move(Path(folder) / name, out / name)


def picture(axis: Any, path: Path) -> None:
    """Save the figure that an axis belongs to."""
    axis.figure.savefig(path, dpi=150)


def method_warmed(name: str, warmup: int | None) -> Any:
    """Make the method of a name, with another number of warm-up iterations if one is given."""
    from posterior_inpainting.inference.cli.catalogue import method_named

    method: Any = method_named(name)
    if warmup is None:
        return method
    if not hasattr(method, "warmup"):
        raise ValueError(f"--warmup {warmup} is given, but {name} does not warm up")
    if warmup < 1:
        raise ValueError(f"--warmup {warmup}; expected at least 1")
    return replace(method, warmup=warmup)


def some_of(images: Any, words: str, dataset: str) -> Any:
    """Return the images of a range such as ``0-199`` or ``7``."""
    first, dash, last = words.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ValueError(f"--images {words!r} is not understood; expected FIRST-LAST or a number")
    low, high = int(first), int(last or first)
    if low > high or high >= len(images):
        raise ValueError(f"--images {words}: {dataset} has images 0-{len(images) - 1}")
    return images[low : high + 1]
