"""What `sampling.py` measures of a run, on what it measures, and how ours goes with chains and code length."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import arviz
import numpy as np
import tables
import torch
import xarray as xr
from cases import GARMENT
from sampling_contenders import Case, Result, ours

from posterior_inpainting.inference import ChEES, train
from posterior_inpainting.models import LatentCode, Observation, VariationalAutoencoder, datasets
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder

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
        decoded = case.model.pixel_law(torch.from_numpy(np.array(result.codes))).mean.flatten(-3)[..., hidden]
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


def trained_decoder(
    latent: int, epochs: int, widths: tuple[int, ...] = (400, 400), images: int = 60_000
) -> MultilayerDecoder:
    """Train a decoder with pixel scale 0.1 for a few epochs, or load it from an earlier run."""
    torch.manual_seed(0)
    decoder = MultilayerDecoder(latent, GARMENT, widths, scale_rank=None, floor=0.03)  # scale: 0.03 + 0.07
    decoder.raw_scale.data = torch.tensor(0.07).expm1().log()
    decoder.raw_scale.requires_grad_(False)
    path = CACHE / f"decoder-{latent}-{'-'.join(map(str, widths))}-{epochs}-{images}.pt"
    if path.is_file():
        decoder.load_state_dict(torch.load(path, weights_only=True))
        return decoder
    vae = VariationalAutoencoder(decoder, MaskedEncoder(latent, GARMENT, widths))
    with warnings.catch_warnings():  # of the pixel scale, which is not trained
        warnings.simplefilter("ignore")
        data = datasets.load("fashion-mnist", "train")[:images]
        train(vae, vae.guide, data, epochs=epochs, progress=False)
    CACHE.mkdir(parents=True, exist_ok=True)
    torch.save(decoder.state_dict(), path)
    return decoder


OWN = (
    "warm-up + draws", "ESS/s, worst", "ESS/s, median", "ESS per 1,000 gradients, worst / median", "R-hat, max",
    "seconds", "microseconds a gradient",
)  # fmt: skip


def scaling(model: LatentCode, observation: Observation, counts: list[int], most: int = 1000) -> str:
    """Measure ours over the number of chains, with at most so many draws."""
    rows = []
    for chains in counts:
        draws = max(50, min(most, 16_000 // chains))
        rows.append(_own_row(str(chains), Case(model, observation, 0, draws, chains)))
    title = "## Ours, by number of chains (20-400-400-784, bottom half hidden)"
    return f"{title}\n\n{tables.markdown(['chains', *OWN], rows)}\n"


def latent_sizes(image: torch.Tensor, mask: torch.Tensor, sizes: list[int]) -> str:
    """Measure ours over the length of the code."""
    rows = []
    for size in sizes:
        model = LatentCode(trained_decoder(size, epochs=3))
        rows.append(_own_row(str(size), Case(model, Observation(image, mask), 0, 250, 64)))
    title = "## Ours, by length of the code (L-400-400-784, 64 chains, bottom half hidden)"
    return f"{title}\n\n{tables.markdown(['latent', *OWN], rows)}\n"


def _own_row(label: str, case: Case) -> list[str]:
    found = figures(case, ours(case))
    print(label, found, flush=True)
    per_gradient = f"{found.smallest_per_gradient:.2f} / {found.per_gradient:.2f}"
    row = [
        label,
        f"{ChEES().warmup} + {case.draws}",
        f"{found.smallest:,.1f}",
        f"{found.middle:,.1f}",
        per_gradient,
    ]
    return [*row, f"{found.rhat:.3f}", f"{found.seconds:.1f}", f"{1e6 * found.seconds / found.gradients:.0f}"]
