"""The bundled field of experts: against NUTS, on images of its own, and beside photographs; writes `expert_field.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/expert_field.py [--quick]

Everything on 16 x 16 pixels in colour, where another sampler can follow. What is done is kept in
`build/bench/expert_field.json`: a run that was ended goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import arviz
import numpy as np
import tables
import torch
import xarray as xr
from timing import Stopwatch

from posterior_inpainting.inference import NUTS, Gibbs, infer
from posterior_inpainting.inference.evaluation.uniformity import uniformity
from posterior_inpainting.inference.recipes.experts import marginals
from posterior_inpainting.inference.recipes.patches import varied_patches
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import ExpertField, Observation, datasets, observations

SHAPE = (3, 16, 16)
NAME = "photographs-experts"
#: What is hidden: a square in the middle.
BOX = observations.box(SHAPE, 4, 4, 8, 8)
NOTHING = Observation(torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=torch.bool))


def against_nuts(quick: bool) -> list[dict[str, Any]]:
    """Draw from two posteriors by both samplers; a row a posterior, of the 192 hidden values."""
    pictures = datasets.load("photographs", "test")
    found = []
    for name, picture, top, left in (("an edge (astronaut)", 0, 60, 100), ("a texture (cat)", 1, 120, 120)):
        crop = pictures[picture, :, top : top + 16, left : left + 16].clone()
        model, seen = ExpertField.load(NAME, SHAPE), Observation(crop, BOX)
        draws, warmup, chains = (20, 20, 2) if quick else (1000, 500, 2)
        with Stopwatch() as by_gibbs:
            ours = infer(
                model, seen, Gibbs(warmup=100, thin=2), draws=min(800, 4 * draws), chains=8, progress=False
            )
        with Stopwatch() as by_nuts:
            other = infer(model, seen, NUTS(warmup=warmup), draws=draws, chains=chains, progress=False)
        one, two = (hidden_values(each) for each in (ours, other))
        found.append(
            {
                "hidden square": name,
                "difference of means, its error": apart(one, two),
                "difference of squares, its error": apart(squares(one, two), squares(two, two)),
                "sd, Gibbs over NUTS": float(np.mean(one.std((0, 1)) / two.std((0, 1)))),
                "least ESS, Gibbs": float(ess(one).min()),
                "least ESS, NUTS": float(ess(two).min()),
                "seconds, Gibbs": by_gibbs.cpu,
                "seconds, NUTS": by_nuts.cpu,
            }
        )
    return found


def hidden_values(posterior: Any) -> np.ndarray:
    """Return the hidden values of completions, ``(chain, draw, value)``."""
    return posterior.posterior["completion"].to_numpy()[..., ~BOX.numpy()].astype(float)


def squares(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Squared deviations from a reference's means."""
    return (values - reference.mean((0, 1))) ** 2


def ess(values: np.ndarray) -> np.ndarray:
    """ESS of ``(chain, draw, value)``, by value."""
    data = xr.Dataset({"x": (("chain", "draw", "value"), values)})
    return arviz.ess(data, method="mean")["x"].to_numpy()


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """Root mean square of differences of means over their standard errors, 1 where both are draws of one law."""
    errors = sum(each.var((0, 1)) / ess(each) for each in (one, two))
    return float(np.sqrt(np.mean((one.mean((0, 1)) - two.mean((0, 1))) ** 2 / errors)))


