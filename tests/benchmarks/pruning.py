"""What of Bayes by Backprop's pruning holds on Fashion-MNIST; writes `pruning.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/pruning.py [--quick]

Every fit is kept in `build/bench/pruning`: a run that is stopped goes on where it was.
"""

from __future__ import annotations

import math
from pathlib import Path

import tables
import torch
from bayes_by_backprop import data, fit_weights, random_network
from timing import Stopwatch

from posterior_inpainting.models.random_weights.weight_priors import ScaleMixture

UNITS = 200
#: The paper's prior, with the first of the scales that it searches.
PRIOR = ScaleMixture(share=0.5, wide=1.0, narrow=math.exp(-6))
FITS = {
    "20 epochs": {"epochs": 20},
    "20 epochs from PyTorch's start": {"epochs": 20, "spread": None, "posterior_scale": 0.02},
    "80 epochs": {"epochs": 80},
}


def fitted(name: str, settings: dict, inputs, labels, store: Path):
    """Return a model and what its fit said, from the store or fitted now."""
    file = store / f"{name.replace(' ', '_')}.pt"
    if not file.is_file():
        with Stopwatch() as watch:
            model, training = fit_weights(PRIOR, inputs, labels, units=UNITS, **settings)
        state = {"network": model.network.state_dict(), "seconds": watch.cpu, "losses": training.losses}
        torch.save(state, file)
        print(f"{name}: {watch.cpu:.0f} s of CPU, {training.losses[-1]:.3f} nats an image", flush=True)
    saved = torch.load(file)
    model = random_network(PRIOR, UNITS)
    model.network.load_state_dict(saved["network"])
    return model.eval(), saved


def main() -> None:
    """Fit, prune, write."""
    options = tables.parsed(tables.arguments(__file__, __doc__))
    store = tables.QUICK / f"pruning{'_quick' * options.quick}"
    store.mkdir(parents=True, exist_ok=True)
    inputs, labels, *test = data(options.quick)
    for name, settings in FITS.items():
        fitted(name, settings | ({"epochs": 1} if options.quick else {}), inputs, labels, store)


if __name__ == "__main__":
    main()
