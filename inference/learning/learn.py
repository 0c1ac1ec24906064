"""`learn`: a prior from a person's own images, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from posterior_inpainting.inference.learning.adversarial import AdversarialLearner
from posterior_inpainting.inference.learning.autoencoder import AutoencoderLearner
from posterior_inpainting.inference.learning.autoregressive import AutoregressiveLearner
from posterior_inpainting.inference.learning.course import Course, Record
from posterior_inpainting.inference.learning.denoising import DenoisingLearner
from posterior_inpainting.inference.learning.experts import ExpertsLearner
from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.learning.lessons import Lessons
from posterior_inpainting.inference.learning.linear import LinearLearner
from posterior_inpainting.inference.learning.measured import card, figures_of, picture_of_samples
from posterior_inpainting.inference.learning.pluralistic import PluralisticLearner
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.images.collection import Collection, collected, read_collection
from posterior_inpainting.models.saved.folders import write_prior
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["KINDS", "Learnt", "learn"]

#: Kind -> its learner.
KINDS: dict[str, Callable[..., Learner]] = {
    "vae": AutoencoderLearner,
    "pluralistic": PluralisticLearner,
    "gan": AdversarialLearner,
    "pixels": AutoregressiveLearner,
    "diffusion": DenoisingLearner,
    "experts": ExpertsLearner,
    "linear": LinearLearner,
}


@dataclass(frozen=True)
class Learnt:
    """What ``learn`` did.

    Parameters
    ----------
    folder
        The prior: wherever a model's name goes, this goes too.
    kind
        Its kind.
    figures
        What it is worth: the validation score, and scores of held-out images.
    records
        What each phase of the training did.
    """

    folder: Path
    kind: str
    figures: dict[str, float]
    records: list[Record]


def learn(
    images: str | Path | Image | Collection,
    kind: str = "vae",
    *,
    out: str | Path,
    masks: str | Path | Mask | None = None,
    size: int | tuple[int, int] | None = None,
    patches: int | None = None,
    channels: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    private: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Learnt:
    """Learn a prior from images, measure it on images that were held out, and write it to a folder.

    Images are split into training (80 %), validation and test by a hash of their content. The training ends when the
    validation score rises no more, or when its time is over; killed, the same call goes on where it was. Nothing is
    read of missing pixels: training scores seen ones only, and validation hides further ones and scores those.

    Parameters
    ----------
    images
        A folder or file as for ``read_collection``, what it returned, or a tensor ``(n, channel, row, column)`` in
        [0, 1] in which NaN is missing.
    kind
        ``"vae"``, ``"pluralistic"``, ``"gan"``, ``"pixels"``, ``"diffusion"``, ``"experts"`` or ``"linear"``.
    out
        Folder of the prior; checkpoints are in it until it is done.
    masks
        Folder of files that mark missing pixels; or of a tensor, which pixels are seen.
    size, patches, channels
        As for ``read_collection``.
    minutes
        That the training may take, measuring apart; ``None`` for no bound.
    device
        ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` for the fastest that is there.
    private
        Whether to keep no image in the folder. Otherwise the validation images are, by which a prior of codes tells
        whether it knows an image (``diagnostics.fit``), and 32 test images stand in ``samples.png``.
    seed
        The same one gives the same prior, where time does not bound the training.
    progress
        Whether to show progress.

    Raises
    ------
    ValueError
        For an unknown kind, images that cannot be used, fewer than 20, a folder that holds a prior or another
        training's checkpoint, or a device that is not there.

    Examples
    --------
    >>> import tempfile
    >>> from posterior_inpainting.models import datasets
    >>> digits = datasets.load("digits")[:200]
    >>> learnt = learn(digits, out=tempfile.mkdtemp(), minutes=0.02, progress=False)
    >>> learnt.kind, learnt.figures["test images"] > 0
    ('vae', True)
    """
    folder, where = Path(out), device_of(device)
    checkpoint = folder / "checkpoint.pt"
    _check(kind, minutes, folder, checkpoint)
    collection = _collection(images, masks, size, patches, channels, seed)
    streams = Streams(seed)
    lessons = Lessons.of(collection, streams, where)
    with streams.seeded("learning"):
        learner = KINDS[kind](lessons, streams)
        signature = {
            "kind": kind,
            "data": collection.digest,
            "seed": seed,
            "architecture": learner.architecture(),
        }
        course = Course(learner.phases(), len(lessons.train), signature, checkpoint, minutes, progress)
        records = course.run()
    if not private:
        learner.know_the_domain(sum(record.steps for record in records), progress)
    figures = figures_of(learner, streams, progress)
    done = {"size": None, "patches": None, "channels": collection.images.shape[1]} | collection.preprocessing
    data = _said_of(collection, lessons) | {"private": private}
    folder.mkdir(parents=True, exist_ok=True)
    picture_of_samples(learner, streams, folder / "samples.png", beside=not private)
    command = _command(kind, done, minutes)
    if not lessons.are_patches:  # a prior of whole images is one of images of their size
        done["size"] = list(lessons.shape[1:])
    write_prior(
        folder,
        kind=kind,
        parts=learner.parts(),
        preprocessing=done,
        data=data,
        figures=figures,
        card=card(learner, data, records, figures, command),
        settings=learner.settings(),
    )
    checkpoint.unlink(missing_ok=True)
    return Learnt(folder, kind, figures, records)


def _check(kind: str, minutes: float | None, folder: Path, checkpoint: Path) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}; expected one of {', '.join(KINDS)}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes={minutes}; expected a positive number")
    if (folder / "config.json").exists() and not checkpoint.exists():
        raise ValueError(f"{folder} holds a prior already; choose another folder, or delete it")


def _said_of(collection: Collection, lessons: Lessons) -> dict[str, Any]:
    """Return what ``config.json`` says of the images."""
    return {
        "digest": collection.digest,
        "images": len(collection),
        "train": len(lessons.train),
        "validation": len(lessons.further),
        "test": len(lessons.test),
        "skipped": len(collection.skipped),
        "holes": lessons.has_holes,
    }


def _command(kind: str, done: dict[str, Any], minutes: float | None) -> str:
    """Return the command that makes such a prior."""
    told = {"size": done["size"] and done["size"][0], "patches": done["patches"], "minutes": minutes}
    options = [f"--{name} {value}" for name, value in told.items() if value is not None]
    return " ".join(["posterior-inpainting learn IMAGES --out FOLDER --kind", kind, *options])


def device_of(name: str) -> torch.device:
    """Return a device by name, the fastest that is there for ``"auto"``.

    >>> device_of("tpu")
    Traceback (most recent call last):
    ValueError: device='tpu'; expected auto, cpu, cuda or mps
    """
    kinds = ("auto", "cpu", "cuda", "mps")
    if name.split(":")[0] not in kinds:
        raise ValueError(f"device={name!r}; expected auto, cpu, cuda or mps")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    if not there[name.split(":")[0]]:
        raise ValueError(
            f"device={name!r} is not there; expected {', '.join(k for k, v in there.items() if v)}"
        )
    return torch.device(name)


def _collection(
    images: Any, masks: Any, size: Any, patches: int | None, channels: int | None, seed: int
) -> Collection:
    """Return what is to be learnt from, however it was given."""
    if isinstance(images, str | Path):
        return read_collection(images, size=size, patches=patches, channels=channels, masks=masks, seed=seed)
    if not all(one is None for one in (size, patches, channels)):
        raise ValueError("size, patches or channels are given for a tensor; expected them for a folder alone")
    if isinstance(images, Collection):
        return images
    return collected(images, masks)
