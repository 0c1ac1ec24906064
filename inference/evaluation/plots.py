"""Pictures of a posterior: matplotlib, returning axes as ArviZ does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from posterior_inpainting.inference.evaluation import scores
from posterior_inpainting.inference.evaluation.convergence_maps import pixel_rhat as map_of_rhat
from posterior_inpainting.inference.evaluation.incomplete import ending
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.images_of_posterior import posterior_mean
from posterior_inpainting.models.shapes import Image, check_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["completions", "coverage_curve", "describe", "picture", "pixel_rhat", "with_holes"]

#: Colours of holes, the first of which is taken that the image has nothing near: a hole is not taken for content.
_COLOURS = (
    (0.85, 0.45, 0.35),
    (1.0, 0.0, 1.0),
    (0.0, 1.0, 0.0),
    (0.0, 1.0, 1.0),
    (0.15, 0.2, 1.0),
    (1.0, 0.9, 0.0),
)
#: How near seen colours may come to it, but for a hundredth of them.
_NEAR = 0.3

#: Pixels a side from which panels are wider, and five in a row.
_LARGE = 64


def completions(idata, truth: Image | None = None, draws: int = 6, title: str | None = None) -> np.ndarray:
    """Draw one sheet: observed, mean, standard deviation, some draws, and the truth if it is given.

    Parameters
    ----------
    idata
        What ``infer`` returned.
    truth
        The whole image ``(channel, row, column)``.
    draws
        How many draws to show at most, spread evenly over chains and iterations. They are shown without
        the pixel noise that the standard deviation includes.
    title
        Put above everything; by default the model, the method and what the draws are.

    Returns
    -------
    ndarray of Axes
        One for each panel, left to right, row by row.

    Raises
    ------
    ValueError
        If ``draws`` is below 1 or the truth is not shaped as the image.
    """
    import matplotlib.pyplot as plt

    if draws < 1:
        raise ValueError(f"draws={draws}; expected at least 1")
    mask = group(idata, "constant_data")["mask"].to_numpy()
    if truth is not None:
        check_image(truth, mask.shape)
    completion = group(idata, "posterior")["completion"].to_numpy()
    predictive = group(idata, "posterior_predictive")["image"].to_numpy()
    completion = completion.reshape(-1, *completion.shape[2:])
    predictive = predictive.reshape(-1, *predictive.shape[2:])
    seen = group(idata, "observed_data")["image"].to_numpy()
    mean = np.where(mask, seen, posterior_mean(idata))
    sd = np.where(mask, 0.0, predictive.std(0))
    shown = completion[np.linspace(0, len(completion) - 1, min(draws, len(completion))).astype(int)]
    word = {"restarts": "restart", "path": "step"}.get(idata.attrs["draws_are"], "draw")
    panels = [observed_panel(idata), ("mean", picture(mean)), ("sd", sd.mean(0))]
    panels += [(f"{word} {i + 1}", picture(np.where(mask, seen, one))) for i, one in enumerate(shown)]
    if truth is not None:
        panels.append(("truth", picture(truth.cpu().numpy())))
    large = max(mask.shape[1:]) > _LARGE
    rows = -(-len(panels) // 5) if large else 1 + (len(panels) > 10)
    columns = -(-len(panels) // rows)
    size = 2.4 if large else 1.35
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, (size + 0.2) * rows + 0.35), layout="constrained"
    )
    axes = np.atleast_1d(axes).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes, panels, strict=False):
        if name == "sd":
            shade = axis.imshow(values, cmap="magma", vmin=0, vmax=max(float(sd.max()), 1e-6))
            figure.colorbar(shade, ax=axis, location="bottom", shrink=0.9, pad=0.02).ax.tick_params(
                labelsize=6
            )
        else:
            axis.imshow(values, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(name, fontsize=9)
    figure.suptitle(title if title is not None else describe(idata), fontsize=9)
    return axes


def observed_panel(idata) -> tuple[str, np.ndarray]:
    """Return a title and a picture of what was seen: an image with holes, or what an instrument gave."""
    observed = group(idata, "observed_data")
    if "measurement" in observed:
        values = observed["measurement"].to_numpy()
        if len(values) in (1, 3) and min(values.shape[1:]) > 1:
            return "measured", picture(values)
    return "observed", with_holes(
        observed["image"].to_numpy(), group(idata, "constant_data")["mask"].to_numpy()
    )


def pixel_rhat(idata, ax: Axes | None = None) -> Axes:
    """Draw the map of R-hat over hidden pixels; seen ones stay blank. Above 1.01 the chains disagree."""
    import matplotlib.pyplot as plt

    if idata.attrs["draws_are"] != "markov":
        raise ValueError(f"the draws are {idata.attrs['draws_are']}; R-hat is for markov draws")
    values = np.fmax.reduce(map_of_rhat(idata).to_numpy())  # over channels, seen ones aside
    ax = ax if ax is not None else plt.subplots(figsize=(3.6, 3), layout="constrained")[1]
    worst = float(np.fmax.reduce(values, axis=None))
    shade = ax.imshow(values, cmap="viridis", vmin=1.0, vmax=max(1.02, worst))
    ax.figure.colorbar(shade, ax=ax, label="R-hat")
    ax.set_axis_off()
    ax.set_title(f"R-hat in pixel space, at most {worst:.3f}", fontsize=9)
    return ax


def coverage_curve(idata, truth: Image, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Draw, against the nominal level, the share of hidden pixels inside their central interval.

    On the diagonal the posterior is calibrated for this image; below it is overconfident. The pixels of
    one image vary together, so that only the mean of many images is evidence.
    """
    import matplotlib.pyplot as plt

    if idata.attrs["draws_are"] in ("restarts", "path"):
        raise ValueError("the draws are optima; coverage is for draws")
    draws, _, target = scores.hidden_draws(idata, truth)
    levels = np.linspace(0.05, 0.95, 19)
    observed = [scores.coverage(draws, target, level).mean() for level in levels]
    if ax is None:
        ax = plt.subplots(figsize=(3.6, 3.4), layout="constrained")[1]
        ax.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="calibrated")
        ax.set(xlabel="nominal level", ylabel="share of hidden pixels inside", xlim=(0, 1), ylim=(0, 1))
    ax.plot(levels, observed, marker=".", label=label or idata.attrs["method"])
    ax.legend(fontsize=8)
    return ax


