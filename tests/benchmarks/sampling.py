"""Compare samplers over the code of one decoder: effective draws a second and a gradient, one thread each.

    python tests/benchmarks/sampling.py [--quick] [--out tests/benchmarks/results.md]

All contenders draw from the same densities in one run, turn and turn about, warm-up counted and compilation
apart. Effective sample sizes are bulk ones (ArviZ) of the noiseless completion's hidden pixels. Seconds are
CPU seconds of one thread, which other work on the machine does not lengthen as it does those of a clock.
"""

# ruff: noqa: E402
import os

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
for variable, value in {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "XLA_FLAGS": ONE_THREAD}.items():
    os.environ[variable] = value

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from sampling_contenders import CONTENDERS, Case, check_densities
from sampling_figures import MASKS, Figures, figures, latent_sizes, machine, scaling, trained_decoder
from sampling_overhead import overhead_table

from posterior_inpainting.inference import ChEES
from posterior_inpainting.models import LatentCode, Observation, datasets, pretrained


def contest(name: str, model: LatentCode, images: torch.Tensor, masks: dict, budgets: dict) -> list[str]:
    """Run every contender on every image and mask; return the table's lines."""
    found: dict[str, list[Figures]] = {contender: [] for contender in CONTENDERS}
    cases = [(image, mask_name) for image in images for mask_name in masks]
    differences = []
    for number, (image, mask_name) in enumerate(cases):
        observation = Observation(image, masks[mask_name])
        for contender, run in CONTENDERS.items():
            warmup, draws, chains = budgets[contender]
            case = Case(model, observation, warmup, draws, chains, seed=number)
            if contender == "ours, ChEES":
                differences.append(check_densities(case))
            found[contender].append(figures(case, run(case)))
            print(f"{name}, {mask_name}: {contender}: {found[contender][-1]}", flush=True)
    assert max(differences) < 1e-3, f"the densities differ by {max(differences):.2g}"
    return _contest_lines(name, found, len(images), list(masks), budgets)


def _contest_lines(name: str, found: dict, images: int, masks: list[str], budgets: dict) -> list[str]:
    middle = {c: {f: median(getattr(r, f) for r in rows) for f in vars(rows[0])} for c, rows in found.items()}
    best = found["ours, ChEES"]
    lines = [
        f"## {name}\n",
        f"Medians over {images} image(s) x {len(masks)} mask(s): {'; '.join(masks)}. ESS of the worst and of",
        "the median hidden pixel. Ratio: of the worst pixel's ESS a second, ours over theirs, median (range).\n",
        "| sampler | chains x (warm-up + draws) | ESS/s, worst | ESS/s, median "
        "| ESS per 1,000 gradients, worst / median | R-hat, max | seconds | compilation, s | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for contender, rows in found.items():
        warmup, draws, chains = budgets[contender]
        m = middle[contender]
        ratios = sorted(mine.smallest / theirs.smallest for mine, theirs in zip(best, rows, strict=True))
        compiled = max(row.compile_seconds for row in rows)
        lines.append(
            f"| {contender} | {chains} x ({warmup} + {draws}) | {m['smallest']:,.1f} | {m['middle']:,.1f} "
            f"| {m['smallest_per_gradient']:.2f} / {m['per_gradient']:.2f} | {m['rhat']:.3f} | {m['seconds']:.1f} "
            f"| {compiled:.1f} | {median(ratios):,.1f} ({ratios[0]:,.1f} to {ratios[-1]:,.1f}) |"
        )
    return [*lines, ""]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one image, one mask, less of everything")
    parser.add_argument("--images", type=int, default=5, help="images for each mask (default 5)")
    parser.add_argument("--out", type=Path, default=Path("tests/benchmarks/results.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    images = datasets.load("fashion-mnist", "test")[: 1 if options.quick else options.images]
    masks = dict(list(MASKS.items())[:1]) if options.quick else MASKS
    budgets = {
        name: (150, 150, 2) if name.startswith("Pyro") else (ChEES().warmup, 250, 64) for name in CONTENDERS
    }
    reference = LatentCode(trained_decoder(20, epochs=10))
    bundled = LatentCode(pretrained.load("fashion-mnist-vae"))
    half = Observation(images[0], MASKS["bottom half hidden"])
    sections: list[Callable[[], list[str]]] = [
        lambda: contest("Reference decoder: 20-400-400-784, scale 0.1", reference, images, masks, budgets),
        lambda: overhead_table({"reference": reference, "fashion-mnist-vae": bundled}, half),
        lambda: scaling(reference, half, [1, 64] if options.quick else [1, 4, 16, 64, 256, 1024]),
    ]
    if not options.quick:
        title = "Bundled prior: fashion-mnist-vae, 32-512-512-784, scale a function of z"
        sections += [
            lambda: latent_sizes(images[0], half.mask, [2, 8, 20, 64]),
            lambda: contest(title, bundled, images[:1], masks, budgets),
        ]
    lines = ["# Samplers compared\n", *(line.strip() for line in __doc__.splitlines()[4:]), ""]
    for section in sections:
        lines += section()
        minutes = (time.perf_counter() - start) / 60
        text = "\n".join([*lines, *machine(), f"The whole took {minutes:.0f} minutes."]) + "\n"
        options.out.write_text(text)  # after every section, so that what is done is not lost
    print(text)


if __name__ == "__main__":
    main()
