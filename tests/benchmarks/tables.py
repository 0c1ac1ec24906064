"""What the benchmarks' command lines have in common, and the Markdown that they write."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "arguments",
    "command",
    "image_numbers",
    "markdown",
    "measured_on",
    "parsed",
    "processor",
    "save_rows",
    "stored_rows",
    "table_of",
]

#: Where a quick run writes, so that it never touches a table that is committed.
QUICK = Path("build/bench")


def arguments(script: str, description: str, images: str | None = None) -> argparse.ArgumentParser:
    """Return a parser that knows ``--quick``, ``--out``, and ``--images FIRST-LAST`` if there are any."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"the least of everything, into {QUICK}")
    parser.add_argument("--out", type=Path, help="the Markdown file, beside the script by default")
    if images is not None:
        parser.add_argument("--images", default=images, help=f"numbers of test images, such as {images}")
    parser.set_defaults(script=Path(script))
    return parser


def parsed(
    parser: argparse.ArgumentParser, quick_images: str | int = "0-0", out: Path | None = None
) -> argparse.Namespace:
    """Parse the command line, say where to write (``out`` by default), and keep torch to one thread."""
    options = parser.parse_args()
    page = out or options.script.with_suffix(".md")
    options.out = options.out or (QUICK / page.name if options.quick else page)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.quick and "images" in options:
        options.images = quick_images
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return options


def image_numbers(text: str) -> range:
    """Read ``"0-19"`` as the numbers 0 to 19.

    >>> image_numbers("3-5")
    range(3, 6)
    """
    first, last = map(int, text.split("-"))
    return range(first, last + 1)


def command(options: argparse.Namespace) -> str:
    """Return the command that made a table."""
    return f"python tests/benchmarks/{options.script.name}{' --quick' * options.quick}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table.

    >>> print(markdown(["a", "b"], [[1, 2]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [f"| {' | '.join(map(str, head))} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def table_of(records: Sequence[Mapping[str, Any]], digits: str | Mapping[str, str] = ".2f") -> str:
    """Return dictionaries with the same keys as a Markdown table; ``digits`` are of numbers, by column or of all.

    >>> print(table_of([{"name": "x", "value": 1.0}], ".1f"))
    | name | value |
    |---|---|
    | x | 1.0 |
    """

    def cell(name: str, value: Any) -> str:
        style = digits if isinstance(digits, str) else digits.get(name, ".2f")
        return format(value, style) if isinstance(value, float) else str(value)

    return markdown(list(records[0]), [[cell(n, v) for n, v in record.items()] for record in records])


def processor() -> str:
    """Return the processor's name, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measured_on(*packages: str) -> str:
    """Say when and on what the figures were measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "pyro-ppl", *packages))
    return (
        f"Measured {date.today()} on one thread of {processor()}, {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[1]:.1f};\nPython {platform.python_version()}, {versions}."
    )


def save_rows(file: Path, content: Any) -> None:
    """Keep what a long run has so far, as JSON; numbers come back bit for bit."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n")


def stored_rows(file: Path | None, otherwise: Any) -> Any:
    """Return what :func:`save_rows` kept, or something else where there is nothing."""
    return json.loads(file.read_text()) if file is not None and file.is_file() else otherwise
