"""Measure which chains of the deep image prior agree, in pixel space: writes `deep_image_prior_chains.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/deep_image_prior_chains.py [--quick] [--only small,full-mala]

Each run's row is kept in a JSON file beside the page, so that runs can be made one by one; `--only ''` writes the page
alone. Seconds are CPU seconds of
one thread. R-hat, PSNR and coverage are of hidden pixels only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tables
import torch
from cases import mask_named, photograph
from elliptical_slice import EllipticalSlice
from timing import Stopwatch

from posterior_inpainting.inference import MALA, ChEES, ParallelTempering, diagnostics, infer, scores
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.models import DeepImagePrior, Observation
from posterior_inpainting.models.networks import Hourglass, Layers

SIDE, NOISE, CHAINS = 64, 0.05, 4
#: Draws a chain that no run reaches before its gradients are spent.
MOST = 3000
#: R-hat from which chains are said to agree.
AGREE = 1.05
SCATTER, BOX = "scatter:0.5,0", "box:24,24,16,16"

#: What the networks are: of the benchmark of photographs, small, smallest, and under the conditions of the wide limit.
NETWORKS = {
    "full": {"channels": 32, "scales": 3},
    "small": {"channels": 8, "scales": 2, "skip": 0, "input_channels": 8},
    "smallest": {"channels": 4, "scales": 1, "skip": 0, "input_channels": 4},
    "plain": {
        "channels": 8,
        "scales": 2,
        "skip": 0,
        "layers": Layers(resample=False, normalise=False, padding="circular"),
        "input_channels": 8,
        "input_blur": 2.5,
    },
}


@dataclass(frozen=True)
class Case:
    """A network (a key of ``NETWORKS``), its output, a method, gradients of all chains together, and what is hidden."""

    network: str
    method: Method
    gradients: int
    output: str = "sigmoid"
    hidden: str = SCATTER
    side: int = SIDE

    def quick(self) -> Case:
        """Return the least of it."""
        return replace(self, method=self.method.warmed(10), gradients=8000, side=16)

    def row(self) -> dict:
        """Draw, and return its line of the table."""
        truth = photograph("camera.png", self.side)
        noisy = truth + NOISE * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
        hidden = BOX if self.hidden == BOX and self.side == SIDE else SCATTER
        seen = Observation(noisy, mask_named(hidden, tuple(truth.shape)), any_values=True)
        torch.manual_seed(0)
        network = Hourglass(truth.shape, **NETWORKS[self.network])
        model = DeepImagePrior(truth.shape, network, noise=NOISE, output=self.output)
        budget = f"{self.gradients} gradients"
        with Stopwatch() as watch:
            idata = infer(model, seen, self.method, draws=MOST, chains=CHAINS, progress=False, budget=budget)
        figures, stats, draws = scores.score(idata, truth), idata.sample_stats, idata.posterior.sizes["draw"]
        half, whole = _rhat(idata, draws // 2), _rhat(idata, draws)
        return {
            "network": f"{self.network}, {model.latent:,} weights",
            "output": self.output,
            "hidden": self.hidden,
            "method": type(self.method).__name__,
            "CPU s": watch.cpu,
            "gradients a chain": f"{idata.attrs['gradient_evaluations'] // CHAINS:,}",
            "draws a chain": draws,
            "step": _last(stats),
            "R-hat of half": f"{half.max():.2f} / {np.median(half):.2f}",
            "R-hat of all": f"{whole.max():.2f} / {np.median(whole):.2f}",
            f"pixels below {AGREE}": float((whole < AGREE).mean()),
            "PSNR": figures["PSNR of the mean (dB)"],
            "CRPS": f"{figures['CRPS']:.4f}",
            "coverage 95%": figures["coverage 95%"],
        }


def _rhat(idata, draws: int) -> np.ndarray:
    """Return R-hat of every hidden pixel, of the first draws."""
    values = diagnostics.pixel_rhat(idata.isel(draw=slice(0, draws))).to_numpy()
    return values[np.isfinite(values)]


def _last(stats) -> str:
    """Return what the method ended at: step size, angle, or how often neighbouring temperatures swap."""
    for name, word in (("swap_rate", "swaps"), ("step_size", "step"), ("angle", "angle")):
        if name in stats:
            value = float(stats[name][:, -1].mean())
            return f"{word} {value:.2g}"
    return ""


_LONG = ChEES(warmup=40, metric="identity", max_steps=256)
_SHORT = ChEES(warmup=30, metric="identity", max_steps=128)
#: Name -> run; tens of seconds to minutes each.
CASES = {
    "full-mala": Case("full", MALA(warmup=30, thin=10, metric="identity", init="optimum"), 6_000),
    "full-hmc": Case("full", _SHORT, 8_000),
    "small-mala": Case("small", MALA(warmup=100, thin=20, metric="identity"), 20_000),
    "small-hmc": Case("small", _LONG, 60_000),
    "small-linear": Case("small", _LONG, 60_000, output="linear"),
    "small-box": Case("small", _LONG, 40_000, hidden=BOX),
    "smallest-hmc": Case("smallest", _LONG, 60_000),
    "small-slice": Case("small", EllipticalSlice(warmup=20, thin=10), 20_000),
    "small-tempered": Case(
        "small", ParallelTempering(16, warmup=20, moves=ChEES(metric="identity", max_steps=16)), 20_000
    ),
}


def main() -> None:
    """Make the runs that are asked for, one by one, and write the page of all that there are."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--only", default=",".join(CASES))
    options = tables.parsed(parser)
    store = options.out.with_suffix(".json")
    for name in filter(None, options.only.split(",")):
        case = CASES[name].quick() if options.quick else CASES[name]
        row = case.row()
        print(name, row, flush=True)
        found = tables.stored_rows(store, {}) | {name: row}
        tables.save_rows(store, found)
    found = tables.stored_rows(store, {})
    options.out.write_text(page([found[one] for one in CASES if one in found], options))


def page(rows: list[dict], options) -> str:
    """Return the page."""
    agree = sum(row[f"pixels below {AGREE}"] == 1 for row in rows)
    return f"""# The deep image prior's chains

By `{tables.command(options)}`, run by run (`--only`); those of its runs that were made are below.

The photograph `camera.png`, {SIDE} x {SIDE}, noise of sd {NOISE} on what is seen and in the model; {CHAINS} chains,
each from its own draw of the prior, but for MALA on the full network, from optima. A run ends when its gradients are
spent (of `EllipticalSlice`, evaluations of the density, and its angle takes the place of a step size). R-hat is split
and rank-normalised, of the completion at hidden pixels, largest / median, of the first half of the draws and of all.

Chains agree, R-hat below {AGREE} in every hidden pixel, in {agree} of {len(rows)} runs.

{tables.table_of(rows)}

{tables.measured_on()}
"""


if __name__ == "__main__":
    main()