def picture(image: np.ndarray) -> np.ndarray:
    """Channels last for colour; one plane for grey; clipped to [0, 1]."""
    image = np.clip(image, 0, 1)
    if image.shape[0] == 3:
        return np.moveaxis(image, 0, -1)
    return image.mean(0)


def with_holes(seen: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Seen pixels with holes coloured; where only some channels are seen, those in grey."""
    count = mask.sum(0)
    grey = np.where(mask, seen, 0.0).sum(0) / np.maximum(count, 1)
    whole = mask.all(0)
    picture = np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=-1)
    if seen.shape[0] == 3:
        picture[whole] = np.moveaxis(np.clip(np.nan_to_num(seen), 0, 1), 0, -1)[whole]
    picture[count == 0] = _colour_of_holes(picture[count > 0])
    return picture


def _colour_of_holes(seen: np.ndarray) -> tuple[float, float, float]:
    """Return a colour that none of those that are seen, ``(pixel, 3)``, is like, or the one they are furthest from."""
    if not len(seen):
        return _COLOURS[0]
    some = seen[:: max(1, len(seen) // 10_000)]
    distances = [np.quantile(np.linalg.norm(some - colour, axis=1), 0.01) for colour in _COLOURS]
    far = [colour for colour, distance in zip(_COLOURS, distances, strict=True) if distance > _NEAR]
    return far[0] if far else _COLOURS[int(np.argmax(distances))]


def describe(idata) -> str:
    """Say in a line which model, which method, what the draws are, and whether the run was ended early."""
    attrs = idata.attrs
    name = f"{attrs['model']}, {attrs['method']}"
    density = ", pseudo-posterior" if attrs["density"] != "posterior" else ""
    what = "optima" if attrs["draws_are"] in ("restarts", "path") else "draws"
    incomplete = f", incomplete run ({ending(attrs)})" if ending(attrs) else ""
    return f"{name}: {attrs['draws_are']} {what}{density}{incomplete}"