def calibration(count: int, store: Any) -> dict[str, list[float]]:
    """Rank truths of the prior among draws of their posteriors, by the sweeps of the catalogue: ``(0, 1)`` each."""
    stored = tables.stored_rows(store, {})
    kept: dict[str, list[float]] = stored.setdefault("ranks", {})
    done = len(next(iter(kept.values()), []))
    if done >= count:
        return kept
    model = ExpertField.load(NAME, SHAPE)
    # A sweep of a whole image costs a hundred times that of a hole: five truths a chain, far apart.
    prior = infer(
        model, NOTHING, Gibbs(warmup=100, thin=20), draws=5, chains=-(-count // 5), seed=1, progress=False
    )
    truths = torch.as_tensor(prior.posterior["completion"].to_numpy()).flatten(0, 1)[:count]
    generator, random = torch.Generator().manual_seed(2), np.random.default_rng(3)
    hidden = ~BOX
    for number, truth in enumerate(truths):
        noisy = truth + model.noise * torch.randn(SHAPE, generator=generator)
        ties = random.random(4 + int(hidden.sum()))
        if number < done:
            continue
        seen = Observation(noisy, BOX, any_values=True)
        method = Gibbs(warmup=16, thin=3)
        posterior = infer(model, seen, method, draws=8, chains=4, seed=number, progress=False)
        drawn = torch.as_tensor(posterior.posterior["completion"].to_numpy()).flatten(0, 1)
        quantities = {
            "mean of hidden values": lambda x: x[:, hidden].mean(1),
            "roughness of hidden values": lambda x: x[:, :, 4:12, 4:12].diff(dim=-1).abs().mean((1, 2, 3)),
            "likelihood of seen values": lambda x, noisy=noisy: (x - noisy)[:, BOX].square().sum(1),
            "density of the prior": lambda x: model.experts.log_density(x),
        }
        for index, (name, quantity) in enumerate(quantities.items()):
            with torch.no_grad():
                below = int((quantity(drawn) < quantity(truth[None])).sum())
            kept.setdefault(name, []).append((below + ties[index]) / (len(drawn) + 1))
        ranks = (drawn[:, hidden] < truth[hidden]).sum(0).numpy()
        u = (ranks + ties[4:]) / (len(drawn) + 1)
        kept.setdefault("a value in the middle", []).append(float(u[len(u) // 2]))
        kept.setdefault("95 %", []).append(float((abs(u - 0.5) < 0.475).mean()))
        kept.setdefault("50 %", []).append(float((abs(u - 0.5) < 0.25).mean()))
        tables.save_rows(store, stored)
    return kept


def calibrated(kept: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row a ranked quantity: its mean rank, and the p-value of its uniformity."""
    found = []
    for name, values in kept.items():
        if not name.endswith("%"):
            verdict = uniformity({name: np.array(values)})
            found.append({"ranked": name, "mean rank": float(np.mean(values)), "p": verdict.pvalue})
    return found


def of_filters() -> dict[str, str]:
    """Responses of the filters to photographs, and to draws of the prior."""
    experts: Any = ExpertField.load(NAME, SHAPE).experts
    photographs = varied_patches(datasets.load("photographs", "test"), 16, 1000, Streams().child("held out"))
    return marginals(experts, photographs, Streams().child("draws"))


def once(store: Any, name: str, make: Callable[[], Any]) -> Any:
    """Return what is stored under a name, made and stored before if it is not there."""
    stored = tables.stored_rows(store, {})
    if name not in stored:
        stored[name] = make()
        tables.save_rows(store, stored)
    return stored[name]


def main() -> None:
    """Measure all three, and write the page."""
    options = tables.parsed(tables.arguments(__file__, __doc__))
    count = 12 if options.quick else 200
    store = tables.QUICK / f"expert_field{'_quick' * options.quick}.json"
    kept = calibration(count, store)
    responses = once(store, "responses", of_filters)
    beside = once(store, "beside", lambda: against_nuts(options.quick))
    coverage = ", ".join(
        f"{level} intervals hold {np.mean(kept[level]):.3f} "
        f"(standard error {np.std(kept[level]) / np.sqrt(len(kept[level])):.3f})"
        for level in ("50 %", "95 %")
    )
    parts = [
        f"# The field of experts\n\n    {tables.command(options)}\n\n{tables.measured_on()}",
        f"## Against NUTS\n\n{NUTS_NOTE}\n\n{tables.table_of(beside)}",
        f"## {len(kept['95 %'])} images of its own\n\n{SBC_NOTE}\n\n{tables.table_of(calibrated(kept), '.3f')}\n\n"
        f"Of the hidden values {coverage}.",
        f"## Responses of the filters\n\n{MARGINALS_NOTE}\n\n"
        + tables.table_of([{"responses": name, "both": both} for name, both in responses.items()]),
    ]
    options.out.write_text("\n\n".join(parts) + "\n")


NUTS_NOTE = """\
The 8 x 8 pixels in the middle of 16 x 16 are hidden. Differences are over their Monte Carlo errors, root mean square
over the 192 hidden values: about 1 where both draw from one law. Squares are of deviations from NUTS's means."""
SBC_NOTE = """\
Truths are draws of the prior, five of a chain, 20 sweeps apart; a square is hidden, and the truth is ranked among 32
draws of its posterior: 8 of each of 4 chains, after 16 sweeps and 3 apart."""
MARGINALS_NOTE = """\
Standard deviation and kurtosis, means over filters, of 16 x 16 patches of the test photographs and of draws of the
prior."""

if __name__ == "__main__":
    main()
