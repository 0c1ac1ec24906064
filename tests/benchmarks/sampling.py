"""Compare samplers over the code of one decoder: effective draws a second and a gradient, one thread each.

    python tests/benchmarks/sampling.py [--quick] [--out tests/benchmarks/results.md]

All contenders draw from the same densities in one run, turn and turn about, warm-up counted and compilation
apart. Effective sample sizes are bulk ones (ArviZ) of the noiseless completion's hidden pixels. Seconds are
CPU seconds of one thread, which other work on the machine does not lengthen as it does those of a clock.
"""

# isort: off
import sampling_threads  # noqa: F401, before what it is about

# isort: on
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import tables
import torch
from cases import HALF, masks, test_garments
from sampling_contenders import CONTENDERS, Case, check_densities
from sampling_figures import Figures, figures, latent_sizes, scaling, trained_decoder
from sampling_overhead import overhead_table

from posterior_inpainting.inference import ChEES
from posterior_inpainting.models import LatentCode, Observation, pretrained


def contest(title: str, model: LatentCode, images: torch.Tensor, some: dict, budgets: dict) -> str:
    """Run every contender on every image and mask; return the section."""
    found: dict[str, list[Figures]] = {contender: [] for contender in CONTENDERS}
    differences = []
    for number, (image, mask_name) in enumerate((image, name) for image in images for name in some):
        observation = Observation(image, some[mask_name])
        for contender, run in CONTENDERS.items():
            warmup, draws, chains = budgets[contender]
            case = Case(model, observation, warmup, draws, chains, seed=number)
            if contender == "ours, ChEES":
                differences.append(check_densities(case))
            found[contender].append(figures(case, run(case)))
            print(f"{title}, {mask_name}: {contender}: {found[contender][-1]}", flush=True)
    assert max(differences) < 1e-3, f"the densities differ by {max(differences):.2g}"
    head = ["sampler", "chains x (warm-up + draws)", "ESS/s, worst", "ESS/s, median"]
    head += ["ESS per 1,000 gradients, worst / median", "R-hat, max", "seconds", "compilation, s", "ratio"]
    rows = [_contest_row(name, budgets[name], rows, found["ours, ChEES"]) for name, rows in found.items()]
    return f"""## {title}

Medians over {len(images)} image(s) x {len(some)} mask(s): {"; ".join(some)}. ESS of the worst and of
the median hidden pixel. Ratio: of the worst pixel's ESS a second, ours over theirs, median (range).

{tables.markdown(head, rows)}
"""


def _contest_row(name: str, budget: tuple, rows: list[Figures], best: list[Figures]) -> list[str]:
    warmup, draws, chains = budget
    middle = {field: median(vars(row)[field] for row in rows) for field in vars(rows[0])}
    ratios = sorted(mine.smallest / theirs.smallest for mine, theirs in zip(best, rows, strict=True))
    return [
        name,
        f"{chains} x ({warmup} + {draws})",
        f"{middle['smallest']:,.1f}",
        f"{middle['middle']:,.1f}",
        f"{middle['smallest_per_gradient']:.2f} / {middle['per_gradient']:.2f}",
        f"{middle['rhat']:.3f}",
        f"{middle['seconds']:.1f}",
        f"{max(row.compile_seconds for row in rows):.1f}",
        f"{median(ratios):,.1f} ({ratios[0]:,.1f} to {ratios[-1]:,.1f})",
    ]


def sections(quick: bool, count: int) -> list[Callable[[], str]]:
    """Return what is measured, in order."""
    images = test_garments(range(1 if quick else count))
    some = masks(HALF) if quick else masks()
    few, many = (
        ((30, 30, 1), (ChEES().warmup, 50, 8)) if quick else ((150, 150, 2), (ChEES().warmup, 250, 64))
    )
    budgets = {name: few if name.startswith("Pyro") else many for name in CONTENDERS}
    size = {"epochs": 1, "images": 2000} if quick else {"epochs": 10}
    reference = LatentCode(trained_decoder(20, **size))
    bundled = LatentCode(pretrained.load("fashion-mnist-vae"))
    half = Observation(images[0], some[HALF])
    both, counts = {"reference": reference, "fashion-mnist-vae": bundled}, (4,) if quick else (4, 64, 256)
    chains = [1, 8] if quick else [1, 4, 16, 64, 256, 1024]
    first = "Reference decoder: 20-400-400-784, scale 0.1"
    sizes = "-".join(str(size) for size in (bundled.latent, *bundled.decoder.widths, 784))
    second = f"Bundled prior: fashion-mnist-vae, {sizes}, with a law of codes and scales that depend on them"
    found: list[Callable[[], str]] = [
        lambda: contest(first, reference, images, some, budgets),
        lambda: overhead_table(both, half, counts, turns=40 if quick else 2000),
        lambda: scaling(reference, half, chains, most=100 if quick else 1000),
    ]
    if not quick:
        found += [
            lambda: latent_sizes(images[0], half.mask, [2, 8, 20, 64]),
            lambda: contest(second, bundled, images[:1], some, budgets),
        ]
    return found


def main() -> None:
    """Measure, print and write."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--images", type=int, default=5, help="images for each mask (default 5)")
    options = tables.parsed(parser, quick_images=1, out=Path(__file__).with_name("results.md"))
    start = time.perf_counter()
    text = "# Samplers compared\n\n" + "\n".join(line.strip() for line in __doc__.splitlines()[4:]) + "\n\n"
    packages = ("jax", "numpyro", "blackjax", "optax", "arviz")
    for section in sections(options.quick, options.images):
        text += section() + "\n"
        minutes = (time.perf_counter() - start) / 60
        end = f"{tables.measured_on(*packages)}\n\nThe whole took {minutes:.0f} minutes.\n"
        options.out.write_text(text + end)  # after every section, so that what is done is not lost
    print(text)


if __name__ == "__main__":
    main()
