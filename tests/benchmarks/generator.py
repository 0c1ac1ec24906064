"""The posterior over the code of a GAN against Yeh's restarts, on Fashion-MNIST test images; writes `generator.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/generator.py [--quick] [--images 0-19] [--mask half:bottom]

The tables are written again after every image, so that a run that is stopped leaves what it has.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tables
import torch
from cases import GARMENT, HALF, STANDARD, mask_named, test_garments
from timing import Stopwatch

from posterior_inpainting.inference import (
    MALA,
    MAP,
    ULA,
    ChEES,
    ParallelTempering,
    TemperedSMC,
    diagnostics,
    infer,
    scores,
)
from posterior_inpainting.models import LatentCode, Observation, PriorLoss, likelihoods, pretrained

LEVELS = (0.5, 0.8, 0.9, 0.95)
RESTARTS = 64
FIRST = "ChEES from tempered starts"
#: In this order: each later one runs where those before it leave some R-hat at 1.01 or more.
TEMPERED = (FIRST, "ParallelTempering", "ParallelTempering, longer")
WHERE = {"all": "", "some": "; some images", "unsettled": "; images that those above leave at 1.01 or more"}


@dataclass(frozen=True)
class Entry:
    """A line of the table: a method, the model it runs on, and on which of the images (a key of ``WHERE``)."""

    method: Any
    model: str = "posterior"
    draws: int = 300
    chains: int = 16
    where: str = "all"


ENTRIES = {
    FIRST: Entry(ChEES(init="tempered", warmup=150, max_steps=32)),
    "restarts (MAP)": Entry(MAP(restarts=RESTARTS)),
    "ParallelTempering": Entry(
        ParallelTempering(temperatures=12, warmup=300, moves=ChEES(max_steps=8)),
        draws=2400,
        chains=4,
        where="unsettled",
    ),
    "ParallelTempering, longer": Entry(
        ParallelTempering(temperatures=12, warmup=300, moves=ChEES(max_steps=8)),
        draws=12_000,
        chains=4,
        where="unsettled",
    ),
    "MALA": Entry(MALA(warmup=300, thin=10), draws=500, where="some"),
    "ULA, step size 2e-3": Entry(ULA(step_size=2e-3, warmup=300, thin=10), draws=500, where="some"),
    "restarts (Yeh's loss)": Entry(MAP(restarts=RESTARTS), model="yeh", where="some"),
    "TemperedSMC": Entry(TemperedSMC(), draws=256, chains=4, where="some"),
}


def figures(drawn: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Scores of values ``(n, pixel)`` as an empirical law; restarts too, which `scores.score` refuses."""
    drawn = drawn.clip(0, 1).astype(float)
    found = {
        "CRPS": float(scores.crps(drawn, target).mean()),
        "energy score": scores.energy_score(drawn, target),
    }
    for level in LEVELS:
        inside = scores.coverage(drawn, target, level)
        found[f"{level:.0%}"] = float(inside.mean())
    found["95%, positive"] = float(inside[target > 0].mean()) if (target > 0).any() else np.nan
    return found


def cost(idata) -> dict[str, float]:
    """Gradients, seconds, and for chains R-hat and ESS in pixel space."""
    found = {"gradients": idata.attrs["gradient_evaluations"], "seconds": idata.attrs["wall_time_s"]}
    if idata.attrs["draws_are"] == "markov":
        found["R-hat"] = float(diagnostics.pixel_rhat(idata).max())
        found["ESS"] = float(diagnostics.pixel_ess(idata).min())
    return found


def hidden_values(idata, group: str, variable: str, hidden: np.ndarray) -> np.ndarray:
    """All draws of the hidden pixels, ``(n, pixel)``."""
    return idata[group][variable].to_numpy().reshape(-1, *hidden.shape)[:, hidden]


def run_one(entry: Entry, models: dict, seen: Observation, budget: int) -> Any:
    """Draw, or climb from the restarts for as many gradients as the first method used."""
    method = entry.method
    if isinstance(method, MAP):
        method = replace(method, steps=max(1, round(budget / method.restarts)))
    options = {"draws": entry.draws, "chains": entry.chains, "seed": 0, "progress": False}
    return infer(models[entry.model], seen, method, **options)


