"""Pixel Constrained CNN by particles: distance from exact laws, bits and seconds; `pixels_by_particles.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/pixels_by_particles.py [--quick] [--only field,bits,chains]

Each part's table is kept in a JSON file beside the page, so that parts can be run one by one.
"""

from __future__ import annotations

import math
import platform
import sys
from pathlib import Path

import pandas as pd
import tables
import torch
from cases import HALF, STANDARD, masks, test_garments
from timing import Stopwatch

sys.path.insert(0, str(Path(__file__).parents[1]))
import ising

from posterior_inpainting.inference import Exact, ParticleGibbs, TwistedSMC, diagnostics, infer
from posterior_inpainting.inference.methods.particles_in_order import sweep
from posterior_inpainting.inference.results.chain_statistics import ess
from posterior_inpainting.models import Observation, PixelConstrained
from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage

NAME = "fashion-mnist-pixels-16"
HIDDEN = (HALF, "half:top", STANDARD[-1])
FEW = {"progress": False, "keep": ()}


def field(quick: bool) -> list[dict]:
    """Total variation from p(hidden | seen) of the prior network, by enumeration, and the log evidence."""
    images, probabilities = ising.states()
    model = ising.trained(images, probabilities, steps=30, batch=500)
    image = images[torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(3))][0]
    chains, draws, rows = 1000, 5 if quick else 40, []
    for name, mask in ising.MASKS.items():
        states = images[((images == image) | ~mask).flatten(1).all(1)]
        log_prob = AutoregressiveImage(model._modules["prior"], model.law).log_prob(states).double()
        exact, seen = log_prob.softmax(0), Observation(image, mask)
        found = infer(model, seen, ParticleGibbs(particles=4, warmup=5), draws=draws, chains=chains, **FEW)
        bits = torch.as_tensor(found.posterior["completion"].to_numpy()).flatten(0, 1)[:, ~mask].long()
        code = (bits << torch.arange(bits.shape[1] - 1, -1, -1)).sum(1)
        independent = torch.multinomial(exact, len(code), replacement=True)
        evidence = infer(model, seen, TwistedSMC(), draws=500, chains=8, **FEW).attrs
        constrained = model.constrained_law(image, mask).log_prob(states).double().exp()
        rows.append(
            {
                "hidden": name,
                "constrained law": float((constrained - exact).abs().sum() / 2),
                "particle Gibbs": _apart(code, exact),
                "as many independent draws": _apart(independent, exact),
                "log evidence, exact": float(log_prob.logsumexp(0)),
                "TwistedSMC, 8 x 500": evidence["log_evidence"],
                "its standard error": evidence["log_evidence_se"],
            }
        )
    return rows


def _apart(code: torch.Tensor, exact: torch.Tensor) -> float:
    return float((code.bincount(minlength=len(exact)) / len(code) - exact).abs().sum() / 2)


def bits(quick: bool) -> list[dict]:
    """Bits a hidden pixel of the truth, under both laws, and under p(hidden | seen) between two bounds."""
    model, rows = PixelConstrained.load(NAME), []
    images = model.law.quantise(test_garments(range(1 if quick else 4)))
    prior = AutoregressiveImage(model._modules["prior"], model.law)
    for name, mask in masks(*HIDDEN).items():
        hidden, found = int((~mask).sum()), []
        with Stopwatch() as watch:
            for image in images:
                terms = model.cross_entropies(image[None], mask.expand(1, *image.shape))
                before = [float(terms[key][0][~mask].sum()) for key in ("prior", "constrained")]
                found.append([*before, *_bounds(model, prior, image, mask, 10 if quick else 100)])
        mean = torch.tensor(found).mean(0) / hidden / math.log(2)
        columns = ("prior, overwritten", "constrained law", "p(hidden given seen), at least", "at most")
        row = {"hidden": name} | dict(zip(columns, mean.tolist(), strict=True))
        rows.append(row | {"seconds an image, both bounds": watch.cpu / len(images)})
    return rows


