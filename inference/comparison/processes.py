"""The cells of a comparison, one after another or by processes side by side; one that fails loses no other."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from posterior_inpainting.inference.catalogue.approach import Approach
from posterior_inpainting.inference.comparison.cells import Cell, cell_path, read_cell, write_cell
from posterior_inpainting.inference.comparison.fillings import FilledCell, Filling
from posterior_inpainting.inference.results.fingerprint import fingerprint
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Where", "Work", "computed"]

#: Name of an approach, name of a mask, number of an image.
Where = tuple[str, str, int]


@dataclass
class Work:
    """Everything that a process needs to compute any cell; models are made at their first use."""

    approaches: Mapping[str, Approach | Filling]
    images: Image
    masks: Mapping[str, Mask]
    budget: int | None
    seed: int
    store: Path | None
    made: dict[str, tuple[ImageModel, str]] = field(default_factory=dict)

    def compute(self, at: Where) -> xr.Dataset | str:
        """Read a cell or compute it; an error comes back as what it says."""
        name, mask, image = at
        try:
            truth = self.images[image]
            seen = Observation(truth, self.masks[mask])
            cell = self._cell(name, seen, truth)
            model, digest = self._model(name, seen)
            signature = cell.signature(digest)
            path = None if self.store is None else cell_path(self.store, name, mask, image)
            found = None if path is None else read_cell(path, signature)
            if found is None:
                found = cell.compute(model)
                if path is not None:
                    write_cell(path, found, signature)
            return found
        except Exception as error:  # one approach that fails must not lose the others, whatever it raises
            return f"{type(error).__name__}: {' '.join(str(error).split())}"

    def _cell(self, name: str, seen: Observation, truth: Image) -> Any:
        """Return the cell of an approach, or of a filling: both have a ``signature`` and a ``compute``."""
        approach = self.approaches[name]
        if isinstance(approach, Filling):
            return FilledCell(approach, seen, truth)
        return Cell(approach, seen, truth, self.seed, self.budget)

    def _model(self, name: str, seen: Observation) -> tuple[ImageModel | None, str]:
        """Return the one model of an approach, or none where each image has its own, and the digest of what it is."""
        approach = self.approaches[name]
        if isinstance(approach, Filling):
            return None, fingerprint(approach.fill)
        if approach.for_each_image:
            return None, fingerprint(approach.model)
        if name not in self.made:
            model = approach.model_for(seen)
            self.made[name] = model, fingerprint(model)
        return self.made[name]


def computed(work: Work, where: list[Where], jobs: int) -> Iterator[tuple[Where, xr.Dataset | str]]:
    """Yield cells as they are done."""
    if jobs == 1:
        for at in where:
            yield at, work.compute(at)
        return
    # Forked processes inherit locks of torch's threads; spawned ones start afresh. Pickled here, because
    # torch's own way between processes moves the caller's tensors to shared memory, from under their NumPy views.
    context = multiprocessing.get_context("spawn")
    try:
        sent = pickle.dumps(work)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise ValueError(
            f"jobs={jobs}: an approach cannot be sent to another process ({error}); a function that makes a model "
            "must stand at the top of its module, or use jobs=1"
        ) from None
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(sent,)) as pool:
        waiting = {pool.submit(_compute, at): at for at in where}
        try:
            for future in as_completed(waiting):
                try:
                    found = future.result()
                except BrokenProcessPool as error:  # killed from outside, as for want of memory
                    found = f"{type(error).__name__}: {error}"
                yield waiting[future], found
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


#: What a process of the pool works on, sent to it once.
_work: Work | None = None


def _begin(sent: bytes) -> None:
    global _work
    _work = pickle.loads(sent)
    torch.set_num_threads(1)


def _compute(at: Where) -> xr.Dataset | str:
    assert _work is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _work.compute(at)
