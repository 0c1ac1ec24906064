"""Measure the deep image prior: its wide limit, its samplers, and its overfitting.

    OMP_NUM_THREADS=1 python tests/benchmarks/deep_image_prior.py [--quick]

Seconds are CPU seconds of one thread. PSNR and coverage are of hidden pixels only.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import tables
import torch
from cases import half_seen, mask_named, photograph
from deep_image_prior_limits import SLOPE, one_dimension_table, torus_kernel, wide_network, width_table
from timing import Stopwatch, cpu_seconds

from posterior_inpainting.inference import MALA, MAP, ULA, ChEES, diagnostics, early_stopping, infer, scores
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.models import DeepImagePrior, Observation
from posterior_inpainting.models.fields import DeepImagePriorKernel
from posterior_inpainting.models.networks import Hourglass

Moments = tuple[np.ndarray, np.ndarray]
HOLES = {"half": "scatter:0.5,0", "strokes": "strokes:4,4"}


def exact_moments(seen: Observation, blur: float, noise: float) -> Moments:
    """Mean and standard deviation of every pixel under the Gaussian process of infinite width."""
    side, known = seen.shape[-1], seen.mask.flatten()
    kernel = 0.0625 * torus_kernel(DeepImagePriorKernel(blur, depth=2, slope=SLOPE), side)
    gain = kernel[:, known] @ torch.linalg.inv(
        kernel[known][:, known] + noise**2 * torch.eye(int(known.sum()), dtype=torch.double)
    )
    mean = 0.5 + gain @ (seen.image.flatten()[known].double() - 0.5)
    return mean.numpy(), (kernel - gain @ kernel[known]).diagonal().sqrt().numpy()


def contenders(quick: bool) -> dict:
    """Methods and their draws a chain."""

    def count(number: int) -> int:
        return max(10, number // 20) if quick else number

    return {
        "ChEES (HMC, long)": (ChEES(warmup=count(100), metric="identity", max_steps=64), count(400)),
        "MALA": (MALA(warmup=count(100), thin=20, metric="identity"), count(600)),
        "MALA, diagonal metric": (MALA(warmup=count(100), thin=20, metric="diagonal"), count(600)),
        "MALA from optima": (MALA(warmup=count(100), thin=20, metric="identity", init="optimum"), count(600)),
        "ULA": (ULA(step_size=2e-3, warmup=count(100), thin=20), count(600)),
    }


def samplers_table(quick: bool) -> str:
    """Compare samplers of one small wide network with each other and with the exact Gaussian process."""
    side, blur, noise, width = 12, 1.5, 0.1, 32 if quick else 64
    image = photograph("camera.png", 128)[:, 30:78, 40:88]
    image = torch.nn.functional.interpolate(image[None], size=(side, side), mode="area")[0]
    seen = half_seen(image)
    torch.manual_seed(0)
    network = wide_network(side, width, 1, blur)
    model = DeepImagePrior(image.shape, network, noise=noise, output="linear")
    exact, hidden = exact_moments(seen, blur, noise), ~seen.mask.flatten().numpy()
    reference: Moments | None = None
    lines = []
    for name, (method, draws) in contenders(quick).items():
        with Stopwatch() as watch:
            idata = infer(model, seen, method, draws=draws, chains=4, progress=False)
        pixels = idata.posterior["completion"].to_numpy().reshape(-1, side**2)
        own = pixels.mean(0), pixels.std(0)
        reference = own if reference is None else reference
        rhat = diagnostics.pixel_rhat(idata).to_numpy()
        row = [name, f"{idata.attrs['gradient_evaluations']:,}", f"{watch.cpu:.0f}"]
        row += [f"{np.nanmax(rhat):.3f} / {np.nanmedian(rhat):.3f}"]
        row += [f"{float(diagnostics.pixel_ess(idata).min()):.0f}"]
        row += [f"{float(idata.sample_stats['step_size'][0, -1]):.2g}"]
        for mean, sd in (exact, reference):
            row += [f"{np.sqrt(np.mean((own[0] - mean)[hidden] ** 2)):.4f}"]
            row += [f"{np.mean((own[1] / sd)[hidden]):.3f}"]
        lines.append(row)
        print(" | ".join(row), flush=True)
    head = ["sampler", "gradients", "CPU s", "R-hat in pixels, max / median", "ESS, min", "step size"]
    head += ["mean - GP", "sd / GP's", "mean - HMC", "sd / HMC's"]
    return f"""## Samplers of one small, wide network

