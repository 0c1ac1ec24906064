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
import platform
import time
import warnings
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median

import arviz
import numpy as np
import torch
import xarray as xr
from sampling_contenders import CONTENDERS, Case, Result, check_densities, ours
from sampling_overhead import overhead_table

from posterior_inpainting.inference import train
from posterior_inpainting.models import (
    LatentCode,
    Observation,
    VariationalAutoencoder,
    datasets,
    observations,
    pretrained,
)
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder

SHAPE = (1, 28, 28)
MASKS = {
    "bottom half hidden": observations.half(SHAPE, hide="bottom"),
    "70 % of pixels hidden": observations.scatter(SHAPE, keep=0.3, seed=0),
    "12 x 12 box hidden": observations.box(SHAPE, top=8, left=8, height=12, width=12),
}
CACHE = Path("build/bench")


@dataclass(frozen=True)
class Figures:
    """What the table shows of one run."""

    smallest: float  # bulk ESS of the worst hidden pixel, a second
    middle: float  # of the median hidden pixel, a second
    per_gradient: float  # of the median hidden pixel, per 1,000 gradients
    smallest_per_gradient: float
    rhat: float
    seconds: float
    compile_seconds: float
    gradients: int


def figures(case: Case, result: Result) -> Figures:
    """Decode the draws, which no contender's clock counts, and measure them."""
    hidden = (~case.observation.mask).flatten()
    with torch.no_grad():
        decoded = case.model.decoder(torch.from_numpy(np.array(result.codes))).flatten(-3)[..., hidden]
    pixels = xr.Dataset({"pixels": (("chain", "draw", "pixel"), decoded.double().numpy())})
    with np.errstate(invalid="ignore", divide="ignore"):
        ess = arviz.ess(pixels, method="bulk")["pixels"].to_numpy()
        one = case.chains == 1  # R-hat needs several chains
        rhat = float("nan") if one else float(np.nanmax(arviz.rhat(pixels)["pixels"].to_numpy()))
    smallest, middle = float(np.nanmin(ess)), float(np.nanmedian(ess))
    return Figures(
        smallest / result.seconds,
        middle / result.seconds,
        1000 * middle / result.gradients,
        1000 * smallest / result.gradients,
        rhat,
        result.seconds,
        result.compile_seconds,
        result.gradients,
    )


def trained_decoder(latent: int, epochs: int, widths: tuple[int, ...] = (400, 400)) -> MultilayerDecoder:
    """Train a decoder with pixel scale 0.1 for a few epochs, or load it from an earlier run."""
    torch.manual_seed(0)
    decoder = MultilayerDecoder(latent, SHAPE, widths, scale_rank=None, floor=0.03)  # scale: 0.03 + 0.07
    decoder.raw_scale.data = torch.tensor(0.07).expm1().log()
    decoder.raw_scale.requires_grad_(False)
    path = CACHE / f"decoder-{latent}-{'-'.join(map(str, widths))}-{epochs}.pt"
    if path.is_file():
        decoder.load_state_dict(torch.load(path, weights_only=True))
        return decoder
    vae = VariationalAutoencoder(decoder, MaskedEncoder(latent, SHAPE, widths))
    with warnings.catch_warnings():  # of the pixel scale, which is not trained
        warnings.simplefilter("ignore")
        train(vae, vae.guide, datasets.load("fashion-mnist", "train"), epochs=epochs, progress=False)
    CACHE.mkdir(parents=True, exist_ok=True)
    torch.save(decoder.state_dict(), path)
    return decoder


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
        "| sampler | chains x (warm-up + draws) | ESS/s, worst | ESS/s, median | ESS per 1,000 gradients, worst / median "
        "| R-hat, max | seconds | compilation, s | ratio |",
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


def scaling(model: LatentCode, observation: Observation, counts: list[int]) -> list[str]:
    """Measure ours over the number of chains."""
    lines = [
        "## Ours, by number of chains (20-400-400-784, bottom half hidden)\n",
        "| chains | warm-up + draws | ESS/s, worst | ESS/s, median | ESS per 1,000 gradients, worst / median "
        "| R-hat, max | seconds | microseconds a gradient |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for chains in counts:
        draws = max(50, min(1000, 16_000 // chains))
        lines.append(_own_line(str(chains), Case(model, observation, 0, draws, chains)))
    return [*lines, ""]


def latent_sizes(image: torch.Tensor, mask: torch.Tensor, sizes: list[int]) -> list[str]:
    """Measure ours over the length of the code."""
    lines = [
        "## Ours, by length of the code (L-400-400-784, 64 chains, bottom half hidden)\n",
        "| latent | warm-up + draws | ESS/s, worst | ESS/s, median | ESS per 1,000 gradients, worst / median "
        "| R-hat, max | seconds | microseconds a gradient |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        model = LatentCode(trained_decoder(size, epochs=3))
        lines.append(_own_line(str(size), Case(model, Observation(image, mask), 0, 250, 64)))
    return [*lines, ""]


def _own_line(label: str, case: Case) -> str:
    from posterior_inpainting.inference import ChEES

    found = figures(case, ours(case))
    print(label, found, flush=True)
    return (
        f"| {label} | {ChEES().warmup} + {case.draws} | {found.smallest:,.1f} | {found.middle:,.1f} "
        f"| {found.smallest_per_gradient:.2f} / {found.per_gradient:.2f} | {found.rhat:.3f} | {found.seconds:.1f} "
        f"| {1e6 * found.seconds / found.gradients:.0f} |"
    )


def machine() -> list[str]:
    """Say on what the figures were measured."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = ("torch", "pyro-ppl", "jax", "numpyro", "blackjax", "optax", "arviz")
    load = os.getloadavg()[1]
    return [
        f"Measured {date.today()} on {cpu}, {os.cpu_count()} cores, one thread each, load average {load:.1f} at the end;",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + ".\n",
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one image, one mask, less of everything")
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("tests/benchmarks/results.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    images = datasets.load("fashion-mnist", "test")[: 1 if options.quick else options.images]
    masks = dict(list(MASKS.items())[:1]) if options.quick else MASKS
    from posterior_inpainting.inference import ChEES

    budgets = {
        "Pyro NUTS": (100, 100, 2) if options.quick else (150, 150, 2),
        "NumPyro NUTS, vectorised": (300, 250, 64),
        "BlackJAX ChEES": (300, 250, 64),
        "ours, ChEES": (ChEES().warmup, 250, 64),
    }
    reference = LatentCode(trained_decoder(20, epochs=10))
    bundled = LatentCode(pretrained.load("fashion-mnist-vae"))
    half = Observation(images[0], MASKS["bottom half hidden"])
    lines = ["# Samplers compared\n", *__doc__.splitlines()[4:], ""]
    lines += contest("Reference decoder: 20-400-400-784, scale 0.1", reference, images, masks, budgets)
    if not options.quick:
        lines += contest(
            "Bundled prior: fashion-mnist-vae, scale a function of z", bundled, images[: -(-len(images) // 3)], masks, budgets
        )
    lines += overhead_table({"reference": reference, "fashion-mnist-vae": bundled}, half)
    lines += scaling(reference, half, [1, 64] if options.quick else [1, 4, 16, 64, 256, 1024])
    lines += latent_sizes(images[0], half.mask, [] if options.quick else [2, 8, 20, 64])
    lines += machine() + [f"The whole took {(time.perf_counter() - start) / 60:.0f} minutes."]
    text = "\n".join(lines) + "\n"
    print(text)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
