"""What of Bayes by Backprop's pruning holds on Fashion-MNIST; writes `pruning.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/pruning.py [--quick]

Every fit is kept in `build/bench/pruning`, and the page is written again after each: a run that is stopped goes on
where it was.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import tables
import torch
from bayes_by_backprop import BATCH, RATE, data, fit_weights, random_network
from timing import Stopwatch
from torch import nn

from posterior_inpainting.inference.evaluation.pruning import prune, pruning_curve
from posterior_inpainting.models.random_weights.weight_priors import ScaleMixture

#: The paper's prior, with the first of the scales that it searches.
PRIOR = ScaleMixture(share=0.5, wide=1.0, narrow=math.exp(-6))
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
#: Name -> where it starts, how many epochs, and after which fit.
FITS: dict[str, tuple[dict, int, str | None]] = {
    "2 x 200 units": ({"units": 200}, 20, None),
    "2 x 100 units": ({"units": 100}, 20, None),
    "2 x 200 units, 20 epochs more": ({"units": 200}, 20, "2 x 200 units"),
}
COUNTS = (10_000, 25_000, 50_000, 100_000)
RANKINGS = [("signal-to-noise", False), ("signal-to-noise", True), ("magnitude", False), ("magnitude", True)]

READING = """**What holds.** Most weights are such that the posterior cannot tell them from 0 (a ratio below 2), and
without them the accuracy is nearly what it was. Half of the weights cost nothing, and three quarters cost less by
signal-to-noise than by magnitude.

**What does not.** 95 % removed is not nearly free: it takes weights that the posterior is sure of, as their ratios
say, and there the largest magnitudes are the better choice, if a poor one. It is not that a single threshold empties
a layer: one for each layer does worse, because it takes as much of the last layer as of the others. It is not the
prior: this is the paper's. What is kept follows the *number* of weights left more than their share: 100,000 suffice
here, and 120,000 of the 478,000 of [2 x 400 units](bayes_by_backprop.md). The paper's network has 120,000 left at
95 %; that its share is a matter of its width is what these numbers suggest, and is not tried at that width."""


class Fits:
    """Networks with random weights, from the store or fitted now."""

    def __init__(self, quick: bool):
        self.quick, self.store = quick, tables.QUICK / f"pruning{'_quick' * quick}"
        self.store.mkdir(parents=True, exist_ok=True)
        self.inputs, self.labels, *self.test = data(quick)

    def of(self, name: str) -> dict:
        """Return the network, nats an image in the last epoch, and CPU seconds."""
        file = self._file(name)
        start, epochs, before = FITS[name]
        model = random_network(PRIOR, **start)
        if not file.is_file():
            if before is not None:
                model.network.load_state_dict(torch.load(self._file(before))["network"])
            with Stopwatch() as watch:
                _, training = fit_weights(model, self.inputs, self.labels, epochs=1 if self.quick else epochs)
            state = {"network": model.network.state_dict(), "seconds": watch.cpu, "losses": training.losses}
            torch.save(state, file)
            print(f"{name}: {watch.cpu:.0f} s of CPU, {training.losses[-1]:.3f} nats an image", flush=True)
        saved = torch.load(file)
        model.network.load_state_dict(saved["network"])
        return {"network": model.network.eval(), "bound": saved["losses"][-1], "seconds": saved["seconds"]}

    def accuracy(self, net: nn.Module) -> float:
        """Return the test accuracy in per cent."""
        images, labels = self.test
        with torch.no_grad():
            return 100 * float((net(images).argmax(-1) == labels).float().mean())

    def _file(self, name: str) -> Path:
        return self.store / f"{name.replace(' ', '_')}.pt"


def curves(found: dict[str, dict], accuracy: Callable[[nn.Module], float]) -> list[dict]:
    """Return a line for each fit and ranking, with the accuracy at each share."""
    lines = []
    for name, fit in found.items():
        for by, per_layer in RANKINGS:
            scores = pruning_curve(fit["network"], accuracy, SHARES, by=by, per_layer=per_layer)["score"]
            line = {"fit": name, "ranked by": f"{by}{', each layer' * per_layer}"}
            lines.append(line | {f"{share:.0%}": value for share, value in scores.items()})
    return lines


def by_count(found: dict[str, dict], accuracy: Callable[[nn.Module], float]) -> list[dict]:
    """Return a line for each fit, with the accuracy at each number of weights that are left, by signal-to-noise."""
    lines = []
    for name, fit in found.items():
        total = sum(ratio.numel() for ratio in fit["network"].signal_to_noise().values())
        line = {"fit": name, "weights": f"{total:,}"}
        for count in COUNTS:
            left = accuracy(prune(fit["network"], 1 - count / total)) if count < total else "all"
            line[f"{count:,} left"] = left
        lines.append(line)
    return lines


def noise(found: dict[str, dict], accuracy: Callable[[nn.Module], float]) -> list[dict]:
    """Return a line for each fit: its bound, and what its ratios of signal to noise say."""
    lines = []
    for name, fit in found.items():
        ratios = torch.cat([ratio.flatten() for ratio in fit["network"].signal_to_noise().values()])
        unsure = float((ratios < 2).double().mean())
        lines.append(
            {
                "fit": name,
                "nats an image": fit["bound"],
                "ratio below 2, %": 100 * unsure,
                "accuracy without these": accuracy(prune(fit["network"], unsure)),
                "ratio at 75 %": float(ratios.sort().values[int(0.75 * len(ratios))]),
                "ratio at 95 %": float(ratios.sort().values[int(0.95 * len(ratios))]),
                "left at 95 % of each layer, %": what_is_left(prune(fit["network"], 0.95)),
            }
        )
    return lines


def what_is_left(pruned: nn.Module) -> str:
    """Return the per cent of each layer's weights that are not 0."""
    weights = [value for path, value in pruned.named_parameters() if path.endswith("weight")]
    return ", ".join(f"{100 * float((value != 0).double().mean()):.1f}" for value in weights)


def main() -> None:
    """Fit, prune, and write after each fit."""
    options = tables.parsed(tables.arguments(__file__, __doc__))
    fits, found = Fits(options.quick), {}
    for name in FITS:
        found[name] = fits.of(name)
        write(found, fits, options)


def write(found: dict[str, dict], fits: Fits, options: argparse.Namespace) -> None:
    """Write the page."""
    missing = [name for name in FITS if name not in found]
    left = f" Not fitted yet: {', '.join(missing)}." if missing else ""
    report = f"""# Pruning by Bayes by Backprop

By `{tables.command(options)}`. {tables.measured_on()}
Fashion-MNIST, {len(fits.inputs):,} training images, two layers of ReLU units, 20 epochs, batches of {BATCH}, Adam at
{RATE} falling along half a cosine; the paper's prior, a mixture of N(0, 1) and N(0, exp(-6)^2) in equal shares; means
start uniformly in +-0.2, scales at 0.01. Accuracies are of the posterior mean on {len(fits.test[0]):,} test images, in
per cent; one standard error is 0.3. Blundell et al. 2015 have two layers of 1200 units (2.4 million weights) on MNIST,
hundreds of epochs, and lose 0.05 % at 95 % removed.

{READING}

## A share of the weights removed

{tables.table_of(curves(found, fits.accuracy))}

## A number of weights left, by signal-to-noise

{tables.table_of(by_count(found, fits.accuracy))}

## Signal-to-noise

{tables.table_of(noise(found, fits.accuracy))}

CPU seconds of a fit: {", ".join(f"{name} {fit['seconds']:.0f}" for name, fit in found.items())}.{left}
"""
    options.out.write_text(report)


if __name__ == "__main__":
    main()
