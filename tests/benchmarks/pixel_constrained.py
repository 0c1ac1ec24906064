"""Pixel Constrained CNN: bits, reliability, importance weights, exact conditionals, speed; `pixel_constrained.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/pixel_constrained.py [--quick] [--only bits,speed,...]

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
from cases import HALF, STANDARD, mask_named, masks, test_garments
from timing import Stopwatch

sys.path.insert(0, str(Path(__file__).parents[1]))
import ising

from posterior_inpainting.inference import Exact, diagnostics, infer
from posterior_inpainting.inference.training.pixel_cross_entropy import PixelCrossEntropy
from posterior_inpainting.models import Observation
from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage
from posterior_inpainting.models.autoregressive.pixel_laws import CategoricalPixels
from posterior_inpainting.models.networks.constraint import ConstraintNetwork
from posterior_inpainting.models.networks.incremental import IncrementalPixelCNN
from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN
from posterior_inpainting.models.pixel_constrained import PixelConstrained

FOUR = (HALF, "half:top", *STANDARD[1:])
SETS = ("fashion-mnist-pixels-binary", "fashion-mnist-pixels-16")


def test_images(model: PixelConstrained, count: int) -> torch.Tensor:
    """Return test images on the model's own lattice, so that truth and draws are of one kind."""
    return model.law.quantise(test_garments(range(count)))


def bits(quick: bool) -> list[dict]:
    """Bits a hidden pixel of the truth, under the overwritten prior and the constrained law, paired."""
    rows = []
    for name in SETS:
        model, count = PixelConstrained.load(name), 20 if quick else 300
        for mask_name, mask in masks(*FOUR).items():
            found = [
                model.cross_entropies(batch, mask.expand(batch.shape))
                for batch in test_images(model, count).split(50)
            ]
            prior, both = (
                torch.cat([part[key][:, ~mask].mean(1) for part in found]) / math.log(2)
                for key in ("prior", "constrained")
            )
            gain = prior - both
            rows.append(
                {
                    "set": name,
                    "hidden": mask_name,
                    "prior, seen pixels overwritten": float(prior.mean()),
                    "constrained law": float(both.mean()),
                    "gain": float(gain.mean()),
                    "standard error of the gain": float(gain.std() / len(gain) ** 0.5),
                }
            )
    return rows


def said_and_true(model: PixelConstrained, quick: bool) -> dict[str, list[tuple]]:
    """Of two probabilities that a hidden pixel is bright (above one half): what they say, and what is true."""
    images = test_images(model, 10 if quick else 300)
    half, few = model.law.levels // 2, images[: 2 if quick else 60]
    pairs: dict[str, list] = {"given the pixels before it": [], "in 40 draws": []}
    for mask in masks().values():
        for batch in images.split(50):
            seen = mask.expand(batch.shape)
            with torch.no_grad():
                raw = model._modules["prior"](batch) + model._modules["constraint"](batch, seen)
            bright = model.law.log_probabilities(raw, batch)[..., half:].exp().sum(-1)
            pairs["given the pixels before it"].append((bright[:, ~mask], (batch > 0.5)[:, ~mask]))
        drawn = model.constrained_law(few, mask.expand(few.shape)).sample((40,))
        pairs["in 40 draws"].append(((drawn > 0.5).float().mean(0)[:, ~mask], (few > 0.5)[:, ~mask]))
    return pairs


def reliability(quick: bool) -> list[dict]:
    """Is a hidden pixel bright (above one half) as often as it is said to be?

    Of the law given the pixels before it, along the truth; and of the share of draws in which it is bright.
    """
    rows = []
    for name in SETS:
        for kind, parts in said_and_true(PixelConstrained.load(name), quick).items():
            said, true = (torch.cat([part[i].flatten() for part in parts]) for i in (0, 1))
            bins = (said * 10).long().clamp(max=9)
            row: dict = {"set": name, "probability": kind}
            error = 0.0
            for b in range(10):
                inside = bins == b
                row[f".{b}"] = f"{float(true[inside].float().mean()):.2f}" if inside.any() else "-"
                if inside.any():
                    gap = float(true[inside].float().mean() - said[inside].mean())
                    error += abs(gap) * float(inside.float().mean())
            rows.append(row | {"ECE": error})
    return rows


def weights(quick: bool) -> list[dict]:
    """How far the constrained law is from the prior network's own conditional: k-hat, effective draws."""
    rows = []
    for name in SETS:
        model = PixelConstrained.load(name)
        for mask_name, mask in masks("box:11,11,6,6", *(() if quick else FOUR)).items():
            khats, shares = [], []
            for image in test_images(model, 1 if quick else 10):
                found = infer(model, Observation(image, mask), Exact(), draws=100, chains=1, progress=False)
                log_weight = torch.as_tensor(found["sample_stats"]["log_weight"].to_numpy()).ravel()
                weight = torch.softmax(log_weight, 0)
                khats.append(diagnostics.khat(found))
                shares.append(float(1 / (weight**2).sum() / len(weight)))
            khat = torch.tensor(khats)
            rows.append(
                {
                    "set": name,
                    "hidden": mask_name,
                    "k-hat, median of images": float(khat.median()),
                    "images with k-hat below 0.7": f"{int((khat < 0.7).sum())} of {len(khat)}",
                    "effective share of 100 draws, median": float(torch.tensor(shares).median()),
                }
            )
    return rows


