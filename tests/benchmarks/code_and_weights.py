"""Code alone, weights alone, both: CRPS and coverage on held-out Fashion-MNIST; writes `code_and_weights.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/code_and_weights.py [--quick] [--images 0-99]

The table is written again after every batch of images, so that a run that is stopped leaves what it has.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from posterior_inpainting.inference import ChEES
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.evaluation.scores import coverage, crps, energy_score
from posterior_inpainting.inference.methods.loop import run_kernel
from posterior_inpainting.inference.methods.nested import nested_draws
from posterior_inpainting.inference.methods.two_stage import Joint, joint_draws
from posterior_inpainting.inference.results.chain_statistics import autocorrelation_time
from posterior_inpainting.models import LatentCode, datasets, observations, pretrained
from posterior_inpainting.models.bayesian_completion import BayesianCompletion
from posterior_inpainting.models.bayesian_decoder import BayesianDecoder
from posterior_inpainting.models.code_and_units import CodeAndUnits
from posterior_inpainting.models.code_and_weights import WeightDraws

SHAPE = (1, 28, 28)
MASKS = {
    "half:bottom": observations.half(SHAPE, hide="bottom"),
    "scatter:0.3": observations.scatter(SHAPE, 0.3),
    "box:8,8,12,12": observations.box(SHAPE, 8, 8, 12, 12),
}
FIRST = ChEES(warmup=80, max_steps=32)
JOINT = Joint(FIRST, warmup=60)
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


def score_batch(images: torch.Tensor, mask: torch.Tensor, parts: dict, draws: int, chains: int) -> list[dict]:
    """One dictionary an image: approach -> figures."""
    masks, hidden = mask.expand(images.shape), ~mask.flatten()
    flat = images.flatten(1)
    count = draws * chains
    found: list[dict[str, Figures]] = [{} for _ in images]

    def keep(approach: str, index: int, mean, scale, **more: float) -> None:
        law = (mean.reshape(-1, mean.shape[-1]), scale.reshape(-1, scale.shape[-1]))
        found[index][approach] = figures(*law, flat[index], hidden) | more

    bundled = parts["z alone, bundled prior"]
    potential = Potential(Problem(bundled, (images, masks)), groups=len(images))
    options = {"draws": draws, "chains": chains, "seed": 0, "progress": False}
    alone = run_kernel(FIRST, potential, **options).latents["z"]
    units = parts["units"]
    both = joint_draws(units, images, masks, JOINT, **options)
    rhats = both.rhat()
    for i in range(len(images)):
        with torch.no_grad():
            mean, scale = (v.flatten(-3) for v in bundled._frozen_decoder.mean_and_scale(alone[i]))
            rhat = float(autocorrelation_time(alone[i])[1].max())
            keep("z alone, bundled prior", i, mean, scale, rhat=rhat)
            zeros = torch.zeros(*both.alone[i].shape[:2], units.hidden)
            nothing = torch.zeros(*zeros.shape[:2], 2, flat.shape[1])
            mean, scale = units.decode(both.alone[i], zeros, nothing)
            keep("z alone, mean weights", i, mean, scale, rhat=float(rhats[0][i]))
            # The code where the joint density is highest among the draws of the code alone.
            logs = Potential(Problem(units.mean_network, (images[i], mask)))(both.alone[i].flatten(0, 1))
            best = both.alone[i].flatten(0, 1)[int(sum(logs).argmax())]
            noises = torch.randn(count, units.hidden), torch.randn(count, 2, flat.shape[1])
            keep("theta alone", i, *units.decode(best.expand(count, -1), *noises))
            mean, scale = units.decode(*(both.both[name][i] for name in ("z", "units", "pixels")))
            keep("both", i, mean, scale, rhat=float(rhats[1][i]))
            if "completion" in parts:
                network = parts["completion"].network
                law = network.forward_with(network.draw_weights(64), torch.where(mask, images[i], 0.0), mask)
                wide = (v.flatten(1).repeat(count // 64 + 1, 1)[:count] for v in law)
                keep("BayesianCompletion", i, *wide)
    return found


def nested_batch(images: torch.Tensor, mask: torch.Tensor, networks: WeightDraws) -> list[dict]:
    """Chains for each of a number of networks: weighed by evidence, and cut."""
    masks, hidden = mask.expand(images.shape), ~mask.flatten()
    draws = nested_draws(networks, images, masks, FIRST, draws=60, chains=8, seed=0, progress=False)
    found = []
    for i, image in enumerate(images):
        one = {}
        for name, cut in (("nested", False), ("cut", True)):
            drawn = draws.resample(i, 480, torch.Generator().manual_seed(i), cut)
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
    """Score the code alone after a warm-up as long as both stages of `Joint` together have, and more."""
    alone = Potential(Problem(units.mean_network, (images, mask.expand(images.shape))), groups=len(images))
    method = ChEES(warmup=200, max_steps=32)
    z = run_kernel(method, alone, draws=30, chains=16, seed=0, progress=False).latents["z"]
    found = []
    for codes, image in zip(z, images, strict=True):
        with torch.no_grad():
            law = units.mean_network._frozen_decoder.mean_and_scale(codes)
        mean, scale = (value.flatten(-3).flatten(0, 1) for value in law)
        rhat = float(autocorrelation_time(codes)[1].max())
        found.append(figures(mean, scale, image.flatten(), ~mask.flatten()) | {"rhat": rhat})
    return found


def table(rows: list[dict]) -> str:
    """Means over images, a line a mask and approach."""
    frame = pd.DataFrame(rows)
    lines = []
    for (mask, approach), part in frame.groupby(["mask", "approach"], sort=False):
        values = part.drop(columns=["mask", "approach", "image"]).mean()
        base = frame[(frame["mask"] == mask) & (frame.approach == "z alone, mean weights")].set_index(
            "image"
        )["CRPS"]
        gain = (part.set_index("image")["CRPS"] - base).dropna()
        paired = f"{gain.mean():+.4f} ({gain.std() / np.sqrt(len(gain)):.4f})" if len(gain) > 1 else ""
        if approach == "z alone, mean weights":
            paired = ""
        rhat = f"{part['rhat'].median():.2f}" if part["rhat"].notna().any() else ""
        lines.append(
            f"| {mask} | {approach} | {len(part)} | {values['CRPS']:.4f} | {paired} | {values['energy score']:.4f} | "
            f"{values['coverage 95%']:.3f} | {values['coverage 95%, positive']:.3f} | "
            f"{values['sd of the means']:.4f} | {rhat} |"
        )
    head = (
        "| mask | approach | images | CRPS | CRPS against z alone, mean weights (se) | energy score | 95 % coverage | "
        "where the truth is above 0 | sd of a pixel's mean | R-hat of z, median image |\n" + "|---" * 10 + "|"
    )
    return "\n".join([head, *lines])


def main() -> None:
    """Run, and write the table after every batch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", default="0-99")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--nested", type=int, default=8, help="images for the nested and the cut posterior")
    parser.add_argument("--control", type=int, default=40, help="images for z alone with a longer warm-up")
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    if options.quick:
        options.images, options.nested, options.networks = "0-3", 2, 3
        options.out = options.out.with_suffix(".quick.md")
    first, last = map(int, options.images.split("-"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = datasets.load("fashion-mnist", "test")
    trained = BayesianDecoder.load()
    parts = {
        "z alone, bundled prior": LatentCode(pretrained.load("fashion-mnist-vae")),
        "units": CodeAndUnits(trained),
    }
    try:
        parts["completion"] = BayesianCompletion.load()
    except ValueError as error:
        print(f"without BayesianCompletion: {error}", flush=True)
    networks = WeightDraws(trained, options.networks)
    rows: list[dict] = []
    start = time.perf_counter()
    for low in range(first, last + 1, options.batch):
        high = min(low + options.batch, last + 1)
        for name, mask in MASKS.items():
            found = score_batch(images[low:high], mask, parts, draws=30, chains=16)
            if low < options.control:
                for one, more in zip(found, control(images[low:high], mask, parts["units"]), strict=True):
                    one["z alone, longer"] = more
            if low < options.nested:
                some = images[low : min(high, options.nested)]
                for one, more in zip(found, nested_batch(some, mask, networks), strict=False):
                    one.update(more)
            rows += [
                {"mask": name, "image": low + i, "approach": approach, **values}
                for i, one in enumerate(found)
                for approach, values in one.items()
            ]
            print(f"{name} {low}-{high - 1}: {time.perf_counter() - start:.0f} s", flush=True)
        write(rows, options, time.perf_counter() - start)


def write(rows: list[dict], options: argparse.Namespace, seconds: float) -> None:
    """Write the tables, masks together."""
    frame = pd.DataFrame(rows).sort_values("mask", key=lambda m: m.map(list(MASKS).index), kind="stable")
    nested = (
        frame[frame.approach == "nested"]
        .groupby("mask", sort=False)[["effective networks", "sd of log evidence", "its error"]]
        .mean()
    )
    lines = [
        f"| {mask} | {e:.2f} | {s:.1f} | {r:.2f} |"
        for mask, (e, s, r) in zip(nested.index, nested.to_numpy(), strict=True)
    ]
    options.out.write_text(
        f"""# Code alone, weights alone, both

Fashion-MNIST test images {frame["image"].min()}-{frame["image"].max()}, hidden pixels
only, 480 draws with the pixels' noise, clipped to [0, 1]; {seconds / 60:.0f} minutes on one thread of
{platform.machine()}, torch {torch.__version__}. Written by `tests/benchmarks/code_and_weights.py`.

- *z alone*: ChEES over the code, under the bundled prior `fashion-mnist-vae`, and under the mean weights of
  `fashion-mnist-bayesian-decoder`.
- *z alone, longer*: the same with 200 iterations of warm-up instead of {FIRST.warmup}: what of a gain is mixing.
- *theta alone*: the code where the joint density is highest among those draws, weights from q(theta | D).
- *both*: `Joint` over code and units' noises, which is p(z, theta | x~, D).
- *nested*, *cut*: chains for each of {options.networks} networks drawn from q(theta | D), weighed by evidence, or
  equally.
- *BayesianCompletion*: a network from the seen pixels, weights from q(theta | D).

{table(frame.to_dict("records"))}

## Evidence of networks

| mask | effective networks of {options.networks} | sd of log evidence between networks, nats | its error, nats |
|---|---|---|---|
{chr(10).join(lines)}
"""
    )


if __name__ == "__main__":
    main()
