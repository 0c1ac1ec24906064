"""Code alone, weights alone, both: CRPS and coverage on held-out Fashion-MNIST; writes `code_and_weights.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/code_and_weights.py [--quick] [--images 0-99]

The table is written again after every batch of images, so that a run that is stopped leaves what it has.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace

import numpy as np
import pandas as pd
import tables
import torch
from cases import STANDARD, masks, test_garments
from timing import Stopwatch

from posterior_inpainting.inference import ChEES, Nested, Plan, Problem, TwoStage
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.evaluation.scores import coverage, crps, energy_score
from posterior_inpainting.inference.methods.kernel import run_kernel
from posterior_inpainting.inference.results.autocorrelation import autocorrelation_time
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import LatentCode, pretrained
from posterior_inpainting.models.bayesian_completion import BayesianCompletion
from posterior_inpainting.models.bayesian_decoder import BayesianDecoder
from posterior_inpainting.models.code_and_units import CodeAndUnits
from posterior_inpainting.models.code_and_weights import WeightDraws

FIRST = ChEES(warmup=80, max_steps=32)
TWO_STAGE = TwoStage(FIRST, warmup=60)
PLAN = Plan(draws=30, chains=16, streams=Streams(0))
ALONE = "z alone, mean weights"
Figures = dict[str, float]


def figures(mean: torch.Tensor, scale: torch.Tensor, truth: torch.Tensor, hidden: torch.Tensor) -> Figures:
    """Scores of draws ``(draw, pixel)`` of means and scales, noise included, hidden pixels only, clipped."""
    drawn = (mean + scale * torch.randn_like(mean))[:, hidden].clamp(0, 1).numpy()
    target = truth[hidden].numpy()
    inside = coverage(drawn, target, 0.95)
    positive = target > 0
    return {
        "CRPS": float(crps(drawn, target).mean()),
        "energy score": energy_score(drawn, target),
        "coverage 95%": float(inside.mean()),
        "coverage 95%, positive": float(inside[positive].mean()) if positive.any() else np.nan,
        "sd of the means": float(mean[:, hidden].std(0).mean()),
    }


def laws_of(model: LatentCode, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and scales ``(..., pixel)`` of codes."""
    with torch.no_grad():
        return tuple(value.flatten(-3) for value in model._frozen_decoder.mean_and_scale(codes))


def score_batch(images: torch.Tensor, mask: torch.Tensor, parts: dict) -> list[dict]:
    """One dictionary an image: approach -> figures."""
    problem, hidden = Problem(parts["units"], (images, mask.expand(images.shape))), ~mask.flatten()
    bundled = parts["z alone, bundled prior"]
    density = Potential(replace(problem, model=bundled), groups=len(images))
    alone = run_kernel(FIRST, density, PLAN.part("bundled")).latents["z"]
    both = TWO_STAGE.stages(problem, len(images), PLAN)
    rhats = both.rhat()
    found: list[dict[str, Figures]] = []
    for i, image in enumerate(images):
        with torch.no_grad():
            laws = with_weights(parts["units"], image, mask, both, i)
            laws["z alone, bundled prior"] = laws_of(bundled, alone[i])
            if "completion" in parts:
                laws["BayesianCompletion"] = completed(parts["completion"].network, image, mask)
        one = {
            name: figures(*(v.reshape(-1, v.shape[-1]) for v in law), image.flatten(), hidden)
            for name, law in laws.items()
        }
        one["z alone, bundled prior"]["rhat"] = float(autocorrelation_time(alone[i])[1].max())
        one[ALONE]["rhat"], one["both"]["rhat"] = (float(rhat[i]) for rhat in rhats)
        found.append(one)
    return found


