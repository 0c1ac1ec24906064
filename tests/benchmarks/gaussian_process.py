"""The Gaussian process on photographs: kernels compared on hidden pixels, routes compared, and what it costs.

    python tests/benchmarks/gaussian_process.py [--quick] [--out tests/benchmarks/gaussian_process.md]

Nothing is fitted to hidden pixels. Seconds are CPU seconds of one thread, and those of the clock beside them,
which other work on the machine lengthens.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import platform
import time
import warnings
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import skimage
import torch
from skimage.color import rgb2gray
from skimage.io import imread
from skimage.transform import resize

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from posterior_inpainting.inference import Exact, infer
    from posterior_inpainting.inference.evaluation.scores import LEVELS, score
from posterior_inpainting.models import Observation, observations
from posterior_inpainting.models.fields import Matern, SquaredExponential
from posterior_inpainting.models.fields.marginal_likelihood import DEEP_IMAGE_PRIORS
from posterior_inpainting.models.gaussian_process import GaussianProcess

PHOTOGRAPHS = ("camera.png", "astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
MORE = ("coins.png", "moon.png", "brick.png", "grass.png", "gravel.png")
DEEP, SQUARED = "deep image prior", "squared exponential"
KERNELS = {
    SQUARED: SquaredExponential(2.0),
    "Matérn 1/2": Matern(3.0, smoothness=0.5),
    "Matérn 3/2": Matern(3.0, smoothness=1.5),
    "Matérn 5/2": Matern(3.0, smoothness=2.5),
    DEEP: DEEP_IMAGE_PRIORS,
}


@dataclass
class Stopwatch:
    """Seconds of one thread and of the clock, of what runs inside."""

    def __enter__(self):
        self._start = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_):
        self.cpu, self.clock = time.process_time() - self._start[0], time.perf_counter() - self._start[1]

    def __str__(self):
        return f"{self.cpu:.1f} ({self.clock:.1f})"


def photograph(file: str, side: int, colour: bool = False) -> torch.Tensor:
    """Centre square of a photograph that travels with scikit-image, grey unless asked otherwise."""
    pixels = imread(Path(skimage.__file__).parent / "data" / file)
    pixels = pixels if colour or pixels.ndim == 2 else rgb2gray(pixels[..., :3])
    extent = min(pixels.shape[:2])
    top, left = ((size - extent) // 2 for size in pixels.shape[:2])
    square = resize(pixels[top : top + extent, left : left + extent], (side, side), anti_aliasing=True)
    image = torch.from_numpy(square).float().clamp(0, 1)
    return image.permute(2, 0, 1) if colour else image[None]


def kernels_on(files: tuple[str, ...], kernels: dict, side: int, draws: int) -> list[str]:
    """Fit every kernel to half the pixels of every photograph, score what is hidden."""
    lines = [
        "| photograph | kernel | fitted | NLL | CRPS | PSNR, dB | "
        + " | ".join(f"{level:.0%}" for level in LEVELS)
        + " | log evidence | fit, s |",
        "|---" * (8 + len(LEVELS)) + "|",
    ]
    wins = {"NLL": 0, "CRPS": 0}
    for number, file in enumerate(files):
        image = photograph(file, side)
        seen = Observation(image, observations.scatter(image.shape, keep=0.5, seed=number))
        found = {}
        for name, kernel in kernels.items():
            with Stopwatch() as watch:
                model = GaussianProcess.fit(seen, kernel)
            idata = infer(model, seen, Exact(), draws=draws, chains=1, progress=False)
            figures = score(idata, image)
            law = model.pixel_posterior(seen.image, seen.mask)
            law = torch.distributions.Normal(law.mean, (law.variance + model.noise.double() ** 2).sqrt())
            figures["NLL"] = float(-law.log_prob(image.double())[~seen.mask].mean())
            found[name] = figures
            depth = f", depth {model.kernel.depth}" if name == DEEP else ""
            lines.append(
                f"| {file} | {name} | lengthscale {model.kernel.lengthscale:.2f}{depth}, noise "
                f"{float(model.noise):.4f} | {figures['NLL']:.3f} | {figures['CRPS']:.4f} | "
                f"{figures['PSNR of the mean (dB)']:.2f} | "
                + " | ".join(f"{figures[f'coverage {level:.0%}']:.3f}" for level in LEVELS)
                + f" | {idata.attrs['log_evidence']:.0f} | {watch.cpu:.1f} |"
            )
            print(lines[-1], flush=True)
        for name in wins:
            wins[name] += found[DEEP][name] < found[SQUARED][name]
    lines.append(
        f"\nThe deep image prior's kernel is better than the squared exponential on {wins['NLL']} of {len(files)} "
        f"by NLL and on {wins['CRPS']} of {len(files)} by CRPS.\n"
    )
    return lines


def with_limit(model: GaussianProcess, limit: int) -> GaussianProcess:
    """Return the same model on the other route."""
    settings = {"mean": model.mean.flatten(), "covariance": model.covariance, "noise": model.noise}
    return GaussianProcess(model.kernel, model.image_shape, dense_limit=limit, **settings)


def agreement(side: int, draws: int) -> list[str]:
    """Compare the two routes, and draws with the exact variances."""
    lines = [
        "| image | largest difference of the means | of draws with one seed | variance of draws: largest error, "
        "standard errors | mean of draws: likewise |",
        "|---|---|---|---|---|",
    ]
    grey, colour = photograph(PHOTOGRAPHS[0], side), photograph(PHOTOGRAPHS[1], side // 2, colour=True)
    cases = {
        f"grey {side} x {side}, half seen": (grey, observations.scatter(grey.shape, keep=0.5, seed=0)),
        f"colour {side // 2} x {side // 2}, green and a tenth of the other values seen": (
            colour,
            observations.channels(colour.shape, 1) | observations.scatter(colour.shape, keep=0.1),
        ),
    }
    for name, (image, mask) in cases.items():
        dense = GaussianProcess.fit(Observation(image, mask))
        iterative = with_limit(dense, 0)
        means, completions = [], []
        for model in (dense, iterative):
            law = model.exact_posterior(image, mask)
            means.append(model.completion(law.mean))
            torch.manual_seed(0)
            completions.append(model.completion(law.sample((draws,))).double())
        exact = dense.pixel_posterior(image, mask)
        drawn, hidden = completions[1], ~mask
        squares = (drawn - exact.mean).square()
        errors = [
            (values.mean(0) - truth).abs() / (values.std(0) / draws**0.5)
            for values, truth in ((squares, exact.variance), (drawn, exact.mean))
        ]
        lines.append(
            f"| {name} | {(means[0] - means[1]).abs().max():.1e} | "
            f"{(completions[0] - completions[1]).abs().max():.1e} | {errors[0][hidden].max():.1f} | "
            f"{errors[1][hidden].max():.1f} |"
        )
        print(lines[-1], flush=True)
    return lines


def simulated(side: int) -> torch.Tensor:
    """Draw an image with hyperparameters like those of photographs."""
    torch.manual_seed(0)
    model = GaussianProcess(DEEP_IMAGE_PRIORS[2], (1, side, side), covariance=0.3, noise=0.02)
    return model().detach()


def costs(sides: tuple[int, ...], draws: int) -> list[str]:
    """Time fit and draws at every size, by both routes where both can."""
    lines = [
        f"| image | seen | torus | route | fit, CPU s (clock) | {draws} draws, CPU s (clock) | PSNR of their mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for side in sides:
        image = photograph(PHOTOGRAPHS[0], side) if side <= 512 else simulated(side)
        seen = Observation(image, observations.scatter(image.shape, keep=0.5, seed=0))
        with Stopwatch() as fitting:
            model = GaussianProcess.fit(seen, DEEP_IMAGE_PRIORS[2])
        count = int(seen.mask.sum())
        for limit in (6144, 0):
            if limit and count > limit:
                continue
            one = with_limit(model, limit)
            with Stopwatch() as drawing:
                drawn = one.completion(one.exact_posterior(seen.image, seen.mask).sample((draws,)))
            error = (drawn.mean(0) - image)[~seen.mask].square().mean()
            lines.append(
                f"| {side} x {side} | {count} | {' x '.join(map(str, one.embedding.torus))} | "
                f"{'Cholesky' if limit else 'conjugate gradients'} | {fitting} | {drawing} | "
                f"{-10 * float(error.log10()):.2f} |"
            )
            print(lines[-1], flush=True)
    return lines


def colourisation(side: int) -> list[str]:
    """Colour a photograph of which green is seen everywhere and red and blue at few pixels."""
    lines = ["| photograph | colours seen | PSNR, dB | grey instead | CRPS | 95 % |", "|---" * 6 + "|"]
    for file in ("astronaut.png", "coffee.png"):
        image = photograph(file, side, colour=True)
        for share in (0.02, 0.1):
            mask = observations.channels(image.shape, 1) | observations.scatter(image.shape, share, seed=1)
            seen = Observation(image, mask)
            idata = infer(GaussianProcess.fit(seen), seen, Exact(), draws=400, chains=1, progress=False)
            figures = score(idata, image)
            grey = -10 * float((image[1] - image)[~mask].square().mean().log10())
            lines.append(
                f"| {file} | {share:.0%} | {figures['PSNR of the mean (dB)']:.2f} | {grey:.2f} | "
                f"{figures['CRPS']:.4f} | {figures['coverage 95%']:.3f} |"
            )
            print(lines[-1], flush=True)
    return lines


def processor() -> str:
    """Return the processor's name, as Linux has it."""
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
        return names[0].split(":")[1].strip()
    except (OSError, IndexError):
        return platform.processor()


