"""What `infer` without a method gives: how often it says that draws can be trusted, how soon, and how often wrongly.

    OMP_NUM_THREADS=1 python tests/benchmarks/trusted.py [--quick] [--only digits,garments,references]

Digits under a code of two numbers are compared with a grid. Test images 100 to 199 of Fashion-MNIST have 60 seconds
each; 20 of them are compared with runs ten times as long. Seconds are CPU seconds of one thread. What is done is kept
in `build/bench/trusted.json`: a run that was ended goes on.
"""

from __future__ import annotations

import math
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
from cases import DIGIT, GARMENT, masks, test_garments
from timing import Stopwatch

from posterior_inpainting.inference import GlobalLocal, diagnostics, infer
from posterior_inpainting.models import LatentCode, Observation, datasets, pretrained

sys.path.append(str(Path(__file__).parents[1]))
from targets import Grid

#: Behind which digits and garments are hidden.
DIGIT_MASKS = ("half:bottom", "scatter:0.2", "box:2,2,4,4")
GARMENT_MASKS = ("half:bottom", "scatter:0.1", "box:8,8,12,12")
#: Seconds that a garment has, the first of those that are compared, and how many of them.
BUDGET, FIRST, REFERENCES = "60 s", 100, 20
#: Pixels that vary less than this part of the widest are not compared.
WIDE = 0.2


@cache
def code(name: str) -> LatentCode:
    """Load a prior."""
    return LatentCode(pretrained.load(name))


