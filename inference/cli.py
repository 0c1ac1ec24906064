"""The command line: complete an image, calibrate and score a model, train a bundled prior."""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="posterior-inpainting",
    help="Everything that could fill the missing pixels of an image, and how likely each is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options() -> None:
    """Keep subcommands named even while there is only one."""


@app.command()
def complete(
    image: Annotated[str, typer.Argument(help="A PNG, JPEG or NPY file, or sample:fashion-mnist/7.")],
    mask: Annotated[
        str | None, typer.Option(help="Such as box:14,0,14,28, scatter:0.3, half:bottom, grid:2.")
    ] = None,
    seen: Annotated[Path | None, typer.Option(help="Image file whose marked pixels are seen.")] = None,
    missing: Annotated[Path | None, typer.Option(help="Image file whose marked pixels are missing.")] = None,
    truth: Annotated[Path | None, typer.Option(help="The whole image, to score against.")] = None,
    model: Annotated[str, typer.Option(help="Name of a model.")] = "fashion-mnist-vae",
    method: Annotated[str | None, typer.Option(help="Name of a method, if not the model's own.")] = None,
    draws: Annotated[int | None, typer.Option(help="Kept draws a chain, if not the model's own.")] = None,
    chains: Annotated[int | None, typer.Option(help="Chains, if not the model's own.")] = None,
    seed: Annotated[int, typer.Option(help="Seed: the same one gives the same draws.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for completions.png, posterior.nc, summary.csv.")] = Path(
        "out"
    ),
) -> None:
    """Complete one image: draw from the posterior of its hidden pixels, and say how far to trust it.

    A transparent pixel is missing if neither --mask, --seen nor --missing is given.
    """
    from posterior_inpainting.inference import diagnostics, infer, plots, scores
    from posterior_inpainting.inference.catalogue import (
        SETTINGS,
        check_seen,
        check_values,
        image_named,
        mask_named,
        method_named,
        model_for,
    )
    from posterior_inpainting.inference.convert import save
    from posterior_inpainting.models import Observation, files
    from posterior_inpainting.models.shapes import check_image

    pixels, opaque = image_named(image)
    given = [
        name
        for name, value in (("--mask", mask), ("--seen", seen), ("--missing", missing))
        if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given; expected one of them")
    whole = None
    if mask is not None:
        known = mask_named(mask, tuple(pixels.shape))
        whole = pixels if opaque is None or opaque.all() else None
        if not ((pixels >= 0) & (pixels <= 1)).all():  # what is hidden may be anything, but is no truth then
            whole = None
    elif seen is not None:
        known = files.read_mask(seen, pixels, "seen")
    elif missing is not None:
        known = files.read_mask(missing, pixels, "missing")
    elif opaque is not None and not opaque.all():
        known = opaque
    else:
        raise ValueError(f"{image} has no transparent pixel; give --mask, --seen or --missing")
    check_seen(pixels, known)
    if truth is not None:
        whole = files.read_image(truth)[0]
        check_image(whole, tuple(pixels.shape))
        check_values(whole[~known], "hidden pixels of the truth")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; expected a folder")
    own_method, own_draws, own_chains = SETTINGS.get(model, ("chees", 800, 16))
    chosen = method_named(own_method if method is None else method)
    seen_pixels = Observation(pixels, known)
    posterior = infer(
        model_for(model, seen_pixels),
        seen_pixels,
        chosen,
        draws=own_draws if draws is None else draws,
        chains=own_chains if chains is None else chains,
        seed=seed,
    )
    table = diagnostics.summary(posterior)
    if whole is not None:
        table |= scores.score(posterior, truth=whole)
    axes = plots.completions(posterior, truth=whole)
    with tempfile.TemporaryDirectory() as folder:  # so that nothing is left half written in `out`
        axes[0].figure.savefig(Path(folder) / "completions.png", dpi=150)
        save(posterior, Path(folder) / "posterior.nc")
        with (Path(folder) / "summary.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("quantity", "value"), *table.items()])
        out.mkdir(parents=True, exist_ok=True)
        for path in Path(folder).iterdir():
            shutil.move(path, out / path.name)
    typer.echo(
        f"{posterior.attrs['model']} by {posterior.attrs['method']}: {posterior.attrs['draws_are']} draws"
    )
    _print(table)
    typer.echo(f"Wrote completions.png, posterior.nc and summary.csv to {out}/")


@app.command()
def calibrate(
    mask: Annotated[str, typer.Option(help="Such as half:bottom, scatter:0.3, box:2,2,4,4.")] = "half:bottom",
    model: Annotated[str, typer.Option(help="Name of a model.")] = "digits-vae-2d",
    method: Annotated[str, typer.Option(help="Name of a method.")] = "chees",
    datasets: Annotated[int, typer.Option(help="Data sets to simulate.")] = 500,
    draws: Annotated[int, typer.Option(help="Kept draws a chain, before thinning.")] = 60,
    chains: Annotated[int, typer.Option(help="Chains of each data set.")] = 16,
    warmup: Annotated[
        int | None, typer.Option(help="Iterations that adapt, if not the method's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed: the same one gives the same numbers.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for ranks.png, tarp.png, calibration.csv.")] = Path("out"),
) -> None:
    """Test a method on data that the model itself made: rank ECDF (SBC), TARP, coverage of hidden pixels."""
    from posterior_inpainting.inference import calibration_plots
    from posterior_inpainting.inference.calibration import calibrate
    from posterior_inpainting.inference.catalogue import mask_named, model_named

    _check_folder(out)
    # Bundled priors have a shape of their own; a linear model takes the smallest that its data have.
    chosen = model_named(model, (3, 8, 8) if model == "natural-linear" else (1, 8, 8))
    found = calibrate(
        chosen,
        _method(method, warmup),
        mask=mask_named(mask, chosen.image_shape),
        datasets=datasets,
        draws=draws,
        chains=chains,
        seed=seed,
    )
    ranks, tarp = found.sbc(), found.tarp()
    _write(
        out,
        {
            "ranks.png": lambda path: _picture(calibration_plots.rank_ecdf(found), path),
            "tarp.png": lambda path: _picture(calibration_plots.tarp_curve(found), path),
            "calibration.csv": found.frame().to_csv,
        },
    )
    typer.echo(
        f"{found.model} by {found.method}: {datasets} data sets, ranks among {found.counts.mean():.0f} draws"
    )
    for name, verdict in (("SBC", ranks), ("TARP", tarp)):
        word = "inside" if verdict.inside_band else "OUTSIDE"
        worst = f": {', '.join(verdict.outside)}" if name == "SBC" and verdict.outside else ""
        typer.echo(f"  {name:<5}{word} the {verdict.level:.0%} band (p = {verdict.pvalue:.3g}){worst}")
    typer.echo(found.coverage().to_string(float_format=lambda value: f"{value:.4g}"))
    typer.echo(f"Wrote ranks.png, tarp.png and calibration.csv to {out}/")


@app.command()
def score(
    dataset: Annotated[str, typer.Option(help="A data set with a test split.")] = "fashion-mnist",
    images: Annotated[str, typer.Option(help="Test images, such as 0-199 or 7.")] = "0-199",
    mask: Annotated[list[str] | None, typer.Option(help="A mask; may be repeated.")] = None,
    model: Annotated[str, typer.Option(help="Name of a model.")] = "fashion-mnist-vae",
    method: Annotated[str, typer.Option(help="Name of a method.")] = "chees",
    draws: Annotated[int, typer.Option(help="Kept draws a chain.")] = 50,
    chains: Annotated[int, typer.Option(help="Chains; at least 400 draws together.")] = 16,
    warmup: Annotated[
        int | None, typer.Option(help="Iterations that adapt, if not the method's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed: the same one gives the same draws.")] = 0,
    root: Annotated[Path | None, typer.Option(help="Folder with the data set's IDX files.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for scores.csv and summary.csv.")] = Path("out"),
) -> None:
    """Score posteriors of real held-out images, hidden pixels only: a row an image and mask, and the means."""
    from posterior_inpainting.inference.catalogue import mask_named, model_named
    from posterior_inpainting.inference.held_out import score_real, summary
    from posterior_inpainting.models import datasets

    _check_folder(out)
    whole = _some(datasets.load(dataset, root=root), images, dataset)
    shape = tuple(whole.shape[1:])
    masks = {name: mask_named(name, shape) for name in mask or ["half:bottom"]}
    chosen = model_named(model, shape)
    table = score_real(chosen, _method(method, warmup), whole, masks, draws=draws, chains=chains, seed=seed)
    first = int(images.partition("-")[0])
    table.index = table.index.set_levels(table.index.levels[1] + first, level="image")
    means = summary(table)
    _write(out, {"scores.csv": table.to_csv, "summary.csv": means.to_csv})
    typer.echo(
        f"{type(chosen).__name__} by {method}: {dataset} {images}, mean and standard error over images"
    )
    typer.echo(means.to_string(float_format=lambda value: f"{value:.4g}", na_rep=""))
    typer.echo(f"Wrote scores.csv and summary.csv to {out}/")


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Name of a bundled prior.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, digests and card.")],
    root: Annotated[Path | None, typer.Option(help="Folder with the data set's IDX files.")] = None,
) -> None:
    """Train a bundled prior by its recipe and write its weights and card."""
    from posterior_inpainting.inference.recipes import train_prior

    typer.echo(train_prior(name, out, root))


def main() -> None:
    """Run the command line; a mistake of the caller is one line on standard error and exit code 2."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
    import matplotlib

    matplotlib.use("Agg")
    try:
        app()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"posterior-inpainting: {' '.join(str(error).split())}\n")
        sys.exit(2)


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; expected a folder")


def _write(out: Path, writers: dict[str, Callable[[Path], Any]]) -> None:
    """Write every file of a result, or none."""
    with tempfile.TemporaryDirectory() as folder:
        for name, write in writers.items():
            write(Path(folder) / name)
        out.mkdir(parents=True, exist_ok=True)
        for name in writers:
            shutil.move(Path(folder) / name, out / name)


def _picture(axis: Any, path: Path) -> None:
    axis.figure.savefig(path, dpi=150)


def _method(name: str, warmup: int | None) -> Any:
    from posterior_inpainting.inference.catalogue import method_named

    method: Any = method_named(name)
    if warmup is None:
        return method
    if not hasattr(method, "warmup"):
        raise ValueError(f"--warmup {warmup} is given, but {name} does not warm up")
    if warmup < 1:
        raise ValueError(f"--warmup {warmup}; expected at least 1")
    return replace(method, warmup=warmup)


def _some(images: Any, words: str, dataset: str) -> Any:
    """Return the images of a range such as ``0-199`` or ``7``."""
    first, dash, last = words.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ValueError(f"--images {words!r} is not understood; expected FIRST-LAST or a number")
    low, high = int(first), int(last or first)
    if low > high or high >= len(images):
        raise ValueError(f"--images {words}: {dataset} has images 0-{len(images) - 1}")
    return images[low : high + 1]


def _print(table: dict[str, float]) -> None:
    width = max(map(len, table))
    for name, value in table.items():
        number = f"{value:d}" if isinstance(value, int) else f"{value:.4g}"
        typer.echo(f"  {name:<{width}}  {number:>10}")


if __name__ == "__main__":
    main()
