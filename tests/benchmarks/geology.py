"""Channels from a few wells: honest posterior against 300 restarts of the published optimiser; writes `geology.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/geology.py [--quick] [--truths 24] [--prior NAME_OR_FOLDER]

Truths are of two kinds: drawn from the generator itself, with its noise (is the sampling right?), and simulated
anew (does the generator know channels?). Tables are written again after every few truths, so that a run that is stopped
leaves what it has.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tables
import torch
from timing import Stopwatch

from posterior_inpainting.inference import MAP, Plan, Problem, TemperedSMC
from posterior_inpainting.inference.evaluation.scores import LEVELS, coverage, crps
from posterior_inpainting.inference.streams import Streams
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


@dataclass(frozen=True)
class Truth:
    """An image ``(1, row, column)``, the rock without noise, what is measured, and a number of its own."""

    image: torch.Tensor
    rock: torch.Tensor
    mask: torch.Tensor
    number: int

    @property
    def away(self) -> np.ndarray:
        """Every third of the pixels that lie far from all measurements."""
        return (nearest_seen(self.mask)[0].flatten() > AWAY).nonzero().flatten().numpy()[::THIN]

    def figures(self, decoder: Any, z: torch.Tensor, noisy: bool = True) -> dict[str, Any]:
        """Everything that is measured of codes ``(n, latent)``."""
        away, seen = self.away, self.mask.flatten().numpy()
        truth, rock = (part.flatten().numpy() for part in (self.image, self.rock))
        with torch.no_grad():
            mean, scale = (v.flatten(-3).numpy() for v in decoder.mean_and_scale(z))
        noise = Streams(self.number).numpy("pixels").standard_normal(mean.shape, dtype=np.float32)
        draws = mean + scale * noise if noisy else mean
        below = np.clip(np.digitize((draws[:, away] > 0.5).mean(0), BINS) - 1, 0, 9)
        said = [(int((below == b).sum()), float((truth[away][below == b] > 0.5).sum())) for b in range(10)]
        found = away_figures(draws[:, away], mean[:, away], truth[away], rock[away])
        found |= at_wells(mean[:, seen], scale[:, seen], truth[seen]) | self.spreads(mean)
        return found | {"reliability": said}

    def spreads(self, mean: np.ndarray) -> dict[str, float]:
        """Standard deviation over completions without noise, by distance from the nearest measurement."""
        distance = nearest_seen(self.mask)[0].flatten()
        found = {}
        for name, (low, high) in RINGS.items():
            ring = ((distance > low) & (distance <= high)).numpy()
            found[f"spread {name}"] = float(np.sqrt(mean[:, ring].var(0).mean())) if ring.any() else np.nan
        return found


def at_wells(mean: np.ndarray, scale: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How well completions ``(n, pixel)`` honour the measurements."""
    residual = np.abs(mean - truth) / scale
    return {
        "rms at wells": float(np.sqrt(np.square(residual).mean())),
        "within 3 sd": float((residual < 3).mean()),
        "draws wholly within 4 sd": float((residual < 4).all(1).mean()),
        "largest": float(residual.max()),
        "rms at wells, grey": float(np.sqrt(np.square(mean - truth).mean())),
    }


