"""Draws to ArviZ: with ``arviz_functions`` the only file that knows which ArviZ is installed.

ArviZ 0.23 carries results in ``arviz.InferenceData``, ArviZ 1 in ``xarray.DataTree``. Both hold one
``xarray.Dataset`` a group, so the groups are built here and wrapped in whichever there is. Draws are
never squeezed through ``az.from_pyro``, which forgets masks and files deterministic sites as data.
"""

from __future__ import annotations

import errno
import importlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Problem
from posterior_inpainting.inference.density.tracing import batched_trace, plate_nesting
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.observations import Observation

__all__ = [
    "EXPECTED",
    "IMAGE_DIMS",
    "check_room",
    "group",
    "image_groups",
    "latent_groups",
    "load",
    "numbered",
    "pixels_of_draws",
    "save",
    "to_arviz",
]

IMAGE_DIMS = ("channel", "row", "column")
#: Draws, and pixels of draws, that go through a model at a time: what a decoder makes of them on the way is larger.
_CHUNK, _PIXELS = 512, 2**20
#: What is kept of a draw, instead of too many latents, to give the law of its pixels again.
_LAW = ("completion", "scale")
#: The statistic that is an image a draw, see ``Draws``.
EXPECTED = "expected_completion"


def to_arviz(groups: dict[str, xr.Dataset], attrs: dict[str, Any]):
    """Wrap groups in the container of the ArviZ that is installed.

    Parameters
    ----------
    groups
        Group name -> data set.
    attrs
        Attributes of the whole: numbers and strings, which survive netCDF; a truth value becomes 0 or 1.

    Raises
    ------
    ValueError
        For another attribute, naming it.
    """
    attrs = {name: _attribute(name, value) for name, value in attrs.items()}
    container = _inference_data()
    if container is not None:
        return container(**groups, attrs=attrs)
    tree = xr.DataTree.from_dict({f"/{name}": dataset for name, dataset in groups.items()})
    tree.attrs.update(attrs)
    return tree


def group(idata, name: str) -> xr.Dataset:
    """Return one group of either container as a data set.

    Raises ``ValueError`` where it is missing, naming the groups that are there.
    """
    names = list(idata.groups()) if callable(idata.groups) else [path.strip("/") for path in idata.groups]
    if name not in names:
        raise ValueError(f"no group {name!r}; there are {', '.join(n for n in names if n)}")
    found = idata[name]
    return found.to_dataset() if isinstance(found, xr.DataTree) else found


def save(idata, path) -> None:
    """Write either container as netCDF; an ``OSError`` where there is no room for it."""
    names = idata.groups() if callable(idata.groups) else [one for one in idata.groups if one != "/"]
    check_room(path, *(group(idata, name.strip("/")) for name in names))
    if isinstance(idata, xr.DataTree):
        idata.to_netcdf(path, engine="h5netcdf")
    else:
        idata.to_netcdf(str(path), engine="h5netcdf", compress=True)


def check_room(path, *datasets: xr.Dataset) -> None:
    """Raise ``OSError`` where a disk has no room for values: HDF5 ends the whole process when it is full."""
    needed = sum(dataset.nbytes for dataset in datasets) + 2**16
    if shutil.disk_usage(Path(path).absolute().parent).free < needed:
        raise OSError(errno.ENOSPC, f"No space left on device for {needed / 1e6:.1f} MB", str(path))


