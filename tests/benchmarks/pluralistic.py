"""The three forms of pluralistic completion: diversity beside calibration, and SBC; writes `pluralistic.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/pluralistic.py [--quick] [--images 0-39]

The file is written again after every mask, so that a run that is stopped leaves what it has.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import tables
import torch
from cases import GARMENT, HALF, STANDARD, mask_named, masks, test_garments

from posterior_inpainting.inference import (
    Calibration,
    ChEES,
    Exact,
    Variational,
    calibrate,
    diagnostics,
    infer,
    infer_many,
)
from posterior_inpainting.inference.evaluation.diversity import diversity
from posterior_inpainting.inference.evaluation.scores import psnr, score
from posterior_inpainting.models import Observation
from posterior_inpainting.models.pluralistic import (
    PluralisticConditional,
    PluralisticJoint,
    PluralisticTwoPath,
)
from posterior_inpainting.models.shapes import Image, Mask

REFINED = ChEES(init="guide", warmup=100)
SETTINGS: dict[str, Any] = {"draws": 26, "chains": 16, "seed": 0, "progress": False}


def posteriors(images: Image, mask: Mask) -> Iterator[tuple[str, int, Any, float]]:
    """Yield form, number of the image, its posterior and the seconds it took."""
    seen = [Observation(image, mask) for image in images]
    joint = PluralisticJoint.load()
    forms = {
        "two-path": (PluralisticTwoPath.load(), Exact()),
        "conditional": (PluralisticConditional.load(), Exact()),
        "joint, guide": (joint, Variational()),
    }
    for name, (model, method) in forms.items():
        for index, one in enumerate(seen):
            start = time.perf_counter()
            drawn = infer(model, one, method, **SETTINGS)
            seconds = time.perf_counter() - start
            if name == "two-path":
                yield "two-path, as published", index, without_noise(drawn), seconds
                name_of_noisy = "two-path, with pixel noise"
                yield name_of_noisy, index, drawn, seconds
            else:
                yield name, index, drawn, seconds
    for first in range(0, len(seen), 20):
        start = time.perf_counter()
        some = infer_many(joint, seen[first : first + 20], REFINED, **SETTINGS)
        seconds = (time.perf_counter() - start) / len(some)
        for index, drawn in enumerate(some):
            yield "joint, refined", first + index, drawn, seconds


def without_noise(drawn: Any) -> Any:
    """The same posterior, its images decoded codes with the seen pixels kept, as the published method has them."""
    mask = drawn.constant_data["mask"]
    image = drawn.posterior["completion"].where(~mask, drawn.observed_data["image"])
    changed = drawn.copy()
    changed.posterior_predictive = drawn.posterior_predictive.assign(image=image)
    return changed


def figures(drawn: Any, truth: Image, mask: Mask) -> dict[str, float]:
    """Scores of one posterior, hidden pixels only."""
    hidden = ~mask.numpy()
    completions, predicted = (
        group[name].to_numpy().clip(0, 1)[:, :, hidden]
        for group, name in ((drawn.posterior, "completion"), (drawn.posterior_predictive, "image"))
    )
    between, total = completions.var((0, 1)).mean(), predicted.var((0, 1)).mean()
    fifty = completions.reshape(-1, hidden.sum())[:50]
    found = score(drawn, truth) | diversity(drawn)
    found["share of the variance"] = between / total
    found["sd of completions"] = float(np.sqrt(between))
    found["best of 50 (oracle)"] = max(psnr(one, truth.numpy()[hidden]) for one in fifty)
    rhat = diagnostics.latent_rhat(drawn).data_vars
    found["R-hat"] = max((float(v.max()) for v in rhat.values()), default=np.nan)
    return found


COLUMNS = {
    "CRPS": ("CRPS", ".4f"),
    "energy score": ("energy score", ".4f"),
    "coverage 50%": ("50 %", ".3f"),
    "coverage 80%": ("80 %", ".3f"),
    "coverage 90%": ("90 %", ".3f"),
    "coverage 95%": ("95 %", ".3f"),
    "coverage 95%, positive": ("95 %, truth above 0", ".3f"),
    "PSNR of the mean (dB)": ("PSNR of the mean, dB", ".1f"),
    "diversity (RMSE)": ("diversity, RMSE", ".3f"),
    "diversity (1 - SSIM)": ("diversity, 1 - SSIM", ".3f"),
    "share of the variance": ("variance that z accounts for", ".0%"),
    "best of 50 (oracle)": ("best of 50 against the truth (oracle), dB", ".1f"),
    "seconds": ("seconds an image", ".2f"),
}


def table(rows: list[dict]) -> str:
    """Means over images, a line a mask and form; CRPS with its standard error."""
    frame = pd.DataFrame(rows)
    lines = []
    for (mask, form), part in frame.groupby(["mask", "form"], sort=False):
        cells = [format(part[key].mean(), style) for key, (_, style) in COLUMNS.items()]
        cells[0] += f" ({part['CRPS'].std() / np.sqrt(len(part)):.4f})"
        lines.append([mask, form, *cells])
    refined = frame[frame.form == "joint, refined"].groupby("mask", sort=False)["R-hat"].median()
    rhat = ", ".join(f"{value:.2f} ({mask})" for mask, value in refined.items())
    head = ["mask", "form", *(name for name, _ in COLUMNS.values())]
    return f"{tables.markdown(head, lines)}\n\nR-hat of z of the refined form, median image: {rhat}."


def calibration_row(mask: str, name: str, found: Calibration, seconds: float) -> list[str]:
    """How far ranks and coverage are from what they should be."""
    ranks = found.ranks[:, : found.truth.shape[1]] / found.counts[:, None]
    shares = " / ".join(f"{value:.3f}" for value in found.coverage()["covered"])
    rhat = f"{np.median(found.rhat):.2f}" if np.isfinite(found.rhat).all() else ""
    spread = f"{12**0.5 * ranks.std():.2f}"
    return [mask, name, verdict(found.sbc()), verdict(found.tarp()), spread, shares, rhat, f"{seconds:.0f}"]


def verdict(found: Any) -> str:
    """Whether the test passes, its p, curves outside the band, and the largest distance from uniform."""
    worst = float(np.abs(found.difference).max())
    word = "passes" if found.inside_band else "fails"
    return f"{word}, p = {found.pvalue:.2g}, {len(found.outside)} of {len(found.names)} outside, by {worst:.3f} at most"


CALIBRATION = (
    "mask", "draws", "SBC", "TARP", "spread of ranks", "coverage of hidden pixels, 50 / 80 / 90 / 95 %",
    "median R-hat", "seconds",
)  # fmt: skip


def write(
    rows: list[dict], calibrations: list[list[str]], options: argparse.Namespace, seconds: float
) -> None:
    """Write what there is."""
    options.out.write_text(
        f"""# Three forms of pluralistic completion

