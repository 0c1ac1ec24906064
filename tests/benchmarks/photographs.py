"""Photographs completed by each prior of images of any size, and by a biharmonic fill: writes `photographs.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/photographs.py [--images 0-7] [--only biharmonic,...] [--quick]

Eight photographs that nothing was trained on, 256 x 256 in colour, behind four masks. A cell (approach, mask, picture)
runs in a process of its own, whose memory is measured, and is kept in `photographs.json`: a run goes on with the
others.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import tables
import torch
from cases import masks
from scipy.stats import wasserstein_distance
from timing import Stopwatch

from posterior_inpainting.inference import catalogue
from posterior_inpainting.inference.evaluation.scores import score
from posterior_inpainting.models import Observation, datasets, observations
from posterior_inpainting.models.shapes import Image, Mask

SHAPE = (3, 256, 256)
NAMES = ("astronaut", "cat", "coffee", "tissue", "motorcycle", "rocket", "china", "flower")
BIHARMONIC = "biharmonic"
APPROACHES = (
    BIHARMONIC,
    "gaussian-process",
    "photographs-diffusion",
    "photographs-experts",
    "deep-image-prior-full",
)
#: Draws of each posterior, of all chains.
DRAWS = 8
FIGURES = {
    "PSNR of the mean, dB": "PSNR of the mean (dB)",
    "CRPS": "CRPS",
    "95 %": "coverage 95%",
    "gradients": "gradients",
    "seconds": "seconds",
    "GB": "memory",
}


def behind() -> dict[str, Mask]:
    """Return the masks by name: a quarter under strokes, half and four fifths of the pixels, three squares."""
    found = masks("strokes:16,8", "scatter:0.5", "scatter:0.2", shape=SHAPE)
    boxes = (observations.box(SHAPE, top, left, 32, 32) for top, left in ((40, 60), (112, 112), (180, 170)))
    return found | {"three boxes": torch.stack(list(boxes)).all(0)}


def cell(approach: str, image: Image, mask: Mask) -> dict[str, float]:
    """Complete one picture and score it, in a fresh process; memory is the most that it ever had."""
    torch.set_num_threads(1)
    seen = Observation(image, mask)
    with Stopwatch() as watch:
        found = biharmonic(seen, image) if approach == BIHARMONIC else drawn(approach, seen, image)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found | {"seconds": watch.cpu, "memory": peak / 1e9}


def biharmonic(seen: Observation, image: Image) -> dict[str, float]:
    """Fill in one way; its absolute error is the CRPS of what claims no doubt."""
    from skimage.restoration import inpaint_biharmonic

    filled = inpaint_biharmonic(seen.image.numpy(), ~seen.mask[0].numpy(), channel_axis=0)
    hidden = ~seen.mask.numpy()
    error = (filled - image.numpy())[hidden]
    return {
        "PSNR of the mean (dB)": float(-10 * np.log10(np.mean(error**2))),
        "CRPS": float(np.abs(error).mean()),
        "coverage 95%": np.nan,
        "gradients": gradients(filled[None], image.numpy(), hidden),
    }


def drawn(approach: str, seen: Observation, image: Image) -> dict[str, float]:
    """Draw, and score the draws."""
    chosen = catalogue.approach(approach)
    chosen = replace(chosen, draws=max(1, DRAWS // chosen.chains))
    posterior = chosen.complete(seen, progress=False)
    scores = score(posterior, image)
    completion = posterior.posterior["completion"].to_numpy().reshape(-1, *SHAPE)
    found = {name: float(scores[name]) for name in FIGURES.values() if name in scores}
    return found | {"gradients": gradients(completion, image.numpy(), ~seen.mask.numpy())}


def gradients(draws: np.ndarray, truth: np.ndarray, hidden: np.ndarray) -> float:
    """Return how far the law of differences of hidden neighbours is from the truth's, in units of their mean size."""
    apart, size = 0.0, 0.0
    for axis in (-1, -2):
        both = np.take(hidden, range(1, 256), axis) & np.take(hidden, range(255), axis)
        true = np.diff(truth, axis=axis)[both]
        ours = np.diff(draws, axis=axis)[:, both].ravel()
        apart += wasserstein_distance(ours, true)
        size += float(np.abs(true).mean())
    return float(apart / size)


