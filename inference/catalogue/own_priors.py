"""An entry of the catalogue for a prior of one's own: a folder, wherever a model's name goes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from posterior_inpainting.inference.catalogue.compared import COMPARED
from posterior_inpainting.inference.catalogue.entry import Entry, Given
from posterior_inpainting.inference.catalogue.further import FURTHER
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.saved.configs import read_config
from posterior_inpainting.models.saved.folders import read_prior
from posterior_inpainting.models.saved.models_of_kinds import model_of

__all__ = ["entry_of", "is_path"]

#: Kind -> the model of the catalogue whose method and numbers it takes, and what is random.
_LIKE = {
    "vae": ("vae", "code z of a variational autoencoder"),
    "gan": ("gan", "code z of a GAN, with the generator's fitted noise"),
    "pluralistic": ("pluralistic-joint", "code z of a joint density"),
    "pixels": ("pixel-constrained", "hidden pixels, one after another"),
    "linear": ("linear-gaussian", "code z of a linear decoder: principal components"),
    "diffusion": ("fashion-mnist-diffusion", "pixels: a reverse diffusion from noise to image"),
    "experts": ("photographs-experts", "pixels: filters whose responses have heavy tails"),
}
#: The same for images of any size.
_LIKE_OF_ANY_SIZE = {
    "diffusion": ("photographs-diffusion", "pixels: a reverse diffusion from noise to image"),
    "experts": _LIKE["experts"],
}


def is_path(name: str) -> bool:
    """Whether something given for a model's name can only be meant for a folder.

    >>> is_path("./my-prior"), is_path("vea")
    (True, False)
    """
    return "/" in name or "\\" in name or name.startswith(".") or Path(name).is_dir()


def entry_of(folder: str | Path) -> Entry:
    """Return the entry of a prior in a folder: method and numbers of the bundled model of its kind.

    Its weights are read, and checked, when a model is made.

    Parameters
    ----------
    folder
        What ``write_prior`` wrote. The entry is called as it is given.

    Raises
    ------
    ValueError
        For no folder of a prior.

    Examples
    --------
    >>> import tempfile
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> from posterior_inpainting.models.saved.folders import write_prior
    >>> parts = {"decoder": MultilayerDecoder(2, (1, 8, 8), (4,)), "encoder": MaskedEncoder(2, (1, 8, 8), (4,))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_prior(folder, kind="vae", parts=parts, preprocessing={}, data={}, figures={}, card="# Mine")
    ...     entry_of(folder).shapes, entry_of(folder).settings
    ('1 x 8 x 8', 'Auto(), at most 2000 draws x 16')
    """
    config = read_config(folder)
    kind, (channels, rows, columns) = config["kind"], config["image_shape"]
    of_any_size = 0 in (rows, columns)
    like, random = (_LIKE_OF_ANY_SIZE if of_any_size else _LIKE)[kind]
    bundled = next(one for one in (*COMPARED, *FURTHER) if one.name == like)
    sizes: dict[str, Any] = {"shape": None, "channels": channels, "made_from": "image"}
    if not of_any_size:
        sizes = {"shape": (channels, rows, columns), "channels": None, "made_from": "weights"}
        sizes |= {"margin": None, "least": 1, "bytes_a_value": 0.0}
    return replace(
        bundled,
        name=str(folder),
        random=random,
        make=partial(_saved, str(Path(folder).absolute())),  # a process may stand in another folder
        priors=(),
        fits=True,
        **sizes,
    )


def _saved(folder: str, given: Given) -> ImageModel:
    """Load the model of a prior in a folder."""
    return model_of(read_prior(folder), given.shape)