Fashion-MNIST test images {options.images}, hidden pixels only, 416 draws of each form, clipped to [0, 1]; the bundled
weights: about 160,000 a part for the two-path form, 340,000 to 350,000 for the other two.
{seconds / 60:.0f} minutes on one thread of {platform.machine()}, torch {torch.__version__}.
Written by `{tables.command(options)}`.

- *two-path, as published*: z from p(z | x~), decoded, the seen pixels kept. *With pixel noise*: the same, and the noise
  that the reconstructive path leaves on training images.
- *conditional*: a conditional VAE, likelihood on hidden pixels, ancestral draws.
- *joint, guide*: draws of q(z | x~). *joint, refined*: `ChEES(init="guide", warmup={REFINED.warmup})` from those draws.

Coverage is of central intervals. A decoded pixel is never exactly 0, so that without noise every interval misses the
black background: the column of truths above 0 is free of that.

Diversity is of completions without pixel noise, the mean over pairs of draws;
it says nothing without the coverage beside it. *Variance that z accounts for* is the share of the predictive variance
in the hole that comes from the code: near 0 the code is ignored. The last column but one picks the best of 50 draws by
looking at the truth: an oracle that no one has, here because it is the figure that was published.

{table(rows) if rows else ""}

## Simulation-based calibration of the joint form

{options.simulations} images simulated from the joint model itself, before (the guide's draws) and after refinement.
p is of all curves together; beside it, the largest difference of a cumulative curve from the uniform one. The spread of
the ranks of z is 1 if they are uniform, above 1 if the draws are too narrow.

{tables.markdown(CALIBRATION, calibrations)}
"""
    )


def main() -> None:
    """Run, and write the tables after every mask."""
    parser = tables.arguments(__file__, __doc__, images="0-39")
    parser.add_argument("--simulations", type=int, default=300)
    options = tables.parsed(parser)
    if options.quick:
        options.simulations = 10
    numbers = tables.image_numbers(options.images)
    images = test_garments(numbers)
    rows: list[dict] = []
    calibrations: list[list[str]] = []
    start = time.perf_counter()
    for name, mask in masks(*(STANDARD[:1] if options.quick else STANDARD)).items():
        for form, index, drawn, seconds in posteriors(images, mask):
            row = {"mask": name, "form": form, "image": numbers[index], "seconds": seconds}
            rows.append(row | figures(drawn, images[index], mask))
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        write(rows, calibrations, options, time.perf_counter() - start)
    joint, mask = PluralisticJoint.load(), mask_named(HALF, GARMENT)
    settings = {"draws": 30, "chains": 16, "seed": 0, "progress": False}
    for label, method in (("guide", Variational()), ("refined", REFINED)):
        began = time.perf_counter()
        found = calibrate(joint, method, mask=mask, datasets=options.simulations, batch=50, **settings)
        calibrations.append(calibration_row(HALF, label, found, time.perf_counter() - began))
        print(" | ".join(calibrations[-1]), flush=True)
        write(rows, calibrations, options, time.perf_counter() - start)


if __name__ == "__main__":
    main()
