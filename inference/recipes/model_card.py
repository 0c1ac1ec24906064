"""What every card says in the same words: settings, figures, and the machine that trained."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

__all__ = ["figures_table", "machine", "settings_table"]


def settings_table(recipe: Any, leave_out: tuple[str, ...] = ()) -> str:
    """Return the table of a recipe's fields.

    >>> from posterior_inpainting.inference.recipes.variational_autoencoders import RECIPES
    >>> settings_table(RECIPES["digits-vae-2d"]).splitlines()[3]
    '| latent | 2 |'
    """
    shown = {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.name not in leave_out}
    return _table("setting", shown)


def figures_table(figures: Mapping[str, str]) -> str:
    """Return the table of what was measured.

    >>> print(figures_table({"error": "0.1"}))
    | figure | value |
    |---|---|
    | error | 0.1 |
    """
    return _table("figure", figures)


def machine() -> str:
    """Say on how many threads of what processor this runs, and with which torch."""
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    return f"{threads} thread{plural} of {platform.machine()}\nwith torch {torch.__version__}, no GPU"


def _table(heading: str, rows: Mapping[str, Any]) -> str:
    return "\n".join([f"| {heading} | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())])
