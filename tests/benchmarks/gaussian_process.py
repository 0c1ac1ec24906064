"""The Gaussian process on photographs: kernels compared on hidden pixels, routes compared, and what it costs.

    python tests/benchmarks/gaussian_process.py [--quick] [--out tests/benchmarks/gaussian_process.md]

Nothing is fitted to hidden pixels. Seconds are CPU seconds of one thread, and those of the clock beside them,
which other work on the machine lengthens.
"""

import tables
import torch
from cases import half_seen, mask_named, photograph
from timing import Stopwatch

from posterior_inpainting.inference import Exact, infer
from posterior_inpainting.inference.evaluation.scores import LEVELS, score
from posterior_inpainting.models import Observation
from posterior_inpainting.models.fields import (
    DeepImagePriorKernel,
    HourglassKernel,
    Matern,
    SquaredExponential,
)
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


def of_one(seen: Observation, image: torch.Tensor, kernel, draws: int) -> tuple[GaussianProcess, dict]:
    """Fit a kernel to what is seen of an image, and score what is hidden."""
    with Stopwatch() as watch:
        model = GaussianProcess.fit(seen, kernel)
    idata = infer(model, seen, Exact(), draws=draws, chains=1, progress=False)
    law = model.pixel_posterior(seen.image, seen.mask)
    law = torch.distributions.Normal(law.mean, (law.variance + model.noise.double() ** 2).sqrt())
    found = score(idata, image)
    found["NLL"] = float(-law.log_prob(image.double())[~seen.mask].mean())
    return model, found | {"log evidence": idata.attrs["log_evidence"], "seconds": watch.cpu}


def kernels_on(files: tuple[str, ...], kernels: dict, side: int, draws: int) -> str:
    """Fit every kernel to half the pixels of every photograph, score what is hidden."""
    head = [
        "photograph",
        "kernel",
        "fitted",
        "NLL",
        "CRPS",
        "PSNR, dB",
        *(f"{level:.0%}" for level in LEVELS),
    ]
    lines, wins = [], {"NLL": 0, "CRPS": 0}
    for number, file in enumerate(files):
        image = photograph(file, side)
        seen, found = half_seen(image, seed=number), {}
        for name, kernel in kernels.items():
            model, figures = of_one(seen, image, kernel, draws)
            found[name] = figures
            kernel = model.kernel
            depth = f", depth {kernel.depth}" if isinstance(kernel, DeepImagePriorKernel) else ""
            if isinstance(kernel, HourglassKernel):
                depth = f", {kernel.scales} scales"
            fitted = f"lengthscale {kernel.lengthscale:.2f}{depth}, noise {float(model.noise):.4f}"
            row = [file, name, fitted, f"{figures['NLL']:.3f}", f"{figures['CRPS']:.4f}"]
            row += [f"{figures['PSNR of the mean (dB)']:.2f}"]
            row += [f"{figures[f'coverage {level:.0%}']:.3f}" for level in LEVELS]
            lines.append([*row, f"{figures['log evidence']:.0f}", f"{figures['seconds']:.1f}"])
            print(" | ".join(lines[-1]), flush=True)
        for name in wins:
            wins[name] += found[DEEP][name] < found[SQUARED][name]
    return (
        f"{tables.markdown([*head, 'log evidence', 'fit, s'], lines)}\n\nThe deep image prior's kernel is better than "
        f"the squared exponential on {wins['NLL']} of {len(files)} by NLL and on {wins['CRPS']} by CRPS.\n"
    )


def with_limit(model: GaussianProcess, limit: int) -> GaussianProcess:
    """Return the same model on the other route."""
    settings = {"mean": model.mean.flatten(), "covariance": model.covariance, "noise": model.noise}
    return GaussianProcess(model.kernel, model.image_shape, dense_limit=limit, **settings)