def field(quick: bool) -> list[dict]:
    """Total variation from the exact conditionals of a 4 x 4 Ising field, by enumeration."""
    images, probabilities = ising.states()
    steps = 20 if quick else 4000
    losses = {
        "likelihood (ours)": PixelCrossEntropy(),
        "joint, a = 1, b = 1": PixelCrossEntropy(prior=1, constraint=1, joint=True),
        "published: joint, a = 0, b = 1, all pixels": PixelCrossEntropy(
            prior=0, constraint=1, joint=True, over="all"
        ),
    }
    rows = []
    for name, loss in losses.items():
        model = ising.trained(images, probabilities, steps=steps, loss=loss)
        torch.manual_seed(0)
        for mask, found in ising.distances(model, images, probabilities).items():
            rows.append(
                {
                    "loss": name,
                    "hidden": mask,
                    "prior's own conditional, all hidden pixels": found["prior"],
                    "constrained law, all hidden pixels": found["constrained"],
                    "constrained law, one pixel": found["pixel"],
                }
            )
    return rows


def speed(quick: bool) -> list[dict]:
    """64 half images: processor seconds with the cache, and of one full network a hidden pixel without it."""
    rows = []
    for side in (16,) if quick else (16, 28, 32, 48, 64):
        torch.manual_seed(0)
        shape, count = (1, side, side), 64
        prior = GatedPixelCNN(shape, 2, features=16, layers=4, first=7, kernel=5)
        model = PixelConstrained(prior, ConstraintNetwork(shape, 2, 20)).requires_grad_(False).eval()
        image, mask = torch.rand(shape), mask_named(HALF, shape)
        hidden = int((~mask).sum())
        law = model.constrained_law(image, mask)
        law.sample((2,))
        with Stopwatch() as watch:
            drawn = law.sample((count,))
        cached, network, repeats = watch.cpu, model._modules["prior"], 6
        network(drawn)
        with Stopwatch() as watch:
            for _ in range(repeats):
                network(drawn)
        uncached = watch.cpu / repeats * hidden
        rows.append(
            {
                "side": side,
                "hidden pixels": hidden,
                "cached, s": cached,
                "ms a pixel": 1e3 * cached / hidden,
                "without cache, s (extrapolated)": uncached,
                "times faster": uncached / cached,
            }
        )
    return rows


def cache(quick: bool) -> list[dict]:
    """The largest difference between cached and full-network logits, in the bundled networks."""
    rows = []
    for name in SETS:
        model = PixelConstrained.load(name)
        network, images = model._modules["prior"], test_images(model, 4)
        filling, worst = IncrementalPixelCNN(network, 4), 0.0
        with torch.no_grad():
            full = network(images)
            for row in range(4 if quick else 28):
                filling.begin_row(images, row)
                for column in range(28):
                    found = filling.advance(images, column + 1)
                    worst = max(worst, float((found - full[:, :, row, column]).abs().max()))
            draws = AutoregressiveImage(network, CategoricalPixels(model.law.levels)).sample((4,))
            whole = AutoregressiveImage(network, model.law)
            terms = whole.log_conditionals(draws).sum((1, 2, 3)) - whole.log_prob(draws)
        rows.append(
            {
                "set": name,
                "largest difference of logits": f"{worst:.1e}",
                "log density less sum of conditionals": f"{float(terms.abs().max()):.1e}",
            }
        )
    return rows


PARTS = {
    "bits": (bits, "Bits a hidden pixel, first 300 test images", ".4f"),
    "reliability": (
        reliability,
        "Reliability: how often a hidden pixel is bright that is said to be so with a probability of .0 to .1, ...",
        ".4f",
    ),
    "weights": (weights, "Importance weights of the constrained law's draws, 10 test images", ".3f"),
    "field": (
        field,
        "Total variation from exact conditionals: 4 x 4 Ising field, coupling .3, field .1",
        ".4f",
    ),
    "speed": (speed, "Sampling 64 half images, one thread, processor seconds", ".3f"),
    "cache": (cache, "Cached against full", ".3f"),
}
NOTES = {
    "bits": "Both columns score the same pixels in the same order; the constrained law also knows what is seen below "
    "and to the right. With the bottom half hidden nothing is, and there is little to gain.",
    "reliability": "Hidden pixels of three masks (bottom half, scatter .3, box). ECE: the mean gap between said and "
    "true, weighted by how many pixels say so.",
    "weights": "Weights p(x) / q(hidden). Below a k-hat of 0.7 the draws can be reweighted to the prior network's own "
    "conditional; above, they are draws of the constrained law and no more.",
    "field": "Each network sees 2,000,000 independent draws once. Joint training fits the *sum*; neither network "
    "then is a law by itself.",
    "speed": "Without the cache a hidden pixel costs one pass of the whole prior network; six passes are timed and "
    "multiplied by the hidden pixels.",
    "cache": "Largest over 4 test images and all pixels.",
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
    text = f"""# Pixel Constrained CNN

Made by `OMP_NUM_THREADS=1 python tests/benchmarks/pixel_constrained.py` on one thread of {platform.machine()}
with torch {torch.__version__}; seconds are of the processor.
"""
    for part, (_, title, digits) in PARTS.items():
        if part in found:
            table = tables.table_of(found[part]["rows"], digits)
            text += f"\n## {title}\n\n{table}\n\n{NOTES[part]} ({found[part]['seconds']:.0f} s)\n"
    return text


if __name__ == "__main__":
    main()
