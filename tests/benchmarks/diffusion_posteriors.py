"""Samplers that denoise, against a posterior that is known exactly: writes `diffusion_posteriors.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/diffusion_posteriors.py [--quick]

The prior is a mixture of Gaussians over 8 x 8 images, fitted to digits, which denoises, draws and weighs exactly; a
second one has two separated modes, whose weights are the question. Truths are draws of the prior, seen in their upper
half under noise of 0.1. The file is written again after every method, so that a run that is stopped leaves what it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tables
import torch
from cases import mask_named
from pyro import poutine
from timing import Stopwatch

from posterior_inpainting.inference import (
    DPS,
    ConditionalDiffusion,
    DiffPIR,
    Exact,
    NoiseMatchedGibbs,
    NoiseMatchedSMC,
    NoiseMatchedTempering,
    ParticleGibbs,
    PiGDM,
    RePaint,
    infer,
)
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.evaluation.scores import coverage, crps
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import MixtureField, Observation, datasets
from posterior_inpainting.models.shapes import Image

SHAPE = (1, 8, 8)
NOISE = 0.1
MASK = mask_named("half:bottom", SHAPE)
HIDDEN = ~MASK.numpy().ravel()
#: Draws of every posterior by which it is scored, thinned to them from more where a chain has more.
DRAWS = 128


@dataclass(frozen=True)
class Contender:
    """A method with its draws and chains."""

    method: Method
    draws: int
    chains: int

    def posterior(self, model: MixtureField, image: Image, seed: int) -> Any:
        """Draw from the posterior of one image."""
        sizes = {"draws": self.draws, "chains": self.chains}
        return infer(model, Observation(image, MASK), self.method, **sizes, seed=seed, progress=False)


CONTENDERS = {
    "exact": Contender(Exact(), 128, 1),
    "conditional diffusion, 20 steps": Contender(ConditionalDiffusion(steps=20), 512, 1),
    "conditional diffusion, 40 steps": Contender(ConditionalDiffusion(steps=40), 512, 1),
    "conditional diffusion, 80 steps": Contender(ConditionalDiffusion(steps=80), 512, 1),
    "conditional diffusion, 160 steps": Contender(ConditionalDiffusion(steps=160), 512, 1),
    "noise-matched SMC, no steps": Contender(NoiseMatchedSMC(steps=None, share=0.9), 64, 8),
    "noise-matched SMC, 40 steps": Contender(NoiseMatchedSMC(steps=40, share=0.9), 64, 8),
    "noise-matched SMC, 80 steps": Contender(NoiseMatchedSMC(steps=80, share=0.9), 64, 8),
    "noise-matched tempering, no steps": Contender(
        NoiseMatchedTempering(steps=None, temperatures=12, warmup=100), 64, 8
    ),
    "noise-matched Gibbs, no steps": Contender(NoiseMatchedGibbs(steps=None, warmup=60), 64, 8),
    "noise-matched Gibbs, 40 steps": Contender(NoiseMatchedGibbs(steps=40, warmup=60), 64, 8),
    "particle Gibbs, 40 steps, 32 particles": Contender(ParticleGibbs(particles=32, steps=40), 32, 8),
    "DPS": Contender(DPS(), 128, 1),
    "DPS, scale 0.3": Contender(DPS(scale=0.3), 128, 1),
    "PiGDM": Contender(PiGDM(), 128, 1),
    "DiffPIR": Contender(DiffPIR(), 128, 1),
    "RePaint": Contender(RePaint(steps=100, repeats=1), 128, 1),
    "RePaint, 10 repeats": Contender(RePaint(steps=50, repeats=10), 128, 1),
}


def mixture() -> MixtureField:
    """Eight kinds of digits, with all correlations."""
    return MixtureField.fit(datasets.load("digits", split="train"), components=8, noise=NOISE)


def two_modes() -> MixtureField:
    """Two components that agree about the upper half, and are far from each other in the lower one."""
    fitted = MixtureField.fit(datasets.load("digits", split="train"), components=1, noise=NOISE)
    apart = torch.zeros(64)
    apart[32:] = torch.where(torch.arange(32) % 8 < 4, 0.5, -0.5)
    means = torch.stack([fitted.means[0] + apart, fitted.means[0] - apart])
    covariances = 0.25 * fitted.covariances.expand(2, 64, 64)
    return MixtureField(torch.tensor([0.7, 0.3]), means, covariances, SHAPE, NOISE)


def truths(model: MixtureField, count: int) -> list[tuple[Image, Image]]:
    """Return whole images and what is seen of them, under noise, from the prior."""
    found = []
    for index in range(count):
        with Streams(0).seeded("truth", index), torch.no_grad():
            sites = poutine.trace(model).get_trace().nodes
        found.append((sites["completion"]["value"], sites["image"]["value"]))
    return found


def completions(posterior: Any, count: int = DRAWS) -> np.ndarray:
    """Return draws of the hidden pixels, evenly thinned to ``count``."""
    x = posterior.posterior["completion"].to_numpy()
    flat = x.reshape(-1, 64)[:, HIDDEN]
    return flat[np.linspace(0, len(flat) - 1, count).astype(int)]


def measured(model: MixtureField, contender: Contender, pairs: list) -> dict[str, float]:
    """Return the figures of a method, means over truths."""
    rows = []
    for seed, (truth, image) in enumerate(pairs):
        with Stopwatch() as watch:
            posterior = contender.posterior(model, image, seed)
        drawn, target = completions(posterior), truth.numpy().ravel()[HIDDEN]
        row = {
            "covered": float(coverage(drawn, target, 0.95).mean()),
            "sd": float(drawn.std(0).mean()),
            "CRPS": float(crps(drawn, target).mean()),
            "cost": posterior.attrs["gradient_evaluations"],
            "seconds": watch.cpu,
            "log evidence": float("nan"),
        }
        if "log_evidence" in posterior.attrs:
            row["log evidence"] = posterior.attrs["log_evidence"] - float(model.log_evidence(image, MASK))
        rows.append(row)
    found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return found | {"sd of log evidence": float(np.std([row["log evidence"] for row in rows]))}


def mode_error(model: MixtureField, contender: Contender, pairs: list) -> float:
    """Return the mean absolute error of the first mode's weight."""
    errors = []
    for seed, (_, image) in enumerate(pairs):
        posterior = contender.posterior(model, image, seed)
        x = posterior.posterior["completion"].to_numpy().reshape(-1, 64)
        middle, apart = model.means.mean(0).numpy(), (model.means[0] - model.means[1]).numpy()
        share = float((((x - middle) @ apart) > 0).mean())
        exact = float(model.exact_posterior(image, MASK).mixture_distribution.probs[0])
        errors.append(abs(share - exact))
    return float(np.mean(errors))