def _bounds(model, prior, image, mask, particles: int) -> list[float]:
    """Nats of the truth's hidden pixels given the seen ones, from evidences too low and too high on average."""
    steps, generator = model.sequential(image, mask), torch.Generator().manual_seed(0)
    truth = torch.stack([image[:, row, column] for row, column in steps.places]).flatten().expand(4, -1)
    torch.manual_seed(0)
    with torch.no_grad():
        low, high = (
            sweep(steps, 4, particles, generator, kept).log_evidence.mean() for kept in (None, truth)
        )
        whole = prior.log_prob(image)
    return [float(evidence - whole) for evidence in (low, high)]


def chains(quick: bool) -> list[dict]:
    """Draws by particle Gibbs beside those of the constrained law: seconds, R-hat, effective draws."""
    model, rows = PixelConstrained.load(NAME), []
    image = model.law.quantise(test_garments(range(1)))[0]
    for name, mask in masks(*HIDDEN[1:]).items():
        seen = Observation(image, mask)
        with Stopwatch() as plain:
            guide = infer(model, seen, Exact(), draws=64, chains=1, **FEW)
        draws, warmup = (4, 1) if quick else (20, 15)
        with Stopwatch() as watch:
            found = infer(model, seen, ParticleGibbs(warmup=warmup), draws=draws, chains=4, **FEW)
        density = found.sample_stats["lp"].to_numpy()
        effective = float(ess(density[..., None], "bulk").min())
        rows.append(
            {
                "hidden": name,
                "constrained law, s a draw": plain.cpu / 64,
                "its k-hat": diagnostics.khat(guide),
                "particle Gibbs, s an iteration of 4 chains": watch.cpu / (draws + warmup),
                "steps renewed": float(found.sample_stats["path_renewed"].mean()),
                "ESS of the log density, of 80": effective,
                "s an effective draw": watch.cpu / effective,
            }
        )
    return rows


PARTS = {
    "field": (field, "4 x 4 Ising field, networks trained on 15,000 draws", ".4f"),
    "bits": (bits, f"Bits a hidden pixel of the truth, {NAME}, test images 0 to 3", ".4f"),
    "chains": (chains, f"Seconds of the processor, {NAME}, test image 0", ".3g"),
}
NOTES = {
    "field": "Total variation from p(hidden | seen) of the prior network, of all hidden pixels jointly; 1,000 chains "
    "of 40 draws, 4 particles.",
    "bits": "The log evidence is estimated by 4 x 100 particles, which on average is too low, and by as many around "
    "the truth, which is too high where the truth is a draw of the network's law; the mean of each gives a bound.",
    "chains": "16 particles, 20 draws in each of 4 chains after 15 iterations. With the bottom half hidden nothing is "
    "seen after it: the prior network's own draws, seen pixels overwritten, are exact there, at a plain draw's cost.",
}


def main() -> None:
    """Run the parts that are asked for and write the page of all that there are."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    options = tables.parsed(parser)
    store = options.out.with_suffix(".json")
    for part in options.only.split(","):
        torch.manual_seed(0)
        with Stopwatch() as watch:
            rows = PARTS[part][0](options.quick)
        print(part, pd.DataFrame(rows).to_string(), sep="\n", flush=True)
        found = tables.stored_rows(store, {}) | {part: {"rows": rows, "seconds": watch.cpu}}
        tables.save_rows(store, found)
        options.out.write_text(page(found))


def page(found: dict) -> str:
    """Return the page."""
    text = f"""# Pixel Constrained CNN by particles

Made by `OMP_NUM_THREADS=1 python tests/benchmarks/pixels_by_particles.py` on one thread of {platform.machine()}
with torch {torch.__version__}; seconds are of the processor.
"""
    for part, (_, title, digits) in PARTS.items():
        if part in found:
            table = tables.table_of(found[part]["rows"], digits)
            text += f"\n## {title}\n\n{table}\n\n{NOTES[part]} ({found[part]['seconds']:.0f} s)\n"
    return text


if __name__ == "__main__":
    main()
