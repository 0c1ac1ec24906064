"""Measure the deep image prior: its wide limit, its samplers, and its overfitting.

    python tests/benchmarks/deep_image_prior.py [--quick] [--out tests/benchmarks/deep_image_prior.md]

Seconds are CPU seconds of one thread. PSNR and coverage are of hidden pixels only.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import copy
import math
import platform
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import skimage.data
import skimage.transform
import torch

from posterior_inpainting.inference import (
    MALA,
    MAP,
    ULA,
    ChEES,
    diagnostics,
    early_stopping,
    infer,
    sample,
    scores,
)
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.models import DeepImagePrior, Observation, observations
from posterior_inpainting.models.fields import DeepImagePriorKernel
from posterior_inpainting.models.networks import Hourglass

SLOPE = 0.2


def photograph(name: str, side: int) -> torch.Tensor:
    """Return a grey photograph of scikit-image, ``(1, side, side)``."""
    picture = getattr(skimage.data, name)()
    picture = picture.mean(-1) if picture.ndim == 3 else picture
    small = skimage.transform.resize(picture / 255.0, (side, side), anti_aliasing=True)
    return torch.from_numpy(small).float().unsqueeze(0)


def strokes(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Return a mask with bent strokes hidden, about a sixth of the image."""
    _, rows, columns = shape
    generator = np.random.default_rng(seed)
    row, column = np.mgrid[:rows, :columns]
    hidden = np.zeros((rows, columns), bool)
    for _ in range(4):
        start, end, bend = generator.uniform(0.05, 0.95, (3, 2)) * (rows, columns)
        for t in np.linspace(0, 1, 4 * rows):
            centre = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
            hidden |= (row - centre[0]) ** 2 + (column - centre[1]) ** 2 < (0.03 * rows) ** 2
    return torch.from_numpy(~hidden).unsqueeze(0)


def torus_kernel(kernel, side: int) -> torch.Tensor:
    """Return the kernel matrix of all pixels of a torus, ``(pixel, pixel)`` float64."""
    step = torch.arange(side)
    apart = (step[:, None] - step[None, :]).abs()
    squared = torch.minimum(apart, side - apart).double().square()
    distance = squared[:, None, :, None] + squared[None, :, None, :]
    return kernel(distance.reshape(side**2, side**2))


def implied_covariance(network: Hourglass, draws: int) -> list[torch.Tensor]:
    """Return, for single draws of the hidden weights, the output's covariance over the last layer's weights."""
    found = []
    handle = network.out.register_forward_hook(lambda module, inputs, _: found.append(inputs[0]))
    with torch.no_grad():
        for _ in range(draws):
            for parameter in network.parameters():
                parameter.normal_()
            network()
    handle.remove()
    return [
        (network.out.scale**2 * f.flatten(2).squeeze(0).T @ f.flatten(2).squeeze(0)).double() for f in found
    ]


def distance(covariance: torch.Tensor, kernel: torch.Tensor) -> float:
    """Relative Frobenius distance at equal trace."""
    covariance = covariance * (kernel.trace() / covariance.trace())
    return float((covariance - kernel).norm() / kernel.norm())


