"""One contender on one posterior: blocks of draws until they can be trusted, and what is kept of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
from cases import GARMENT, masks, test_garments
from contest_contenders import Rival
from sampling_contenders import Case
from timing import Stopwatch
from trusted import code

from posterior_inpainting.inference import ChEES, Method, ParallelTempering, Trusted, diagnostics, infer
from posterior_inpainting.models import Observation

__all__ = ["LIMIT", "Measure", "Posterior", "Row", "measured", "ours", "reference", "rival", "stored"]

#: CPU seconds that a contender has, and those of the clock that ours have to use as many: others use the machine too.
LIMIT, CLOCK = 60.0, "240 s"
#: What hidden pixels have to reach: no more than the literature asks for, where ours asks for more of itself.
GOAL = Trusted(error_of_sd=np.inf)
#: By how many draws there are more at each look at a rival's, and how many of all chains are looked at.
_MORE, _JUDGED = 1.2, 40_000
#: Chains and draws of the long run that others are compared with.
_REFERENCE_CHAINS, _REFERENCE_DRAWS = 16, 800

#: What is kept of a contender on a posterior.
Row = dict[str, Any]
#: What measures a contender on a posterior.
Measure = Callable[["Posterior"], Row]


@dataclass(frozen=True)
class Posterior:
    """A test image of Fashion-MNIST behind a mask, by their names."""

    number: int
    mask: str

    @cached_property
    def seen(self) -> Observation:
        """What is seen of it."""
        image = test_garments(range(self.number, self.number + 1))[0]
        return Observation(image, masks(self.mask, shape=GARMENT)[self.mask])

    def hidden(self, codes: np.ndarray) -> np.ndarray:
        """Return the hidden pixels of completions ``(chain, draw, pixel)``."""
        law = code("fashion-mnist-vae").pixel_law
        with torch.no_grad():
            parts = [
                law(part).mean[..., ~self.seen.mask] for part in torch.from_numpy(codes).split(256, dim=1)
            ]
        return torch.cat(parts, 1).numpy()


def rival(draw: Rival, warmup: int, block: int, chains: int) -> Measure:
    """Return what measures a rival: blocks until the draws can be trusted or the seconds are used up."""

    def measure(posterior: Posterior) -> Row:
        case = Case(code("fashion-mnist-vae"), posterior.seen, warmup, block, chains, posterior.number)
        return _until_trusted(posterior, draw(case))

    return measure


def _until_trusted(posterior: Posterior, blocks: Iterator) -> Row:
    """Look at draws as they come; looking costs a rival nothing."""
    seconds, compile_seconds, next_look = 0.0, 0.0, 0.0
    codes: list[np.ndarray] = []
    row: Row = {"missing": "draws: none are there"}
    for block in blocks:
        seconds, compile_seconds = seconds + block.seconds, compile_seconds + block.compile_seconds
        if seconds > LIMIT:
            break
        codes.append(block.codes)
        draws = sum(part.shape[1] for part in codes)
        if draws and draws >= next_look:
            next_look = _MORE * draws
            row = _judged(posterior, np.concatenate(codes, 1)) | {"draws": draws}
            if not row["missing"]:
                break
    return row | {"there": not row["missing"], "seconds": seconds, "compilation": compile_seconds}


def _judged(posterior: Posterior, codes: np.ndarray) -> Row:
    """Return what draws lack, and their means and standard deviations; of many every so manieth is looked at."""
    if not np.isfinite(codes).all():
        return {"missing": "numbers: some draws are none"}
    step = -(-codes.shape[0] * codes.shape[1] // _JUDGED)
    pixels = posterior.hidden(np.ascontiguousarray(codes[:, ::step]))
    return {"missing": GOAL.missing({"hidden pixels": pixels})} | _moments(pixels)


def _moments(pixels: np.ndarray) -> Row:
    """Return means and standard deviations of ``(chain, draw, pixel)``, in as many digits as are read."""
    return {
        "mean": [float(f"{value:.5g}") for value in pixels.mean((0, 1), dtype=float)],
        "sd": [float(f"{value:.5g}") for value in pixels.std((0, 1), dtype=float)],
    }


def ours(method: Method | None, **settings: Any) -> Measure:
    """Return what measures ours: all of its seconds count, from the call to the result."""

    def measure(posterior: Posterior) -> Row:
        model, seen = code("fashion-mnist-vae"), posterior.seen
        with warnings.catch_warnings(), Stopwatch() as watch:
            warnings.simplefilter("ignore")
            found = infer(
                model, seen, method, seed=posterior.number, progress=False, budget=CLOCK, **settings
            )
        pixels = found.posterior["completion"].to_numpy()[..., ~seen.mask.numpy()]
        missing = found.attrs["until_missing"] or GOAL.missing({"hidden pixels": pixels})
        return _moments(pixels) | {
            "missing": missing,
            "there": not missing and watch.cpu <= LIMIT,
            "seconds": watch.cpu,
            "compilation": 0.0,
            "draws": found.posterior.sizes["draw"],
            "rounds": int(found.attrs.get("rounds", 1)),
        }

    return measure


def reference(posterior: Posterior) -> Row:
    """Draw long and by another way: replicas that start at the prior, climb and fall, and never jump."""
    method = ParallelTempering(temperatures=12, warmup=300, moves=ChEES(max_steps=16))
    with warnings.catch_warnings(), Stopwatch() as watch:
        warnings.simplefilter("ignore")
        found = infer(
            code("fashion-mnist-vae"), posterior.seen, method, seed=1000 + posterior.number,
            chains=_REFERENCE_CHAINS, draws=_REFERENCE_DRAWS, progress=False, keep=(),
        )  # fmt: skip
    pixels = found.posterior["completion"].to_numpy()[..., ~posterior.seen.mask.numpy()]
    rhat = float(diagnostics.pixel_rhat(found).max())
    return _moments(pixels) | {"rhat": rhat, "seconds": watch.cpu}


def stored(store: Path, name: str, posterior: Posterior) -> Row | None:
    """Return what is stored of a contender on a posterior."""
    return tables.stored_rows(_file(store, name, posterior), None)


def measured(store: Path, name: str, measure: Measure, posterior: Posterior) -> Row:
    """Return what is stored, or measure and store it."""
    row = stored(store, name, posterior)
    if row is None:
        row = measure(posterior)
        tables.save_rows(_file(store, name, posterior), row)
        shown = {key: value for key, value in row.items() if key not in ("mean", "sd")}
        print(f"{name}, {posterior.number}, {posterior.mask}: {shown}", flush=True)
    return row


def _file(store: Path, name: str, posterior: Posterior) -> Path:
    return store / f"{name}, {posterior.number}, {posterior.mask}.json".replace(":", "-")
