"""What a recipe of a bundled set is: everything that determines its training, and how it is measured and described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.schedule import Schedule
from posterior_inpainting.models import datasets, pretrained
from posterior_inpainting.models.shapes import Image

__all__ = ["Data", "DatasetRecipe", "Description", "Recipe", "Written"]

#: Numbers of the test images that are measured on, where a data set has so many: among the first 5,000 are those on
#: which settings were once chosen and models compared.
_MEASURED = range(5_000, 9_000)


@dataclass(frozen=True)
class Data:
    """Images to train on and images to measure on.

    Parameters
    ----------
    images, held_out
        ``(n, channel, row, column)`` both.
    labels
        Classes of the former, where the recipe asks for them.
    held_back
        Images that were held back of those to train on; none where nothing was.
    first
        Number of the first image to measure on, in its split.
    """

    images: Image
    held_out: Image
    labels: Tensor | None = None
    held_back: Image | None = None
    first: int = field(default=0, kw_only=True)

    def measured(self, count: int) -> str:
        """Say which test images the first ``count`` of those to measure on are.

        >>> import torch
        >>> Data(torch.rand(9, 1, 8, 8), torch.rand(20, 1, 8, 8), first=5_000).measured(1_000)
        'test images 5000 to 5019'
        """
        return f"test images {self.first} to {self.first + min(count, len(self.held_out)) - 1}"


@dataclass(frozen=True)
class Written:
    """Where a bundled set was written: ``folder / (stem + part + ".safetensors")``."""

    folder: Path
    name: str

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return f"{self.name}."


@dataclass(frozen=True)
class Description:
    """What a card says in a recipe's own words.

    Parameters
    ----------
    about
        What the networks are, and how they are loaded.
    trained_on, measured_on
        Ends of "Trained on" and "Measured on".
    limits
        What the networks are not good at.
    remark
        Sentences about the training, if any.
    """

    about: str
    trained_on: str
    measured_on: str
    limits: str
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """Abstract recipe of a bundled set.

    Parameters
    ----------
    epochs, batch_size, learning_rate
        As for ``Schedule``.
    seed
        From which networks, masks, order and draws have independent streams.
    """

    #: Fields that are not settings of one row each.
    leave_out: ClassVar[tuple[str, ...]] = ()
    #: Whether it trains where its images are, on a GPU too.
    follows_images: ClassVar[bool] = False

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0

    @abstractmethod
    def data(self, root: str | Path | None = None) -> Data:
        """Return the images, ``root`` being the folder of the data set where it is not found by itself."""

    @abstractmethod
    def fit(self, images: Image, progress: bool = True) -> Any:
        """Train on images ``(n, channel, row, column)``, and return what :meth:`parts` and :meth:`measure` need."""

    def finish(self, fitted: Any, data: Data, progress: bool = True) -> None:  # noqa: B027 - most have nothing to add
        """Add to what was fitted what needs images that it was not fitted to: nothing, unless a recipe says so."""

    @abstractmethod
    def parts(self, fitted: Any) -> Mapping[str, Any]:
        """Return what is saved: part -> network, or path -> tensor."""

    def save(self, fitted: Any, written: Written) -> None:
        """Write the parts with their digests."""
        pretrained.save_parts(written.folder, written.stem, self.parts(fitted))

    @abstractmethod
    def measure(self, fitted: Any, data: Data, written: Written) -> str:
        """Measure how good it is, and return the tables of the card."""

    @abstractmethod
    def describe(self, name: str, fitted: Any, data: Data) -> Description:
        """Return the card's words."""

    @property
    def streams(self) -> Streams:
        """The streams of random numbers of the recipe's seed."""
        return Streams(self.seed)

    def schedule(self, progress: bool, epochs: int | None = None) -> Schedule:
        """Return the settings of a training, of other epochs if they are given."""
        return Schedule(
            epochs=self.epochs if epochs is None else epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True)
class DatasetRecipe(Recipe):
    """Abstract recipe for the images of a data set.

    Parameters
    ----------
    dataset
        A name that ``datasets.load`` knows.
    held_back
        Number of images, the last of the first split, that nothing is trained on: settings are chosen on them.
    """

    #: To train on, and to measure on.
    splits: ClassVar[tuple[str, str]] = ("train", "test")

    dataset: str
    held_back: int = 0

    def data(self, root: str | Path | None = None) -> Data:
        """Load both splits of the data set: what is not held back, and test images that nothing was chosen on."""
        images, held_out = (datasets.load(self.dataset, split, root) for split in self.splits)
        kept = len(images) - self.held_back
        first = _MEASURED.start if len(held_out) >= _MEASURED.stop else 0
        return Data(
            images[:kept],
            held_out[first : first + len(_MEASURED)],
            held_back=images[kept:] if self.held_back else None,
            first=first,
        )

    @property
    def chosen_on(self) -> str:
        """What settings are chosen on, to follow the words on what was trained on; nothing where none is held back."""
        last = f"its last {self.held_back}, which are held back"
        return f" (settings\nare chosen on {last})" if self.held_back else ""