def with_weights(units: CodeAndUnits, image, mask, both, index: int) -> dict[str, tuple]:
    """Means and scales of one image by draws of the code, of the weights, and of both."""
    z = both.alone.latents["z"][index]
    codes = z.flatten(0, 1)
    zeros = z.new_zeros(*z.shape[:2], units.hidden), z.new_zeros(*z.shape[:2], 2, image.numel())
    # The code where the joint density is highest among the draws of the code alone.
    best = codes[int(sum(Potential(Problem(units.mean_network, (image, mask)))(codes)).argmax())]
    noises = torch.randn(len(codes), units.hidden), torch.randn(len(codes), 2, image.numel())
    return {
        ALONE: units.decode(z, *zeros),
        "theta alone": units.decode(best.expand(len(codes), -1), *noises),
        "both": units.decode(*(both.both.latents[name][index] for name in ("z", "units", "pixels"))),
    }


def completed(network, image, mask) -> tuple:
    """Means and scales that networks drawn from q(theta | D) give what is hidden."""
    count = PLAN.draws * PLAN.chains
    law = network.forward_with(network.draw_weights(64), torch.where(mask, image, 0.0), mask)
    return tuple(v.flatten(1).repeat(count // 64 + 1, 1)[:count] for v in law)


def nested_batch(images: torch.Tensor, mask: torch.Tensor, networks: WeightDraws) -> list[dict]:
    """Chains for each of a number of networks: weighed by evidence, and cut."""
    hidden, plan = ~mask.flatten(), Plan(draws=60, chains=8, streams=Streams(0))
    draws = Nested(FIRST).networks(Problem(networks, (images, mask.expand(images.shape))), len(images), plan)
    found = []
    for i, image in enumerate(images):
        one = {}
        for name, cut in (("nested", False), ("cut", True)):
            drawn = draws.resample(i, 480, plan.streams.generator("resampling", i), cut)
            with torch.no_grad():
                mean, scale = (v.flatten(1) for v in networks._decode(drawn["network"], drawn["z"]))
            one[name] = figures(mean, scale, image.flatten(), hidden)
        one["nested"] |= {
            "effective networks": float(1 / draws.weights()[i].square().sum()),
            "sd of log evidence": float(draws.log_evidence[i].std()),
            "its error": float(draws.error[i].mean()),
        }
        found.append(one)
    return found


def control(images: torch.Tensor, mask: torch.Tensor, units: CodeAndUnits) -> list[Figures]:
    """Score the code alone after a warm-up as long as both stages of `TwoStage` together have, and more."""
    alone = Potential(Problem(units.mean_network, (images, mask.expand(images.shape))), groups=len(images))
    z = run_kernel(ChEES(warmup=200, max_steps=32), alone, PLAN.part("longer")).latents["z"]
    found = []
    for codes, image in zip(z, images, strict=True):
        mean, scale = (value.flatten(0, 1) for value in laws_of(units.mean_network, codes))
        rhat = float(autocorrelation_time(codes)[1].max())
        found.append(figures(mean, scale, image.flatten(), ~mask.flatten()) | {"rhat": rhat})
    return found


def table(frame: pd.DataFrame) -> str:
    """Means over images, a line a mask and approach."""
    head = [
        "mask",
        "approach",
        "images",
        "CRPS",
        f"CRPS against {ALONE} (se)",
        "energy score",
        "95 % coverage",
    ]
    head += ["where the truth is above 0", "sd of a pixel's mean", "R-hat of z, median image"]
    rows = []
    for (mask, approach), part in frame.groupby(["mask", "approach"], sort=False):
        values = part.drop(columns=["mask", "approach", "image"]).mean()
        base = frame[(frame["mask"] == mask) & (frame.approach == ALONE)].set_index("image")["CRPS"]
        gain = (part.set_index("image")["CRPS"] - base).dropna()
        paired = f"{gain.mean():+.4f} ({gain.std() / np.sqrt(len(gain)):.4f})" if len(gain) > 1 else ""
        row = [mask, approach, len(part), f"{values['CRPS']:.4f}", "" if approach == ALONE else paired]
        row += [f"{values['energy score']:.4f}", f"{values['coverage 95%']:.3f}"]
        row += [f"{values['coverage 95%, positive']:.3f}", f"{values['sd of the means']:.4f}"]
        rows.append([*row, f"{part['rhat'].median():.2f}" if part["rhat"].notna().any() else ""])
    return tables.markdown(head, rows)


def rows_of(images, numbers: range, mask_name: str, mask, parts: dict, options) -> list[dict]:
    """Everything about some images behind one mask."""
    found = score_batch(images, mask, parts)
    if numbers.start < options.control:
        for one, more in zip(found, control(images, mask, parts["units"]), strict=True):
            one["z alone, longer"] = more
    if numbers.start < options.nested:
        some = images[: max(0, options.nested - numbers.start)]
        for one, more in zip(found, nested_batch(some, mask, parts["networks"]), strict=False):
            one.update(more)
    return [
        {"mask": mask_name, "image": number, "approach": approach, **values}
        for number, one in zip(numbers, found, strict=True)
        for approach, values in one.items()
    ]


def main() -> None:
    """Run, and write the table after every batch."""
    parser = tables.arguments(__file__, __doc__, images="0-99")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--nested", type=int, default=8, help="images for the nested and the cut posterior")
    parser.add_argument("--control", type=int, default=40, help="images for z alone with a longer warm-up")
    parser.add_argument("--networks", type=int, default=8)
    options = tables.parsed(parser, quick_images="0-1")
    if options.quick:
        options.nested, options.control, options.networks = 1, 1, 2
    numbers, trained = tables.image_numbers(options.images), BayesianDecoder.load()
    parts = {
        "z alone, bundled prior": LatentCode(pretrained.load("fashion-mnist-vae")),
        "units": CodeAndUnits(trained),
        "networks": WeightDraws(trained, options.networks),
        "completion": BayesianCompletion.load(),
    }
    rows: list[dict] = []
    seconds = 0.0
    for first in numbers[:: options.batch]:
        some = range(first, min(first + options.batch, numbers.stop))
        for name, mask in masks(*(STANDARD[:1] if options.quick else STANDARD)).items():
            with Stopwatch() as watch:
                rows += rows_of(test_garments(some), some, name, mask, parts, options)
            seconds += watch.cpu
            print(f"{name} {some.start}-{some.stop - 1}: {seconds:.0f} s", flush=True)
        write(rows, options, seconds)


def write(rows: list[dict], options: argparse.Namespace, seconds: float) -> None:
    """Write the tables, masks together."""
    frame = pd.DataFrame(rows).sort_values("mask", key=lambda m: m.map(STANDARD.index), kind="stable")
    names = ["effective networks", "sd of log evidence", "its error"]
    nested = frame[frame.approach == "nested"].groupby("mask", sort=False)[names].mean()
    lines = [[mask, *(f"{value:.2f}" for value in row)] for mask, row in nested.iterrows()]
    head = ["mask", f"effective networks of {options.networks}", "sd of log evidence between networks, nats"]
    options.out.write_text(
        f"""# Code alone, weights alone, both

Fashion-MNIST test images {frame["image"].min()}-{frame["image"].max()}, hidden pixels
only, 480 draws with the pixels' noise, clipped to [0, 1]; {seconds / 60:.0f} CPU minutes on one thread of
{platform.machine()}, torch {torch.__version__}. Written by `{tables.command(options)}`.

- *z alone*: ChEES over the code, under the bundled prior `fashion-mnist-vae`, and under the mean weights of
  `fashion-mnist-bayesian-decoder`.
- *z alone, longer*: the same with 200 iterations of warm-up instead of {FIRST.warmup}: what of a gain is mixing.
- *theta alone*: the code where the joint density is highest among those draws, weights from q(theta | D).
- *both*: `TwoStage` over code and units' noises, which is p(z, theta | x~, D).
- *nested*, *cut*: chains for each of {options.networks} networks drawn from q(theta | D), weighed by evidence, or
  equally.
- *BayesianCompletion*: a network from the seen pixels, weights from q(theta | D).

{table(frame)}

## Evidence of networks

{tables.markdown([*head, "its error, nats"], lines)}
"""
    )


if __name__ == "__main__":
    main()