{side} x {side} pixels of a photograph, half of them seen, noise {noise}; {width} channels,
{model.latent:,} weights, 2 hidden layers; 4 chains from the prior unless said otherwise. Against the exact
Gaussian process of infinite width (whose mean differs from the network's by the width) and against the
long HMC run on the same network: root mean square over hidden pixels.

{tables.markdown(head, lines)}

The Gaussian process's own sd at hidden pixels is {exact[1][hidden].mean():.3f} on average.
"""


@dataclass(frozen=True)
class Hole:
    """A photograph, what is hidden of it (a key of ``HOLES``), and the sd of the noise on what is seen."""

    file: str
    side: int
    kind: str
    noise: float

    def row(self, steps: int, draws: int) -> list[str]:
        """Follow MAP, then draw by MALA; one line of the table."""
        truth = photograph(self.file, self.side)
        noisy = truth + self.noise * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
        seen = Observation(noisy, mask_named(HOLES[self.kind], tuple(truth.shape)), any_values=True)
        torch.manual_seed(0)
        model = DeepImagePrior(truth.shape, Hourglass(truth.shape, channels=32, scales=3), noise=0.05)
        climbing = MAP(restarts=1, steps=steps, learning_rate=0.03, snapshots=min(steps, 40))
        method = MALA(warmup=max(4, draws // 4), thin=10, metric="identity", init="optimum")
        with Stopwatch() as first:
            path = infer(model, seen, climbing, progress=False)
        with Stopwatch() as second:
            idata = infer(model, seen, method, draws=draws, chains=4, progress=False)
        way, run = early_stopping(path, truth), early_stopping(idata, truth)["hidden, mean so far"]
        figures, rhat = scores.score(idata, truth), diagnostics.pixel_rhat(idata).to_numpy()
        return [
            f"{self.file.split('.')[0]}, {self.side} x {self.side}",
            self.kind,
            str(self.noise),
            f"{way['hidden'].max():.2f} ({way['hidden'].idxmax()})",
            f"{way['hidden'].iloc[-1]:.2f}",
            f"{run.iloc[len(run) // 4]:.2f}",
            f"{figures['PSNR of the mean (dB)']:.2f}",
            f"{figures['CRPS']:.4f}",
            f"{figures['coverage 50%']:.3f} / {figures['coverage 95%']:.3f}",
            f"{np.nanmax(rhat):.2f} / {np.nanmedian(rhat):.2f}",
            f"{first.cpu:.0f} + {second.cpu:.0f}",
        ]


def overfitting_table(quick: bool) -> str:
    """Follow MAP and the mean of Langevin draws on photographs."""
    holes = [Hole("camera.png", 32 if quick else 64, "half", 0.05)]
    if not quick:
        holes += [Hole("camera.png", 64, "strokes", 0.05), Hole("camera.png", 64, "half", 0.0)]
        holes += [Hole("astronaut.png", 64, "half", 0.05), Hole("camera.png", 128, "half", 0.05)]
        holes += [Hole("camera.png", 128, "strokes", 0.05)]
    lines = []
    for hole in holes:
        lines.append(hole.row(*((50, 8) if quick else (2500, 120) if hole.side == 64 else (1200, 60))))
        print(" | ".join(lines[-1]), flush=True)
    head = ["photograph", "hidden", "noise", "MAP, best (at step)", "MAP, end", "MALA, mean at 1/4"]
    head += ["MALA, mean of all", "CRPS", "coverage 50 / 95 %", "R-hat, max / median", "CPU s, MAP + MALA"]
    return f"""## Overfitting: the optimum against the mean of draws

Hourglass of 32 channels and 3 scales, model noise 0.05; the seen pixels carry noise of the given sd. MAP:
the best PSNR on its way (an oracle: it needs the truth), and the PSNR at the end. MALA: PSNR of the mean so
far after a quarter of the draws, and of all; coverage of predictive intervals in the hole; pixels' R-hat.

{tables.markdown(head, lines)}

{"" if quick else large_photograph()}
"""


def large_photograph() -> str:
    """One MAP run of 256 x 256 pixels, in words."""
    truth = photograph("camera.png", 256)
    model = DeepImagePrior(truth.shape, Hourglass(truth.shape, channels=32, scales=4), noise=0.05)
    method = MAP(restarts=1, steps=300, learning_rate=0.03, snapshots=20)
    with Stopwatch() as watch:
        way = early_stopping(infer(model, half_seen(truth), method, progress=False), truth)["hidden"]
    return (
        "camera, 256 x 256, half hidden, no noise, one MAP run of 300 steps: "
        f"{way.iloc[-1]:.2f} dB at the end, {way.max():.2f} dB at best, {watch.cpu:.0f} s."
    )


def step_table(quick: bool) -> str:
    """Time an iteration against a bare loop over the same network, by turns."""
    turns, count = (2, 5) if quick else (7, 30)
    lines = [step_row(side, turns, count) for side in ((32,) if quick else (64, 128))]
    return f"""## One iteration over a bare PyTorch loop

Gradient and Adam step (MAP) or Langevin step with its test (MALA), over forward, backward and Adam step of
`torch.nn` and `torch.optim` alone; medians of ratios, by turns, one chain.

{tables.markdown(["image", "bare, ms", "MAP over bare", "MALA over bare"], lines)}
"""


def step_row(side: int, turns: int, count: int) -> list[str]:
    """Time ``count`` steps of each, by turns."""
    seen = half_seen(photograph("camera.png", side))
    network = Hourglass(seen.shape, channels=32, scales=3)
    problem = Problem(DeepImagePrior(seen.shape, network), (seen.image, seen.mask))
    bare = copy.deepcopy(network).requires_grad_(True)
    optimiser = torch.optim.Adam(bare.parameters(), lr=1e-3)

    def loop():
        for _ in range(count):
            optimiser.zero_grad()
            loss = (torch.sigmoid(bare()) - seen.image)[seen.mask].square().sum() / (2 * 0.05**2)
            loss.backward()
            optimiser.step()

    kernel, density = MALA(warmup=1000, thin=count, metric="identity"), Potential(problem)
    generator = torch.Generator().manual_seed(0)
    state = kernel.start(density, density.draw_prior(1).unsqueeze(0), generator)
    base, optimum, langevin = [], [], []
    for _ in range(turns):
        base.append(cpu_seconds(loop))
        both = cpu_seconds(lambda: MAP(restarts=1, steps=2 * count).optimise(problem))
        one = cpu_seconds(lambda: MAP(restarts=1, steps=count).optimise(problem))
        optimum.append((both - one) / base[-1])  # without start and end
        langevin.append(cpu_seconds(lambda: kernel.step(density, state, generator)) / base[-1])
    ratios = [f"{np.median(part):.2f}" for part in (optimum, langevin)]
    return [f"{side} x {side}", f"{1e3 * np.median(base) / count:.1f}", *ratios]


def main() -> None:
    """Measure, print and write, section by section."""
    options = tables.parsed(tables.arguments(__file__, __doc__))
    text = "# The deep image prior, measured\n\n"
    text += f"By `{tables.command(options)}`. Seconds are CPU seconds; PSNR and coverage are of hidden pixels only.\n\n"
    for section in (one_dimension_table, width_table, step_table, samplers_table, overfitting_table):
        text += section(options.quick) + "\n"
        options.out.write_text(f"{text}{tables.measured_on()}\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
