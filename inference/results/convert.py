"""Draws to ArviZ: the only file that knows which ArviZ is installed.

ArviZ 0.23 carries results in ``arviz.InferenceData``, ArviZ 1 in ``xarray.DataTree``. Both hold one
``xarray.Dataset`` a group, so the groups are built here and wrapped in whichever there is. Draws are
never squeezed through ``az.from_pyro``, which forgets masks and files deterministic sites as data.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Problem
from posterior_inpainting.inference.density.tracing import batched_trace, plate_nesting
from posterior_inpainting.models.observations import Observation

__all__ = [
    "arviz_statistic",
    "group",
    "image_groups",
    "latent_groups",
    "load",
    "save",
    "settings",
    "to_arviz",
]

IMAGE_DIMS = ("channel", "row", "column")
_CHUNK = 512
#: What is kept of a draw, instead of too many latents, to give the law of its pixels again.
_LAW = ("completion", "scale")


def to_arviz(groups: dict[str, xr.Dataset], attrs: dict[str, Any]):
    """Wrap groups in the container of the ArviZ that is installed.

    Parameters
    ----------
    groups
        Group name -> data set.
    attrs
        Attributes of the whole: numbers and strings only, so that they survive netCDF.
    """
    attrs = {name: int(value) if isinstance(value, bool) else value for name, value in attrs.items()}
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
    """Write either container as netCDF."""
    if isinstance(idata, xr.DataTree):
        idata.to_netcdf(path, engine="h5netcdf")
    else:
        idata.to_netcdf(str(path), engine="h5netcdf", compress=True)


def load(path):
    """Read a posterior that :func:`save` wrote, into the container of the installed ArviZ."""
    container = _inference_data()
    if container is None:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            return tree.load()
    return container.from_netcdf(str(path), engine="h5netcdf")


def settings(method) -> str:
    """Return a method's settings as JSON."""
    values = asdict(method) if is_dataclass(method) and not isinstance(method, type) else vars(method)
    return json.dumps(values, default=lambda value: getattr(value, "__name__", None) or repr(value))


def latent_groups(drawn: Draws, small: int | None = 10_000) -> dict[str, xr.Dataset]:
    """Return the groups ``posterior`` (latents of at most ``small`` elements) and ``sample_stats``."""
    posterior = {}
    for site, value in drawn.latents.items():
        if small is None or value[0, 0].numel() <= small:
            names = (
                ("latent",)
                if site == "z" and value.dim() == 3
                else tuple(f"{site}_dim_{i}" for i in range(value.dim() - 2))
            )
            posterior[site] = (("chain", "draw", *names), _array(value))
    stats = {name: (("chain", "draw"), _array(value)) for name, value in drawn.stats.items()}
    return {"posterior": _dataset(posterior), "sample_stats": _dataset(stats)}


def image_groups(drawn: Draws, problem: Problem, observation: Observation, streams) -> dict[str, xr.Dataset]:
    """Run the model forward for every draw; return every group of an image's posterior.

    Returns
    -------
    dict
        ``posterior`` (latents, ``completion``), ``posterior_predictive`` (``image``: seen pixels as
        seen, hidden ones drawn with the noise), ``log_likelihood`` (seen pixels), ``sample_stats``,
        ``observed_data`` and ``constant_data``.
    """
    if "completion" not in drawn.latents:
        drawn = replace(drawn, latents=problem.abilities.kept(drawn.latents))
    torch.manual_seed(streams.number("pixel noise"))
    chains, draws = next(iter(drawn.latents.values())).shape[:2]
    count, nesting = chains * draws, plate_nesting(problem)
    flat = {name: value.flatten(0, 1) for name, value in drawn.latents.items()}
    pieces = [
        _forward(
            {name: value[start : start + _CHUNK] for name, value in flat.items()},
            problem,
            observation,
            nesting,
        )
        for start in range(0, count, _CHUNK)
    ]
    completion, image, log_likelihood = (
        torch.cat(part).unflatten(0, (chains, draws)) for part in zip(*pieces, strict=True)
    )
    dims = ("chain", "draw", *IMAGE_DIMS)
    latents = {name: value for name, value in drawn.latents.items() if name not in _LAW}
    small = None if "completion" in drawn.latents else 10_000
    groups = latent_groups(replace(drawn, latents=latents), small=small)
    groups["posterior"] = _numbered(groups["posterior"].assign(completion=(dims, _array(completion))))
    groups["posterior_predictive"] = _dataset({"image": (dims, _array(image))})
    pixels = observation.mask.flatten().nonzero().flatten()
    groups["log_likelihood"] = _dataset(
        {"image": (("chain", "draw", "pixel"), _array(log_likelihood))}, {"pixel": _array(pixels)}
    )
    seen = torch.where(observation.mask, observation.image, torch.nan)
    groups["observed_data"] = _dataset({"image": (IMAGE_DIMS, _array(seen))})
    groups["constant_data"] = _dataset({"mask": (IMAGE_DIMS, _array(observation.mask))})
    return groups


