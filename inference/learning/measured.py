"""What a learnt prior is worth: scores of held-out images behind three masks, and its card."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.evaluation import scores
from posterior_inpainting.inference.learning.course import Record
from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.verbs import infer
from posterior_inpainting.models import observations
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import ImageShape, Mask

__all__ = ["card", "figures_of", "masks_for", "picture_of_samples"]

#: What is told of each mask.
_FIGURES = ("CRPS", "90 % coverage", "PSNR of the mean")


def masks_for(shape: ImageShape, seed: int) -> dict[str, Mask]:
    """Return the three masks behind which a prior is measured, by name.

    >>> sorted(masks_for((1, 8, 8), 0))
    ['70 % of pixels hidden', 'bottom half hidden', 'box in the middle hidden']
    """
    _, rows, columns = shape
    return {
        "bottom half hidden": observations.half(shape, hide="bottom"),
        "70 % of pixels hidden": observations.scatter(shape, 0.3, seed=seed),
        "box in the middle hidden": observations.box(shape, rows // 4, columns // 4, rows // 2, columns // 2),
    }


def figures_of(learner: Learner, streams: Streams, progress: bool) -> dict[str, float]:
    """Complete test images behind three masks, and return scores of what was hidden and is known.

    Parameters
    ----------
    learner
        With its phases done.
    streams
        Of random numbers.
    progress
        Whether to show a bar.
    """
    test = learner.lessons.test.of(slice(learner.test_images))
    figures = {"validation score": learner.score(), "test images": float(len(test))}  # on its device
    model = learner.model().cpu()
    masks = masks_for(learner.lessons.shape, streams.number("test masks"))
    count = len(masks) * len(test)
    with progress_bar(total=count, desc="measuring", unit="image", disable=not progress) as bar:
        for name, mask in masks.items():
            rows = []
            for index, (image, seen) in enumerate(zip(test.images, test.seen(), strict=True)):
                hidden = seen & ~mask
                if bool((seen & mask).any()) and bool(hidden.any()):
                    drawn = _drawn(
                        learner, model, Observation(image, seen & mask), streams.number("test", index)
                    )
                    rows.append(_scores(drawn[:, hidden.numpy()], image.numpy()[hidden.numpy()]))
                bar.update()
            if rows:
                means = dict(zip(_FIGURES, np.mean(rows, 0).tolist(), strict=True))
                figures |= {f"{figure}, {name}": value for figure, value in means.items()}
    return figures


def _drawn(learner: Learner, model: ImageModel, seen: Observation, seed: int) -> np.ndarray:
    """Return draws of a whole image, ``(draw, channel, row, column)``."""
    method, draws = learner.measured_by()
    posterior = infer(model, seen, method, draws=draws, chains=1, seed=seed, progress=False)
    images = group(posterior, "posterior_predictive")["image"].to_numpy()
    return images.reshape(-1, *images.shape[2:]).clip(0, 1)


def _scores(drawn: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    inside = scores.coverage(drawn, truth, 0.9)
    return float(scores.crps(drawn, truth).mean()), float(inside.mean()), scores.psnr(drawn.mean(0), truth)


def card(
    learner: Learner,
    data: Mapping[str, Any],
    records: Sequence[Record],
    figures: Mapping[str, float],
    command: str,
) -> str:
    """Return the card of a learnt prior, the text of its ``README.md``."""
    holes = (
        " Some of their pixels are missing: training and figures are of seen ones alone."
        if data["holes"]
        else ""
    )
    method, draws = learner.measured_by()
    lines = [
        "# A prior of one's own images",
        "",
        learner.about,
        "",
        f"Learnt from {data['train']} images of {_size(learner.lessons.shape)} of a collection of {data['images']}, of "
        f"which {data['validation']} were for validation and {data['test']} for test, by content.{holes}",
        f"SHA-256 of the collection: `{data['digest'][:16]}`.",
        "",
        f"    {command}",
        "",
        f"on {learner.device}, torch {torch.__version__}, {platform.machine()}.",
        "",
        "| phase | steps | minutes | validation score, first and best |",
        "|---|---|---|---|",
        *(
            f"| {one.name} | {one.steps} | {one.seconds / 60:.1f} | {one.scores[0]:.4g}, {max(one.scores):.4g} |"
            for one in records
            if one.scores
        ),
        "",
        f"## Measured on {int(figures['test images'])} test images",
        "",
        "Scores count hidden pixels whose truth is known. Draws are "
        + f"{draws} by `{type(method).__name__}`, the "
        "quickest way to some: `posterior-inpainting score --model FOLDER` measures the usual one.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in figures.items()),
        "",
        "![Samples, and beside them real images](samples.png)",
        "",
        "## Use",
        "",
        "    posterior-inpainting complete IMAGE --missing MASK --model FOLDER",
        "",
        "For images like those that it was learnt from. Of others it takes for noise what it does not know.",
        "",
    ]
    return "\n".join(lines)


def picture_of_samples(learner: Learner, streams: Streams, path: Path, beside: bool = True) -> None:
    """Write a picture of 32 samples of the prior, ``beside`` 32 test images or alone."""
    from skimage.io import imsave

    model = learner.model().cpu()
    with torch.no_grad(), streams.seeded("samples"):
        drawn = learner.samples(model, 32)
    picture = _sheet(drawn.clamp(0, 1))
    if beside:
        real = _sheet(learner.lessons.test.images[:32])
        picture = torch.cat([picture, torch.ones(3, picture.shape[1], 6), real], 2)
    picture = picture.permute(1, 2, 0)
    imsave(path, (255 * picture).round().to(torch.uint8).numpy(), check_contrast=False)


def _sheet(images: torch.Tensor) -> torch.Tensor:
    """Lay images out as 4 rows of 8, in colour, with a pixel between them."""
    images = images.expand(-1, 3, -1, -1)
    if len(images) < 32:
        images = torch.cat([images, images.new_ones(32 - len(images), *images.shape[1:])])
    framed = torch.nn.functional.pad(images, (0, 1, 0, 1), value=1.0)
    rows = framed.reshape(4, 8, *framed.shape[1:])
    return rows.permute(2, 0, 3, 1, 4).reshape(3, 4 * framed.shape[2], 8 * framed.shape[3])


def _size(shape: ImageShape) -> str:
    return " x ".join(map(str, shape))
