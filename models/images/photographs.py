"""Photographs: those under free licences that bundled priors are trained on, and those that are kept for tests.

Trained on are pictures of a package of Debian; others may be added where their licence is CC0, CC-BY or public domain,
and the card of everything that is trained on them says who made them. Those of scikit-image and scikit-learn are for
tests alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posterior_inpainting.models.shapes import Image

__all__ = ["FOLDER", "PHOTOGRAPHS", "Photograph", "natural", "squares", "held_out", "windows"]

#: Where Debian's ``lomiri-wallpapers-16.04`` puts them.
FOLDER = Path("/usr/share/backgrounds")


@dataclass(frozen=True)
class Photograph:
    """One file with its author and licence, as the package's ``debian/copyright`` has them."""

    file: str
    author: str
    licence: str


#: In the order in which their squares lie in the data set: settings are chosen by the last one.
PHOTOGRAPHS = (
    Photograph("aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph("friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph("life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph("sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph("Picture_0B_by_freespace.jpg", 'Trevor "Freespace"', "CC-BY-4.0"),
    Photograph("Picture_1A_by_freespace.jpg", 'Trevor "Freespace"', "CC-BY-4.0"),
    Photograph("seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", "CC0-1.0"),
    Photograph("Wine_by_Jakkub_Mede.jpg", "Jakub Mede", "CC-BY-4.0"),
    Photograph("picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
)


def squares(folder: str | Path | None = None, side: int = 128) -> Image:
    """Cut the licensed photographs into squares side by side, at a third and at a sixth of their size.

    Cameras blur and compress, so that pixels of the files say little of each other's edges: reduced, neighbouring
    pixels differ as they do in pictures on a page.

    Parameters
    ----------
    folder
        Where the files lie.
    side
        Of the squares, in pixels.

    Raises
    ------
    FileNotFoundError
        Where a file is missing, with the command that installs it.
    """
    folder = FOLDER if folder is None else Path(folder)
    if missing := [one.file for one in PHOTOGRAPHS if not (folder / one.file).is_file()]:
        raise FileNotFoundError(
            f"{folder} has no {missing[0]}; `apt-get install lomiri-wallpapers-16.04` on Debian installs it, or give "
            "root=FOLDER"
        )
    return torch.cat([_cut(reduced, side) for one in PHOTOGRAPHS for reduced in _reduced(folder / one.file)])


def windows(folder: str | Path | None = None) -> list[Image]:
    """Cut squares ``(3, side, side)`` out of the licensed photographs: as high as they are, and a half and a quarter.

    At a sixth of their size, as :func:`squares`; at most 8 of a photograph and a side, spread over it.
    """
    found: list[Image] = []
    for photograph in (
        _reduced((FOLDER if folder is None else Path(folder)) / one.file)[1] for one in PHOTOGRAPHS
    ):
        for parts in (1, 2, 4):
            tiles = _cut(photograph, min(photograph.shape[1:]) // parts)
            found += list(tiles[:: -(-len(tiles) // 8)])
    return found


def held_out(side: int = 256) -> Image:
    """Return the eight test photographs of scikit-image and scikit-learn, centre squares as ``(8, 3, side, side)``."""
    return torch.cat([_squared(_SKIMAGE, _TEST, side), _squared(_SKLEARN, ("china.jpg", "flower.jpg"), side)])


def natural(split: str) -> Image:
    """Return photographs of scikit-image, centre squares as ``(n, 3, 256, 256)``."""
    return _squared(_SKIMAGE, _NATURAL[split], 256)


_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets", "images")
_TEST = ("astronaut.png", "chelsea.png", "coffee.png", "ihc.png", "motorcycle_left.png", "rocket.jpg")
_NATURAL = {
    "train": ("coffee.png", "chelsea.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png"),
    "test": ("astronaut.png", "rocket.jpg", "retina.jpg"),
}


def _squared(place: tuple[str, ...], files: tuple[str, ...], side: int) -> Image:
    """Return centre squares of files in a folder of a package."""
    from skimage.io import imread
    from skimage.transform import resize

    found = []
    for file in files:
        photograph = imread(str(resources.files(place[0]).joinpath(*place[1:], file)))[..., :3]
        extent = min(photograph.shape[:2])
        top, left = ((whole - extent) // 2 for whole in photograph.shape[:2])
        square = resize(
            photograph[top : top + extent, left : left + extent], (side, side), anti_aliasing=True
        )
        found.append(torch.from_numpy(square).float().permute(2, 0, 1).clamp(0, 1))
    return torch.stack(found)


def _reduced(path: Path) -> list[Tensor]:
    """Return a photograph ``(3, row, column)`` at a third and at a sixth of its size, means of squares of pixels."""
    from skimage.io import imread
    from skimage.measure import block_reduce

    pixels = imread(path)[..., :3].astype(np.float32) / 255
    found = []
    for factor in (3, 6):
        rows, columns = (extent - extent % factor for extent in pixels.shape[:2])
        small = block_reduce(pixels[:rows, :columns], (factor, factor, 1), np.mean)
        found.append(torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1), dtype=np.float32)))
    return found


def _cut(photograph: Tensor, side: int) -> Image:
    tiles = photograph.unfold(1, side, side).unfold(2, side, side)
    return tiles.permute(1, 2, 0, 3, 4).reshape(-1, photograph.shape[0], side, side)
