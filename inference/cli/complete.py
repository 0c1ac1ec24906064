"""`complete`: draw from the posterior of one image, and write what it says."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from posterior_inpainting.inference.cli.app import app, check_folder, picture, write_all


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
    from posterior_inpainting.inference.cli.catalogue import (
        SETTINGS,
        check_seen,
        check_values,
        image_named,
        mask_named,
        method_named,
        model_for,
    )
    from posterior_inpainting.inference.results.convert import save
    from posterior_inpainting.models import Observation, image_files
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
        known = image_files.read_mask(seen, pixels, "seen")
    elif missing is not None:
        known = image_files.read_mask(missing, pixels, "missing")
    elif opaque is not None and not opaque.all():
        known = opaque
    else:
        raise ValueError(f"{image} has no transparent pixel; give --mask, --seen or --missing")
    check_seen(pixels, known)
    if truth is not None:
        whole = image_files.read_image(truth)[0]
        check_image(whole, tuple(pixels.shape))
        check_values(whole[~known], "hidden pixels of the truth")
    check_folder(out)
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
    write_all(
        out,
        {
            "completions.png": lambda path: picture(axes[0], path),
            "posterior.nc": lambda path: save(posterior, path),
            "summary.csv": lambda path: _write_table(table, path),
        },
    )
    typer.echo(
        f"{posterior.attrs['model']} by {posterior.attrs['method']}: {posterior.attrs['draws_are']} draws"
    )
    _print(table)
    typer.echo(f"Wrote completions.png, posterior.nc and summary.csv to {out}/")


def _write_table(table: dict[str, float], path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("quantity", "value"), *table.items()])


def _print(table: dict[str, float]) -> None:
    width = max(map(len, table))
    for name, value in table.items():
        number = f"{value:d}" if isinstance(value, int) else f"{value:.4g}"
        typer.echo(f"  {name:<{width}}  {number:>10}")
