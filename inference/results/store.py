"""Draws and sampler state on disk as a run goes, so that it survives whatever ends it.

A store is a Zarr group: ``latents/SITE`` and ``stats/NAME``, a chunk a block of draws with a checksum, and beside it
``state.pt``: the sampler's whole state, its generator's included, replaced atomically *after* the block's chunks are
written. Killed at any moment, the same call goes on from the last whole block, and its draws are bit-identical to
those of an uninterrupted run. A part of a run has a store of its own in the folder ``parts/NAME``.

Every file but the metadata has a checksum, and of those there is a copy in the state, from which they are restored. One
process at a time has a store.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posterior_inpainting.inference.results.state_files import read_state, write_state
from posterior_inpainting.inference.results.store_files import (
    Lock,
    clear_debris,
    is_free,
    metadata_of,
    restore_metadata,
    state_path,
)

__all__ = ["Store", "open_group", "read_variables", "restored", "whole_draws"]

#: Of what is stored and what the draws of a seed are; raised whenever either changes.
FORMAT = 3
_COPIES = "metadata"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Store:
    """One run on disk, or a part of one.

    Parameters
    ----------
    path
        Folder of the store, such as ``"run.zarr"``; made if it is not there.
    signature
        What determines the run, name -> value. A store made with another is refused.
    block
        Draws between two writes; a store that is there already keeps its own.

    Raises
    ------
    ValueError
        If the store was made by another version or with other settings, naming the difference, is no store, or is in
        use by another process.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.zarr"
    >>> store = Store(path, {"seed": 0})
    >>> draws = {"z": torch.arange(6.0).reshape(1, 2, 3)}, {"lp": torch.zeros(1, 2, 3)}
    >>> store.write(draws, 0, 6, {"draws": 3})
    >>> again = Store(path, {"seed": 0})
    >>> again.load_state(), again.read(3)[0]["z"].tolist()
    ({'draws': 3}, [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]])
    """

    def __init__(self, path: str | Path, signature: dict[str, Any], block: int = 50):
        self._prepare(Path(path), signature, block)
        if not (self.path / "zarr.json").is_file() and not is_free(self.path):
            raise ValueError(
                f"{self.path} is not a store, and not empty; give a folder that does not exist yet"
            )
        ours = (self.path / "lock").exists()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock.of(self.path)
        self._group = self._opened(ours)
        if self._group is None:
            self._group = self._made()

    def load_state(self) -> dict[str, Any] | None:
        """Return what :meth:`write` last committed, or ``None`` for a new store."""
        path = state_path(self.path)
        if not path.is_file():
            return None
        try:
            saved = read_state(path)
        except ValueError as error:
            raise ValueError(f"{error}; recover({str(self.path)!r}) reads its draws") from None
        return {name: value for name, value in saved.items() if name != _COPIES}

    def read(self, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the first ``count`` draws' latents and statistics, ``(group, chain, draw, ...)``.

        Raises ``ValueError`` for a damaged chunk, saying which draws are readable.
        """
        if self._group is None:
            return {}, {}
        whole, problem = whole_draws(self._group, count)
        if problem is not None:
            raise ValueError(
                f"{self.path}: draws {whole} and following are damaged ({problem}); recover({str(self.path)!r}) "
                f"reads the first {whole}"
            )
        return read_variables(self._group, "latents", count), read_variables(self._group, "stats", count)

    def write(
        self,
        rows: tuple[dict[str, Tensor], dict[str, Tensor]],
        first: int,
        total: int,
        saved: dict[str, Any],
    ) -> None:
        """Write draws ``first`` and following, then commit the state that comes after them.

        Parameters
        ----------
        rows
            Latents and statistics, name -> ``(group, chain, draw, ...)``; empty while warming up.
        first, total
            Index of the first of these draws, and how many the whole run will have.
        saved
            What resuming needs: tensors, numbers, strings, frozen dataclasses of this package, and dicts, lists and
            tuples of them.
        """
        import zarr

        try:
            if self._group is None:
                self._group = self._made()
            for folder, variables in zip(("latents", "stats"), rows, strict=True):
                for name, value in variables.items():
                    # A block of zeros is written too, so that a missing file is damage.
                    with zarr.config.set({"array.write_empty_chunks": True}):
                        array = self._array(f"{folder}/{name}", value, total)
                        array[:, :, first : first + value.shape[2]] = value.detach().cpu().numpy()
            write_state(state_path(self.path), saved | {_COPIES: metadata_of(self.path)})
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written ({error.strerror or error}); its first {first} draws are complete: "
                "make room and repeat the call to go on"
            ) from error

    def part(self, name: str) -> Store:
        """Return the store of a part of the run, made when it is first written to.

        Parameters
        ----------
        name
            Letters, digits, dots, hyphens and underscores, up to 100, the first a letter or digit.

        Raises
        ------
        ValueError
            For another name, or where the part was made with other settings.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"part={name!r}; expected letters, digits, '.', '-' and '_', a letter or digit first"
            )
        part = Store.__new__(Store)
        above = self.signature.get("part")
        signature = {**self.signature, "part": name if above is None else f"{above}/{name}"}
        part._prepare(self.path / "parts" / name, signature, self.block)
        part._lock = self._lock
        part._group = part._opened(ours=True)
        return part

    def _prepare(self, path: Path, signature: dict[str, Any], block: int) -> None:
        if block < 1:
            raise ValueError(f"block={block}; expected at least 1")
        self.path, self.block = path, block
        self.signature = {name: str(value) for name, value in signature.items()} | {"format": str(FORMAT)}

    def _opened(self, ours: bool):
        """Return the group that is there, checked, or ``None``: a run may have been killed before it made one.

        Parameters
        ----------
        ours
            Whether the folder is known to be a store's: what was never committed is made anew then.
        """
        nothing = ours and not state_path(self.path).is_file()
        clear_debris(self.path, () if nothing else restored(self.path))
        if nothing:
            (self.path / "zarr.json").unlink(missing_ok=True)
        if not (self.path / "zarr.json").is_file():
            return None
        group = open_group(self.path)
        attrs = group.attrs.asdict()
        differences = [
            f"{name}={attrs['signature'].get(name)} there, {self.signature.get(name)} here"
            for name in dict.fromkeys([*self.signature, *attrs["signature"]])  # the method first
            if attrs["signature"].get(name) != self.signature.get(name)
        ]
        if differences:
            shown = "; ".join(difference[:120] for difference in differences[:3])
            raise ValueError(f"{self.path} was made with other settings: {shown}")
        self.block = attrs["block"]
        return group

    def _made(self):
        import zarr

        attributes = {"signature": self.signature, "block": self.block}
        return zarr.create_group(self.path, attributes=attributes)  # what its parts wrote stays

    def _array(self, name: str, value: Tensor, total: int):
        if name not in self._group:
            from zarr.codecs import Crc32cCodec

            groups, chains, _, *event = value.shape
            self._group.create_array(
                name,
                shape=(groups, chains, total, *event),
                chunks=(groups, chains, min(self.block, total), *event),
                dtype=value.detach().cpu().numpy().dtype,
                compressors=[Crc32cCodec()],
            )
        return self._group[name]


def restored(folder: Path) -> list[str]:
    """Return the metadata files of what a store committed, restored where they were damaged, which is said.

    Where there is no state, or it is damaged itself, they are taken as they are.
    """
    try:
        copies = read_state(state_path(folder)).get(_COPIES, {})
    except (OSError, ValueError):
        return [*metadata_of(folder)]
    if damaged := restore_metadata(folder, copies):
        warnings.warn(
            f"{folder}: {', '.join(damaged)} was damaged, and is restored from a copy", stacklevel=2
        )
    return [*copies]


def open_group(path: Path):
    """Open the Zarr group of a store, refusing another folder and the store of another version in a line."""
    import zarr

    try:
        group = zarr.open_group(path, mode="r+")
    except Exception as error:  # zarr raises many kinds for what is not a group
        raise ValueError(f"{path} is not a store ({type(error).__name__})") from None
    signature: Any = group.attrs.asdict().get("signature")
    if signature is None:
        raise ValueError(f"{path} is not a store of draws; give a folder that does not exist yet")
    found = int(signature.get("format", 1))
    if found != FORMAT:
        age = "an older" if found < FORMAT else "a newer"
        raise ValueError(
            f"{path} was written by {age} version of this package (format {found}, {FORMAT} here), whose draws are "
            "not these; give a folder that does not exist yet"
        )
    return group


def whole_draws(group, count: int) -> tuple[int, str | None]:
    """Return how many of the first ``count`` draws are whole, and what is wrong with the next."""
    block = group.attrs.asdict()["block"]
    arrays = {
        f"{folder}/{name}": group[f"{folder}/{name}"]
        for folder in ("latents", "stats")
        if folder in group
        for name in group[folder].array_keys()
    }
    for first in range(0, count, block):
        for name, array in arrays.items():
            try:
                if not _chunk_file(array, first // array.chunks[2]).is_file():
                    raise FileNotFoundError("a chunk is missing")
                array[:, :, first : min(first + block, count)]
            except Exception as error:  # a failed checksum, a short file, a missing one
                return first, f"{name}: {str(error).splitlines()[0][:80]}"
    return count, None


def read_variables(group, folder: str, count: int) -> dict[str, Tensor]:
    """Return the first ``count`` draws of all variables in a folder of a store's group."""
    if folder not in group:
        return {}
    return {
        name: torch.from_numpy(np.asarray(group[f"{folder}/{name}"][:, :, :count]))
        for name in group[folder].array_keys()
    }


def _chunk_file(array, index: int) -> Path:
    """Return the file of the ``index``-th block of draws; an array has one chunk in every other direction."""
    rest = [0] * (array.ndim - 3)
    return Path(array.store.root) / array.path / "c" / "/".join(map(str, (0, 0, index, *rest)))
