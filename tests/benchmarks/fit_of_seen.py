"""Does a prior know what is seen: how often it says no of its own domain's test images, and of others.

    OMP_NUM_THREADS=1 python tests/benchmarks/fit_of_seen.py [--quick] [--judge FILE]

All was chosen on validation images, the last 5,000 of Fashion-MNIST's training images, of which the first 1,000 are the
ones that the prior keeps; test images 5000 to 8999 are of neither. The digits are scikit-learn's, 8 x 8, enlarged to
20 x 20 and framed in black; the 300 with which anything was tried are left out. `--judge` takes a file that
`--learn FILE` wrote, instead of what comes with the prior.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
from cases import GARMENT, masks
from timing import Stopwatch
from torch.nn import functional as F

from posterior_inpainting.inference.training.domain_judge import learn_domain_judge
from posterior_inpainting.models import LatentCode, datasets, pretrained
from posterior_inpainting.models.fit_of_seen import fits_of_seen
from posterior_inpainting.models.networks.domain_judge import DomainJudge
from posterior_inpainting.models.shapes import Image

NAMES = ("half:bottom", "scatter:0.1", "scatter:0.3", "box:8,8,12,12")
LEVEL = 0.05


def domains(count: int) -> dict[str, Image]:
    """Return ``(n, 1, 28, 28)`` images by the domain that they are of; all own ones that there are, too."""
    test = datasets.load("fashion-mnist", split="test")[5000:9000]
    own = test[:count]
    generator = torch.Generator().manual_seed(10)
    return {
        "own": own,
        f"own, {20 * count}": test[: 20 * count],
        "digits": digits()[:count],
        "inverted": 1 - own,
        "noise": torch.rand(count, *GARMENT, generator=generator),
        "photographs": photographs(count),
        "upside down": own.flip(2),
    }


def digits() -> Image:
    """Return digits that nothing was chosen on, in a random order."""
    every = torch.cat([datasets.load("digits", split="train"), datasets.load("digits", split="test")])[300:]
    large = F.interpolate(every, size=(20, 20), mode="bicubic", antialias=True, align_corners=False)
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(10))
    return F.pad(large.clamp(0, 1), (4, 4, 4, 4))[order]


def photographs(count: int) -> Image:
    """Return pieces of scikit-image's photographs, grey, at their own scale."""
    from skimage import color, data

    names = ("camera", "coins", "moon", "page", "text", "brick", "grass", "gravel")
    whole = [getattr(data, name)() / 255 for name in names]
    whole += [color.rgb2gray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")]
    generator, pieces = np.random.default_rng(10), []
    for _ in range(count):
        one = whole[generator.integers(len(whole))]
        row, column = (generator.integers(size - 28) for size in one.shape)
        pieces.append(one[row : row + 28, column : column + 28])
    return torch.tensor(np.stack(pieces), dtype=torch.float32)[:, None].clamp(0, 1)


@cache
def prior() -> LatentCode:
    """Load the prior of garments."""
    return LatentCode(pretrained.load("fashion-mnist-vae"))


def learnt(steps: int) -> DomainJudge:
    """Learn what the prior is told its domain by, from the images that it was trained on."""
    images = datasets.load("fashion-mnist", split="train")
    return learn_domain_judge(images[:55_000], images[55_000:56_000], steps=steps)


def row(domain: str, images: Image) -> dict[str, Any]:
    """Return the share of images that are called strange behind each mask, and by each statistic alone behind all."""
    found: dict[str, Any] = {"images of": domain, "n": len(images)}
    alone: dict[str, list[float]] = {}
    for name, mask in masks(*NAMES).items():
        fits = fits_of_seen(prior(), images, mask) or []
        found[name] = f"{100 * np.mean([fit.p <= LEVEL for fit in fits]):.1f} %"
        for fit in fits:
            for statistic, p in fit.statistics.items():
                alone.setdefault(statistic, []).append(p)
    return found | {name: f"{100 * np.mean(np.array(p) <= LEVEL):.1f} %" for name, p in alone.items()}


def by_share(count: int, repeats: int) -> list[dict[str, Any]]:
    """Return how often own images and digits are called strange behind scattered masks, by the share that is seen."""
    own = datasets.load("fashion-mnist", split="test")[5000 : 5000 + count]
    images, found = torch.cat([own, digits()[:count]]), []
    for share in ("0.05", "0.1", "0.15", "0.3"):
        rates = []
        for mask in masks(*(f"scatter:{share},{seed}" for seed in range(repeats))).values():
            alarms = np.array([fit.p <= LEVEL for fit in fits_of_seen(prior(), images, mask) or []])
            rates.append(100 * alarms.reshape(2, -1).mean(1))
        (own_rate, rate), least = np.mean(rates, 0), np.min(rates, 0)[1]
        row = {"seen": share, "masks": repeats, "own": f"{own_rate:.1f} %", "digits": f"{rate:.1f} %"}
        found.append(row | {"digits, worst mask": f"{least:.0f} %"})
    return found


def costs() -> list[dict[str, Any]]:
    """Return CPU milliseconds of the check of one image, the least of three."""
    images = datasets.load("fashion-mnist", split="test")[:1]
    found = []
    for name, mask in masks(*NAMES).items():
        seconds = []
        for _ in range(3):
            with Stopwatch() as watch:
                fits_of_seen(prior(), images, mask)
            seconds.append(watch.cpu)
        found.append({"mask": name, "ms": f"{1e3 * min(seconds):.0f}"})
    return found


def main() -> None:
    """Measure, and write the page."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--judge", type=Path, help="a file that --learn wrote")
    parser.add_argument("--learn", type=Path, help="learn first, and write to this file")
    options = tables.parsed(parser)
    if options.learn:
        with Stopwatch() as watch:
            judge = learnt(10 if options.quick else 4000)
        print(f"learnt in {watch} seconds")
        torch.save({"configuration": judge.configuration(), "state": judge.state_dict()}, options.learn)
    if options.learn or options.judge:
        stored = torch.load(options.judge or options.learn)
        judge = DomainJudge(**stored["configuration"])
        judge.load_state_dict(stored["state"])
        prior().decoder.domain = judge
    rows = [row(name, images) for name, images in domains(10 if options.quick else 200).items()]
    for one in rows:
        print(one)
    options.out.write_text(
        f"# Does the prior know this image?\n\n    {tables.command(options)}\n\n{NOTE}\n\n{tables.measured_on()}\n\n"
        f"{tables.table_of(rows)}\n\n## Scattered pixels\n\n"
        f"{tables.table_of(by_share(10 if options.quick else 200, 1 if options.quick else 8))}\n\n"
        f"## What the check of one image costs\n\n{tables.table_of(costs())}\n"
    )


NOTE = """\
Share of images of which `diagnostics.fit` says p <= .05 under `fashion-mnist-vae`, behind each of four masks; the last
two columns are of each statistic alone, all masks together. Own images should be 5 %, others as many as possible. What
is expected of own ones varies with the 1,000 that the prior keeps, by .7 % (standard error), besides that of n."""

if __name__ == "__main__":
    main()
