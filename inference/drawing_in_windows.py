"""Posteriors of large images with small holes, drawn window by window and put together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.execution import timed_from, with_efficiency
from posterior_inpainting.inference.results.arrays import IMAGE_DIMS, numbered
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.convert import EXPECTED
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.verbs import infer, infer_many
from posterior_inpainting.inference.windows import Window, windows
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation

__all__ = ["infer_in_windows", "side_of_pieces"]

#: Pixels a side of the squares into which long holes are cut, where the method draws for many images at once.
_SIDE = 128
_SUMMED = ("lp", "log_likelihood_of_seen", "log_weight", "energy")
_DIMS = ("chain", "draw", *IMAGE_DIMS)
#: Group and name of what is an image a draw; the last is of some methods only.
_COMPLETION, _REPLICATE = ("posterior", "completion"), ("posterior_predictive", "image")
_IMAGES = (_COMPLETION, _REPLICATE, ("sample_stats", EXPECTED))


def side_of_pieces(method: Method) -> int | None:
    """Return ``windows``'s ``side`` for a method: each piece of a hole is given other draws of the pieces before it."""
    return _SIDE if method.runs_together else None


def infer_in_windows(
    model: Callable[[Observation], ImageModel],
    observation: Observation,
    method: Method,
    *,
    margin: int,
    least: int = 1,
    side: int | None = None,
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
    margin, least, side
        As for ``windows``. Pieces of a cut hole are drawn one after another, for every draw given its own pieces so
        far: by a method that draws from many posteriors together.
    method, draws, chains, seed, progress
        As for ``infer``; every window has random numbers of its own.

    Returns
    -------
    InferenceData
        As ``infer`` does, of the whole image: ``completion``, predictive ``image``, statistics (log densities summed,
        others averaged over the windows). Away from the holes a completion is what was seen, and there is no
        ``log_likelihood``. ``attrs["windows"]`` is their number.

    Raises
    ------
    ValueError
        For a ``side`` with a method that draws from one posterior at a time.

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
    if side is not None and not method.runs_together:
        raise ValueError(
            f"side={side}: {method.label} draws from one posterior at a time, and cannot draw pieces"
        )
    start = time.perf_counter()
    places, streams = windows(observation.mask, margin, least, side), Streams(seed)
    whole = len(places) == 1 and places[0].own.shape == observation.shape[1:]
    if whole:
        made = model(observation)
        return infer(made, observation, method, draws=draws, chains=chains, seed=seed, progress=progress)
    image = _Image(observation, draws, chains)
    parts: list[_Part] = []
    for number, window in enumerate(progress_bar(places, desc="windows", disable=not progress)):
        seen = image.given_earlier(window)
        made = model(seen[0])
        found = _drawn(made, seen, method, draws, chains, streams.number("window", number))
        image.take(window, found)
        parts.append(found)
    groups = {
        "posterior": xr.Dataset(),
        "posterior_predictive": xr.Dataset(),
        "sample_stats": _together([part.statistics for part in parts]),
        "observed_data": xr.Dataset({"image": (IMAGE_DIMS, np.where(observation.mask, image.seen, np.nan))}),
        "constant_data": xr.Dataset({"mask": (IMAGE_DIMS, observation.mask.numpy())}),
    }
    for (name, variable), array in image.arrays.items():
        groups[name] = groups[name].assign({variable: (_DIMS, array)})
    groups = {name: numbered(dataset) for name, dataset in groups.items()}
    attributes = _of_all([part.attrs for part in parts]) | {"seed": seed, "windows": len(places)}
    return timed_from(start, with_efficiency(groups, attributes))


@dataclass(frozen=True)
class _Part:
    """What was drawn in a window: images and statistics ``(chain, draw, ...)``."""

    images: dict[tuple[str, str], np.ndarray]
    statistics: xr.Dataset
    attrs: dict[str, Any]


class _Image:
    """Draws of the whole image as they come about: first as it was seen everywhere."""

    def __init__(self, observation: Observation, draws: int, chains: int):
        self.observation, self.shape = observation, (chains, draws)
        self.seen = torch.where(observation.mask, observation.image, 0.0).numpy()
        self.arrays: dict[tuple[str, str], np.ndarray] = {}
        self._earlier: list[Window] = []

    def given_earlier(self, window: Window) -> list[Observation]:
        """Return what is seen in a window: the same for all draws, or, beside earlier pieces, of each draw its own."""
        part = window.of(self.observation)
        places = np.zeros(self.seen.shape[1:], bool)
        for other in self._earlier:
            if other.hole == window.hole:
                places[other.rows, other.columns] |= other.own
        known = torch.from_numpy(places[window.rows, window.columns])
        if not (known & ~part.mask).any():
            return [part]
        # With the noise that the model takes them to have, so that what follows has the right law.
        drawn = torch.from_numpy(self.arrays[_REPLICATE][..., window.rows, window.columns]).flatten(0, 1)
        return [
            Observation(torch.where(part.mask, part.image, each), part.mask | known, any_values=True)
            for each in drawn
        ]

    def take(self, window: Window, part: _Part) -> None:
        """Put what a window answers for in its place."""
        for name, ours in part.images.items():
            if name not in self.arrays:
                self.arrays[name] = np.broadcast_to(self.seen, (*self.shape, *self.seen.shape)).copy()
            there = self.arrays[name][..., window.rows, window.columns]
            there[...] = np.where(window.own, ours, there)
        self._earlier.append(window)


def _drawn(
    model: ImageModel, seen: list[Observation], method: Method, draws: int, chains: int, seed: int
) -> _Part:
    """Draw from the posterior that all draws share, or once from that of each."""
    if len(seen) == 1:
        found = [infer(model, seen[0], method, draws=draws, chains=chains, seed=seed, progress=False)]
    else:
        found = infer_many(model, seen, method, draws=1, chains=1, seed=seed, progress=False)

    def joined(name: str, variable: str) -> np.ndarray:
        """Put the draws of one variable together."""
        values = np.concatenate([group(one, name)[variable].to_numpy().copy() for one in found], 1)
        return values.reshape(chains, draws, *values.shape[2:])

    images = {key: joined(*key) for key in _IMAGES if key[1] in group(found[0], key[0])}
    numbers = [name for name, values in group(found[0], "sample_stats").items() if values.ndim == 2]
    statistics = xr.Dataset({name: (_DIMS[:2], joined("sample_stats", str(name))) for name in numbers})
    return _Part(images, statistics, _of_all([dict(one.attrs) for one in found]))


def _together(statistics: list[xr.Dataset]) -> xr.Dataset:
    """Return the statistics that all windows have: log densities add up, of the others there is a mean."""
    names = [name for name in statistics[0] if all(name in one for one in statistics)]
    stacked = {name: np.stack([one[name].to_numpy() for one in statistics]) for name in names}
    return xr.Dataset(
        {
            name: (_DIMS[:2], each.sum(0) if name in _SUMMED else each.mean(0))
            for name, each in stacked.items()
        }
    )


def _of_all(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the attributes of the first, costs added up; whether the prior knows an image is not said of a part."""
    added = {
        name: sum(one[name] for one in attributes)
        for name in ("gradient_evaluations", "wall_time_s")
        if name in attributes[0]
    }
    return attributes[0] | added