def main() -> None:
    """Run everything, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images, the five photographs only")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="run these, keep the rest of the file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = options.out.read_text() if options.only and options.out.exists() else ""
    texts = dict.fromkeys(SECTIONS, "")
    for text in kept.split("\n## ")[1:]:
        texts[next(name for name in SECTIONS if SECTIONS[name][0] == text.split("\n")[0])] = text
    for name in options.only or SECTIONS:
        title, introduction, run = SECTIONS[name]
        stamp = (
            f"`python tests/benchmarks/gaussian_process.py{' --quick' * options.quick}`, {date.today()}, one thread of "
            f"{processor()}, torch {version('torch')}, pyro {version('pyro-ppl')}, Python {platform.python_version()}."
        )
        texts[name] = "\n".join([title, "", stamp, introduction, "", *run(options.quick), ""])
        whole = ["# The Gaussian process: kernels, routes, costs\n", *(t for t in texts.values() if t)]
        options.out.write_text(
            "\n## ".join(whole)
        )  # after each, because the whole takes a quarter of an hour


SECTIONS = {
    "kernels": (
        "Kernels on photographs, half the pixels seen",
        "Grey, 64 x 64 (quick: 32 x 32). Fitted by marginal likelihood to the seen pixels. Scores of hidden pixels: "
        "NLL of the marginal laws,\nnats a pixel; CRPS, PSNR of the mean and coverage of central intervals from 400 "
        "(100) exact draws. To compare with: another\ncameraman, 2,066 pixels seen: squared exponential 25.78 dB, "
        "published network kernel 26.34, analytic kernel 26.475 dB,\nCRPS .0351, coverage .78/.875/.91/.94.",
        lambda quick: kernels_on(PHOTOGRAPHS, KERNELS, *((32, 100) if quick else (64, 400))),
    ),
    "more": (
        "Five more, textures among them",
        "As above.",
        lambda quick: kernels_on(
            MORE, {n: KERNELS[n] for n in (SQUARED, DEEP)}, *((32, 100) if quick else (64, 400))
        ),
    ),
    "routes": (
        "Routes against each other",
        "Cholesky and conjugate gradients with one and the same model; 2,000 draws (quick: 100) by conjugate "
        "gradients against\nexact moments, the worst of some 2,000 hidden values.",
        lambda quick: agreement(*((32, 100) if quick else (64, 2000))),
    ),
    "costs": (
        "Cost, half the pixels seen, deep image prior of depth 8",
        "The field of 1024 x 1024 is drawn from the model itself: no photograph at hand has as many pixels.",
        lambda quick: costs((32, 64, 128) if quick else (32, 64, 96, 128, 256, 512, 1024), 16),
    ),
    "colourisation": (
        "Colourisation: green is seen everywhere, red and blue at few pixels",
        "48 x 48 (quick: 24 x 24), 400 draws.",
        lambda quick: colourisation(24 if quick else 48),
    ),
}


if __name__ == "__main__":
    main()
