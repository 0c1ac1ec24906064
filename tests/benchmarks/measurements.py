"""Photographs made large, coloured and sharpened, against bicubic interpolation and a grey copy: `measurements.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/measurements.py [--images 0-7] [--side 64] [--quick]

Eight photographs that nothing was trained on, measured by three instruments with noise of .01. What is done is kept in
`build/bench/measurements.json`, a cell a picture and instrument; sheets of draws lie beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
from photographs import NAMES
from skimage.transform import resize
from timing import Stopwatch

from posterior_inpainting.inference import Gibbs, catalogue, infer, plots
from posterior_inpainting.inference.evaluation.scores import score
from posterior_inpainting.models import ExpertField, Measurement
from posterior_inpainting.models.fields.channel_prior import ChannelPrior
from posterior_inpainting.models.images import photographs
from posterior_inpainting.models.shapes import Image

INSTRUMENTS = ("average:4", "luminance", "blur:1.5")
NOISE, CHAINS, DRAWS = 0.01, 2, 12
METHOD = Gibbs(warmup=12, thin=3)
FIGURES = ("PSNR of the mean (dB)", "CRPS", "coverage 50%", "coverage 95%")


def measured(instrument: str, image: Image) -> Measurement:
    """Measure an image, with noise of its own."""
    operator = catalogue.instrument(instrument, tuple(image.shape))
    noise = torch.randn(operator.output_shape, generator=torch.Generator().manual_seed(0))
    return Measurement(operator, operator(image) + NOISE * noise, noise=NOISE)


def plain(measurement: Measurement) -> np.ndarray:
    """Return what needs no model: enlarged, grey, or as blurred as it came, its border repeated."""
    values, shape = measurement.values.numpy(), measurement.shape
    if values.shape[0] < shape[0]:
        return np.repeat(values, shape[0], 0)
    if shape[1] % values.shape[1] == 0:
        return np.clip(resize(values, shape, order=3, mode="edge", anti_aliasing=False), 0, 1)
    border = [(0, 0)] + [
        ((large - small) // 2,) * 2 for large, small in zip(shape[1:], values.shape[1:], strict=True)
    ]
    return np.pad(values, border, mode="edge")


def cell(instrument: str, image: Image, sheet: Path) -> dict[str, float]:
    """Draw, score the draws and what needs no model, and keep a sheet of pictures."""
    measurement = measured(instrument, image)
    shape, colours = tuple(image.shape), ChannelPrior.of_photographs()
    model = ExpertField.load("photographs-experts", shape, colours=colours)
    with Stopwatch() as watch:
        posterior = infer(model, measurement, METHOD, draws=DRAWS, chains=CHAINS, progress=False)
    scores, error = score(posterior, image), plain(measurement) - image.numpy()
    figure = plots.completions(posterior, truth=image, draws=5)[0].figure
    figure.savefig(sheet, dpi=80)
    return {name: float(scores[name]) for name in FIGURES} | {
        "plain, PSNR": float(-10 * np.log10(np.mean(error**2))),
        "plain, absolute error": float(np.abs(error).mean()),
        "seconds": watch.cpu,
    }


def main() -> None:
    """Measure the cells that are missing, and write the page of all that there are."""
    parser = tables.arguments(__file__, __doc__, images="0-7")
    parser.add_argument("--side", type=int, default=64, help="of a square, in pixels")
    options = tables.parsed(parser)
    side = 32 if options.quick else options.side
    store = tables.QUICK / f"measurements-{side}.json"
    store.parent.mkdir(parents=True, exist_ok=True)
    stored: dict[str, dict[str, float]] = tables.stored_rows(store, {})
    images = photographs.held_out(side).float()
    for number in tables.image_numbers(options.images):
        for instrument in INSTRUMENTS:
            key = f"{instrument} {NAMES[number]}"
            if key not in stored:
                sheet = store.with_name(f"{key.replace(' ', '-').replace(':', '-')}-{side}.png")
                stored[key] = cell(instrument, images[number], sheet)
                tables.save_rows(store, stored)
                print(key, {k: round(v, 4) for k, v in stored[key].items()}, flush=True)
    options.out.write_text(page(options, stored, side))


def row(name: str, some: list[dict[str, float]]) -> dict[str, Any]:
    """Return means, and the paired difference of CRPS to what needs no model with its standard error."""
    means = {title: float(np.mean([one[title] for one in some])) for title in some[0]}
    apart = np.array([one["CRPS"] - one["plain, absolute error"] for one in some])
    error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else np.nan
    return {"": name} | means | {"CRPS less absolute error (se)": f"{apart.mean():+.4f} ({error:.4f})"}


def page(options: Any, stored: dict[str, dict[str, float]], side: int) -> str:
    """Return the page."""
    digits = {"seconds": ".0f", "PSNR of the mean (dB)": ".2f", "plain, PSNR": ".2f"}
    digits |= {name: ".3f" for name in FIGURES if "coverage" in name} | {
        "CRPS": ".4f",
        "plain, absolute error": ".4f",
    }
    by = {one: [v for key, v in stored.items() if key.startswith(f"{one} ")] for one in INSTRUMENTS}
    means = tables.table_of([row(one, some) for one, some in by.items() if some], digits)
    each = tables.table_of([row(key, [one]) for key, one in stored.items()], digits)
    return (
        f"# Measurements that are no masks\n\n    {tables.command(options)} --side {side}\n\n{tables.measured_on()}\n\n"
        f"{NOTE.format(side=side)}\n\n## By instrument\n\n{means}\n\n## Picture by picture\n\n{each}\n"
    )


NOTE = f"""\
Photographs of {{side}} x {{side}} pixels in colour under `photographs-experts`, by `{catalogue.written(METHOD)}`,
{DRAWS} draws x {CHAINS}. *Plain*: bicubic interpolation, a grey copy, and the blurred image as it came, whose absolute
error is the CRPS of what claims no doubt. Of {DRAWS * CHAINS} draws a calibrated 95 % interval covers a little less.
The whole image counts."""

if __name__ == "__main__":
    main()
