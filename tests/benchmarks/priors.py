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
import torch
from cases import masks
from timing import Stopwatch

from posterior_inpainting.inference import catalogue, infer, infer_many
from posterior_inpainting.inference.evaluation.diversity import diversity
from posterior_inpainting.inference.evaluation.scores import flat, hidden_draws, pit, score
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
        found = []
        for first in range(0, len(images), 10):
            some = images[first : first + 10]
            model, posteriors, seconds = drawn(self.approach, self.mask, some, self.before)
            for image, posterior in zip(some, posteriors, strict=True):
                figures = _figures(posterior, image) | _claims_of_seen(model, posterior, image, self.mask)
                found.append(figures | {"seconds": seconds})
        return found


def drawn(
    approach: str, mask: Mask, images: Image, before: str | None = None
) -> tuple[Any, list[Any], float]:
    """Return an approach's model, its posteriors of images behind a mask, and the seconds of a core for each."""
    seen = [Observation(image, mask) for image in images]
    chosen = catalogue.build("vae" if approach == "before" else approach, seen[0])
    model = LatentCode(pretrained.load(before)) if approach == "before" and before else chosen.model
    sizes = {"draws": chosen.draws, "chains": chosen.chains, "progress": False}
    with Stopwatch() as watch:
        posteriors = (
            infer_many(model, seen, chosen.method, **sizes)
            if chosen.method.runs_together
            else [infer(model, one, chosen.method, **sizes) for one in seen]
        )
    return model, posteriors, watch.cpu / len(seen)


def _figures(posterior: Any, image: Image) -> dict[str, float]:
    all_scores = score(posterior, image)
    shown = {name: all_scores[name] for name in SCORES.values() if name in all_scores}
    apart = diversity(posterior, pairs=1)["diversity (RMSE)"]
    draws, _, truth = hidden_draws(posterior, image)
    return shown | {"RMSE between draws": apart} | _claims("hidden", draws, truth)


def _claims_of_seen(model: Any, posterior: Any, image: Image, mask: Mask) -> dict[str, float]:
    """Hold seen pixels against what a model of codes says of them; in ``image`` they are as they were seen."""
    if "z" not in posterior.posterior:
        return {}
    codes = torch.as_tensor(flat(posterior, "posterior", "z"))[
        :: max(1, posterior.posterior.sizes["draw"] // 50)
    ]
    draws = model.pixel_law(codes).sample().clamp(0, 1)
    return _claims("seen", draws[:, mask].numpy(), image[mask].numpy())


def _claims(which: str, draws: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Squared errors over the variances claimed, and the PIT where the image is black."""
    ranks, claimed = pit(draws, truth), float(draws.var(0, ddof=1).sum())
    black = ranks[truth == 0]
    return {
        f"{which}: chi-square": float(((draws.mean(0) - truth) ** 2).sum()) / claimed if claimed else np.nan,
        f"{which}: PIT sd of black": float(np.sqrt(np.mean((black - 0.5) ** 2))) if len(black) else np.nan,
    }


def _mean(rows: list[dict[str, float]], name: str) -> float:
    values = [row[name] for row in rows if not np.isnan(row.get(name, np.nan))]
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
    """What is claimed of pixels, and of black ones among them."""
    return [
        {"approach": approach, "mask": mask}
        | {
            f"{which}: {name}": _mean(stored[f"{approach} {mask}"], f"{which}: {name}")
            for which in ("hidden", "seen")
            for name in ("chi-square", "PIT sd of black")
        }
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
823a1eb:models/networks/weights/fashion-mnist-vae.decoder.safetensors`.

![Halves of a sneaker, a shirt and a bag, six draws of each prior](../../docs/priors.png)

*Made by `python tests/benchmarks/priors_pictures.py --before FOLDER`.*"""

if __name__ == "__main__":
    main()
