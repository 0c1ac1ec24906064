"""A prior as a folder, in the habit of Hugging Face: ``model.safetensors``, ``config.json`` and a card, ``README.md``.

``model.safetensors`` holds the tensors of all parts, named ``part/parameter``, in half precision or 8 bits.
``config.json`` says of what kind the prior is, which networks its parts are, how images are brought to it, what it was
trained on, and the digest of the weights. It is written last: a folder without one, or with one that does not fit the
weights beside it, is no prior, so that nothing half-written is ever taken for one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from posterior_inpainting.models.networks.weight_files import read_file, write_durably, write_file
from posterior_inpainting.models.saved.configs import CONFIG, FORMAT, config_as_text, read_config
from posterior_inpainting.models.saved.parts import check_parts, description_of, made_of, shape_of, tensors_of
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["CARD", "WEIGHTS", "SavedPrior", "read_card", "read_prior", "write_prior"]

WEIGHTS, CARD = "model.safetensors", "README.md"


@dataclass(frozen=True)
class SavedPrior:
    """What is in the folder of a prior.

    Parameters
    ----------
    kind
        One of ``KINDS``.
    parts
        Part -> network, as it was saved, in evaluation mode; of ``linear`` a ``LinearGaussian``.
    config
        ``config.json``.
    """

    kind: str
    parts: dict[str, nn.Module]
    config: dict[str, Any]

    @property
    def image_shape(self) -> ImageShape:
        """``(channel, row, column)``; rows and columns are 0 for images of any size."""
        return tuple(self.config["image_shape"])


def write_prior(
    folder: str | Path,
    *,
    kind: str,
    parts: Mapping[str, nn.Module],
    preprocessing: Mapping[str, Any],
    data: Mapping[str, Any],
    figures: Mapping[str, Any],
    card: str,
    settings: Mapping[str, Any] | None = None,
    bits: int = 16,
) -> None:
    """Write a prior to a folder, whole or not at all; one that is there is replaced when the new one is whole.

    Parameters
    ----------
    folder
        Where; made if it is not there. Other files in it stay.
    kind
        One of ``KINDS``.
    parts
        Part -> network of ``models.networks`` with a ``configuration()``; of ``linear`` a ``LinearGaussian``.
    preprocessing
        How images were brought to the prior: ``size`` (rows, columns) or ``None``, ``patches`` or ``None``,
        ``channels`` 1 or 3. With ``patches`` a ``diffusion`` and ``experts`` take images of any size.
    data
        What it was trained on: ``digest``, and how many ``images``, ``train``, ``validation``, ``test``.
    figures
        What was measured: name -> number.
    card
        Text of ``README.md``.
    settings
        Further arguments of the model that is made of the parts: ``law`` of ``pixels``, ``noise`` and ``highest`` of
        ``diffusion``, ``noise`` of ``experts``.
    bits
        Of a weight, 16 or 8; see ``weight_files``.

    Raises
    ------
    ValueError
        For an unknown kind, a part that is missing or no network, weights that are not finite in half precision.
    OSError
        Where the disk is full, in one line; what was there before is there still.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> parts = {"decoder": MultilayerDecoder(2, (1, 8, 8), (4,)), "encoder": MaskedEncoder(2, (1, 8, 8), (4,))}
    >>> said = {"preprocessing": {"size": [8, 8], "channels": 1}, "data": {}, "figures": {}, "card": "# Mine"}
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_prior(folder, kind="vae", parts=parts, **said)
    ...     sorted(os.listdir(folder)), read_prior(folder).image_shape
    (['README.md', 'config.json', 'model.safetensors'], (1, 8, 8))
    """
    folder = Path(folder)
    check_parts(kind, parts, folder)
    tensors = tensors_of(parts)
    config = {
        "format": FORMAT,
        "library": version("posterior-inpainting"),
        "kind": kind,
        "image_shape": shape_of(kind, parts, preprocessing),
        "parts": {part: description_of(part, module) for part, module in parts.items()},
        "settings": settings or {},
        "preprocessing": preprocessing,
        "data": data,
        "figures": figures,
    }
    try:
        _write(folder, tensors, config, card, bits)
    except OSError as error:
        raise OSError(f"the prior cannot be written to {folder}: {error.strerror or error}") from None


def read_prior(folder: str | Path) -> SavedPrior:
    """Read the prior in a folder, its weights checked against their digest.

    Raises
    ------
    ValueError
        For no prior, one of a later format, weights that are damaged or do not fit ``config.json``: in one line.

    >>> read_prior("/nowhere")
    Traceback (most recent call last):
    ValueError: /nowhere is no prior: there is no such folder
    """
    folder = Path(folder)
    config = read_config(folder)
    kind, described = config["kind"], config["parts"]
    tensors, _ = read_file(folder / WEIGHTS, config["sha256"])
    states: dict[str, dict[str, Tensor]] = {part: {} for part in described}
    for name, value in tensors.items():
        part, _, parameter = name.partition("/")
        if part not in states:
            raise ValueError(f"{folder / WEIGHTS} holds {name!r}; {CONFIG} knows of {', '.join(described)}")
        states[part][parameter] = value
    parts = {part: made_of(folder, part, described[part], states[part]) for part in described}
    check_parts(kind, parts, folder)
    shape = shape_of(kind, parts, config["preprocessing"])
    if shape != config["image_shape"]:
        raise ValueError(f"{folder} holds networks for images {shape}; {CONFIG} says {config['image_shape']}")
    return SavedPrior(kind, parts, config)


def read_card(folder: str | Path) -> str:
    """Return the card of the prior in a folder, without what the Hub reads of it; ``ValueError`` where there is none.

    >>> read_card("/nowhere")
    Traceback (most recent call last):
    ValueError: /nowhere/README.md is missing
    """
    path = Path(folder) / CARD
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    text = path.read_text(encoding="utf-8", errors="replace")
    return text.partition("\n---\n")[2].lstrip() if text.startswith("---\n") else text


def _write(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], card: str, bits: int) -> None:
    """Write the three files beside their places, on the same file system, then rename them: ``config.json`` last.

    Until then an older ``config.json`` and weights that are newer would be told apart by the digest.
    """
    made = [one for one in (folder, *folder.absolute().parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        config = config | {"sha256": write_file(staging / WEIGHTS, tensors, {"format": "pt"}, bits=bits)}
        write_durably(staging / CONFIG, config_as_text(config).encode())
        write_durably(staging / CARD, _with_front_matter(card).encode())
        for name in (CARD, WEIGHTS, CONFIG):
            (staging / name).replace(folder / name)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        with contextlib.suppress(OSError):  # what another process put there stays
            for one in made:
                one.rmdir()
        raise
    staging.rmdir()
    _sync(folder)


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk too."""
    there = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(there)
    finally:
        os.close(there)


def _with_front_matter(card: str) -> str:
    """Return the card under what the Hub reads of it."""
    if card.startswith("---\n"):
        return card
    return f"---\nlibrary_name: posterior-inpainting\npipeline_tag: image-to-image\ntags: [inpainting]\n---\n\n{card}"
