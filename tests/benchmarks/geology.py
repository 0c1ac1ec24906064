"""Channels from a few wells: honest posterior against 300 restarts of the published optimiser; writes `geology.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/geology.py [--quick] [--truths 32] [--prior NAME_OR_FOLDER]

Truths are of two kinds: drawn from the generator itself, with its noise (is the sampling right?), and simulated
anew (does the generator know channels?). Tables are written again after every few truths, so that a run that is stopped
leaves what it has.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from posterior_inpainting.inference import MAP, TemperedSMC
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.evaluation.scores import LEVELS, coverage, crps
from posterior_inpainting.models import LatentCode, pretrained
from posterior_inpainting.models.geology.meandering_channels import MeanderingChannels
from posterior_inpainting.models.geology.nearest_measurement import RADII, NearestMeasurement
from posterior_inpainting.models.geology.wells import columns, nearest_seen, wells
from posterior_inpainting.models.mixture_prior import MixturePrior

SHAPE = (1, 64, 64)
LAW = MeanderingChannels()
SEED = 1_000_000  # of the simulated truths: far from that of the training images
SETTINGS = {"4 wells": 4, "8 wells": 8, "20 wells": 20, "3 columns": 3}
RESTARTS = 300
FEWER = 4  # truths that restarts, which cost more, are tried on
AWAY = 3.0  # pixels from the nearest measurement, from which on a pixel counts
THIN = 3  # every so many of those pixels: neighbours say nearly the same
RINGS = {"1 to 3": (0.5, 3), "3 to 6": (3, 6), "6 to 12": (6, 12), "beyond 12": (12, np.inf)}
METHOD = TemperedSMC(max_moves=3)
DRAWS, CHAINS = 256, 2  # particles and replicates
BINS = np.linspace(0, 1, 11)


def mask_of(setting: str, index: int) -> torch.Tensor:
    """Wells or columns of one truth."""
    maker = columns if "columns" in setting else wells
    return maker(SHAPE, SETTINGS[setting], seed=index)


def truths_of(kind: str, model: LatentCode, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(n, 1, row, column)`` and, of the same, the rock without noise."""
    if kind == "simulator":
        return LAW.simulate(count, SHAPE, SEED), LAW.grey(LAW.indicator(count, SHAPE, SEED))
    drawn = []
    for index in range(count):  # each with a seed of its own, so that more truths leave the first as they are
        torch.manual_seed(SEED + index)
        law = model.pixel_law(model.prior().sample())
        drawn.append((law.sample(), law.mean))
    images, rocks = zip(*drawn, strict=True)
    return torch.stack(images), torch.stack(rocks)