def summary(frame: pd.DataFrame) -> str:
    """Means over images, a line a mask and method; differences are paired, image by image."""
    head = ["mask", "method", "images", "R-hat, median image", "below 1.01", "CRPS"]
    head += ["against the first, same images (se)", "energy score", "50 %", "80 %", "90 %", "95 %"]
    head += ["95 %, truth above 0", "mean off by, sd", "thousand gradients", "seconds"]
    lines = []
    for (mask, name), part in frame.groupby(["mask", "method"], sort=False):
        mean, count = part.drop(columns=["mask", "method", "image"]).mean(), len(part)
        first = frame[(frame["mask"] == mask) & (frame["method"] == FIRST)].set_index("image")["CRPS"]
        gain = (part.set_index("image")["CRPS"] - first).dropna()
        error = gain.std() / np.sqrt(count)
        paired = f"{gain.mean():+.4f} ({error:.4f})" if count > 1 and name != FIRST else ""
        rhat = part["R-hat"].dropna()
        below = (
            [f"{rhat.median():.3f}", f"{int((rhat < 1.01).sum())} of {len(rhat)}"] if len(rhat) else ["", ""]
        )
        row = [mask, name, count, *below, f"{mean['CRPS']:.4f}", paired, f"{mean['energy score']:.4f}"]
        row += [f"{mean[f'{level:.0%}']:.3f}" for level in LEVELS]
        row += [f"{mean['95%, positive']:.3f}", f"{mean['off']:.3f}" if np.isfinite(mean["off"]) else ""]
        spent = [f"{mean['gradients'] / 1000:.0f}", f"{mean['seconds']:.1f}"]
        lines.append([*row, *(spent if mean["gradients"] > 0 else ["", ""])])
    return tables.markdown(head, lines)


def settled(frame: pd.DataFrame) -> str:
    """How many posteriors some tempered method has drawn with every R-hat below 1.01."""
    tempered = frame[frame["method"].isin(TEMPERED)]
    best = tempered.groupby(["mask", "image"])["R-hat"].min()
    count = int((best < 1.01).sum())
    return f"{count} of {len(best)} posteriors have every R-hat below 1.01 by one of the tempered methods."


def by_image(frame: pd.DataFrame) -> str:
    """Largest R-hat over hidden pixels, and smallest ESS, image by image."""
    some = frame[frame["R-hat"].notna()]
    names = list(dict.fromkeys(some["method"]))
    lines = []
    for (mask, image), part in some.groupby(["mask", "image"], sort=False):
        cells = part.set_index("method")
        row = [f"{cells['R-hat'][n]:.3f} ({cells['ESS'][n]:.0f})" if n in cells.index else "" for n in names]
        lines.append([mask, image, *row])
    return tables.markdown(["mask", "image", *names], lines)


def write(rows: list[dict], out: Path, seconds: float) -> None:
    """Write both tables."""
    frame = pd.DataFrame(rows)
    out.write_text(
        f"""# The posterior of a GAN's code, and Yeh's restarts

Fashion-MNIST test images {frame["image"].min()}-{frame["image"].max()} under `fashion-mnist-generator`; hidden pixels
only, with the pixels' noise unless said, clipped to [0, 1]. {seconds / 60:.0f} minutes on one thread of
{platform.machine()} shared with other work, torch {torch.__version__}. Written by `tests/benchmarks/generator.py`.

{settings()}

R-hat is the largest, ESS the smallest over the hidden pixels of the completion. *Mean off by* is how far a method's
pixel means are from those of the first one, root mean square, in standard deviations of a pixel.

Restarts are optima and no draws; they are scored here as if they were, which is how pictures of them are read. Each
has as many gradients as the posterior beside it. From {RESTARTS} values a calibrated 95 % interval covers
{0.95 * (RESTARTS - 1) / (RESTARTS + 1):.3f}; *{RESTARTS} draws* is the posterior with no more than that.

{summary(frame)}

## R-hat (and ESS) image by image

{settled(frame)}

{by_image(frame)}
"""
    )


def settings() -> str:
    """One line a method."""
    lines = []
    for name, entry in ENTRIES.items():
        size = "" if isinstance(entry.method, MAP) else f", {entry.draws} draws x {entry.chains} chains"
        size += WHERE[entry.where]
        lines.append(f"- *{name}*: `{entry.method}`{size}")
    lines.append(
        "- *Yeh's loss* is L1 with context weights (window 15), the discriminator's term (the paper's lambda of 0.003 "
        "over a noise of 0.15) and prior weight 1; *noiseless* is of the optima themselves, as they are shown."
    )
    return "\n".join(lines)


