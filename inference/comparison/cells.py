"""One cell of a comparison: an approach on an image behind a mask, computed once, kept in a file of its own.

A file is written whole or not at all, and holds a signature of everything that its numbers follow from. So a
comparison that was killed goes on where it was, and one approach that changed is computed anew without the others.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from posterior_inpainting.inference.catalogue.approach import Approach
from posterior_inpainting.inference.comparison.figures import figures
from posterior_inpainting.inference.density.budget import gradient_budget
from posterior_inpainting.inference.evaluation import diagnostics, scores
from posterior_inpainting.inference.evaluation.incomplete import ending, go_on_only_if_whole
from posterior_inpainting.inference.results.containers import check_room
from posterior_inpainting.inference.results.fingerprint import fingerprint
from posterior_inpainting.inference.results.images_of_posterior import posterior_mean
from posterior_inpainting.inference.results.settings_of_methods import settings
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image

__all__ = ["DIMS", "KEPT", "Cell"]

#: Draws of a cell that are kept: so many groups (ArviZ calls them chains) of so many.
KEPT = (4, 16)
#: Of the meaning of a cell's numbers: files of another one are computed anew.
_VERSION = 3
_CONVERGENCE = ("R-hat, pixels (max)", "ESS bulk, pixels (min)", "Pareto k-hat")
_ATTRIBUTES = ("model", "method", "settings", "draws_are", "density")
#: Of kept draws.
DIMS = ("chain", "draw", "channel", "row", "column")


@dataclass(frozen=True)
class Cell:
    """What a cell is computed from.

    Parameters
    ----------
    approach
        Model and method.
    observation, truth
        What is seen, and the whole image.
    seed, budget
        As for ``compare``.
    """

    approach: Approach
    observation: Observation
    truth: Image
    seed: int = 0
    budget: int | None = None

    def signature(self, model: str) -> str:
        """Return a digest of everything that the numbers follow from; ``model`` is the model's own."""
        approach = self.approach
        return fingerprint(
            {
                "version": _VERSION,
                "model": model,
                "method": type(approach.method).__name__,
                "settings": [settings(approach.method), fingerprint(approach.method)],
                "finish": fingerprint(approach.finish),
                "package": version("posterior-inpainting"),
                "draws": [approach.draws, approach.chains, self.seed, self.budget],
                "data": [self.observation.image, self.observation.mask, self.truth],
                "torch": torch.__version__,
            }
        )

    def compute(self, model: ImageModel | None = None) -> xr.Dataset:
        """Draw and score: a variable a figure, kept ``draws``, ``mean``, ``sd`` and the ``brightness`` of the hole.

        ``model`` is the approach's for this observation, if it is made already.
        """
        approach = self.approach if model is None else replace(self.approach, model=model)
        with gradient_budget(self.budget):
            posterior = approach.complete(self.observation, seed=self.seed, progress=False)
        if (
            ending(posterior.attrs) != "budget spent"
        ):  # a spent budget is what a comparison at equal cost is about
            go_on_only_if_whole(posterior.attrs)
        summary = diagnostics.summary(posterior)
        found = figures(posterior, self.truth) | {n: summary[n] for n in _CONVERGENCE if n in summary}
        shown: dict[str, Any] = {name: float(value) for name, value in found.items()}
        shown["seconds"] = posterior.attrs["wall_time_s"]
        shown["gradients"] = float(posterior.attrs.get("gradient_evaluations", 0))
        attrs = {name: posterior.attrs[name] for name in _ATTRIBUTES}
        return xr.Dataset(shown | self._pictures(posterior), attrs=attrs)

    def _pictures(self, posterior) -> dict[str, Any]:
        """Return kept draws, their brightness, mean and standard deviation as variables."""
        completion = np.clip(scores.flat(posterior, "posterior", "completion"), 0, 1)
        predictive = np.clip(scores.flat(posterior, "posterior_predictive", "image"), 0, 1)
        mask = self.observation.mask.numpy()
        seen = self.observation.image.numpy()
        some = np.linspace(0, len(completion) - 1, KEPT[0] * KEPT[1]).astype(int)
        kept = np.where(mask, seen, completion[some]).reshape(*KEPT, *mask.shape)
        alone = posterior.attrs["draws_are"] == "restarts"
        claimed = completion if alone else predictive
        hidden = claimed[some][:, ~mask].mean(-1).reshape(KEPT)
        return {
            "draws": (DIMS, np.round(255 * kept).astype(np.uint8)),  # pictures have 8 bits
            "brightness": (DIMS[:2], hidden),
            "mean": (
                DIMS[2:],
                np.where(mask, seen, posterior_mean(posterior, clipped=True)).astype(np.float32),
            ),
            "sd": (DIMS[2:], np.where(mask, 0.0, claimed.std(0)).astype(np.float32)),
        }


def cell_path(store: Path, approach: str, mask: str, image: int) -> Path:
    """Return the file of a cell; names become words that every file system takes, different ones for each.

    >>> cell_path(Path("out"), "vae", "box:8,8,12,12", 3).as_posix()
    'out/vae/box-8-8-12-12-616d/3.nc'
    """
    plain = [re.sub(r"[^\w.-]+", "-", name) for name in (approach, mask)]
    words = [
        word if word == name else f"{word}-{fingerprint(name)[:4]}"
        for word, name in zip(plain, (approach, mask), strict=True)
    ]
    return store.joinpath(*words) / f"{image}.nc"


def read_cell(path: Path, signature: str) -> xr.Dataset | None:
    """Return what is in a cell's file, or ``None`` if there is none or one of another signature, or damaged: told."""
    if not path.is_file():
        return None
    content, seal = path.read_bytes(), _seal(path)
    if not seal.is_file() or seal.read_bytes() != _digest(content):
        sys.stderr.write(f"{path} is damaged, and computed anew\n")
        return None
    with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as found:
        return found.load() if found.attrs.get("signature") == signature else None


def write_cell(path: Path, cell: xr.Dataset, signature: str) -> None:
    """Write a cell's file whole or not at all, and then its checksum beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.stem}.*.part"):
        if not _lives(int(old.suffixes[-2][1:])):  # of a process that was killed
            old.unlink(missing_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    smaller = {name: {"zlib": True} for name in ("draws", "mean", "sd")}
    check_room(temporary, cell)
    cell.assign_attrs(signature=signature).to_netcdf(temporary, engine="h5netcdf", encoding=smaller)
    digest = _digest(temporary.read_bytes())
    temporary.replace(path)
    temporary.write_bytes(digest)
    temporary.replace(_seal(path))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"
