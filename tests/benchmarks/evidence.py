"""Log evidence by `TemperedSMC` beside bridge sampling: how far off it is, by its own error, and what the verdict says.

    OMP_NUM_THREADS=1 python tests/benchmarks/evidence.py [--quick] [--images 100-107] [--only smc,bridge]

Eight test images of Fashion-MNIST under the bundled prior of 32 latents. The bridge has draws of `GlobalLocal`, four
parts of whose chains are each bridged with a Gaussian by themselves; their spread is its error. What is done is kept in
`build/bench/evidence.json`: a run that was ended goes on. Seconds are CPU seconds of one thread.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
from cases import GARMENT, masks, test_garments
from timing import Stopwatch

from posterior_inpainting.inference import GlobalLocal, TemperedSMC, diagnostics, infer
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.bridging import evidences
from posterior_inpainting.models import LatentCode, Observation, pretrained

#: Behind which garments are hidden, image after image.
MASKS = ("half:bottom", "scatter:0.1", "box:8,8,12,12")
#: Particles of each replicate, and replicates.
PARTICLES, REPLICATES = 128, 8
#: Chains of the reference, draws of each, and parts of the chains that are bridged by themselves.
CHAINS, DRAWS, PARTS = 16, 400, 4


def posterior(number: int) -> tuple[LatentCode, Observation, str]:
    """Return the prior, what is seen of an image, and the mask's name."""
    name = MASKS[number % len(MASKS)]
    image = test_garments(range(number, number + 1))[0]
    model = LatentCode(pretrained.load("fashion-mnist-vae"))
    return model, Observation(image, masks(name, shape=GARMENT)[name]), name


def smc(number: int, particles: int, replicates: int) -> dict[str, Any]:
    """Estimate the log evidence by `TemperedSMC`."""
    model, seen, _ = posterior(number)
    with warnings.catch_warnings(), Stopwatch() as watch:
        warnings.simplefilter("ignore")
        idata = infer(
            model,
            seen,
            TemperedSMC(),
            draws=particles,
            chains=replicates,
            seed=number,
            progress=False,
        )
    verdict = diagnostics.verdict(idata)
    return {
        "value": idata.attrs["log_evidence"],
        "error": idata.attrs["log_evidence_se"],
        "verdict": str(verdict),
        "trusted": verdict.may_be_used,
        "gradients": int(idata.attrs["gradient_evaluations"]),
        "seconds": watch.cpu,
    }


def bridge(number: int, draws: int) -> dict[str, Any]:
    """Estimate the log evidence by bridge sampling between long chains and a Gaussian, part by part of the chains."""
    model, seen, _ = posterior(number)
    with warnings.catch_warnings(), Stopwatch() as watch:
        warnings.simplefilter("ignore")
        idata = infer(
            model,
            seen,
            GlobalLocal(),
            draws=draws,
            chains=CHAINS,
            seed=1000 + number,
            progress=False,
            keep=(),
        )
    density = Potential(Problem(model, (seen.image, seen.mask)))
    z = torch.as_tensor(idata.posterior["z"].to_numpy().copy())
    generator = torch.Generator().manual_seed(number)
    parts = [
        float(evidences([density], part[None, None], 20_000, generator)[0])
        for part in z.chunk(PARTS)  # the chains of each part
    ]
    return {
        "value": float(np.mean(parts)),
        "error": float(np.std(parts, ddof=1) / math.sqrt(PARTS)),
        "trusted": diagnostics.verdict(idata).may_be_used,
        "seconds": watch.cpu,
    }


def measured(store: Path, quick: bool, part: str, numbers: range) -> dict[int, dict[str, Any]]:
    """Measure what is not stored of one of the two; return all of it by image."""
    rows = tables.stored_rows(store, {})
    for number in numbers:
        key = f"{part} {number}"
        if key not in rows:
            if part == "smc":
                rows[key] = smc(number, 32 if quick else PARTICLES, 2 if quick else REPLICATES)
            else:
                rows[key] = bridge(number, 100 if quick else DRAWS)
            tables.save_rows(store, rows)
            print(key, rows[key], flush=True)
    return {number: rows[f"{part} {number}"] for number in numbers}


def compared(number: int, found: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Return an image's row: both values with their errors, and their difference in nats and in errors."""
    difference = found["value"] - reference["value"]
    return {
        "image": number,
        "mask": MASKS[number % len(MASKS)],
        "TemperedSMC": found["value"],
        "its error": found["error"],
        "bridge": reference["value"],
        "the bridge's error": reference["error"],
        "difference": difference,
        "in errors": difference / math.hypot(found["error"], reference["error"]),
        "verdict": found["verdict"].split(":")[0] if found["trusted"] else "not trusted",
        "gradients": f"{found['gradients']:,}",
        "seconds": f"{found['seconds']:.0f}",
    }


def main() -> None:
    """Measure what is asked for, and write the page of the images that have both."""
    parser = tables.arguments(__file__, __doc__, images="100-107")
    parser.add_argument("--only", default="bridge,smc", help="parts, separated by commas")
    options = tables.parsed(parser, quick_images="100-100")
    store = tables.QUICK / f"evidence{'_quick' * options.quick}.json"
    numbers = tables.image_numbers(options.images)
    for part in options.only.split(","):
        measured(store, options.quick, part, numbers)
    stored = tables.stored_rows(store, {})
    rows = [
        compared(number, stored[f"smc {number}"], stored[f"bridge {number}"])
        for number in numbers
        if {f"smc {number}", f"bridge {number}"} <= set(stored)
    ]
    if not rows:
        return
    off, in_errors = (np.array([row[name] for row in rows]) for name in ("difference", "in errors"))
    summary = (
        f"Mean difference {off.mean():.3f} nats, root mean square {np.sqrt(np.mean(off**2)):.3f} nats and "
        f"{np.sqrt(np.mean(in_errors**2)):.2f} errors, over {len(rows)} posteriors."
    )
    settings = (
        f"`TemperedSMC()` has {REPLICATES} replicates of {PARTICLES} particles; differences are in nats, and in errors "
        "of both together."
    )
    head = f"# Evidence\n\n    {tables.command(options)}\n\n{settings}\n\n{tables.measured_on()}"
    digits = {"its error": ".3f", "the bridge's error": ".3f", "difference": ".3f"}
    options.out.write_text(f"{head}\n\n{tables.table_of(rows, digits)}\n\n{summary}\n")


if __name__ == "__main__":
    main()
