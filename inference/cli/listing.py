"""`list`: the catalogue as tables: models, methods, masks, instruments, priors; `card`: what is known of one prior."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from posterior_inpainting.inference.cli.app import app

__all__ = ["Kind", "rows_as_text"]

#: Cells of a row, and sentences about it.
Row = tuple[Sequence[str], Sequence[str]]


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    methods = "methods"
    masks = "masks"
    instruments = "instruments"
    priors = "priors"


@app.command(name="list")
def listed(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
) -> None:
    """List what there is by name: models, methods, masks, instruments, or bundled priors."""
    tables = {
        Kind.models: _models,
        Kind.methods: _methods,
        Kind.masks: _masks,
        Kind.instruments: _instruments,
        Kind.priors: _priors,
    }
    typer.echo(tables[kind](min(shutil.get_terminal_size().columns, 120)))


@app.command()
def card(
    prior: Annotated[str, typer.Argument(help="Name of a bundled prior, or the folder of one.")],
) -> None:
    """Print the card of a prior: what it was trained on, how, and how good it is."""
    from posterior_inpainting.models import pretrained

    typer.echo(pretrained.card(prior).rstrip())


def rows_as_text(head: Sequence[str], rows: Sequence[Row], width: int) -> str:
    """Lay rows out in columns; sentences about a row stand below it, indented.

    Parameters
    ----------
    head
        Title of each column.
    rows
        Cells of a row, as many as titles, and sentences about it. The last cell and the sentences are wrapped.
    width
        Of a line, in characters.

    Examples
    --------
    >>> print(rows_as_text(("name", "takes"), [(("vae", "1 x 28 x 28"), ["code z"])], width=40))
    name  takes
    vae   1 x 28 x 28
        code z
    """
    widths = [max(map(len, column)) for column in zip(head, *(cells for cells, _ in rows), strict=True)]
    before = sum(widths[:-1]) + 2 * (len(head) - 1)
    lines = []
    for cells, sentences in [(head, []), *rows]:
        first = "".join(cell.ljust(size + 2) for cell, size in zip(cells[:-1], widths[:-1], strict=True))
        last = _wrapped(cells[-1], max(width - before, 12))
        lines += [(first + last[0]).rstrip(), *(" " * before + more for more in last[1:])]
        for sentence in sentences:
            lines += [f"    {line}" for line in _wrapped(sentence, width - 4)]
    return "\n".join(lines)


def _wrapped(words: str, width: int) -> list[str]:
    return textwrap.wrap(words, width, break_on_hyphens=False, break_long_words=False) or [""]


def _models(width: int) -> str:
    from posterior_inpainting.inference.catalogue import MODELS

    needs = {"weights": "", "data": "its data set", "patches": "its data set", "image": "nothing else"}
    rows: list[Row] = []
    for one in MODELS.values():
        made = ", ".join(one.priors) or needs[one.made_from]
        words = [f"{one.random} ({one.source})", f"by default {one.settings}; needs {made}"]
        rows.append(((one.name, one.shapes, f"{one.seconds:g}", f"{one.gradients:,}"), words))
    note = "Seconds and gradients: order of magnitude for one image on one core."
    table = rows_as_text(("name", "images", "seconds", "gradients"), rows, width)
    return f"{table}\n\n{textwrap.fill(note, width)}"


def _methods(width: int) -> str:
    from posterior_inpainting.inference.catalogue import METHODS, written

    rows: list[Row] = []
    for one in METHODS.values():
        made = one.make()
        marks = {"biased": made.is_biased, "approximate": made.is_approximate}
        kind = ", ".join([made.draws_are, *(word for word, is_so in marks.items() if is_so)])
        what = f"{one.what} ({one.source})" if one.source else one.what
        numbers = "" if made.draws_are == "restarts" else f"{one.draws} x {one.chains}"
        rows.append(((one.name, kind, numbers), [what, written(made)]))
    return rows_as_text(("name", "draws are", "draws x chains"), rows, width)


def _masks(width: int) -> str:
    from posterior_inpainting.inference.catalogue import MASKS

    rows: list[Row] = [((one.usage, one.names, one.what), []) for one in MASKS.values()]
    return rows_as_text(("written as", "names what is", "which"), rows, width)


def _instruments(width: int) -> str:
    from posterior_inpainting.inference.catalogue import INSTRUMENTS

    rows: list[Row] = [((one.usage, one.what), []) for one in INSTRUMENTS.values()]
    return rows_as_text(("written as", "measures"), rows, width)


def _priors(width: int) -> str:
    from posterior_inpainting.inference.catalogue import MODELS, PRIORS

    rows: list[Row] = []
    for one in PRIORS.values():
        users = ", ".join(model.name for model in MODELS.values() if one.name in model.priors)
        rows.append(((one.name, one.shapes, one.data), [one.what, f"models: {users}"]))
    return rows_as_text(("name", "images", "trained on"), rows, width)
