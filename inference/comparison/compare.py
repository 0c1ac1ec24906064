"""`compare`: every approach on the same images behind the same masks, as one data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.catalogue import Approach
from posterior_inpainting.inference.comparison.fillings import Filling, named
from posterior_inpainting.inference.comparison.processes import Where, Work, computed
from posterior_inpainting.inference.density.budget import gradient_budget
from posterior_inpainting.inference.evaluation.held_out import check_held_out
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["compare"]


def compare(
    approaches: Mapping[str, Approach | Filling] | Sequence[str],
    images: Image,
    masks: Mapping[str, Mask],
    *,
    budget: int | None = None,
    seed: int = 0,
    store: str | Path | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> xr.Dataset:
    """Complete every image behind every mask by every approach, and score the hidden pixels.

    Parameters
    ----------
    approaches
        Name -> ``Approach``; or names of the catalogue, such as ``APPROACHES``, with the draws that it gives them. A
        ``Filling``, such as ``"biharmonic"``, is scored by its one image.
    images
        Whole images ``(n, channel, row, column)`` in [0, 1], none of which a model was trained on.
    masks
        Name -> ``(channel, row, column)``, ``True`` = seen.
    budget
        Gradients of single chains that an approach may take for one image, warm-up included; no limit by default.
    seed
        Of every cell: on one thread of torch, the same seed gives the same numbers, however many processes there are.
    store
        Folder that keeps every cell as it is done. The same call goes on where a killed one was; what was
        computed with other settings is computed anew.
    jobs
        Processes side by side, each with one thread.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Dataset
        Over ``approach``, ``mask`` and ``image``: a variable a figure (``CRPS``, ``coverage 95%``, ``seconds``, ...),
        the ``mean`` and ``sd`` of the posterior, some ``draws`` and the mean ``brightness`` of the hole in each, with
        the dimensions ``chain`` and ``draw`` that ArviZ's plots take; ``truth``, ``seen`` (the masks), and ``error``,
        which says why an approach failed on an image, where it did. Restarts of an optimiser are scored as if
        they were draws; ``draws_are`` says which are.

    Raises
    ------
    ValueError
        For an unknown or repeated approach, one that cannot be sent to another process, images that leave [0, 1] or do
        not fit a mask, a mask that hides nothing, or a number below 1. An approach that fails on an image is no
        error: a warning names it.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact, Variational
    >>> from posterior_inpainting.inference.comparison import Approach, table
    >>> from posterior_inpainting.models import GaussianProcess, LatentCode, datasets, observations, pretrained
    >>> images = datasets.load("digits")[:2]
    >>> approaches = {
    ...     "code": Approach(LatentCode(pretrained.load("digits-vae-2d")), Variational()),
    ...     "Gaussian process": Approach(GaussianProcess.fit, Exact()),
    ... }
    >>> masks = {"bottom": observations.half((1, 8, 8), hide="bottom")}
    >>> comparison = compare(approaches, images, masks, progress=False)
    >>> dict(comparison["CRPS"].sizes)
    {'approach': 2, 'mask': 1, 'image': 2}
    >>> list(table(comparison).index)
    ['code', 'Gaussian process']
    """
    chosen = _chosen(approaches)
    check_held_out(images, masks)
    if not isinstance(jobs, int) or jobs < 1:
        raise ValueError(f"jobs={jobs!r}; expected a whole number of at least 1")
    with gradient_budget(budget):  # raises here for a number that is none, and not once a cell
        pass
    folder = None if store is None else Path(store)
    work = Work(chosen, images.detach().cpu(), masks, budget, seed, folder)
    where = [(name, mask, image) for image in range(len(images)) for mask in masks for name in chosen]
    done, errors = _done(work, where, jobs, progress)
    if errors:
        first = next(iter(errors))
        names = ", ".join(dict.fromkeys(name for name, _, _ in errors))
        warnings.warn(
            f"{len(errors)} of {len(where)} cells failed ({names}); the first: {errors[first]}", stacklevel=2
        )
    if not done:
        raise ValueError(f"every approach failed; the first said: {next(iter(errors.values()))}")
    return _assembled(done, errors, work)


def _done(
    work: Work, where: list[Where], jobs: int, progress: bool
) -> tuple[dict[Where, xr.Dataset], dict[Where, str]]:
    """Compute all cells under a progress bar; return those that are done, and what the others said."""
    done: dict[Where, xr.Dataset] = {}
    errors: dict[Where, str] = {}
    bar = progress_bar(total=len(where), desc="comparing", unit="cell", disable=not progress)
    with bar:
        for at, found in computed(work, where, jobs):
            if isinstance(found, str):
                errors[at] = found
            else:
                done[at] = found
            bar.set_postfix(approach=at[0], failed=len(errors), refresh=False)
            bar.update()
    return done, errors


def _assembled(done: dict[Where, xr.Dataset], errors: dict[Where, str], work: Work) -> xr.Dataset:
    """Lay cells out over approach, mask and image; what failed is NaN."""
    names, masks, count = list(work.approaches), list(work.masks), len(work.images)
    done = {at: _as_picture(cell) for at, cell in done.items()}
    blank = _blank(next(iter(done.values())))
    rows = []
    for name in names:
        cells = [[done.get((name, mask, image), blank) for image in range(count)] for mask in masks]
        rows.append(xr.concat([xr.concat(row, "image", join="outer") for row in cells], "mask", join="outer"))
    whole = xr.concat(rows, "approach", join="outer", combine_attrs="drop")
    whole = whole.assign_coords(approach=names, mask=masks, image=np.arange(count))
    shape = tuple(work.images.shape[1:])
    said = [
        [[errors.get((name, mask, image), "") for image in range(count)] for mask in masks] for name in names
    ]
    kinds = {name: _attribute(done, name, "draws_are") for name in names}
    densities = {name: _attribute(done, name, "density") for name in names}
    return whole.assign(
        truth=(("image", "channel", "row", "column"), work.images.numpy().copy()),
        seen=(
            ("mask", "channel", "row", "column"),
            np.stack([mask.expand(shape).numpy() for mask in work.masks.values()]),
        ),
        error=(("approach", "mask", "image"), np.array(said, dtype=str)),
        draws_are=("approach", np.array(list(kinds.values()), dtype=str)),
        density=("approach", np.array(list(densities.values()), dtype=str)),
    )


def _as_picture(cell: xr.Dataset) -> xr.Dataset:
    return cell.assign(draws=(cell["draws"] / np.float32(255)).astype(np.float32))


def _blank(like: xr.Dataset) -> xr.Dataset:
    values: Callable = lambda array: np.full(array.shape, np.nan, dtype=array.dtype)  # noqa: E731
    return like.map(lambda array: array.copy(data=values(array))).drop_attrs()


def _attribute(done: dict[Where, xr.Dataset], name: str, attribute: str) -> str:
    return next((cell.attrs[attribute] for (n, _, _), cell in done.items() if n == name), "")


def _chosen(approaches: Mapping[str, Approach | Filling] | Sequence[str]) -> dict[str, Approach | Filling]:
    """Return approaches and fillings by name, those of the catalogue for names."""
    if not approaches or isinstance(approaches, str):
        raise ValueError(f"approaches={approaches!r}; expected name -> Approach, or a list of names")
    twice = [name for name in approaches if list(approaches).count(name) > 1]
    if twice:
        raise ValueError(f"approach {twice[0]!r} is named more than once")
    if not isinstance(approaches, Mapping):
        return {name: named(name) for name in approaches}
    for name, one in approaches.items():
        if not isinstance(one, Approach | Filling):
            raise ValueError(
                f"approach {name!r} is {one!r:.60}; expected Approach(model, method) or a Filling"
            )
    return dict(approaches)