def arviz_statistic(name: str):
    """Return ArviZ's function of that name, of either generation, silent where a value never varies."""
    try:
        generation = importlib.import_module("arviz")
    except ImportError:
        generation = importlib.import_module("arviz_stats")

    def quiet(dataset: xr.Dataset, **options):
        if name == "rhat" and dataset.sizes["chain"] == 1:
            dataset = _halves(dataset)
        with np.errstate(invalid="ignore", divide="ignore"):
            return getattr(generation, name)(dataset, **options)

    return quiet


def _halves(dataset: xr.Dataset) -> xr.Dataset:
    """Make two chains of a single one, which has nothing else to be compared with."""
    length = dataset.sizes["draw"] // 2
    parts = [
        dataset.isel(draw=slice(k * length, (k + 1) * length)).drop_vars(["chain", "draw"], errors="ignore")
        for k in (0, 1)
    ]
    return xr.concat(parts, "chain")


def pareto_khat(log_weights: np.ndarray) -> float:
    """Return the Pareto k-hat of log importance weights ``(n,)``, by ArviZ of either generation."""
    try:
        import arviz

        if hasattr(arviz, "psislw"):
            return arviz.psislw(log_weights)[1]
    except ImportError:
        pass
    from arviz_stats.base import array_stats

    # Weights, not their logarithms: this generation's `psislw` takes log likelihoods, of the opposite sign.
    weights = np.exp(log_weights - log_weights.max())
    return array_stats.pareto_khat(weights, chain_axis=None, r_eff=1.0, tail="right")


def _forward(latents: dict[str, Tensor], problem: Problem, observation: Observation, nesting: int):
    """Completion, predictive image and log likelihood of seen pixels for one chunk of draws."""
    count = len(next(iter(latents.values())))
    with torch.no_grad():
        if "completion" in latents:  # a model that keeps completions instead of its many latents
            model: Any = problem.model
            completion = latents["completion"]
            law = model.law_of_kept({name: latents[name] for name in _LAW if name in latents})
        else:
            trace = batched_trace(problem.model, problem, count, nesting, latents)
            completion = trace.nodes["completion"]["value"]
            law = trace.nodes["image"]["fn"].base_dist  # single pixels, below `to_event(3)`
        shape = (count, *observation.shape)
        drawn = law.expand(shape).sample()
        log_likelihood = law.log_prob(observation.image).expand(shape)
    image = torch.where(observation.mask, observation.image, drawn)
    return completion.expand(shape), image, log_likelihood[:, observation.mask]


def _dataset(variables: dict, coords: dict | None = None) -> xr.Dataset:
    return _numbered(xr.Dataset(variables, coords=coords))


def _numbered(dataset: xr.Dataset) -> xr.Dataset:
    """Give every dimension without coordinates 0, 1, ..."""
    numbered = {dim: np.arange(size) for dim, size in dataset.sizes.items() if dim not in dataset.coords}
    return dataset.assign_coords(numbered)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _inference_data():
    """Return the ``InferenceData`` class of ArviZ 0.x, or ``None`` where ArviZ 1 is installed."""
    try:
        return getattr(importlib.import_module("arviz"), "InferenceData", None)
    except ImportError:
        return None
