"""The one writer of cards: training command, time, settings, figures and limits, in the same words for all."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from posterior_inpainting.inference.recipes.recipe import Description, Recipe

__all__ = ["Minutes", "card", "figures_table", "listed", "machine", "settings_table", "table"]


@dataclass(frozen=True)
class Minutes:
    """How long a training took, by the wall clock and of the processor, and where."""

    wall: float
    processor: float
    device: str = "cpu"


def card(name: str, recipe: Recipe, said: Description, minutes: Minutes, measured: str) -> str:
    """Return the card of a bundled set.

    Parameters
    ----------
    name, recipe
        The set, and what determines it.
    said
        The recipe's own words.
    minutes
        Time of the training.
    measured
        Tables of figures.
    """
    where = "" if minutes.device == "cpu" else f" --device {minutes.device}"
    return f"""# {name}

{said.about}

Trained on {said.trained_on} with

    posterior-inpainting train {name} --out DIR{where}

in {minutes.wall:.1f} minutes ({minutes.processor:.1f} of processor time) on {machine(minutes.device)}.
{said.remark and said.remark + chr(10)}
{settings_table(recipe)}

## Measured on {said.measured_on}

{measured}

## Limits

{said.limits}
"""


def settings_table(recipe: Recipe) -> str:
    """Return the table of a recipe's fields, those that all recipes have being the last.

    >>> from posterior_inpainting.inference.recipes.variational_autoencoders import AUTOENCODER_RECIPES
    >>> settings_table(AUTOENCODER_RECIPES["digits-vae-2d"]).splitlines()[2:5]
    ['| dataset | digits |', '| held_back | 0 |', '| latent | 2 |']
    """
    common = [f.name for f in fields(Recipe)]
    own = [f.name for f in fields(recipe) if f.name not in common]
    return table(
        "setting", {name: getattr(recipe, name) for name in own + common if name not in recipe.leave_out}
    )


def figures_table(figures: Mapping[str, str]) -> str:
    """Return the table of what was measured.

    >>> print(figures_table({"error": "0.1"}))
    | figure | value |
    |---|---|
    | error | 0.1 |
    """
    return table("figure", figures)


def table(heading: str, rows: Mapping[str, Any]) -> str:
    """Return a table of two columns, the second being values.

    >>> print(table("fruit", {"apples": 3}))
    | fruit | value |
    |---|---|
    | apples | 3 |
    """
    return "\n".join([f"| {heading} | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())])


def listed(values: Iterable[Any], digits: int = 2, separator: str = " ") -> str:
    """Return numbers in a row.

    >>> listed([0.5, 1], separator=" / ")
    '0.50 / 1.00'
    """
    return separator.join(f"{float(value):.{digits}f}" for value in values)


def machine(device: str = "cpu") -> str:
    """Return on how many threads of what processor this runs, or on which GPU, and with which torch.

    >>> machine().endswith("no GPU")
    True
    """
    if device != "cpu":
        return f"one {torch.cuda.get_device_name(device)}\nwith torch {torch.__version__}"
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    return f"{threads} thread{plural} of {platform.machine()}\nwith torch {torch.__version__}, no GPU"
