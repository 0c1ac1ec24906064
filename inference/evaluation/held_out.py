"""Score posteriors on real held-out images, which the model did not make.

Calibration on the model's own data says that the draws are of the model's posterior; only real images say
whether that posterior is wide enough. Every figure is of hidden pixels alone; PSNR and SSIM stand beside
coverage, because they say nothing of spread. Images of one mask run in one batch, so that the decoder is
evaluated at its seen pixels only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.evaluation import scores
from posterior_inpainting.inference.evaluation.convergence_maps import latent_rhat
from posterior_inpainting.inference.evaluation.incomplete import go_on_only_if_whole
from posterior_inpainting.inference.evaluation.settings import RunSettings
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.verbs import infer, infer_many
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, Mask, check_image, check_mask

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LEAST_DRAWS", "check_held_out", "score_real", "summary"]

#: With fewer the ends of a 95 % interval lie beyond all draws.
LEAST_DRAWS = 40


def score_real(
    model: ImageModel,
    method: Method,
    images: Image,
    masks: Mapping[str, Mask],
    **settings: Any,
) -> pd.DataFrame:
    """Complete every image behind every mask and score the hidden pixels.

    Parameters
    ----------
    model, method
        As for ``infer``. ``ChEES``, ``MALA`` and ``ULA`` run on ``batch`` images at once.
    images
        Whole images ``(n, channel, row, column)`` in [0, 1], none of which the model was trained on.
    masks
        Name -> ``(channel, row, column)``, ``True`` = seen.
    **settings
        ``draws=50`` and ``chains=16`` of each image, at least 40 draws together; ``seed=0``, from which each
        batch of each mask has a seed of its own, so that no two images share random numbers; ``batch=25``,
        ``progress=True``: see :class:`RunSettings`.

    Returns
    -------
    DataFrame
        One row an image and mask, indexed by ``mask`` and ``image``: the figures of ``scores.score``, and
        for Markov draws ``R-hat (max)`` over all latents, so that a bad run shows.

    Raises
    ------
    ValueError
        For no image or mask, images that do not fit the model or leave [0, 1], a mask that hides nothing,
        fewer than 40 draws, or a batch below 1; for a run that diverged.
    TypeError
        For an unknown setting.

    Examples
    --------
    >>> from posterior_inpainting.inference import Variational
    >>> from posterior_inpainting.models import LatentCode, datasets, observations, pretrained
    >>> model = LatentCode(pretrained.load("digits-vae-2d"))
    >>> masks = {"half:bottom": observations.half(model.image_shape, hide="bottom")}
    >>> images = datasets.load("digits")[:3]
    >>> table = score_real(model, Variational(), images, masks, progress=False)
    >>> table.index.names, len(table), bool((table["CRPS"] > 0).all())
    (FrozenList(['mask', 'image']), 3, True)
    """
    import pandas as pd

    given = RunSettings(**settings)
    _check(model, images, masks, given)
    rows: dict[tuple[str, int], dict[str, float]] = {}
    count = len(images) * len(masks)
    with progress_bar(
        total=count, desc="scoring", unit="image", disable=not given.progress, delay=1e-3
    ) as bar:
        for name, mask in masks.items():
            streams = Streams(given.seed).child("mask", name)
            for index, posterior in enumerate(_posteriors(model, method, images, mask, given, streams)):
                go_on_only_if_whole(posterior.attrs)
                figures = scores.score(posterior, truth=images[index])
                rhat = latent_rhat(posterior)
                if rhat.data_vars:
                    figures["R-hat (max)"] = max(float(values.max()) for values in rhat.values())
                rows[name, index] = figures
                bar.update()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["mask", "image"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over images and its standard error, mask by mask.

    Parameters
    ----------
    table
        What :func:`score_real` returned.

    Returns
    -------
    DataFrame
        Rows are figures, columns are (mask, ``mean`` or ``se``); images without a figure (no hidden pixel
        above 0) are left out of it. R-hat is the worst and the median image's instead.

    Examples
    --------
    >>> import pandas as pd
    >>> index = pd.MultiIndex.from_product([["box"], [0, 1]], names=["mask", "image"])
    >>> summary(pd.DataFrame({"CRPS": [0.1, 0.3]}, index=index)).round(3).to_numpy().tolist()
    [[0.2, 0.1]]
    """
    import pandas as pd

    columns = {}
    for name, part in table.groupby(level="mask", sort=False):
        figures = part.drop(columns="R-hat (max)", errors="ignore")
        mean, error = figures.mean(), figures.std(ddof=1) / np.sqrt(figures.count())
        if "R-hat (max)" in part:
            mean["R-hat (median image)"] = part["R-hat (max)"].median()
            mean["R-hat (worst image)"] = part["R-hat (max)"].max()
        columns[name, "mean"], columns[name, "se"] = mean, error
    return pd.DataFrame(columns).reindex(mean.index)


def _posteriors(
    model: ImageModel, method: Method, images: Image, mask: Mask, given: RunSettings, streams: Streams
) -> Iterator[Any]:
    seen = [Observation(image, mask) for image in images]
    settings: dict[str, Any] = {"draws": given.draws, "chains": given.chains, "progress": False}
    if not method.runs_together:
        for index, one in enumerate(seen):
            yield infer(model, one, method, seed=streams.number("image", index), **settings)
        return
    for start in range(0, len(seen), given.batch):
        some, seed = seen[start : start + given.batch], streams.number("image", start)
        yield from infer_many(model, some, method, seed=seed, **settings)


def check_held_out(images: Image, masks: Mapping[str, Mask]) -> None:
    """Raise ``ValueError`` for images that leave [0, 1] or are no batch, no masks, or one that hides nothing."""
    check_image(images)
    if images.dim() != 4 or not len(images):
        raise ValueError(f"images has shape {tuple(images.shape)}; expected (n, channel, row, column)")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images leave [0, 1]; scores are of values in [0, 1]")
    if not masks:
        raise ValueError("masks is empty; expected at least one")
    for name, mask in masks.items():
        check_mask(mask, tuple(images.shape[1:]))
        if mask.expand(images.shape[1:]).all():
            raise ValueError(f"mask {name!r} hides nothing, so that there is nothing to score")


def _check(model: ImageModel, images: Image, masks: Mapping[str, Mask], given: RunSettings) -> None:
    check_image(images, model.image_shape)
    check_held_out(images, masks)
    count = given.draws * given.chains
    if count < LEAST_DRAWS:
        raise ValueError(
            f"draws={given.draws} of chains={given.chains} are {count} draws; expected at least {LEAST_DRAWS}"
        )
