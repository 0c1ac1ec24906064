"""Priors of Fashion-MNIST against the nearest training images taken as draws: writes `priors.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/priors.py [--images 5000-5099] [--only vae,nearest-5] [--quick]

Masks are three that no network was trained for. A cell (approach, mask) that is done is kept in `priors.json`, and a
run goes on with the others. Nothing is chosen on these images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tables
from cases import masks
from timing import Stopwatch

from posterior_inpainting.inference import catalogue, infer, infer_many
from posterior_inpainting.inference.evaluation.diversity import diversity
from posterior_inpainting.inference.evaluation.scores import hidden_draws, pit, score
from posterior_inpainting.models import LatentCode, Observation, datasets, pretrained
from posterior_inpainting.models.shapes import Image, Mask

MASKS = masks("half:top", "scatter:0.15", "box:9,9,10,10")
#: What the others are held against.
YARDSTICK = "nearest-5"
APPROACHES = (YARDSTICK, "nearest-20", "vae", "fashion-mnist-diffusion")

#: Titles of the page, and the names of the figures.
SCORES = {
    "CRPS": "CRPS",
    "95 %": "coverage 95%",
    "where the truth is above 0": "coverage 95%, positive",
    "50 %": "coverage 50%",
    "RMSE between draws": "RMSE between draws",
    "PSNR of the mean, dB": "PSNR of the mean (dB)",
    "seconds an image": "seconds",
}


@dataclass(frozen=True)
class Cell:
    """One approach behind one mask: what it draws with, and what is measured of its draws."""

    approach: str
    mask: Mask
    before: str | None

    def rows(self, images: Image) -> list[dict[str, float]]:
        """Measure image by image."""
        first_seen = Observation(images[0], self.mask)
        chosen = catalogue.build("vae" if self.approach == "before" else self.approach, first_seen)
        model = LatentCode(pretrained.load(self.before)) if self.approach == "before" else chosen.model
        method = chosen.method
        sizes = {"draws": chosen.draws, "chains": chosen.chains, "progress": False}
        found = []
        for first in range(0, len(images), 10):
            some = images[first : first + 10]
            seen = [Observation(image, self.mask) for image in some]
            with Stopwatch() as watch:
                posteriors = (
                    infer_many(model, seen, method, **sizes)
                    if method.runs_together
                    else [infer(model, one, method, **sizes) for one in seen]
                )
            for image, posterior in zip(some, posteriors, strict=True):
                found.append(_figures(posterior, image) | {"seconds": watch.cpu / len(some)})
        return found


def _figures(posterior: Any, image: Image) -> dict[str, float]:
    all_scores = score(posterior, image)
    shown = {name: all_scores[name] for name in SCORES.values() if name in all_scores}
    apart = diversity(posterior, pairs=1)["diversity (RMSE)"]
    return shown | {"RMSE between draws": apart} | _claims(posterior, image)


def _claims(posterior: Any, image: Image) -> dict[str, float]:
    """Squared errors over the variances claimed, and the PIT where the image is black."""
    draws, _, truth = hidden_draws(posterior, image)
    ranks, claimed = pit(draws, truth), float(draws.var(0, ddof=1).sum())
    black = ranks[truth == 0]
    return {
        "chi-square": float(((draws.mean(0) - truth) ** 2).sum()) / claimed if claimed else np.nan,
        "PIT sd of black": float(np.sqrt(np.mean((black - 0.5) ** 2))) if len(black) else np.nan,
    }


def _mean(rows: list[dict[str, float]], name: str) -> float:
    values = [row[name] for row in rows if not np.isnan(row[name])]
    return float(np.mean(values)) if values else np.nan


def scores(stored: dict[str, list[dict[str, float]]], approaches: list[str]) -> list[dict[str, Any]]:
    """Means over images, a row an approach and mask."""
    return [
        {"approach": approach, "mask": mask}
        | {title: _mean(stored[f"{approach} {mask}"], name) for title, name in SCORES.items()}
        for approach in approaches
        for mask in MASKS
    ]


def paired(stored: dict[str, list[dict[str, float]]], approaches: list[str]) -> list[dict[str, Any]]:
    """Mean CRPS over the masks beside that of the nearest images, image by image."""
    of_images = {
        approach: np.mean([[row["CRPS"] for row in stored[f"{approach} {mask}"]] for mask in MASKS], 0)
        for approach in approaches
    }
    rows: list[dict[str, Any]] = []
    for approach, each in of_images.items():
        less = each - of_images[YARDSTICK]
        rows.append(
            {
                "approach": approach,
                "CRPS": float(each.mean()),
                f"over that of {YARDSTICK}": float(each.mean() / of_images[YARDSTICK].mean()),
                "difference": float(less.mean()),
                "its standard error": float(less.std(ddof=1) / len(less) ** 0.5) if len(less) > 1 else np.nan,
            }
        )
    return rows


def black(stored: dict[str, list[dict[str, float]]], approaches: list[str]) -> list[dict[str, Any]]:
    """What is claimed of hidden pixels, and of black ones among them."""
    names = ("chi-square", "PIT sd of black")
    return [
        {"approach": approach, "mask": mask}
        | {name: _mean(stored[f"{approach} {mask}"], name) for name in names}
        for approach in approaches
        for mask in MASKS
    ]


def main() -> None:
    """Measure the cells that are missing, and write the page of all that there are."""
    parser = tables.arguments(__file__, __doc__, images="5000-5099")
    parser.add_argument("--only", default=",".join(APPROACHES), help="approaches, with commas between")
    parser.add_argument(
        "--split", default="test", help="`train` to choose settings by its last 5,000 images, 55000-59999"
    )
    parser.add_argument(
        "--before", help="folder or bundled name of an older decoder, as the approach `before`"
    )
    options = tables.parsed(parser, "5000-5001")
    store = options.out.with_suffix(".json")
    content = tables.stored_rows(store, {})
    stored = content.setdefault(f"{options.split} images {options.images}", {})
    numbers = tables.image_numbers(options.images)
    images = datasets.load("fashion-mnist", options.split)[numbers.start : numbers.stop]
    asked = options.only.split(",") + (["before"] if options.before else [])
    for approach in asked:
        for name, mask in MASKS.items():
            if f"{approach} {name}" not in stored:
                stored[f"{approach} {name}"] = Cell(approach, mask, options.before).rows(images)
                tables.save_rows(store, content)
                print(approach, name, f"{_mean(stored[f'{approach} {name}'], 'CRPS'):.4f}", flush=True)
    options.out.write_text(page(options, content))


def page(options: Any, content: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Return the page: for each range of images the scores, the paired differences, and black pixels."""
    parts = [
        f"# Priors of Fashion-MNIST\n\n    {tables.command(options)}\n\n{tables.measured_on()}\n\n{NOTE}"
    ]
    for images, stored in content.items():
        whole = [a for a in (*APPROACHES, "before") if all(f"{a} {mask}" in stored for mask in MASKS)]
        if YARDSTICK not in whole:
            continue
        for title, made, digits in (
            (images.capitalize(), partial(scores, stored, whole), {"CRPS": ".4f", "95 %": ".3f"}),
            (
                "The mean of the three masks, paired with the nearest images",
                partial(paired, stored, whole),
                ".4f",
            ),
            ("What is claimed of pixels", partial(black, stored, whole), ".3f"),
        ):
            parts.append(f"## {title}\n\n{tables.table_of(made(), digits)}")
    return "\n\n".join(parts) + "\n"


NOTE = """\
CRPS (fair) and coverage are of hidden pixels, the means over images; the 95 % of 5 draws is of their ranks, with chance
at ties. Chi-square is the sum of squared errors of the predictive mean over the sum of the variances claimed: 1 where
claims are true on average. The PIT's root mean square about one half is .289 where black pixels are as probable as they
are. Seconds are of one core. `before` is the decoder that was bundled until its pixels were censored: `git show
823a1eb:models/networks/weights/fashion-mnist-vae.decoder.safetensors`."""

if __name__ == "__main__":
    main()
