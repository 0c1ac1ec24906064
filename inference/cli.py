"""The command line: complete an image, train a bundled prior."""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Annotated

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
    method: Annotated[str, typer.Option(help="Name of a method.")] = "chees",
    draws: Annotated[int, typer.Option(help="Kept draws a chain.")] = 800,
    chains: Annotated[int, typer.Option(help="Chains.")] = 16,
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
        check_seen,
        check_values,
        image_named,
        mask_named,
        method_named,
        model_named,
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
    chosen = method_named(method)
    posterior = infer(
        model_named(model, tuple(pixels.shape)),
        Observation(pixels, known),
        chosen,
        draws=draws,
        chains=chains,
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


def _print(table: dict[str, float]) -> None:
    width = max(map(len, table))
    for name, value in table.items():
        number = f"{value:d}" if isinstance(value, int) else f"{value:.4g}"
        typer.echo(f"  {name:<{width}}  {number:>10}")


if __name__ == "__main__":
    main()