def width_table(quick: bool) -> list[str]:
    """Measure how far one network's covariance is from the kernel, by width."""
    side, sigma, depth = 16, 1.5, 4
    kernel = torus_kernel(DeepImagePriorKernel(sigma, depth=depth, slope=SLOPE), side)
    others = [
        torus_kernel(DeepImagePriorKernel(s, depth=d, slope=SLOPE), side)
        for s in (0.5, 1, 2, 4)
        for d in (1, 4, 8, 16)
    ]
    lines = [
        "## The wide limit\n",
        "Relative Frobenius distance of the covariance that one draw of the hidden weights implies from the kernel,",
        f"{side} x {side} pixels, mean of 4 draws. *In the limit's conditions*: {depth} circular convolutions without",
        f"normalisation, blurred input (sigma {sigma}) with as many channels as the layers. *Usual hourglass*: uniform",
        "input of 32 channels, normalisation, resampling, skips; distance to the nearest of 16 kernels.\n",
        "| channels | in the limit's conditions | usual hourglass |",
        "|---|---|---|",
    ]
    for width in [16, 32, 64] if quick else [16, 32, 64, 128, 256, 512]:
        torch.manual_seed(0)
        plain = Hourglass(
            (1, side, side), channels=width, scales=depth // 2, skip=0, resample=False, normalise=False,
            padding="circular", slope=SLOPE, input_channels=width, input_blur=sigma,
        )  # fmt: skip
        usual = Hourglass((1, side, side), channels=width, scales=depth // 2, slope=SLOPE)
        near = np.mean([distance(c, kernel) for c in implied_covariance(plain, 4)])
        far = np.mean([min(distance(c, k) for k in others) for c in implied_covariance(usual, 4)])
        lines.append(f"| {width} | {near:.3f} | {far:.3f} |")
    return [*lines, ""]


def samplers_table(quick: bool) -> list[str]:
    """Compare samplers of one small wide network with each other and with the exact Gaussian process."""
    side, sigma, noise, width = 12, 1.5, 0.1, 32 if quick else 64
    image = photograph("camera", 128)[:, 30:78, 40:88]
    image = torch.nn.functional.interpolate(image[None], size=(side, side), mode="area")[0]
    mask = observations.scatter(image.shape, keep=0.5, seed=0)
    torch.manual_seed(0)
    network = Hourglass(
        image.shape, channels=width, scales=1, skip=0, resample=False, normalise=False, padding="circular",
        slope=SLOPE, input_channels=width, input_blur=sigma,
    )  # fmt: skip
    model = DeepImagePrior(image.shape, network, noise=noise, output="linear")
    kernel = 0.0625 * torus_kernel(DeepImagePriorKernel(sigma, depth=2, slope=SLOPE), side)
    known = mask.flatten()
    gain = kernel[:, known] @ torch.linalg.inv(
        kernel[known][:, known] + noise**2 * torch.eye(int(known.sum()), dtype=torch.double)
    )
    mean = (0.5 + gain @ (image.flatten()[known].double() - 0.5)).numpy()
    sd = (kernel - gain @ kernel[known]).diagonal().sqrt().numpy()
    share = 0.1 if quick else 1.0
    count = lambda number: max(5, int(share * number))  # noqa: E731
    contenders = {
        "ChEES (HMC, long)": (ChEES(warmup=count(100), metric="identity", max_steps=64), count(400)),
        "MALA": (MALA(warmup=count(100), thin=20, metric="identity"), count(600)),
        "MALA, diagonal metric": (MALA(warmup=count(100), thin=20, metric="diagonal"), count(600)),
        "MALA from optima": (MALA(warmup=count(100), thin=20, metric="identity", init="optimum"), count(600)),
        "ULA": (ULA(step_size=2e-3, warmup=count(100), thin=20), count(600)),
    }
    hidden = ~known.numpy()
    lines = [
        "## Samplers of one small, wide network\n",
        f"{side} x {side} pixels of a photograph, half of them seen, noise {noise}; {width} channels,",
        f"{model.latent:,} weights, 2 hidden layers; 4 chains from the prior unless said otherwise. Against the exact",
        "Gaussian process of infinite width (whose mean differs from the network's by the width) and against the",
        "long HMC run on the same network: root mean square over hidden pixels.\n",
        "| sampler | gradients | CPU s | R-hat in pixels, max / median | ESS, min | step size | mean - GP | sd / GP's "
        "| mean - HMC | sd / HMC's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    reference: tuple[np.ndarray, np.ndarray] | None = None
    for name, (method, draws) in contenders.items():
        start = time.process_time()
        idata = infer(model, Observation(image, mask), method, draws=draws, chains=4, progress=False)
        seconds = time.process_time() - start
        pixels = idata.posterior["completion"].to_numpy().reshape(-1, side**2)
        own = pixels.mean(0), pixels.std(0)
        reference = own if reference is None else reference
        rms = lambda difference: float(np.sqrt(np.mean(difference[hidden] ** 2)))  # noqa: E731
        rhat = diagnostics.pixel_rhat(idata).to_numpy()
        lines.append(
            f"| {name} | {idata.attrs['gradient_evaluations']:,} | {seconds:.0f} "
            f"| {np.nanmax(rhat):.3f} / {np.nanmedian(rhat):.3f} | {float(diagnostics.pixel_ess(idata).min()):.0f} "
            f"| {float(idata.sample_stats['step_size'][0, -1]):.2g} "
            f"| {rms(own[0] - mean):.4f} | {np.mean((own[1] / sd)[hidden]):.3f} "
            f"| {rms(own[0] - reference[0]):.4f} | {np.mean((own[1] / reference[1])[hidden]):.3f} |"
        )
        print(lines[-1], flush=True)
    lines.append(f"\nThe Gaussian process's own sd at hidden pixels is {sd[hidden].mean():.3f} on average.")
    return [*lines, ""]


def overfitting_table(quick: bool) -> list[str]:
    """Follow MAP and the mean of Langevin draws on photographs."""
    cases = [("camera", 64, "half", 0.05), ("camera", 64, "strokes", 0.05)]
    if not quick:
        cases += [("camera", 64, "half", 0.0), ("astronaut", 64, "half", 0.05), ("camera", 128, "half", 0.05)]
        cases += [("camera", 128, "strokes", 0.05)]
    lines = [
        "## Overfitting: the optimum against the mean of draws\n",
        "Hourglass of 32 channels and 3 scales, model noise 0.05; the seen pixels carry noise of the given sd. MAP:",
        "the best PSNR on its way (an oracle: it needs the truth), and the PSNR at the end. MALA: PSNR of the mean so",
        "far after a quarter of the draws, and of all; coverage of predictive intervals in the hole; pixels' R-hat.\n",
        "| photograph | hidden | noise | MAP, best (at step) | MAP, end | MALA, mean at 1/4 | MALA, mean of all "
        "| CRPS | coverage 50 / 95 % | R-hat, max / median | CPU s, MAP + MALA |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, side, kind, sd in cases:
        truth = photograph(name, side)
        mask = observations.scatter(truth.shape, keep=0.5, seed=0) if kind == "half" else strokes(truth.shape)
        noisy = truth + sd * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(0)
        model = DeepImagePrior(truth.shape, Hourglass(truth.shape, channels=32, scales=3), noise=0.05)
        seen = Observation(noisy, mask)
        steps, draws = (200, 8) if quick else (2500, 120) if side == 64 else (1200, 60)
        start = time.process_time()
        path = infer(
            model, seen, MAP(restarts=1, steps=steps, learning_rate=0.03, snapshots=40), progress=False
        )
        middle = time.process_time()
        method = MALA(warmup=draws // 4, thin=10, metric="identity", init="optimum")
        idata = infer(model, seen, method, draws=draws, chains=4, progress=False)
        end = time.process_time()
        way, run = early_stopping(path, truth), early_stopping(idata, truth)["hidden, mean so far"]
        figures, rhat = scores.score(idata, truth), diagnostics.pixel_rhat(idata).to_numpy()
        lines.append(
            f"| {name}, {side} x {side} | {kind} | {sd} | {way['hidden'].max():.2f} ({way['hidden'].idxmax()}) "
            f"| {way['hidden'].iloc[-1]:.2f} | {run.iloc[len(run) // 4]:.2f} | {figures['PSNR of the mean (dB)']:.2f} "
            f"| {figures['CRPS']:.4f} | {figures['coverage 50%']:.3f} / {figures['coverage 95%']:.3f} "
            f"| {np.nanmax(rhat):.2f} / {np.nanmedian(rhat):.2f} | {middle - start:.0f} + {end - middle:.0f} |"
        )
        print(lines[-1], flush=True)
    if not quick:
        truth = photograph("camera", 256)
        mask = observations.scatter(truth.shape, keep=0.5, seed=0)
        model = DeepImagePrior(truth.shape, Hourglass(truth.shape, channels=32, scales=4), noise=0.05)
        start = time.process_time()
        method = MAP(restarts=1, steps=300, learning_rate=0.03, snapshots=20)
        way = early_stopping(infer(model, Observation(truth, mask), method, progress=False), truth)
        lines.append(
            "\ncamera, 256 x 256, half hidden, no noise, one MAP run of 300 steps: "
            f"{way['hidden'].iloc[-1]:.2f} dB at the end, {way['hidden'].max():.2f} dB at best, "
            f"{time.process_time() - start:.0f} s."
        )
    return [*lines, ""]


def step_table(quick: bool) -> list[str]:
    """Time an iteration against a bare loop over the same network, by turns."""
    lines = [
        "## One iteration over a bare PyTorch loop\n",
        "Gradient and Adam step (MAP) or Langevin step with its test (MALA), over forward, backward and Adam step of",
        "`torch.nn` and `torch.optim` alone; medians of ratios, by turns, one chain.\n",
        "| image | bare, ms | MAP over bare | MALA over bare |",
        "|---|---|---|---|",
    ]
    lines += [_step_line(side, 3 if quick else 7) for side in ((32,) if quick else (64, 128))]
    return [*lines, ""]


def _step_line(side: int, turns: int, count: int = 30) -> str:
    truth = photograph("camera", side)
    mask = observations.scatter(truth.shape, keep=0.5, seed=0)
    network = Hourglass(truth.shape, channels=32, scales=3)
    model = DeepImagePrior(truth.shape, network)
    problem = Problem(model, (truth, mask))
    bare = copy.deepcopy(network).requires_grad_(True)
    optimiser = torch.optim.Adam(bare.parameters(), lr=1e-3)

    def loop():
        for _ in range(count):
            optimiser.zero_grad()
            loss = (torch.sigmoid(bare()) - truth)[mask].square().sum() / (2 * 0.05**2)
            loss.backward()
            optimiser.step()

    kernel = MALA(warmup=1000, thin=count, metric="identity")
    potential = Potential(problem)
    state = kernel.start(potential, potential.draw_prior(1).unsqueeze(0), torch.Generator().manual_seed(0))
    base, optimum, langevin = [], [], []
    for _ in range(turns):
        base.append(_seconds(loop))
        both = _seconds(lambda: MAP(restarts=1, steps=2 * count).optimise(problem))
        one = _seconds(lambda: MAP(restarts=1, steps=count).optimise(problem))
        optimum.append((both - one) / base[-1])  # without start and end
        langevin.append(
            _seconds(lambda: kernel.step(potential, state, torch.Generator().manual_seed(1))) / base[-1]
        )
    return (
        f"| {side} x {side} | {1e3 * np.median(base) / count:.1f} | {np.median(optimum):.2f} "
        f"| {np.median(langevin):.2f} |"
    )


def one_dimension_table(quick: bool) -> list[str]:
    """Measure the stationary sd of Langevin dynamics on a Gaussian of known sd."""
    lines = [
        "## Stationary standard deviation on a Gaussian\n",
        "Mean over 64 chains (standard error over chains). Unadjusted: eps = s^2, for which",
        "s / sqrt(1 - eps / (4 s^2)) = 1.1547 s. Adam + noise: the published",
        "update, Adam (lr 0.01) on the log density plus N(0, (2 lr)^2).\n",
        "| true sd | MALA | MALA, diagonal | ULA | ULA, theory | Adam + noise |",
        "|---|---|---|---|---|---|",
    ]
    for scale in (0.01, 0.1, 1.0):

        def model(scale=scale):
            pyro.sample("x", dist.Normal(0.0, scale))

        cells = []
        for method in (
            MALA(warmup=100, thin=5, metric="identity"),
            MALA(warmup=100, thin=5, metric="diagonal"),
            ULA(step_size=scale**2, warmup=100),
        ):
            draws = 100 if quick else 1000
            x = sample(model, method, draws=draws, chains=64, progress=False).posterior["x"].to_numpy()
            each = np.sqrt((x**2).mean(1))
            cells.append(f"{math.sqrt((x**2).mean()):.4g} ({each.std() / 8:.1g})")
        cells += [f"{scale / math.sqrt(0.75):.4g}", f"{_adam_with_noise(scale):.3g}"]
        lines.append(f"| {scale} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _adam_with_noise(scale: float, steps: int = 4000, rate: float = 0.01) -> float:
    """Return the sd that the published update ends with, on N(0, scale^2)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(256)
    optimiser = torch.optim.Adam([x], lr=rate)
    kept = []
    for step in range(steps):
        x.grad = x / scale**2
        optimiser.step()
        x.add_(2 * rate * torch.randn(256, generator=generator))
        if step > steps // 2:
            kept.append(x.clone())
    return float(torch.stack(kept).std())


def _seconds(run: Callable) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Measure, print and write, section by section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--out", type=Path, default=Path("tests/benchmarks/deep_image_prior.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    start = time.perf_counter()
    lines = ["# The deep image prior, measured\n", *(line.strip() for line in __doc__.splitlines()[2:]), ""]
    for section in (one_dimension_table, width_table, step_table, samplers_table, overfitting_table):
        lines += section(options.quick)
        machine = (
            f"Measured {date.today()}, {os.cpu_count()} cores, one thread, load average {os.getloadavg()[1]:.1f}; "
            f"Python {platform.python_version()}, torch {torch.__version__}, {time.perf_counter() - start:.0f} s."
        )
        options.out.write_text("\n".join([*lines, machine]) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