def trusted(model: LatentCode, seen: Observation, number: int, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Infer by default; return the posterior, and what there is to say of it."""
    with warnings.catch_warnings(), Stopwatch() as watch:
        warnings.simplefilter("ignore")
        posterior = infer(model, seen, seed=number, progress=False, **settings)
    verdict = diagnostics.verdict(posterior)
    return posterior, {
        "seconds": watch.cpu,
        "trusted": verdict.may_be_used,
        "missing": posterior.attrs.get("until_missing", ""),
        "gradients": int(posterior.attrs["gradient_evaluations"]),
        "rounds": int(posterior.attrs["rounds"]),
    }


def digit(number: int, name: str) -> dict[str, Any]:
    """Compare one digit's posterior with the grid: latents and hidden pixels, and the weights of modes."""
    image = datasets.load("digits")[number]
    seen, model = Observation(image, masks(name, shape=DIGIT)[name]), code("digits-vae-2d")
    posterior, found = trusted(model, seen, number)
    grid = Grid.of(model, seen.image, seen.mask)
    axis = torch.as_tensor(grid.axis)
    z = torch.cartesian_prod(axis, axis)
    weight = grid.weights.ravel()
    likely = weight > 1e-10 * weight.max()
    with torch.no_grad():
        pixels = model.decoder(z[likely])[:, ~seen.mask]
    truth = np.concatenate([z[likely].numpy(), pixels.numpy()], 1).astype(float)
    drawn = posterior.posterior["z"].to_numpy().reshape(-1, 2)
    completed = posterior.posterior["completion"].to_numpy()[..., ~seen.mask.numpy()]
    draws = np.concatenate([drawn, completed.reshape(len(drawn), -1)], 1).astype(float)
    mean = weight[likely] @ truth / weight[likely].sum()
    sd = np.sqrt(weight[likely] @ (truth - mean) ** 2 / weight[likely].sum())
    wide = np.r_[True, True, sd[2:] > WIDE * sd[2:].max()]
    labels, shares = grid.modes()
    found_shares = np.bincount(grid.label(drawn, labels), minlength=len(shares) + 1)[1:] / len(drawn)
    draws, mean, sd = draws[:, wide], mean[wide], sd[wide]
    return found | {
        "mean": float((np.abs(draws.mean(0) - mean) / sd).max()),
        "sd": float(np.abs(draws.std(0) / sd - 1).max()),
        "latents' sd": float(np.abs(draws.std(0) / sd - 1)[:2].max()),
        "mode": float(np.abs(found_shares - shares).max()),
    }


def garment(number: int, name: str) -> dict[str, Any]:
    """Complete one garment within the budget."""
    return trusted(code("fashion-mnist-vae"), _garment(number, name), number, budget=BUDGET)[1]


def reference(number: int, name: str) -> dict[str, Any]:
    """Compare a garment's trusted draws with a run ten times as long, of other starts and half as many chains again."""
    model, seen = code("fashion-mnist-vae"), _garment(number, name)
    posterior, found = trusted(model, seen, number, budget=BUDGET)
    # Ten times the draws, in more chains, after more of a warm-up and from a larger pilot.
    draws = math.ceil(10 * posterior.posterior.sizes["draw"] * 16 / 24)
    method = GlobalLocal(warmup=300, particles=512)
    long = infer(model, seen, method, seed=1000 + number, chains=24, draws=draws, progress=False, keep=())
    hidden = ~seen.mask.numpy()
    short, true = (
        one.posterior["completion"].to_numpy()[..., hidden].reshape(-1, hidden.sum())
        for one in (posterior, long)
    )
    wide = true.std(0) > WIDE * true.std(0).max()
    short, true = short[:, wide], true[:, wide]
    sd = true.std(0)
    return found | {
        "mean": float((np.abs(short.mean(0) - true.mean(0)) / sd).max()),
        "sd": float(np.abs(short.std(0) / sd - 1).max()),
        "reference": float(diagnostics.pixel_rhat(long).max()),
    }


def _garment(number: int, name: str) -> Observation:
    return Observation(test_garments(range(number, number + 1))[0], masks(name, shape=GARMENT)[name])


def measured(store: Path, part: str, cells: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """Measure the cells of a part that are not stored; return all of them."""
    make = {"digits": digit, "garments": garment, "references": reference}[part]
    rows = tables.stored_rows(store, {})
    for number, name in cells:
        key = f"{part} {number} {name}"
        if key not in rows:
            rows[key] = make(number, name) | {"mask": name, "number": number}
            tables.save_rows(store, rows)
            print(key, rows[key], flush=True)
    return [rows[f"{part} {number} {name}"] for number, name in cells]


def by_mask(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a mask, and one of all: the share that is trusted, seconds, and how far they are off."""
    found = []
    for name in [*dict.fromkeys(row["mask"] for row in rows), "all"]:
        some = [row for row in rows if name in (row["mask"], "all")]
        seconds = [row["seconds"] for row in some]
        record = {
            "mask": name,
            "posteriors": len(some),
            "trusted": f"{100 * np.mean([row['trusted'] for row in some]):.1f} %",
            "seconds, median": float(np.median(seconds)),
            "90 %": float(np.quantile(seconds, 0.9)),
            "gradients, median": f"{np.median([row['gradients'] for row in some]):.0f}",
        }
        if "mean" in some[0]:
            good = [row["mean"] < 0.1 and row["sd"] < 0.1 for row in some]
            believed = [row for row in some if row["trusted"]]
            record |= {
                "means within .1 sd, sds within 10 %": f"{100 * np.mean(good):.1f} %",
                "trusted ones, worst mean (sd)": max((row["mean"] for row in believed), default=np.nan),
                "worst sd": max((row["sd"] for row in believed), default=np.nan),
            }
        if "mode" in some[0]:
            record["worst weight of a mode"] = max(row["mode"] for row in some)
        found.append(record)
    return found


def main() -> None:
    """Measure the parts that are asked for, and write the page of all that there are."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--only", default="digits,garments,references", help="parts, separated by commas")
    options = tables.parsed(parser)
    store = tables.QUICK / f"trusted{'_quick' * options.quick}.json"
    count, few = (2, 1) if options.quick else (100, REFERENCES)
    cells = {
        "digits": [(number, name) for number in range(count) for name in DIGIT_MASKS],
        "garments": [(number, name) for number in range(FIRST, FIRST + count) for name in GARMENT_MASKS],
        "references": [(FIRST + n, GARMENT_MASKS[n % 3]) for n in range(few)],
    }
    sections = [f"# Trust\n\n    {tables.command(options)}\n\n{NOTE}\n\n{tables.measured_on()}"]
    stored = tables.stored_rows(store, {})
    for part, wanted in cells.items():
        if part in options.only.split(","):
            rows = measured(store, part, wanted)
        else:
            rows = [stored[key] for n, m in wanted if (key := f"{part} {n} {m}") in stored]
        if rows:
            sections.append(f"## {TITLES[part]}\n\n{tables.table_of(by_mask(rows))}")
    options.out.write_text("\n\n".join(sections) + "\n")


NOTE = """\
Trusted: what the verdict says. How far off: the largest difference of a mean, in standard deviations, and of a standard
deviation, relative to it, over latents and hidden pixels that vary at least a fifth as much as the widest."""
TITLES = {
    "digits": "Digits, two latents, against a grid",
    "garments": "Test images of Fashion-MNIST from 100 on, 32 latents, 60 seconds",
    "references": "Some of them, against runs ten times as long",
}

if __name__ == "__main__":
    main()