def load(path):
    """Read a posterior that :func:`save` wrote, into the container of the installed ArviZ.

    Raises ``FileNotFoundError`` where there is no such file, and ``ValueError`` for one that is damaged or another's.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    container = _inference_data()
    try:
        with h5py.File(
            path
        ) as file:  # an h5netcdf.File that fails to open complains a second time when it is collected
            file.visititems(lambda name, part: None)
        if container is not None:
            return container.from_netcdf(str(path), engine="h5netcdf")
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            return tree.load()
    except Exception as error:  # HDF5's libraries raise many kinds for a damaged file
        words = str(error).strip().splitlines()
        reason = words[0][:100] if words else type(error).__name__
        raise ValueError(f"{path} cannot be read as a posterior: {reason}") from None


def latent_groups(drawn: Draws, small: int | None = 10_000) -> dict[str, xr.Dataset]:
    """Return the groups ``posterior`` (latents of at most ``small`` elements) and ``sample_stats``.

    Raises ``ValueError`` for draws without latents or statistics, or not of the same chains and draws.
    """
    _check(drawn)
    posterior = {}
    for site, value in drawn.latents.items():
        if small is None or value[0, 0].numel() <= small:
            names = (
                ("latent",)
                if site == "z" and value.dim() == 3
                else tuple(f"{site}_dim_{i}" for i in range(value.dim() - 2))
            )
            posterior[site] = (("chain", "draw", *names), _array(value))
    return {"posterior": _dataset(posterior), "sample_stats": _statistics(drawn)}


def image_groups(
    drawn: Draws, problem: Problem, observation: Observation, streams: Streams
) -> dict[str, xr.Dataset]:
    """Run the model forward for every draw; return every group of an image's posterior.

    Parameters
    ----------
    drawn
        Latents of ``problem.model``, or what it keeps of them.
    problem, observation
        The model with its arguments, and the image and mask among them.
    streams
        Of the run; the noise of pixels has one of its own.

    Returns
    -------
    dict
        ``posterior`` (latents, ``completion``), ``posterior_predictive`` (``image``: replicates of the whole image
        with its noise, which ``plot_ppc`` lays beside what was observed; ``completed_images`` puts the seen pixels in),
        ``log_likelihood`` (seen pixels), ``sample_stats``, ``observed_data`` and ``constant_data``.

    Raises
    ------
    ValueError
        For draws without latents or statistics, or not of the same chains and draws.
    """
    _check(drawn)
    if "completion" not in drawn.latents:
        drawn = replace(drawn, latents=problem.abilities.kept(drawn.latents))
    with streams.seeded("pixel noise"):
        completion, image, log_likelihood = _of_all_draws(drawn.latents, problem, observation)
    is_kept = "completion" in drawn.latents
    dims = ("chain", "draw", *IMAGE_DIMS)
    latents = {name: value for name, value in drawn.latents.items() if not is_kept or name not in _LAW}
    sites = {} if not latents else latent_groups(replace(drawn, latents=latents), None if is_kept else 10_000)
    groups = sites or {"posterior": xr.Dataset(), "sample_stats": _statistics(drawn)}
    groups["posterior"] = numbered(groups["posterior"].assign(completion=(dims, completion)))
    groups["posterior_predictive"] = _dataset({"image": (dims, image)})
    pixels = observation.mask.flatten().nonzero().flatten()
    groups["log_likelihood"] = _dataset(
        {"image": (("chain", "draw", "pixel"), log_likelihood)}, {"pixel": _array(pixels)}
    )
    seen = torch.where(observation.mask, observation.image, torch.nan)
    groups["observed_data"] = _dataset({"image": (IMAGE_DIMS, _array(seen))})
    groups["constant_data"] = _dataset({"mask": (IMAGE_DIMS, _array(observation.mask))})
    return groups


def pixels_of_draws(
    latents: dict[str, Tensor], problem: Problem, observation: Observation, nesting: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return completions, predictive images and log likelihoods of seen pixels for draws of the latents.

    The noise of hidden pixels is drawn with torch's global generator.

    Parameters
    ----------
    latents
        Site -> ``(draw, *event)``, or what ``model.kept`` made of them.
    problem, observation
        As for :func:`image_groups`.
    nesting
        Plates that the model stacks, as ``density.tracing.plate_nesting`` counts them.

    Returns
    -------
    completion, image
        ``(draw, channel, row, column)``; the image is drawn around the completion, where it is seen, too.
    log_likelihood
        ``(draw, seen pixel)``.
    """
    count = len(next(iter(latents.values())))
    with torch.no_grad():
        if "completion" in latents:  # a model that keeps completions instead of its many latents
            completion, law = latents["completion"], problem.abilities.law_of_kept(latents)
        else:
            trace = batched_trace(problem.model, problem, count, nesting, latents)
            completion = trace.nodes["completion"]["value"]
            law = trace.nodes["image"]["fn"].base_dist  # single pixels, below `to_event(3)`
        shape = (count, *observation.shape)
        drawn = law.expand(shape).sample()
        log_likelihood = law.log_prob(observation.image).expand(shape)
    return completion.expand(shape), drawn, log_likelihood[:, observation.mask]


def _of_all_draws(
    latents: dict[str, Tensor], problem: Problem, observation: Observation
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill arrays ``(chain, draw, ...)``, made once, with the pixels of some draws at a time."""
    chains, draws = next(iter(latents.values())).shape[:2]
    nesting, count = plate_nesting(problem), chains * draws
    flat = {name: value.flatten(0, 1) for name, value in latents.items()}
    chunk = max(1, min(_CHUNK, _PIXELS // observation.image.numel()))
    arrays: list[np.ndarray] = []
    for start in range(0, count, chunk):
        some = {name: value[start : start + chunk] for name, value in flat.items()}
        pieces = [_array(piece) for piece in pixels_of_draws(some, problem, observation, nesting)]
        arrays = arrays or [np.empty((count, *piece.shape[1:]), piece.dtype) for piece in pieces]
        for array, piece in zip(arrays, pieces, strict=True):
            array[start : start + chunk] = piece
    completion, image, log_likelihood = (array.reshape(chains, draws, *array.shape[1:]) for array in arrays)
    return completion, image, log_likelihood


def _check(drawn: Draws) -> None:
    """Refuse draws that say nothing, or whose parts are not of the same chains and draws."""
    for name, part in (("latents", drawn.latents), ("stats", drawn.stats)):
        if not part:
            raise ValueError(f"the draws have no {name}; expected at least one name -> (chain, draw, ...)")
    shapes = {name: tuple(v.shape[:2]) for part in (drawn.latents, drawn.stats) for name, v in part.items()}
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if shape != first or len(shape) < 2 or 0 in shape:
            raise ValueError(f"{name} has chains and draws {shape}; expected {first}, at least one of each")


def _attribute(name: str, value: Any) -> int | float | str:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"attribute {name!r} is {value!r:.60}; expected a number, a string, True or False")
    return int(value) if isinstance(value, bool) else value


def _statistics(drawn: Draws) -> xr.Dataset:
    """Return the statistics; those of more than a number a draw are images."""
    dims = ("chain", "draw", *IMAGE_DIMS)
    return _dataset({name: (dims[: value.dim()], _array(value)) for name, value in drawn.stats.items()})


def _dataset(variables: dict, coords: dict | None = None) -> xr.Dataset:
    return numbered(xr.Dataset(variables, coords=coords))


def numbered(dataset: xr.Dataset) -> xr.Dataset:
    """Give every dimension without coordinates 0, 1, ..."""
    numbered = {dim: np.arange(size) for dim, size in dataset.sizes.items() if dim not in dataset.coords}
    return dataset.assign_coords(numbered)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _inference_data():
    """Return the ``InferenceData`` class of ArviZ 0.x, or ``None`` where ArviZ 1 is installed.

    ArviZ 1 keeps the name for what is a ``DataTree``.
    """
    try:
        found = getattr(importlib.import_module("arviz"), "InferenceData", None)
    except ImportError:
        return None
    return None if isinstance(found, type) and issubclass(found, xr.DataTree) else found
