"""The files of a store around its arrays: a lock, copies of their metadata, and what a killed process leaves."""

from __future__ import annotations

import contextlib
import os
import shutil
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

__all__ = ["Lock", "clear_debris", "is_free", "metadata_of", "restore_metadata", "state_path"]

_LOCK, _STATE, _PARTS, _METADATA = "lock", "state.pt", "parts", "zarr.json"
_FOLDERS = ("latents", "stats")


class Lock:
    """A store's lock against other processes, which the system takes back when the process ends, however it does.

    Objects of one process share it: a store that an exception still holds does not stand in the way of the next.

    Parameters
    ----------
    folder
        Of the store; it is there.

    Raises
    ------
    ValueError
        Where another process has it.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> Lock.of(folder) is Lock.of(folder)  # while there is one
    True
    """

    _held: ClassVar[weakref.WeakValueDictionary[str, Lock]] = weakref.WeakValueDictionary()

    def __init__(self, folder: Path):
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        self._release = weakref.finalize(self, os.close, descriptor)
        try:
            import fcntl
        except ImportError:  # where there is none, two processes are the caller's affair
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "that just began"
            raise ValueError(
                f"{folder} is in use by another process ({holder}); wait for it, or give another folder"
            ) from None
        except OSError:  # a file system without locks
            return
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    @classmethod
    def of(cls, folder: Path) -> Lock:
        """Return the lock of a folder, this process's own if it has it already."""
        key = str(folder.resolve())
        lock = cls._held.get(key)
        if lock is None:
            lock = cls._held[key] = cls(folder)
        return lock


def state_path(folder: Path) -> Path:
    """Return the file of state of the store in a folder."""
    return folder / _STATE


def is_free(folder: Path) -> bool:
    """Whether a store may be made in a folder: there is nothing in it, or what a killed process left of one."""
    if not folder.is_dir():
        return not folder.exists()
    return all(
        one.name in (_LOCK, _STATE, f"{_STATE}.new", _PARTS) or one.suffix == ".partial"
        for one in folder.iterdir()
    )


def metadata_of(folder: Path) -> dict[str, bytes]:
    """Return the metadata files of a store's own arrays, by path from its folder: what their bytes mean."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in _metadata(folder)}


def restore_metadata(folder: Path, copies: dict[str, bytes]) -> list[str]:
    """Write the metadata files that are missing or differ from their copies, and return which."""
    restored = []
    for name, content in copies.items():
        path = folder / name
        with contextlib.suppress(OSError):
            if path.read_bytes() == content:
                continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial")
        temporary.write_bytes(content)
        temporary.replace(path)
        restored.append(name)
    return restored


def clear_debris(folder: Path, known: Iterable[str]) -> None:
    """Remove half-written files, and arrays that were made after the last commit: their metadata are not ``known``."""
    known = set(known)
    for path in [*folder.glob("*.partial"), folder / f"{_STATE}.new"]:
        path.unlink(missing_ok=True)
    for kind in _FOLDERS:
        for path in (folder / kind).rglob("*.partial"):
            path.unlink(missing_ok=True)
        for array in (folder / kind).glob("*/"):
            if f"{kind}/{array.name}/{_METADATA}" not in known:
                shutil.rmtree(array)


def _metadata(folder: Path) -> Iterator[Path]:
    """Yield those of the group, of its folders, and of its arrays."""
    for pattern in (_METADATA, *(f"{kind}/{_METADATA}" for kind in _FOLDERS)):
        yield from folder.glob(pattern)
    for kind in _FOLDERS:
        yield from sorted(folder.glob(f"{kind}/*/{_METADATA}"))
