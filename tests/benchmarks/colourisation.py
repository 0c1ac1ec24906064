"""Colours of photographs from one channel and from two, by the Gaussian process: `colourisation.md`.

    python tests/benchmarks/colourisation.py [--images 0-7] [--quick] [--learn]

Eight photographs that nothing was learnt from, 64 x 64. With `--learn` it first writes the moments of the channels in
windows of the nine licensed photographs, which the prior is made of.
"""

import warnings
from pathlib import Path

import numpy as np
import tables
import torch
from cases import mask_named
from photographs import NAMES
from timing import Stopwatch

from posterior_inpainting.inference import Exact, infer
from posterior_inpainting.inference.evaluation.scores import score
from posterior_inpainting.models import Observation
from posterior_inpainting.models.fields.channel_prior import ChannelPrior
from posterior_inpainting.models.fields.marginal_likelihood import DEEP_IMAGE_PRIORS
from posterior_inpainting.models.gaussian_process import GaussianProcess
from posterior_inpainting.models.images.photographs import held_out, windows

#: What is seen, and its mask.
MASKS = {
    "green": "channels:1",
    "green and blue": "channels:1,2",
}
MOMENTS = Path("models/samples/colours-of-photographs.npz")
DRAWS = 100


def learn(path: Path = MOMENTS) -> None:
    """Write the moments of the channels of photographs."""
    prior = ChannelPrior.learn(windows())
    parts = {"means": prior.means, "covariances": prior.covariances}
    np.savez_compressed(path, **{name: part.numpy().astype(np.float32) for name, part in parts.items()})


def cell(image: torch.Tensor, mask: torch.Tensor, colours: str | None) -> dict[str, float]:
    """Fit, draw and score; beside it, two fills that know no colours."""
    seen = Observation(image, mask)
    with Stopwatch() as watch, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a channel is not seen
        # The kernel hardly matters to what channels say of each other: one of those of a fit.
        model = GaussianProcess.fit(seen, DEEP_IMAGE_PRIORS[2], colours=colours)
        figures = score(infer(model, seen, Exact(), draws=DRAWS, chains=1, progress=False), image)
    grey = (seen.image.sum(0) / mask.sum(0)).expand(image.shape)
    errors = {
        "grey, dB": (grey - image)[~mask],
        "constant, dB": (model.mean.float() - image)[~mask],
    }
    found = {name: -10 * float(error.square().mean().log10()) for name, error in errors.items()}
    found["PSNR, dB"] = float(figures["PSNR of the mean (dB)"])
    names = {"CRPS": "CRPS", "50 %": "coverage 50%", "80 %": "coverage 80%", "95 %": "coverage 95%"}
    return found | {title: float(figures[name]) for title, name in names.items()} | {"seconds": watch.cpu}


def main() -> None:
    """Measure every photograph behind every mask with the prior and without, and write the page."""
    parser = tables.arguments(__file__, __doc__, images="0-7")
    parser.add_argument("--learn", action="store_true", help=f"write {MOMENTS} first")
    options = tables.parsed(parser)
    if options.learn:
        learn()
    photographs = held_out(16 if options.quick else 64)
    numbers = list(tables.image_numbers(options.images))
    parts = [f"# Colourisation\n\n    {tables.command(options)}\n\n{tables.measured_on()}\n\n{NOTE}"]
    means = []
    for name, written in MASKS.items():
        mask = mask_named(written, tuple(photographs.shape[1:]))
        rows = []
        for number in numbers:
            for prior in ("photographs", None):
                figures = cell(photographs[number], mask, prior)
                rows.append({"photograph": NAMES[number], "prior": str(prior).lower()} | figures)
                print(name, rows[-1], flush=True)
        for prior in ("photographs", "none"):
            some = [row for row in rows if row["prior"] == prior]
            figures = {key: float(np.mean([row[key] for row in some])) for key in list(rows[0])[2:]}
            means.append({"seen": name, "prior": prior} | figures)
        parts.append(f"## Seen: {name}\n\n{tables.table_of(rows, DIGITS)}")
    parts.insert(1, f"## Means over photographs\n\n{tables.table_of(means, DIGITS)}")
    options.out.write_text("\n\n".join(parts) + "\n")


DIGITS = {"CRPS": ".4f", "50 %": ".3f", "80 %": ".3f", "95 %": ".3f", "seconds": ".1f"}
NOTE = f"""\
Hidden values only, {DRAWS} draws of the deep image prior's kernel of depth 8, photographs of 64 x 64. *Prior*: of the
channels' mean and covariance, learnt from nine other photographs, or none: then a channel that is not seen at all
stays where the fit starts, at a correlation of .9. *Grey*: hidden values are the mean of the seen channels of their
pixel. *Constant*: they are the fitted mean of their channel. Seconds of one core, fit and draws."""

if __name__ == "__main__":
    main()
