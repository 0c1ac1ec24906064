"""What ``config.json`` says of a prior in a folder, and its reader, which takes nothing that it does not know."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["CONFIG", "FORMAT", "KINDS", "config_as_text", "read_config"]

#: Of ``config.json``; one of a later number is refused.
FORMAT = 1
CONFIG = "config.json"

#: Kinds of priors, and the parts that each has at least. Beside them there may be the law of codes ``prior``
#: of ``vae`` and ``gan``, the ``discriminator`` of ``gan``, the ``constraint`` and the ``encoder`` of ``pixels``.
KINDS: dict[str, tuple[str, ...]] = {
    "vae": ("decoder", "encoder"),
    "gan": ("decoder", "encoder"),
    "pluralistic": ("decoder", "encoder"),
    "pixels": ("prior",),
    "linear": ("linear",),
    "diffusion": ("denoiser",),
    "experts": ("experts",),
}

#: What ``config.json`` holds, and of which type.
_FIELDS: dict[str, type] = {
    "format": int,
    "library": str,
    "kind": str,
    "image_shape": list,
    "parts": dict,
    "settings": dict,
    "preprocessing": dict,
    "data": dict,
    "sha256": str,
    "figures": dict,
}


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return ``config.json`` of a prior's folder, without the weights.

    Raises
    ------
    ValueError
        For no folder of a prior, and for a file that is damaged or was written by a later version: in one line.

    >>> read_config("/nowhere")
    Traceback (most recent call last):
    ValueError: /nowhere is no prior: there is no such folder
    """
    folder = Path(folder)
    path = folder / CONFIG
    if not path.is_file():
        lacks = f"it has no {CONFIG}" if folder.is_dir() else "there is no such folder"
        raise ValueError(f"{folder} is no prior: {lacks}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise ValueError(f"{path} cannot be read: {error}") from None
    written = config.get("format") if isinstance(config, dict) else None
    if type(written) is not int or written < 1:
        raise ValueError(f"{path} is of no prior: it has no format; expected format {FORMAT}")
    if written > FORMAT:
        later = config.get("library", "unknown")
        raise ValueError(
            f"{path} was written by a later version ({later}, format {written}); expected format <= {FORMAT}: update"
        )
    for field, type_ in _FIELDS.items():
        if not isinstance(config.get(field), type_):
            raise ValueError(f"{path} has {field}={config.get(field)!r:.60}; expected a {type_.__name__}")
    if config["kind"] not in KINDS:
        raise ValueError(f"{path} has kind={config['kind']!r}; expected one of {', '.join(KINDS)}")
    shape = config["image_shape"]
    if (
        len(shape) != 3
        or not all(type(extent) is int and extent >= 0 for extent in shape)
        or shape[0] not in (1, 3)
    ):
        raise ValueError(f"{path} has image_shape={shape!r:.60}; expected [1 or 3, rows, columns]")
    return config


def config_as_text(config: Mapping[str, Any]) -> str:
    """Return ``config.json`` as it is written; numbers that are not finite become null, as JSON has none.

    >>> print(config_as_text({"figures": {"CRPS": float("nan")}}))
    {
      "figures": {
        "CRPS": null
      }
    }
    <BLANKLINE>
    """
    return json.dumps(_plain(config), indent=2) + "\n"


def _plain(value: Any) -> Any:
    """Return what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    value = value.item() if isinstance(value, np.generic | Tensor) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
