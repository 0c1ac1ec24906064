"""What `sampling.py` measures of a run, on what it measures, and how ours goes with chains and code length."""

from __future__ import annotations

import os
import platform
import warnings
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import arviz
import numpy as np
import torch
import xarray as xr
from sampling_contenders import Case, Result, ours

from posterior_inpainting.inference import ChEES, train
from posterior_inpainting.models import (
    LatentCode,
    Observation,
    VariationalAutoencoder,
    datasets,
    observations,
)
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder

SHAPE = (1, 28, 28)
MASKS = {
    "bottom half hidden": observations.half(SHAPE, hide="bottom"),
    "70 % of pixels hidden": observations.scatter(SHAPE, keep=0.3, seed=0),
    "12 x 12 box hidden": observations.box(SHAPE, top=8, left=8, height=12, width=12),
}
CACHE = Path("build/bench")


@dataclass(frozen=True)
class Figures:
    """What the table shows of one run."""

    smallest: float  # bulk ESS of the worst hidden pixel, a second
    middle: float  # of the median hidden pixel, a second
    per_gradient: float  # of the median hidden pixel, per 1,000 gradients
    smallest_per_gradient: float
    rhat: float
    seconds: float
    compile_seconds: float
    gradients: int


def figures(case: Case, result: Result) -> Figures:
    """Decode the draws, which no contender's clock counts, and measure them."""
    hidden = (~case.observation.mask).flatten()
    with torch.no_grad():
        decoded = case.model.decoder(torch.from_numpy(np.array(result.codes))).flatten(-3)[..., hidden]
    pixels = xr.Dataset({"pixels": (("chain", "draw", "pixel"), decoded.double().numpy())})
    with np.errstate(invalid="ignore", divide="ignore"):
        ess = arviz.ess(pixels, method="bulk")["pixels"].to_numpy()
        one = case.chains == 1  # R-hat needs several chains
        rhat = float("nan") if one else float(np.nanmax(arviz.rhat(pixels)["pixels"].to_numpy()))
    # ArviZ gives what never varies as many effective draws as there are draws: a chain that is stuck has none.
    ess = np.where(np.ptp(pixels["pixels"].to_numpy(), axis=(0, 1)) == 0, np.nan, ess)
    if (result.codes == result.codes[:, :1]).all():
        ess = np.zeros_like(ess)
    smallest, middle = float(np.nanmin(ess)), float(np.nanmedian(ess))
    return Figures(
        smallest / result.seconds,
        middle / result.seconds,
        1000 * middle / result.gradients,
        1000 * smallest / result.gradients,
        rhat,
        result.seconds,
        result.compile_seconds,
        result.gradients,
    )


def trained_decoder(latent: int, epochs: int, widths: tuple[int, ...] = (400, 400)) -> MultilayerDecoder:
    """Train a decoder with pixel scale 0.1 for a few epochs, or load it from an earlier run."""
    torch.manual_seed(0)
    decoder = MultilayerDecoder(latent, SHAPE, widths, scale_rank=None, floor=0.03)  # scale: 0.03 + 0.07
    decoder.raw_scale.data = torch.tensor(0.07).expm1().log()
    decoder.raw_scale.requires_grad_(False)
    path = CACHE / f"decoder-{latent}-{'-'.join(map(str, widths))}-{epochs}.pt"
    if path.is_file():
        decoder.load_state_dict(torch.load(path, weights_only=True))
        return decoder
    vae = VariationalAutoencoder(decoder, MaskedEncoder(latent, SHAPE, widths))
    with warnings.catch_warnings():  # of the pixel scale, which is not trained
        warnings.simplefilter("ignore")
        train(vae, vae.guide, datasets.load("fashion-mnist", "train"), epochs=epochs, progress=False)
    CACHE.mkdir(parents=True, exist_ok=True)
    torch.save(decoder.state_dict(), path)
    return decoder


def scaling(model: LatentCode, observation: Observation, counts: list[int]) -> list[str]:
    """Measure ours over the number of chains."""
    lines = [
        "## Ours, by number of chains (20-400-400-784, bottom half hidden)\n",
        "| chains | warm-up + draws | ESS/s, worst | ESS/s, median | ESS per 1,000 gradients, worst / median "
        "| R-hat, max | seconds | microseconds a gradient |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for chains in counts:
        draws = max(50, min(1000, 16_000 // chains))
        lines.append(_own_line(str(chains), Case(model, observation, 0, draws, chains)))
    return [*lines, ""]


def latent_sizes(image: torch.Tensor, mask: torch.Tensor, sizes: list[int]) -> list[str]:
    """Measure ours over the length of the code."""
    lines = [
        "## Ours, by length of the code (L-400-400-784, 64 chains, bottom half hidden)\n",
        "| latent | warm-up + draws | ESS/s, worst | ESS/s, median | ESS per 1,000 gradients, worst / median "
        "| R-hat, max | seconds | microseconds a gradient |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        model = LatentCode(trained_decoder(size, epochs=3))
        lines.append(_own_line(str(size), Case(model, Observation(image, mask), 0, 250, 64)))
    return [*lines, ""]


def _own_line(label: str, case: Case) -> str:
    found = figures(case, ours(case))
    print(label, found, flush=True)
    return (
        f"| {label} | {ChEES().warmup} + {case.draws} | {found.smallest:,.1f} | {found.middle:,.1f} "
        f"| {found.smallest_per_gradient:.2f} / {found.per_gradient:.2f} | {found.rhat:.3f} | {found.seconds:.1f} "
        f"| {1e6 * found.seconds / found.gradients:.0f} |"
    )


def machine() -> list[str]:
    """Say on what the figures were measured."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = ("torch", "pyro-ppl", "jax", "numpyro", "blackjax", "optax", "arviz")
    load = os.getloadavg()[1]
    return [
        f"Measured {date.today()} on {cpu}, {os.cpu_count()} cores, one thread each, load average {load:.1f};",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + ".\n",
    ]
