"""What `learn` makes of 5,000 PNG files, kind by kind, with and without holes, beside the bundled prior.

    OMP_NUM_THREADS=1 python tests/benchmarks/learning.py [--quick] [--only vae,gan] [--minutes 10]

The files are training images of Fashion-MNIST; priors are scored on the first 100 test images, which chose nothing,
behind three masks. Codes are drawn by the guide, the quickest way to some; everything else by its usual method, 48
draws. Priors are kept in `build/bench/learning`: a run that was ended goes on.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import tables
import torch
from cases import GARMENT, masks
from skimage.io import imsave
from timing import Stopwatch

from posterior_inpainting.inference import Variational, catalogue, learn
from posterior_inpainting.inference.evaluation.held_out import score_real
from posterior_inpainting.inference.learning.learn import KINDS
from posterior_inpainting.models import Observation, datasets, observations

#: How many files; draws of a posterior; and the masks behind which priors are scored.
FILES, DRAWS = 5000, 48
MASKS = ("half:bottom", "scatter:0.3", "box:8,8,12,12")
#: What is missing in the files, and the kind that is learnt from files of which something is.
HOLES = ("half of the pixels", "half of each image, in blocks")


def folder_of_files(where: Path, count: int, holes: str | None) -> Path:
    """Write training images as PNG files, what is missing of them transparent, unless they are there."""
    folder = where / f"files-{count}-{(holes or 'whole').replace(' ', '-').replace(',', '')}"
    if folder.is_dir():
        return folder
    staged = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    images = datasets.load("fashion-mnist", split="train")[:55_000]
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(images), generator=generator)[:count].tolist()
    for number in chosen:
        seen = seen_of(holes, generator)
        alpha = 255 * seen.to(torch.uint8)
        grey = (255 * images[number, 0]).round().to(torch.uint8)
        pixels = torch.stack([grey, grey, grey, alpha], -1) if holes else grey
        imsave(staged / f"{number:05d}.png", pixels.numpy(), check_contrast=False)
    staged.rename(folder)
    return folder


def seen_of(holes: str | None, generator: torch.Generator) -> torch.Tensor:
    """Return which pixels of a file are opaque, ``(row, column)``."""
    shape = GARMENT[1:]
    if holes == HOLES[0]:
        return torch.rand(shape, generator=generator) < 0.5
    if holes == HOLES[1]:
        # Blocks of 7 x 7, half of the sixteen that there are.
        blocks = torch.ones(16, dtype=torch.bool)
        blocks[torch.randperm(16, generator=generator)[:8]] = False
        return blocks.reshape(4, 4).repeat_interleave(7, 0).repeat_interleave(7, 1)
    return torch.ones(shape, dtype=torch.bool)


def scored(name: str, count: int) -> dict[str, Any]:
    """Score a prior on test images behind all masks."""
    images = datasets.load("fashion-mnist", split="test")[:count]
    behind = masks(*MASKS)
    seen = Observation(images[0], observations.half(GARMENT, hide="bottom"))
    approach = catalogue.build(name, seen)
    by_guide = catalogue.entry(name).method.goal is not None
    method = Variational() if by_guide else approach.method
    chains = 1 if by_guide else approach.chains
    with Stopwatch() as watch:
        settings = {"draws": max(1, DRAWS // chains), "chains": chains, "progress": False}
        table = score_real(approach.model_for(seen), method, images, behind, **settings)
    means = table.groupby(level="mask").mean()
    found = {f"CRPS, {mask}": float(means.loc[mask, "CRPS"]) for mask in MASKS}
    error = table["CRPS"].groupby(level="image").mean().std() / count**0.5
    return {
        "CRPS": float(table["CRPS"].mean()),
        "se": float(error),
        **found,
        "90 % intervals hold": f"{float(table['coverage 90%'].mean()):.3f}",
        "PSNR of the mean, dB": f"{float(table['PSNR of the mean (dB)'].mean()):.1f}",
        "drawn by": type(method).__name__,
        "CPU seconds an image": f"{watch.cpu / (count * len(MASKS)):.2f}",
    }


def main() -> None:
    """Learn and score what is asked for, and write the page of all that there is."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, separated by commas")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each")
    options = tables.parsed(parser)
    files, count, minutes = (60, 2, 0.1) if options.quick else (FILES, 100, options.minutes)
    where = tables.QUICK / f"learning{'_quick' * options.quick}"
    store = where / "rows.json"
    rows: dict[str, dict[str, Any]] = tables.stored_rows(store, {})
    wanted = [(kind, None) for kind in options.only.split(",")]
    wanted += [("vae", holes) for holes in HOLES if "vae" in options.only.split(",")]
    for kind, holes in [("bundled", None), *wanted]:
        key = f"{kind} | {holes or 'nothing'}"
        if key in rows:
            continue
        name, begun = "vae", time.monotonic()
        if kind != "bundled":
            name = str(where / f"{kind}-{(holes or 'whole').split(',')[0].replace(' ', '-')}")
            if not (Path(name) / "config.json").is_file():
                learn(folder_of_files(where, files, holes), kind, out=name, minutes=minutes, channels=1)
        learnt = (time.monotonic() - begun) / 60
        rows[key] = {"prior": kind, "missing in the files": holes or "nothing"} | scored(name, count)
        rows[key]["minutes to learn and measure it"] = "" if kind == "bundled" else f"{learnt:.1f}"
        tables.save_rows(store, rows)
        print(key, rows[key], flush=True)
        options.out.write_text(page(list(rows.values()), options, files, minutes))


def page(rows: list[dict[str, Any]], options: Any, files: int, minutes: float) -> str:
    """Return the page."""
    head = f"# Priors learnt from {files} files\n\n    {tables.command(options)}\n\n"
    note = NOTE.format(files=files, minutes=minutes)
    return f"{head}{note}\n\n{tables.measured_on()}\n\n{tables.table_of(rows, '.4f')}\n"


NOTE = """\
`learn FOLDER --kind KIND --minutes {minutes:g}` on one thread, from {files} training images of Fashion-MNIST as PNG
files, of which four fifths are trained on; *bundled* is `fashion-mnist-vae`, of 55,000 images and 43 minutes. The first
100 test images behind three masks, hidden pixels only; se is the standard error of the CRPS over images. Codes are
drawn by the amortised guide, for `bundled` too, which is not the posterior but compares priors at little cost."""

if __name__ == "__main__":
    main()
