"""The container of draws: with ``arviz_functions`` the only file that knows which ArviZ is installed.

ArviZ 0.23 carries results in ``arviz.InferenceData``, ArviZ 1 in ``xarray.DataTree``. Both hold one ``xarray.Dataset``
a group, so that the groups are built first, in ``convert``, and wrapped in whichever there is.
"""

from __future__ import annotations

import errno
import importlib
import shutil
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import xarray as xr

from posterior_inpainting.inference.results.packing import check_bits, packed

__all__ = ["check_room", "group", "group_names", "load", "save", "to_arviz"]

#: What writes netCDF, and how hard it compresses: more takes longer and saves next to nothing of noise.
_ENGINE: Literal["h5netcdf"] = "h5netcdf"
_LEVEL = 4


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
    names = group_names(idata)
    if name not in names:
        raise ValueError(f"no group {name!r}; there are {', '.join(names)}")
    found = idata[name]
    return found.to_dataset() if isinstance(found, xr.DataTree) else found


def group_names(idata) -> list[str]:
    """Return the names of the groups of either container."""
    found = idata.groups() if callable(idata.groups) else idata.groups
    return [name.strip("/") for name in found if name != "/"]


def save(idata, path, bits: int | None = 16) -> None:
    """Write either container as netCDF, which ``arviz.from_netcdf`` and :func:`load` read.

    Parameters
    ----------
    idata
        What ``infer`` returned.
    path
        Of the file.
    bits
        To which pixels of draws are rounded, 16 or 8, and log likelihoods about as coarsely; what is known of seen
        pixels takes their place then. ``None`` keeps all values as they are, in a file several times as large. Latents
        and statistics are never rounded.

    Raises
    ------
    ValueError
        For another number of bits.
    OSError
        Where there is no room for it.
    """
    check_bits(bits)
    groups = {name: group(idata, name) for name in group_names(idata)}
    check_room(path, *groups.values())
    seen = None
    if "constant_data" in groups and "mask" in groups["constant_data"]:
        seen = xr.Dataset(
            {"image": groups["observed_data"]["image"], "mask": groups["constant_data"]["mask"]}
        )
    # Beside the file first: an old one may be open, and half of a new one is none.
    beside = Path(path).with_name(f"{Path(path).name}.new")
    xr.Dataset(attrs=dict(idata.attrs)).to_netcdf(beside, mode="w", engine=_ENGINE)
    for name, whole in groups.items():
        data, encoding = (whole, {}) if bits is None else packed(name, whole, seen, bits)
        for variable, values in data.variables.items():
            if values.dtype.kind in "biuf" and values.ndim:
                encoding.setdefault(str(variable), {}).update(zlib=True, complevel=_LEVEL, shuffle=True)
        data.to_netcdf(beside, mode="a", group=name, engine=_ENGINE, encoding=encoding)
    beside.replace(path)


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


def _attribute(name: str, value: Any) -> int | float | str:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"attribute {name!r} is {value!r:.60}; expected a number, a string, True or False")
    return int(value) if isinstance(value, bool) else value


def _inference_data():
    """Return the ``InferenceData`` class of ArviZ 0.x, or ``None`` where ArviZ 1 is installed.

    The version is asked, as ArviZ 1 keeps the name, with a warning, for what is a ``DataTree``.
    """
    try:
        arviz = importlib.import_module("arviz")
    except ImportError:
        return None
    return arviz.InferenceData if arviz.__version__.startswith("0.") else None
