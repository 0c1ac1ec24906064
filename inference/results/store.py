"""Draws and sampler state on disk as a run goes, so that it survives whatever ends it.

A store is a Zarr group: ``latents/SITE`` and ``stats/NAME``, a chunk a block of iterations with a checksum, and
beside it ``state.pt``: the sampler's whole state, its generator's included, replaced atomically *after* the
block's chunks are written. Killed at any moment, the same call goes on from the last whole block, and its
draws are bit-identical to those of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Store", "recover"]

_STATE = "state.pt"


class Store:
    """One run on disk.

    Parameters
    ----------
    path
        Folder of the store, such as ``"run.zarr"``; made if it is not there.
    signature
        What determines the run, name -> value. A store made with another is refused.
    block
        Iterations between two writes.

    Raises
    ------
    ValueError
        If the store was made with other settings, naming the difference, or is no store.
    """

    def __init__(self, path: str | Path, signature: dict[str, Any], block: int = 50):
        import zarr

        self.path = Path(path)
        self.block = block
        signature = {name: str(value) for name, value in signature.items()}
        if self.path.exists() and any(self.path.iterdir()):
            self.group = _open(self.path)
            found = self.group.attrs.asdict().get("signature", {})
            differences = [
                f"{name}={found.get(name)} there, {signature.get(name)} here"
                for name in dict.fromkeys([*signature, *found])  # the method first
                if found.get(name) != signature.get(name)
            ]
            if differences:
                shown = "; ".join(difference[:120] for difference in differences[:3])
                raise ValueError(f"{self.path} was made with other settings: {shown}")
        else:
            self.group = zarr.open_group(self.path, mode="w")
            self.group.attrs["signature"] = signature

    def load_state(self) -> dict[str, Any] | None:
        """Return what :meth:`write` last committed, or ``None`` for a new store."""
        path = self.path / _STATE
        if not path.is_file():
            return None
        try:
            saved = torch.load(path, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}); recover({str(self.path)!r}) reads its draws"
            ) from None
        saved["state"] = _decode(saved["state"])
        return saved

    def write(
        self,
        rows,
        first: int,
        total: int,
        saved: dict[str, Any],
    ) -> None:
        """Write draws ``first`` and following, then commit the state that comes after them.

        Parameters
        ----------
        latents, stats
            Name -> ``(group, chain, draw, ...)``; empty while warming up.
        first, total
            Index of the first of these draws, and how many the whole run will have.
        saved
            ``state`` and anything else that resuming needs: tensors, numbers, frozen dataclasses of them.
        """
        import zarr

        latents, stats = rows
        try:
            for folder, variables in (("latents", latents), ("stats", stats)):
                for name, value in variables.items():
                    # A block of zeros is written too, so that a missing file is damage.
                    with zarr.config.set({"array.write_empty_chunks": True}):
                        array = self._array(f"{folder}/{name}", value, total)
                        array[:, :, first : first + value.shape[2]] = _numpy(value)
            temporary = self.path / f"{_STATE}.new"
            with temporary.open("wb") as file:
                torch.save({**saved, "state": _encode(saved["state"])}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path / _STATE)
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written ({error.strerror or error}); its first {first} draws are complete: "
                "make room and repeat the call to go on"
            ) from error

    def part(self, name):
        return Store(self.path / "parts" / name, {"part": name}, self.block)

    def read(self, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the first ``count`` draws' latents and statistics.

        Raises ``ValueError`` for a damaged chunk, saying which draws are readable.
        """
        whole, problem = _read(self.group, count, self.block)
        if problem is not None:
            raise ValueError(
                f"{self.path}: draws {whole} and following are damaged ({problem}); recover({str(self.path)!r}) "
                f"reads the first {whole}"
            )
        latents, stats = (_variables(self.group, folder, count) for folder in ("latents", "stats"))
        return latents, stats

    def _array(self, name: str, value: Tensor, total: int):
        if name not in self.group:
            from zarr.codecs import Crc32cCodec

            groups, chains, _, *event = value.shape
            self.group.create_array(
                name,
                shape=(groups, chains, total, *event),
                chunks=(groups, chains, min(self.block, total), *event),
                dtype=_numpy(value).dtype,
                compressors=[Crc32cCodec()],
            )
        return self.group[name]


def recover(path: str | Path):
    """Read what is whole in a store, without its model: the draws up to the first that is damaged or missing.

    Returns
    -------
    InferenceData
        Groups ``posterior`` and ``sample_stats``, of the first posterior if the store holds several.

    Raises
    ------
    ValueError
        If the folder is no store, or holds no whole draw.
    """
    from posterior_inpainting.inference.contract import Draws
    from posterior_inpainting.inference.results.convert import latent_groups, to_arviz

    group = _open(Path(path))
    attrs = group.attrs.asdict()
    arrays = [group[f"stats/{name}"] for name in (group["stats"].array_keys() if "stats" in group else ())]
    total = arrays[0].shape[2] if arrays else 0
    block = arrays[0].chunks[2] if arrays else 1
    state = Path(path) / _STATE
    if state.is_file():
        with contextlib.suppress(Exception):  # a damaged state costs no draws: what is not written is missing
            total = min(total, torch.load(state, weights_only=True)["draws"])
    whole, _ = _read(group, total, block)
    if whole == 0:
        raise ValueError(f"{path} holds no whole draw")
    latents, stats = (
        {name: value[0] for name, value in _variables(group, folder, whole).items()}
        for folder in ("latents", "stats")
    )
    return to_arviz(
        latent_groups(Draws(latents, stats, "markov")), {**attrs["signature"], "draws_are": "markov"}
    )


def _open(path: Path):
    import zarr

    try:
        group = zarr.open_group(path, mode="r+")
    except Exception as error:  # zarr raises many kinds for what is not a group
        raise ValueError(f"{path} is not a store ({type(error).__name__})") from None
    if "signature" not in group.attrs.asdict():
        raise ValueError(f"{path} is not a store of draws; give a folder that does not exist yet")
    return group


def _read(group, count: int, block: int) -> tuple[int, str | None]:
    """Return how many of the first ``count`` draws are whole, and what is wrong with the next."""
    names = [
        f"{folder}/{name}"
        for folder in ("latents", "stats")
        if folder in group
        for name in group[folder].array_keys()
    ]
    for first in range(0, count, block):
        for name in names:
            try:
                if not _chunk_file(group[name], first // block).is_file():
                    raise FileNotFoundError("a chunk is missing")
                group[name][:, :, first : min(first + block, count)]
            except Exception as error:  # a failed checksum, a short file, a missing one
                return first, f"{name}: {str(error).splitlines()[0][:80]}"
    return count, None


def _variables(group, folder: str, count: int) -> dict[str, Tensor]:
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


def _encode(value: Any) -> Any:
    """Frozen dataclasses as dictionaries that name their class, for a file without pickled code."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"__class__": f"{type(value).__module__}:{type(value).__qualname__}", **fields}
    if isinstance(value, dict):
        return {k: _encode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_encode(v) for v in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and "__class__" in value:
        module, _, name = value["__class__"].partition(":")
        if not module.startswith("posterior_inpainting.inference."):
            raise ValueError(f"the store names a class of {module}, which is not of this package")
        kind = getattr(importlib.import_module(module), name)
        return kind(**{k: _decode(v) for k, v in value.items() if k != "__class__"})
    if isinstance(value, dict):
        return {k: _decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_decode(v) for v in value]
    return value


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