def doublings(rows: dict[str, dict[str, float]]) -> list[dict[str, str]]:
    """Return what twice the steps moved beside what is still wrong with them, for each method that ran with both."""
    exact, lines = rows["exact"], []
    for name, row in rows.items():
        method, _, steps = name.rpartition(", ")
        twice = rows.get(f"{method}, {2 * int(steps.split()[0])} steps") if steps[:1].isdigit() else None
        if twice is None:
            continue
        lines.append(
            {
                "method": f"{name} to twice as many",
                "sd / exact moved by": f"{(twice['sd'] - row['sd']) / exact['sd']:+.3f}",
                "still wrong by": f"{twice['sd'] / exact['sd'] - 1:+.3f}",
                "log evidence moved by": _signed(twice["log evidence"] - row["log evidence"]),
                "still wrong by (nats)": _signed(twice["log evidence"]),
            }
        )
    return lines


def _signed(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.2f}"


def page(options: Any, rows: dict[str, dict[str, float]], count: int, few: int) -> str:
    """Return the file."""
    exact = rows["exact"]
    lines = [
        {
            "method": name,
            "95 % holds": f"{row['covered']:.3f}",
            "sd / exact": f"{row['sd'] / exact['sd']:.3f}",
            "CRPS / exact": f"{row['CRPS'] / exact['CRPS']:.3f}",
            "log evidence, error (sd)": ""
            if np.isnan(row["log evidence"])
            else f"{row['log evidence']:+.2f} ({row['sd of log evidence']:.2f})",
            "weight of a mode, error": f"{row['mode']:.3f}",
            "denoised images": f"{row['cost']:,.0f}",
            "CPU s": f"{row['seconds']:.2f}",
        }
        for name, row in rows.items()
    ]
    return f"""# Samplers that denoise, against an exact posterior

{__doc__.split(chr(10) * 2)[2].strip()}

By `{tables.command(options)}`: {count} truths of a mixture of eight Gaussians, each posterior scored by {DRAWS} draws;
weights of {few} posteriors with two separated modes. *No steps*: the mixture's own draws of x given x + noise in
place of a reverse diffusion, so that no error is left but chance.

{tables.table_of(lines)}

Step doubling (`step_doubling`): what moves from n steps to 2 n is about what is still wrong at 2 n, with the other
sign.

{tables.table_of(doubled) if (doubled := doublings(rows)) else ""}

{tables.measured_on()}
"""


def main() -> None:
    """Measure every method, and write after each."""
    options = tables.parsed(tables.arguments(__file__, __doc__))
    count, few = (2, 1) if options.quick else (60, 20)
    model, separated = mixture(), two_modes()
    pairs, other = truths(model, count), truths(separated, few)
    rows: dict[str, dict[str, float]] = {}
    for name, contender in CONTENDERS.items():
        rows[name] = measured(model, contender, pairs)
        rows[name]["mode"] = mode_error(separated, contender, other)
        options.out.write_text(page(options, rows, count, few))
        print(name, rows[name], flush=True)


if __name__ == "__main__":
    main()