def main() -> None:
    """Measure the cells that are missing, and write the page of all that there are."""
    parser = tables.arguments(__file__, __doc__, images="0-7")
    parser.add_argument("--only", default=",".join(APPROACHES), help="approaches, with commas between")
    options = tables.parsed(parser, "0-0")
    store = options.out.with_suffix(".json")
    stored: dict[str, dict[str, float]] = tables.stored_rows(store, {})
    pictures = datasets.load("photographs", "test")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for approach in options.only.split(","):
            for number in tables.image_numbers(options.images):
                for mask_name, mask in behind().items():
                    key = f"{approach} {mask_name} {NAMES[number]}"
                    if key not in stored:
                        stored[key] = pool.submit(cell, approach, pictures[number], mask).result()
                        tables.save_rows(store, stored)
                        print(key, {k: round(v, 4) for k, v in stored[key].items()}, flush=True)
    options.out.write_text(page(options, stored))


def rows(stored: dict[str, dict[str, float]], by: str) -> list[dict[str, Any]]:
    """Means over what is not told apart: ``by`` mask, by picture, or over ``all``."""
    groups: dict[tuple[str, str], list[dict[str, float]]] = {}
    for key, figures in stored.items():
        approach, rest = key.split(" ", 1)
        mask, picture = rest.rsplit(" ", 1)
        what = {"mask": mask, "picture": picture, "all": ""}[by]
        groups.setdefault((approach, what), []).append(figures)
    found = []
    for (approach, what), some in groups.items():
        row: dict[str, Any] = {"approach": approach} | ({} if by == "all" else {by: what})
        means = {title: float(np.mean([one[name] for one in some])) for title, name in FIGURES.items()}
        found.append(row | means | {"GB": max(one["memory"] for one in some), "pictures": len(some)})
    return found


def page(options: Any, stored: dict[str, dict[str, float]]) -> str:
    """Return the page."""
    digits = {"CRPS": ".4f", "95 %": ".3f", "seconds": ".1f"}
    run = f"{tables.command(options)} --images {options.images} --only {options.only}"
    parts = [f"# Photographs\n\n    {run}\n\n{tables.measured_on()}\n\n{NOTE}"]
    both = {one: {key.split(" ", 1)[1] for key in stored if key.startswith(f"{one} ")} for one in APPROACHES}
    shared = set.intersection(*both.values())
    if 0 < len(shared) < max(map(len, both.values())):
        some = {key: figures for key, figures in stored.items() if key.split(" ", 1)[1] in shared}
        parts.append(f"## Where all are done\n\n{tables.table_of(rows(some, 'all'), digits)}")
    for by in ("all", "mask", "picture"):
        title = {"all": "Over all pictures and masks", "mask": "By mask", "picture": "By picture"}[by]
        parts.append(f"## {title}\n\n{tables.table_of(rows(stored, by), digits)}")
    return "\n\n".join(parts) + "\n"


NOTE = f"""\
Hidden pixels only, {DRAWS} draws. CRPS is the fair one; of the biharmonic fill, which claims no doubt, it is the mean
absolute error. The 95 % of {DRAWS} draws is of their ranks, with chance at ties. *Gradients*: how far the law of
differences of hidden neighbours is from the truth's (Wasserstein's distance over their mean size), 0 where a draw is as
rough as the photograph. Seconds of one core for all draws, most of them beside other work, which makes them about half
as long again; GB the most that a process had, torch among them. *Pictures*: how many of the 8 (32 with their masks) are
done."""

if __name__ == "__main__":
    main()
