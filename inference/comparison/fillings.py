"""Fillings: one image for what is hidden, without any doubt, that a reader asks for beside posteriors.

A filling is no model and draws nothing, so that it is no approach of the catalogue; ``compare`` takes it where it takes
an approach, and scores what there is to score: the image as a mean, and the CRPS of a law that is sure of it, which is
the mean absolute error. It has no coverage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from posterior_inpainting.inference import catalogue
from posterior_inpainting.inference.catalogue import Approach
from posterior_inpainting.inference.comparison.cells import DIMS, KEPT
from posterior_inpainting.inference.evaluation.scores import psnr, ssim
from posterior_inpainting.inference.results.fingerprint import fingerprint
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image

__all__ = ["FILLINGS", "FilledCell", "Filling", "biharmonic", "named"]

#: Of the meaning of a cell's numbers: files of another one are computed anew.
_VERSION = 1


@dataclass(frozen=True)
class Filling:
    """One image for what is hidden: a row of a comparison.

    Parameters
    ----------
    fill
        From an observation to a whole image ``(channel, row, column)`` in [0, 1].
    """

    fill: Callable[[Observation], Image]


def biharmonic(observation: Observation) -> Image:
    """Return the image whose hidden pixels solve the biharmonic equation, channel by channel.

    Damelin & Hoang 2018, *On Surface Completion and Image Inpainting by Biharmonic Functions*, as scikit-image has it:
    the smoothest surface through what is seen, within its least and greatest value.

    Parameters
    ----------
    observation
        Of whose channels each shows something.

    Raises
    ------
    ValueError
        For a channel that is wholly hidden.

    Examples
    --------
    >>> from posterior_inpainting.models import observations
    >>> ramp = torch.linspace(0, 1, 16).expand(1, 16, 16)
    >>> filled = biharmonic(Observation(ramp, observations.box(ramp.shape, 6, 6, 4, 4)))
    >>> bool((filled - ramp).abs().max() < 1e-4)
    True
    """
    from skimage.restoration import inpaint_biharmonic

    filled = observation.image.clone()
    for number, (channel, seen) in enumerate(zip(observation.image, observation.mask, strict=True)):
        if not seen.any():
            raise ValueError(
                f"nothing is seen of channel {number}; a biharmonic filling needs some pixels of each"
            )
        values = inpaint_biharmonic(channel.double().cpu().numpy(), ~seen.cpu().numpy())
        filled[number] = torch.where(seen, channel, torch.from_numpy(values).to(channel).clamp(0, 1))
    return filled


#: By name, as ``compare`` takes them beside the approaches of the catalogue.
FILLINGS: dict[str, Filling] = {"biharmonic": Filling(biharmonic)}


def named(name: str | Path, root: str | Path | None = None) -> Approach | Filling:
    """Return the filling or the approach of a name; arguments and errors as for ``catalogue.approach``.

    >>> named("biharmonic") == FILLINGS["biharmonic"], named("vae").chains
    (True, 16)
    """
    return FILLINGS.get(str(name)) or catalogue.approach(name, root)


@dataclass(frozen=True)
class FilledCell:
    """A cell of a comparison by a filling, see ``Cell``.

    Parameters
    ----------
    filling
        What fills.
    observation, truth
        What is seen, and the whole image.
    """

    filling: Filling
    observation: Observation
    truth: Image

    def signature(self, model: str) -> str:
        """Return a digest of everything that the numbers follow from; ``model`` is that of the filling."""
        return fingerprint(
            {
                "version": _VERSION,
                "filling": model,
                "package": version("posterior-inpainting"),
                "scikit-image": version("scikit-image"),
                "data": [self.observation.image, self.observation.mask, self.truth],
            }
        )

    def compute(self, model: None = None) -> xr.Dataset:
        """Fill and score: a variable a figure, the ``mean`` and an ``sd`` of 0; draws there are none, which is NaN."""
        start = time.perf_counter()
        filled = self.filling.fill(self.observation).numpy()
        seconds = time.perf_counter() - start
        truth, hidden = self.truth.numpy(), ~self.observation.mask.numpy()
        error = filled[hidden] - truth[hidden]
        figures: dict[str, Any] = {
            "PSNR of the mean (dB)": psnr(filled[hidden], truth[hidden]),
            "SSIM of the mean": ssim(filled, truth, hidden),
            "CRPS": float(np.abs(error).mean()),
            "energy score": float(np.sqrt(np.square(error).mean())),
            "seconds": seconds,
            "gradients": 0.0,
        }
        nothing = np.full((*KEPT, *filled.shape), np.nan, np.float32)
        pictures = {
            "draws": (DIMS, nothing),
            "brightness": (DIMS[:2], nothing.mean((2, 3, 4))),
            "mean": (DIMS[2:], filled.astype(np.float32)),
            "sd": (DIMS[2:], np.zeros_like(filled, np.float32)),
        }
        attrs = {"model": "", "method": self.filling.fill.__name__, "settings": "{}"}
        return xr.Dataset(figures | pictures, attrs=attrs | {"draws_are": "filling", "density": ""})