def one(model: LatentCode, truth: Truth, radius: float, prior_weights: list[float]) -> list[dict]:
    """Posterior, prior and restarts under each prior weight for one truth, a dictionary each."""
    decoder, seen = model._frozen_decoder, (truth.image, truth.mask)
    plan = Plan(DRAWS, CHAINS, Streams(truth.number))
    with Stopwatch() as watch:
        run = METHOD.run(Problem(model, seen), plan)
    gradients, error = run.attrs["gradient_evaluations"], run.attrs["log_evidence_se"]
    spent = {"gradients": gradients, "seconds": watch.clock}
    with plan.streams.seeded("prior"):
        codes = model.prior().sample((DRAWS * CHAINS,))
    rows = [
        {"approach": "posterior", **spent, "error": error}
        | truth.figures(decoder, run.latents["z"].flatten(0, 1)),
        {"approach": "prior", "gradients": 0, "seconds": 0.0} | truth.figures(decoder, codes),
    ]
    for weight in prior_weights:
        published = NearestMeasurement(decoder, radius, prior=model.prior(), prior_weight=weight)
        steps = max(1, gradients // RESTARTS)
        method = MAP(restarts=RESTARTS, steps=steps, learning_rate=0.01)
        with Stopwatch() as watch:
            best = method.optimise(Problem(published, seen), plan)[0]["z"]
        spent = {"gradients": RESTARTS * steps, "seconds": watch.clock}
        name = f"{RESTARTS} restarts, prior weight {weight:g}"
        rows.append({"approach": name, **spent} | truth.figures(decoder, best))
        bare = truth.figures(decoder, best, noisy=False)
        rows.append({"approach": f"{name}, without noise", **spent} | bare)
    return rows


def table(rows: pd.DataFrame, kind: str) -> str:
    """Markdown of means over truths; of the coverage also standard errors over truths."""
    head = ["measured", "approach", "truths", *(f"{level:.0%}" for level in LEVELS)]
    head += ["90 % in channels", "worst miss", "CRPS", "Brier", "diversity"]
    lines = []
    for (setting, approach), part in rows[rows["truth"] == kind].groupby(["setting", "approach"], sort=False):
        covered = [part[f"coverage {level:.0%}"] for level in LEVELS]
        worst = max((c.mean() - level for c, level in zip(covered, LEVELS, strict=True)), key=abs)
        cells = [f"{values.mean():.3f} ({values.sem():.3f})" for values in covered]
        cells += [f"{part['coverage 90%, channel'].mean():.3f}", f"{100 * worst:+.1f} points"]
        cells += [f"{part['CRPS'].mean():.4f}", f"{part['Brier'].mean():.4f}"]
        lines.append([setting, approach, len(part), *cells, f"{part['diversity'].mean():.3f}"])
    return tables.markdown(head, lines)


def wells_table(rows: pd.DataFrame) -> str:
    """Markdown: how well measurements are honoured, spread by distance, and what it cost."""
    names = ["rms at wells", "rms at wells, grey", "within 3 sd", "draws wholly within 4 sd", "largest"]
    rings = [f"spread {name}" for name in RINGS]
    head = ["truth", "measured", "approach", "rms residual, sd", "rms residual, grey", "within 3 sd"]
    head += ["draws wholly within 4 sd", "largest, sd", *(f"{name} px" for name in RINGS)]
    head += ["gradients", "seconds", "error of log evidence, nats"]
    lines = []
    some = rows[~rows["approach"].str.contains("without")]
    for key, part in some.groupby(["truth", "setting", "approach"], sort=False):
        values = [part[name].max() if name == "largest" else part[name].mean() for name in names + rings]
        error = f"{part['error'].median():.2f}" if part["error"].notna().any() else ""
        spent = [f"{part['gradients'].mean():,.0f}", f"{part['seconds'].mean():.1f}", error]
        lines.append([*key, *(f"{value:.3f}" for value in values), *spent])
    return tables.markdown(head, lines)


def reliability(rows: pd.DataFrame) -> str:
    """Markdown: said and found probability of channel, away from the wells, simulated truths."""
    some = rows[(rows["truth"] == "simulator") & rows["approach"].isin(["posterior", "prior"])]
    lines = []
    for approach, part in some.groupby("approach", sort=False):
        counts = np.array(part["reliability"].tolist()).sum(0)
        lines.append([approach, *(f"{hit / n:.3f}" if n >= 200 else "" for n, hit in counts)])
    return tables.markdown(["said", *(f"{b / 10:.1f} to {b / 10 + 0.1:.1f}" for b in range(10))], lines)


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
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--truths", type=int, default=24)
    parser.add_argument("--prior", default="channels-generator", help="bundled set, or a folder of one's own")
    options = tables.parsed(parser)
    count = 1 if options.quick else options.truths
    settings = dict(list(SETTINGS.items())[:1]) if options.quick else SETTINGS
    parts: Any = pretrained.load_parts(options.prior)
    model = LatentCode(parts["decoder"], prior=MixturePrior(parts["prior"]))
    truths = {kind: truths_of(kind, model, count) for kind in ("generator", "simulator")}
    seconds, rows = 0.0, []
    for index in range(count):
        with Stopwatch() as watch:
            for kind, (images, rocks) in truths.items():
                for setting in settings:
                    truth = Truth(images[index], rocks[index], mask_of(setting, index), index)
                    restarts = kind == "simulator" and "wells" in setting and index < FEWER
                    radius = RADII.get(SETTINGS[setting], RADII[8])
                    found = one(model, truth, radius, [10.0] if restarts else [])
                    rows += [{"truth": kind, "setting": setting, "index": index} | row for row in found]
        seconds += watch.clock
        made_by = f"{tables.command(options)} --truths {index + 1}"
        write(rows, options.out, made_by, options.prior, seconds)
        print(f"{index + 1}/{count} {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
