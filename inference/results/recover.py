"""What can be read of a store without its model, after whatever ended the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from posterior_inpainting.inference.contract import Draws
from posterior_inpainting.inference.results.containers import to_arviz
from posterior_inpainting.inference.results.convert import latent_groups
from posterior_inpainting.inference.results.state_files import read_state
from posterior_inpainting.inference.results.store import open_group, read_variables, restored, whole_draws
from posterior_inpainting.inference.results.store_files import state_path

__all__ = ["recover"]


def recover(path: str | Path, part: str | None = None):
    """Read what is whole in a store, without its model: the draws up to the first that is damaged or missing.

    Parameters
    ----------
    path
        Folder of the store.
    part
        Name of a part of the run, such as ``"network-3"``, or ``"a/b"`` for the part of a part; the run itself by
        default.

    Returns
    -------
    InferenceData
        Groups ``posterior`` and ``sample_stats``, of the first posterior if the store holds several.

    Raises
    ------
    ValueError
        If the folder is no store or of another version, or holds no whole draw; the parts that have some are named.
    """
    path = Path(path)
    folder = path
    for name in part.split("/") if part is not None else ():
        folder = folder / "parts" / name
    restored(folder)
    group = open_group(folder)
    count = _readable(folder, group)
    if count == 0:
        found = ", ".join(f"{name!r} ({draws})" for name, draws in _parts_with_draws(folder, part))
        hint = f"; its parts hold draws: {found}, read by recover({str(path)!r}, part=...)" if found else ""
        raise ValueError(f"{folder} holds no whole draw{hint}")
    latents, stats = (
        {name: value[0] for name, value in read_variables(group, kind, count).items()}
        for kind in ("latents", "stats")
    )
    attrs = {"draws_are": "markov", **group.attrs.asdict()["signature"]}
    return to_arviz(latent_groups(Draws(latents, stats, attrs["draws_are"])), attrs)


def _readable(folder: Path, group) -> int:
    """Return how many draws were committed and are whole."""
    arrays = [group[f"stats/{name}"] for name in (group["stats"].array_keys() if "stats" in group else ())]
    total = arrays[0].shape[2] if arrays else 0
    state = state_path(folder)
    if total and state.is_file():
        with contextlib.suppress(
            ValueError
        ):  # a damaged state costs no draws: what is not written is missing
            total = min(total, int(read_state(state).get("draws", total)))
    return whole_draws(group, total)[0]


def _parts_with_draws(folder: Path, above: str | None) -> Iterator[tuple[str, int]]:
    """Yield the names of parts, and of their parts, that have whole draws, and how many."""
    for part in sorted((folder / "parts").glob("*/")):
        name = part.name if above is None else f"{above}/{part.name}"
        if (part / "zarr.json").is_file() and (count := _readable(part, open_group(part))):
            yield name, count
        yield from _parts_with_draws(part, name)
