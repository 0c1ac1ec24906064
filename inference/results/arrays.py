"""Tensors as data sets of xarray, every dimension with its coordinates."""

from __future__ import annotations

import numpy as np
import xarray as xr
from torch import Tensor

__all__ = ["IMAGE_DIMS", "array", "dataset", "numbered"]

IMAGE_DIMS = ("channel", "row", "column")


def dataset(variables: dict, coords: dict | None = None) -> xr.Dataset:
    """Return a data set with coordinates from the first; giving them afterwards takes three times as long.

    Parameters
    ----------
    variables
        Name -> (dimensions, array).
    coords
        Of dimensions that are not numbered 0, 1, ...

    >>> dict(dataset({"a": (("x",), np.zeros(3))}).sizes)
    {'x': 3}
    """
    sizes = {
        dim: size for dims, values in variables.values() for dim, size in zip(dims, values.shape, strict=True)
    }
    return xr.Dataset(variables, {dim: np.arange(size) for dim, size in sizes.items()} | (coords or {}))


def numbered(data: xr.Dataset) -> xr.Dataset:
    """Give every dimension without coordinates 0, 1, ...

    >>> numbered(xr.Dataset({"a": (("x",), np.zeros(2))})).coords["x"].to_numpy().tolist()
    [0, 1]
    """
    missing = {dim: np.arange(size) for dim, size in data.sizes.items() if dim not in data.coords}
    return data.assign_coords(missing)


def array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values.

    >>> import torch
    >>> array(torch.ones(2))
    array([1., 1.], dtype=float32)
    """
    return tensor.detach().cpu().numpy()