def agreement(side: int, draws: int) -> str:
    """Compare the two routes, and draws with the exact variances."""
    grey, colour = photograph(PHOTOGRAPHS[0], side), photograph(PHOTOGRAPHS[1], side // 2, colour=True)
    some = mask_named("channels:1", tuple(colour.shape)) | mask_named("scatter:0.1", tuple(colour.shape))
    cases = {
        f"grey {side} x {side}, half seen": half_seen(grey),
        f"colour {side // 2} x {side // 2}, green and a tenth of the other values seen": Observation(
            colour, some
        ),
    }
    lines = []
    for name, seen in cases.items():
        dense = GaussianProcess.fit(seen)
        means, completions = [], []
        for model in (dense, with_limit(dense, 0)):
            law = model.exact_posterior(seen.image, seen.mask)
            means.append(model.completion(law.mean))
            torch.manual_seed(0)
            completions.append(model.completion(law.sample((draws,))).double())
        exact = dense.pixel_posterior(seen.image, seen.mask)
        drawn, hidden = completions[1], ~seen.mask
        errors = [
            ((values.mean(0) - truth).abs() / (values.std(0) / draws**0.5))[hidden].max()
            for values, truth in (((drawn - exact.mean).square(), exact.variance), (drawn, exact.mean))
        ]
        apart = [float((one - other).abs().max()) for one, other in (means, completions)]
        lines.append([name, *(f"{value:.1e}" for value in apart), *(f"{error:.1f}" for error in errors)])
        print(" | ".join(lines[-1]), flush=True)
    head = ["image", "largest difference of the means", "of draws with one seed"]
    head += ["variance of draws: largest error, standard errors", "mean of draws: likewise"]
    return tables.markdown(head, lines)


def simulated(side: int) -> torch.Tensor:
    """Draw an image with hyperparameters like those of photographs."""
    torch.manual_seed(0)
    model = GaussianProcess(DEEP_IMAGE_PRIORS[2], (1, side, side), covariance=0.3, noise=0.02)
    return model().detach()


def costs(sides: tuple[int, ...], draws: int) -> str:
    """Time fit and draws at every size, by both routes where both can."""
    lines = []
    for side in sides:
        image = photograph(PHOTOGRAPHS[0], side) if side <= 512 else simulated(side)
        seen = half_seen(image)
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
            row = [f"{side} x {side}", str(count), " x ".join(map(str, one.embedding.torus))]
            row += ["Cholesky" if limit else "conjugate gradients", str(fitting), str(drawing)]
            lines.append([*row, f"{-10 * float(error.log10()):.2f}"])
            print(" | ".join(lines[-1]), flush=True)
    head = ["image", "seen", "torus", "route", "fit, CPU s (clock)", f"{draws} draws, CPU s (clock)"]
    return tables.markdown([*head, "PSNR of their mean"], lines)


def colourisation(side: int) -> str:
    """Colour a photograph of which green is seen everywhere and red and blue at few pixels."""
    lines = []
    for file in ("astronaut.png", "coffee.png"):
        image = photograph(file, side, colour=True)
        shape = tuple(image.shape)
        for share in (0.02, 0.1):
            mask = mask_named("channels:1", shape) | mask_named(f"scatter:{share},1", shape)
            seen = Observation(image, mask)
            idata = infer(GaussianProcess.fit(seen), seen, Exact(), draws=400, chains=1, progress=False)
            figures = score(idata, image)
            grey = -10 * float((image[1] - image)[~mask].square().mean().log10())
            row = [file, f"{share:.0%}", f"{figures['PSNR of the mean (dB)']:.2f}", f"{grey:.2f}"]
            lines.append([*row, f"{figures['CRPS']:.4f}", f"{figures['coverage 95%']:.3f}"])
            print(" | ".join(lines[-1]), flush=True)
    return tables.markdown(["photograph", "colours seen", "PSNR, dB", "grey instead", "CRPS", "95 %"], lines)


def main() -> None:
    """Run everything, write the tables."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="run these, keep the rest of the file")
    options = tables.parsed(parser)
    kept = options.out.read_text() if options.only and options.out.exists() else ""
    texts = dict.fromkeys(SECTIONS, "")
    for text in kept.split("\n## ")[1:]:
        texts[next(name for name in SECTIONS if SECTIONS[name][0] == text.split("\n")[0])] = text
    for name in options.only or SECTIONS:
        title, introduction, run = SECTIONS[name]
        stamp = f"`{tables.command(options)}`. {tables.measured_on()}"
        texts[name] = "\n".join([title, "", stamp, introduction, "", run(options.quick), ""])
        whole = ["# The Gaussian process: kernels, routes, costs\n", *(t for t in texts.values() if t)]
        # After each, because the whole takes a quarter of an hour.
        options.out.write_text("\n## ".join(whole))


SECTIONS = {
    "kernels": (
        "Kernels on photographs, half the pixels seen",
        "Grey, 64 x 64 (quick: 16 x 16). Fitted by marginal likelihood to the seen pixels. Scores of hidden pixels: "
        "NLL of the marginal laws,\nnats a pixel; CRPS, PSNR of the mean and coverage of central intervals from 400 "
        "(50) exact draws. To compare with: another\ncameraman, 2,066 pixels seen: squared exponential 25.78 dB, "
        "published network kernel 26.34, analytic kernel 26.475 dB,\nCRPS .0351, coverage .78/.875/.91/.94.",
        lambda quick: kernels_on(
            PHOTOGRAPHS[:1] if quick else PHOTOGRAPHS, KERNELS, *((16, 50) if quick else (64, 400))
        ),
    ),
    "more": (
        "Five more, textures among them",
        "As above.",
        lambda quick: kernels_on(
            MORE[:1] if quick else MORE,
            {n: KERNELS[n] for n in (SQUARED, DEEP)},
            *((16, 50) if quick else (64, 400)),
        ),
    ),
    "routes": (
        "Routes against each other",
        "Cholesky and conjugate gradients with one and the same model; 2,000 draws (quick: 100) by conjugate "
        "gradients against\nexact moments, the worst of some 2,000 hidden values.",
        lambda quick: agreement(*((16, 100) if quick else (64, 2000))),
    ),
    "costs": (
        "Cost, half the pixels seen, deep image prior of depth 8",
        "The field of 1024 x 1024 is drawn from the model itself: no photograph at hand has as many pixels.",
        lambda quick: costs((16, 32) if quick else (32, 64, 96, 128, 256, 512, 1024), 16),
    ),
    "colourisation": (
        "Colourisation: green is seen everywhere, red and blue at few pixels",
        "48 x 48 (quick: 12 x 12), 400 draws.",
        lambda quick: colourisation(12 if quick else 48),
    ),
}


if __name__ == "__main__":
    main()
