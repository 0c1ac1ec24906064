"""Results that fit on a disk: pixels of draws in 16 bits or 8, and nothing kept of what was seen.

Completions and images of draws are most of a result. Where a pixel was seen they say nothing that is not known, and are
set to what was seen there; elsewhere they are rounded to whole steps between their least and largest value, as netCDF's
``scale_factor`` and ``add_offset`` have it, so that every reader of netCDF gives numbers back.
Log likelihoods lose the digits that they vary much more by, which leaves zeros to compress. Latents stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from posterior_inpainting.inference.results.arrays import IMAGE_DIMS

__all__ = ["check_bits", "packed"]

#: Types of rounded values, and the largest of each, which stands for a value that is missing.
_TYPES = {8: ("uint8", 2**8 - 1), 16: ("uint16", 2**16 - 1)}
#: To what log likelihoods are rounded, in nats, and how many such steps one has to vary by: ArviZ asks for tails.
_NATS, _SPREAD = {8: 2.0**-6, 16: 2.0**-12}, 100


def check_bits(bits: int | None) -> None:
    """Raise ``ValueError`` for other numbers of bits than there are.

    >>> check_bits(12)
    Traceback (most recent call last):
    ValueError: bits=12; expected 8, 16, or None for values as they are
    """
    if bits is not None and bits not in _TYPES:
        raise ValueError(f"bits={bits}; expected 8, 16, or None for values as they are")


def packed(
    name: str, data: xr.Dataset, seen: xr.Dataset | None, bits: int
) -> tuple[xr.Dataset, dict[str, dict[str, Any]]]:
    """Return a group as it is written, and how each of its variables is encoded.

    Parameters
    ----------
    name, data
        Of the group.
    seen
        ``image`` and ``mask`` of one image; ``None`` where the posterior is of none.
    bits
        8 or 16. Variables that are rounded say by how much at most: ``packing_error``.

    Examples
    --------
    >>> image = (("chain", "draw", *IMAGE_DIMS), np.linspace(0, 1, 8, dtype=np.float32).reshape(1, 2, 1, 2, 2))
    >>> seen = xr.Dataset({"image": (IMAGE_DIMS, np.full((1, 2, 2), 0.5)), "mask": (IMAGE_DIMS, np.eye(2)[None] > 0)})
    >>> found, encoding = packed("posterior_predictive", xr.Dataset({"image": image}), seen, 16)
    >>> found["image"][0, :, 0, 0, 0].to_numpy().tolist(), encoding["image"]["dtype"]
    ([0.5, 0.5], 'uint16')
    """
    found, encoding = data.copy(), dict[str, dict[str, Any]]()
    for variable, values in data.items():
        if values.dtype.kind == "f" and name == "log_likelihood":
            found[variable] = _coarser(values, _NATS[bits])
        if values.dtype.kind != "f" or not (name == "posterior_predictive" or variable == "completion"):
            continue
        if seen is not None and values.dims[-3:] == IMAGE_DIMS:
            known = np.where(seen["mask"], seen["image"], 0).astype(values.dtype)
            values = values.where(~seen["mask"].to_numpy(), known)
        least, most = float(values.min()), float(values.max())
        if not np.isfinite([least, most]).all():
            continue  # a draw that went wrong: its values are kept as they are
        step = max(most - least, 1e-6) / (_TYPES[bits][1] - 1)
        found[variable] = values.assign_attrs(values.attrs | {"packing_error": step / 2})
        encoding[str(variable)] = {
            "dtype": _TYPES[bits][0],
            "scale_factor": np.float32(step),
            "add_offset": np.float32(least),
            "_FillValue": _TYPES[bits][1],
        }
    return found, encoding


def _coarser(values: xr.DataArray, step: float) -> xr.DataArray:
    """Return log likelihoods ``(chain, draw, value)`` in whole steps, where they vary over draws by many of them."""
    varies = values.max(("chain", "draw")) - values.min(("chain", "draw")) > _SPREAD * step
    rounded = (step * (values / step).round()).astype(values.dtype)
    return values.where(~varies, rounded).assign_attrs(values.attrs | {"packing_error": step / 2})