def away_figures(
    draws: np.ndarray, means: np.ndarray, truth: np.ndarray, rock: np.ndarray
) -> dict[str, float]:
    """Coverage and scores of predictive draws ``(n, pixel)``; ``means`` are the same draws without noise."""
    found = {f"coverage {level:.0%}": float(coverage(draws, truth, level).mean()) for level in LEVELS}
    channel = rock > 0.5
    if channel.any():
        found["coverage 90%, channel"] = float(coverage(draws, truth, 0.9)[channel].mean())
    found["CRPS"] = float(crps(draws, truth).mean())
    probability = (draws > 0.5).mean(0)
    found["Brier"] = float(np.square(probability - (truth > 0.5)).mean())
    some = means[:: max(1, len(means) // 100)]
    found["diversity"] = float(np.sqrt(2 * some.var(0, ddof=1).mean()))
    return found


def one(
    model: LatentCode,
    image: torch.Tensor,
    rock: torch.Tensor,
    mask: torch.Tensor,
    radius: float,
    seed: int,
    prior_weights: list[float],
) -> list[dict]:
    """Posterior, prior and restarts under each prior weight for one truth, a dictionary each."""
    decoder = model._frozen_decoder
    distance = nearest_seen(mask)[0].flatten()
    away, seen = (distance > AWAY).nonzero().flatten().numpy()[::THIN], mask.flatten().numpy()
    flat, flat_rock = (part.flatten().numpy() for part in (image, rock))
    rows = []

    def keep(
        approach: str, z: torch.Tensor, gradients: int, seconds: float, noisy: bool = True, **more
    ) -> None:
        with torch.no_grad():
            mean, scale = (v.flatten(-3).numpy() for v in decoder.mean_and_scale(z))
        noise = np.random.default_rng(seed).standard_normal(mean.shape, dtype=np.float32)
        draws = mean + scale * noise if noisy else mean
        row = {"approach": approach, "gradients": gradients, "seconds": seconds} | more
        row |= away_figures(draws[:, away], mean[:, away], flat[away], flat_rock[away])
        residual = np.abs(mean[:, seen] - flat[seen]) / scale[:, seen]
        row |= {
            "rms at wells": float(np.sqrt(np.square(residual).mean())),
            "within 3 sd": float((residual < 3).mean()),
            "draws wholly within 4 sd": float((residual < 4).all(1).mean()),
            "largest": float(residual.max()),
            "rms at wells, grey": float(np.sqrt(np.square(mean[:, seen] - flat[seen]).mean())),
        }
        for name, (low, high) in RINGS.items():
            ring = ((distance > low) & (distance <= high)).numpy()
            row[f"spread {name}"] = float(np.sqrt(mean[:, ring].var(0).mean())) if ring.any() else np.nan
        below = np.clip(np.digitize((draws[:, away] > 0.5).mean(0), BINS) - 1, 0, 9)
        row["reliability"] = [
            (int((below == b).sum()), float((flat[away][below == b] > 0.5).sum())) for b in range(10)
        ]
        rows.append(row)

    start = time.perf_counter()
    run = METHOD.run(Problem(model, (image, mask)), draws=DRAWS, chains=CHAINS, seed=seed, progress=False)
    seconds = time.perf_counter() - start
    z, gradients = run.latents["z"], run.attrs["gradient_evaluations"]
    keep("posterior", z.flatten(0, 1), gradients, seconds, error=run.attrs["log_evidence_se"])
    torch.manual_seed(seed)
    keep("prior", model.prior().sample((DRAWS * CHAINS,)), 0, 0.0)
    for weight in prior_weights:
        published = NearestMeasurement(decoder, radius, prior=model.prior(), prior_weight=weight)
        steps = max(1, gradients // RESTARTS)
        start = time.perf_counter()
        method = MAP(restarts=RESTARTS, steps=steps, learning_rate=0.01)
        torch.manual_seed(seed)
        best = method.optimise(Problem(published, (image, mask)))[0]["z"]
        seconds = time.perf_counter() - start
        name = f"{RESTARTS} restarts, prior weight {weight:g}"
        keep(name, best, RESTARTS * steps, seconds)
        keep(f"{name}, without noise", best, RESTARTS * steps, seconds, noisy=False)
    return rows


def table(rows: pd.DataFrame, kind: str) -> str:
    """Markdown of means over truths; of the coverage also standard errors over truths."""
    lines = [
        "| measured | approach | truths | " + " | ".join(f"{level:.0%}" for level in LEVELS),
        "|" + "---|" * (8 + len(LEVELS)),
    ]
    lines[0] += " | 90 % in channels | worst miss | CRPS | Brier | diversity |"
    some = rows[rows["truth"] == kind]
    for (setting, approach), part in some.groupby(["setting", "approach"], sort=False):
        cells, misses = [], []
        for level in LEVELS:
            values = part[f"coverage {level:.0%}"]
            cells.append(f"{values.mean():.3f} ({values.sem():.3f})")
            misses.append(values.mean() - level)
        worst = max(misses, key=abs)
        lines.append(
            f"| {setting} | {approach} | {len(part)} | {' | '.join(cells)} | "
            f"{part['coverage 90%, channel'].mean():.3f} | {100 * worst:+.1f} points | {part['CRPS'].mean():.4f} | "
            f"{part['Brier'].mean():.4f} | {part['diversity'].mean():.3f} |"
        )
    return "\n".join(lines)


def wells_table(rows: pd.DataFrame) -> str:
    """Markdown: how well measurements are honoured, spread by distance, and what it cost."""
    names = ["rms at wells", "rms at wells, grey", "within 3 sd", "draws wholly within 4 sd", "largest"]
    rings = [f"spread {name}" for name in RINGS]
    lines = [
        "| truth | measured | approach | rms residual, sd | rms residual, grey | within 3 sd "
        "| draws wholly within 4 sd | largest, sd | "
        + " | ".join(f"{name} px" for name in RINGS)
        + " | gradients | seconds | error of log evidence, nats |",
        "|" + "---|" * (8 + len(RINGS) + 3),
    ]
    some = rows[~rows["approach"].str.contains("without")]
    for key, part in some.groupby(["truth", "setting", "approach"], sort=False):
        cells = [
            f"{part[name].max() if name == 'largest' else part[name].mean():.3f}" for name in names + rings
        ]
        error = f"{part['error'].median():.2f}" if part["error"].notna().any() else ""
        lines.append(
            f"| {' | '.join(key)} | {' | '.join(cells)} | {part['gradients'].mean():,.0f} | "
            f"{part['seconds'].mean():.1f} | {error} |"
        )
    return "\n".join(lines)


def reliability(rows: pd.DataFrame) -> str:
    """Markdown: said and found probability of channel, away from the wells, simulated truths."""
    lines = ["| said | " + " | ".join(f"{b / 10:.1f} to {b / 10 + 0.1:.1f}" for b in range(10)) + " |"]
    lines.append("|" + "---|" * 11)
    some = rows[(rows["truth"] == "simulator") & rows["approach"].isin(["posterior", "prior"])]
    for approach, part in some.groupby("approach", sort=False):
        counts = np.array(part["reliability"].tolist()).sum(0)
        cells = [f"{hit / n:.3f}" if n >= 200 else "" for n, hit in counts]
        lines.append(f"| {approach} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(rows: list[dict], path: Path, command: str, prior: str, seconds: float) -> None:
    """Write everything that is known so far."""
    frame = pd.DataFrame(rows)
    kinds = {
        "generator": "Truths drawn from the generator: is the sampling right?",
        "simulator": "Truths simulated anew: does the generator know channels?",
    }
    parts = [f"## {title}\n\n{table(frame, kind)}\n" for kind, title in kinds.items()]
    parts[1] += f"\nProbability that a pixel is channel, all settings together:\n\n{reliability(frame)}\n"
    path.write_text(f"""# Geology from a few wells

By `{command}` in {seconds / 60:.0f} minutes on {torch.get_num_threads()} thread(s) of
{platform.machine()}, torch {torch.__version__}; prior `{prior}`, images {SHAPE[1]} x {SHAPE[2]}.

Coverage, CRPS and Brier score count every third of the pixels further than {AWAY:g} pixels from every measurement.
Intervals are central, of {DRAWS * CHAINS} draws of the pixel with the generator's own noise; in brackets the standard
error over truths. "Worst miss" is coverage less the nominal level where that is largest. Restarts are optima, not
draws: their intervals are those that the published method would give, with the generator's noise added to each, which
is more than it does, and without. Every run of restarts has the gradient budget of the posterior beside it:
{RESTARTS} restarts, Adam with step size 0.01. "Diversity" is the root mean square difference between two completions
without noise.

{chr(10).join(parts)}
## Measurements, and diversity by distance

Residuals at measured pixels are those of the completion without noise, in units of the generator's scale there and in
grey values; a completed image itself has the measured values exactly. "Largest" is over all truths, draws and
wells; the error of the log evidence is that of {CHAINS} replicates, the median over truths. The columns in pixels are
the standard deviation over completions, by distance from the nearest measurement.

{wells_table(frame)}
""")


def main() -> None:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two truths")
    parser.add_argument("--truths", type=int, default=24)
    parser.add_argument("--prior", default="channels-generator", help="bundled set, or a folder of one's own")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count = 2 if arguments.quick else arguments.truths
    parts: Any = pretrained.load_parts(arguments.prior)
    model = LatentCode(parts["decoder"], prior=MixturePrior(parts["prior"]))
    truths = {kind: truths_of(kind, model, count) for kind in ("generator", "simulator")}
    start, rows = time.perf_counter(), []
    for index in range(count):
        for kind, (images, rocks) in truths.items():
            for setting in SETTINGS:
                radius = RADII.get(SETTINGS[setting], RADII[8])
                mask = mask_of(setting, index)
                restarts = kind == "simulator" and "wells" in setting and index < FEWER
                prior_weights = [10.0] if restarts else []
                found = one(model, images[index], rocks[index], mask, radius, index, prior_weights)
                rows += [{"truth": kind, "setting": setting, "index": index} | row for row in found]
        command = f"python tests/benchmarks/geology.py --truths {index + 1}"
        write(rows, arguments.out, command, arguments.prior, time.perf_counter() - start)
        print(f"{index + 1}/{count} {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
