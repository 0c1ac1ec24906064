"""Posteriors of large images with small holes: each hole is completed in a window of its own, with a margin around it.

What is far from a hole says next to nothing of it. For a prior that sees as far as a margin, hidden pixels are drawn
given the pixels of that margin instead of the whole image; two holes further apart than twice that are independent. A
hole that is as wide as the image is drawn as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.execution import timed_from, with_efficiency
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.convert import EXPECTED, IMAGE_DIMS, numbered
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.verbs import infer
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Mask

__all__ = ["Window", "infer_in_windows", "windows"]

_SUMMED = ("lp", "log_likelihood_of_seen", "log_weight", "energy")
_DIMS = ("chain", "draw", *IMAGE_DIMS)
#: Group and name of what is an image a draw; the last is of some methods only.
_IMAGES = (("posterior", "completion"), ("posterior_predictive", "image"), ("sample_stats", EXPECTED))


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, and which of its pixels ``(row, column)`` it answers for."""

    rows: slice
    columns: slice
    own: np.ndarray

    @property
    def pixels(self) -> int:
        """Number of pixels of the rectangle."""
        return self.own.size

    def of(self, observation: Observation) -> Observation:
        """Return what is seen of it."""
        image, mask = (part[:, self.rows, self.columns] for part in (observation.image, observation.mask))
        return replace(observation, image=image, mask=mask)


def windows(mask: Mask, margin: int, least: int = 1) -> list[Window]:
    """Return the windows of a mask's holes, the whole image where they would be no smaller.

    Parameters
    ----------
    mask
        ``(channel, row, column)``, ``True`` = seen.
    margin
        Pixels around each hole that it is given; holes whose margins touch share a window.
    least
        Pixels that a window has a side at least, if the image has them.

    Raises
    ------
    ValueError
        For a margin below 0.

    Examples
    --------
    >>> mask = torch.ones(1, 40, 40, dtype=torch.bool)
    >>> mask[0, 5, 5] = mask[0, 30, 30] = False
    >>> [(window.rows, window.columns) for window in windows(mask, margin=2)]
    [(slice(3, 8, None), slice(3, 8, None)), (slice(28, 33, None), slice(28, 33, None))]
    """
    from scipy import ndimage

    if margin < 0:
        raise ValueError(f"margin={margin}; expected at least 0")
    hidden = (~mask).any(0).numpy()
    square = np.ones((3, 3), bool)
    near = ndimage.binary_dilation(hidden, square, iterations=margin) if margin else hidden
    labels, _ = ndimage.label(near, square)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = (
            _widened(part, least, extent) for part, extent in zip((rows, columns), hidden.shape, strict=True)
        )
        found.append(Window(rows, columns, labels[rows, columns] == number))
    if sum(window.pixels for window in found) >= hidden.size:
        return [Window(slice(0, hidden.shape[0]), slice(0, hidden.shape[1]), np.ones_like(hidden))]
    return found


def _widened(part: slice, least: int, extent: int) -> slice:
    """Return a range of at least so many pixels around another, inside the image."""
    missing = max(0, min(least, extent) - (part.stop - part.start))
    start = min(max(0, part.start - missing // 2), extent - (part.stop - part.start) - missing)
    return slice(start, start + part.stop - part.start + missing)


def infer_in_windows(
    model: Callable[[Observation], ImageModel],
    observation: Observation,
    method: Method,
    *,
    margin: int,
    least: int = 1,
    draws: int,
    chains: int,
    seed: int = 0,
    progress: bool = True,
):
    """Draw from the posterior window by window, and put the draws together; the first of each window are one image.

    Parameters
    ----------
    model
        From what is seen in a window to its model.
    observation
        The whole image and its mask.
    margin, least
        As for :func:`windows`.
    method, draws, chains, seed, progress
        As for ``infer``; every window has random numbers of its own.

    Returns
    -------
    InferenceData
        As ``infer`` does, of the whole image: ``completion``, predictive ``image``, statistics (log densities summed,
        others averaged over the windows). Away from the holes a completion is what was seen, and there is no
        ``log_likelihood``. ``attrs["windows"]`` is their number.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact
    >>> from posterior_inpainting.models import GaussianProcess, observations
    >>> image = torch.rand(1, 32, 32)
    >>> seen = Observation(image, observations.box(image.shape, 4, 4, 6, 6))
    >>> posterior = infer_in_windows(
    ...     GaussianProcess.fit, seen, Exact(), margin=4, draws=5, chains=1, progress=False
    ... )
    >>> tuple(posterior.posterior["completion"].shape), posterior.attrs["windows"]
    ((1, 5, 1, 32, 32), 1)
    """
    start = time.perf_counter()
    places, streams = windows(observation.mask, margin, least), Streams(seed)
    whole = len(places) == 1 and places[0].own.shape == observation.shape[1:]
    settings: dict[str, Any] = {"draws": draws, "chains": chains}
    if whole:
        made = model(observation)
        return infer(made, observation, method, **settings, seed=seed, progress=progress)
    seen = torch.where(observation.mask, observation.image, 0.0).numpy()
    images: dict[tuple[str, str], np.ndarray] = {}
    statistics: list[xr.Dataset] = []
    attributes: list[dict[str, Any]] = []
    for number, window in enumerate(progress_bar(places, desc="windows", disable=not progress)):
        part = window.of(observation)
        posterior = infer(
            model(part), part, method, **settings, seed=streams.number("window", number), progress=False
        )
        for name, variable in _IMAGES:
            if variable in group(posterior, name):
                ours = group(posterior, name)[variable].to_numpy()
                around = np.broadcast_to(seen, (*ours.shape[:2], *seen.shape))
                there = images.setdefault((name, variable), around.copy())[..., window.rows, window.columns]
                there[...] = np.where(window.own, ours, there)
        statistics.append(group(posterior, "sample_stats"))
        attributes.append(dict(posterior.attrs))
    groups = {
        "posterior": xr.Dataset(),
        "posterior_predictive": xr.Dataset(),
        "sample_stats": _together(statistics),
        "observed_data": xr.Dataset({"image": (IMAGE_DIMS, np.where(observation.mask, seen, np.nan))}),
        "constant_data": xr.Dataset({"mask": (IMAGE_DIMS, observation.mask.numpy())}),
    }
    for (name, variable), array in images.items():
        groups[name] = groups[name].assign({variable: (_DIMS, array)})
    groups = {name: numbered(dataset) for name, dataset in groups.items()}
    drawn = with_efficiency(groups, _of_all(attributes) | {"seed": seed, "windows": len(places)})
    return timed_from(start, drawn)


def _together(statistics: list[xr.Dataset]) -> xr.Dataset:
    """Return the statistics that all windows have: log densities add up, of the others there is a mean."""
    numbers = [name for name, values in statistics[0].items() if values.ndim == 2]
    names = [name for name in numbers if all(name in one for one in statistics)]
    stacked = {name: np.stack([one[name].to_numpy() for one in statistics]) for name in names}
    return xr.Dataset(
        {
            name: (("chain", "draw"), each.sum(0) if name in _SUMMED else each.mean(0))
            for name, each in stacked.items()
        }
    )


def _of_all(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the attributes of the first window, costs added up."""
    added = {
        name: sum(one[name] for one in attributes)
        for name in ("gradient_evaluations", "wall_time_s")
        if name in attributes[0]
    }
    return attributes[0] | added