class Comparison:
    """What all methods found so far; a stopped run goes on from it.

    ``found``: ``rows``; ``seconds``; ``reference``, mask and image -> mean and standard deviation of the hidden pixels,
    and gradients, of the first method.
    """

    def __init__(self, models: dict, found: dict[str, Any], most_draws: int | None):
        self.models, self.found, self.most_draws = models, found, most_draws

    def run(self, name: str, mask_name: str, number: int, image: torch.Tensor) -> None:
        """Run one method on one image, unless that is done."""
        rows = self.found["rows"]
        if any((row["method"], row["mask"], row["image"]) == (name, mask_name, number) for row in rows):
            return
        with Stopwatch() as watch:
            rows += self._compared(name, mask_name, number, image)
        self.found["seconds"] += watch.clock
        print(f"{name} {mask_name} {number}: {self.found['seconds']:.0f} s", flush=True)

    def _compared(self, name: str, mask_name: str, number: int, image: torch.Tensor) -> list[dict]:
        entry, mask = ENTRIES[name], mask_named(mask_name, GARMENT)
        if self.most_draws is not None:
            entry = replace(entry, draws=min(entry.draws, self.most_draws))
        hidden, place = ~mask.numpy(), f"{mask_name} {number}"
        target = image.numpy()[hidden].astype(float)
        known = self.found["reference"].get(place)
        idata = run_one(entry, self.models, Observation(image, mask), known[2] if known else 0)
        drawn = hidden_values(idata, "posterior_predictive", "image", hidden)
        bare = hidden_values(idata, "posterior", "completion", hidden)
        spent = cost(idata)
        laws: dict[str, tuple[np.ndarray, dict]]
        if known is None:
            moments = bare.mean(0).tolist(), bare.std(0).tolist()
            self.found["reference"][place] = [*moments, spent["gradients"]]
            some = np.linspace(0, len(drawn) - 1, RESTARTS).astype(int)
            laws = {name: (drawn, spent), f"{name}, {RESTARTS} draws": (drawn[some], {})}
        else:
            mean, sd = map(np.array, known[:2])
            off = float(np.sqrt(np.mean((bare.mean(0) - mean) ** 2) / np.mean(sd**2)))
            laws = {name: (drawn, spent | {"off": off})}
            if isinstance(entry.method, MAP):
                laws[f"{name}, noiseless"] = bare, {}
        base = {"mask": mask_name, "image": number, "off": np.nan, "R-hat": np.nan}
        return [
            base | {"method": law} | figures(values, target) | more for law, (values, more) in laws.items()
        ]


def wanted(name: str, mask: str, indices: range, rows: list[dict]) -> list[int]:
    """Images that a method runs on."""
    entry = ENTRIES[name]
    if entry.where == "some":
        return list(indices)[: max(1, len(indices) // 4)]
    if entry.where == "unsettled":
        before = TEMPERED[: TEMPERED.index(name)]
        some = [row for row in rows if row["mask"] == mask and row["method"] in before]
        best = {index: min(row["R-hat"] for row in some if row["image"] == index) for index in indices}
        return [index for index in indices if best[index] >= 1.01]
    return list(indices)


def load_models() -> dict[str, LatentCode]:
    """Load the posterior's model, and that of Yeh's loss."""
    parts = pretrained.load_parts("fashion-mnist-generator")
    yeh = LatentCode(
        parts["decoder"],
        likelihood=likelihoods.laplace,
        context_window=15,
        prior_loss=PriorLoss(parts["discriminator"], 0.03),
    )
    return {"posterior": LatentCode(parts["decoder"]), "yeh": yeh}


def main() -> None:
    """Run method by method, so that a short run has the first ones for every image."""
    parser = tables.arguments(__file__, __doc__, images="0-19")
    parser.add_argument("--mask", action="append", choices=STANDARD)
    parser.add_argument("--keep", type=Path, help="JSON file of results, from which a stopped run goes on")
    options = tables.parsed(parser)
    numbers = tables.image_numbers(options.images)
    images = dict(zip(numbers, test_garments(numbers), strict=True))
    found = tables.stored_rows(options.keep, {"rows": [], "reference": {}, "seconds": 0.0})
    comparison = Comparison(load_models(), found, 20 if options.quick else None)
    names = [name for name in ENTRIES if not options.quick or ENTRIES[name].where != "unsettled"]
    for name in names:
        for mask in options.mask or [HALF]:
            for number in wanted(name, mask, numbers, found["rows"]):
                comparison.run(name, mask, number, images[number])
                write(found["rows"], options.out, found["seconds"])
                if options.keep:
                    tables.save_rows(options.keep, found)
    write(found["rows"], options.out, found["seconds"])


if __name__ == "__main__":
    main()
