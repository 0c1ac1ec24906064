"""Priors from and to the Hugging Face Hub, through ``huggingface_hub``, which is the optional extra ``hub``.

A repository there is the folder of ``saved.folders``: three files, weights without pickle, checked by their digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.saved.configs import CONFIG
from posterior_inpainting.models.saved.folders import CARD, WEIGHTS, read_prior
from posterior_inpainting.models.saved.models_of_kinds import model_of
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["from_pretrained", "push_to_hub"]

_FILES = (CARD, CONFIG, WEIGHTS)


def from_pretrained(
    place: str | Path, image_shape: ImageShape | None = None, *, revision: str | None = None
) -> ImageModel:
    """Make the model of a prior in a local folder, or in a repository of the Hub.

    Parameters
    ----------
    place
        A folder, which needs nothing that is not installed; or ``OWNER/NAME`` where there is no such folder.
    image_shape
        ``(channel, row, column)``, for a prior of images of any size.
    revision
        Branch, tag or commit of a repository; its main branch if not given.

    Raises
    ------
    ValueError
        For a place that is neither, a folder that holds no prior, what cannot be fetched, or a package that is not
        installed.

    Examples
    --------
    >>> import tempfile
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> from posterior_inpainting.models.saved.folders import write_prior
    >>> parts = {"decoder": MultilayerDecoder(2, (1, 8, 8), (4,)), "encoder": MaskedEncoder(2, (1, 8, 8), (4,))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_prior(folder, kind="vae", parts=parts, preprocessing={}, data={}, figures={}, card="# Mine")
    ...     type(from_pretrained(folder)).__name__
    'LatentCode'
    """
    folder = Path(place)
    if not folder.is_dir():
        words = str(place).split("/")
        if len(words) != 2 or not all(words) or words[0] in (".", "..", "~"):
            raise ValueError(
                f"{str(place)!r} is no folder; expected one, or OWNER/NAME of a repository of the Hub"
            )
        hub = _hub(f"{str(place)!r} is no folder, and a repository")
        try:
            folder = Path(hub.snapshot_download(str(place), revision=revision, allow_patterns=list(_FILES)))
        except Exception as error:  # the package raises those of whichever HTTP library it uses
            raise ValueError(f"{str(place)!r} cannot be fetched from the Hub: {_line(error)}") from None
    return model_of(read_prior(folder), image_shape)


def push_to_hub(
    folder: str | Path, repository: str, *, private: bool = False, message: str = "A prior"
) -> str:
    """Upload the three files of a prior to a repository of the Hub, made if it is not there; return its address.

    Whoever pushes is logged in (``hf auth login``). The folder is read before, so that no broken prior goes up, and
    nothing else in it does.

    Parameters
    ----------
    folder
        Of a prior.
    repository
        ``OWNER/NAME``.
    private
        Whether a repository that is made is seen by its owner alone.
    message
        Of the commit.

    Raises
    ------
    ValueError
        For a folder that holds no prior, what the Hub refuses, or a package that is not installed.

    >>> push_to_hub("/nowhere", "me/mine")
    Traceback (most recent call last):
    ValueError: /nowhere is no prior: there is no such folder
    """
    read_prior(folder)
    api = _hub("push_to_hub").HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=str(folder), allow_patterns=list(_FILES), commit_message=message
        )
    except Exception as error:
        raise ValueError(f"{folder} cannot be pushed to {repository!r}: {_line(error)}") from None
    return str(address)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _hub(who: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"{who} needs huggingface_hub, which is not installed: pip install 'posterior-inpainting[hub]'"
        ) from None
    return huggingface_hub
