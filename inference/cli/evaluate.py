"""`calibrate` and `score`: hold a model and a method to simulated and to real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posterior_inpainting.inference.cli.app import (
    app,
    check_folder,
    method_warmed,
    picture,
    some_of,
    write_all,
)


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
    from posterior_inpainting.inference.cli.catalogue import mask_named, model_named
    from posterior_inpainting.inference.evaluation.calibration import calibrate

    check_folder(out)
    # Bundled priors have a shape of their own; a linear model takes the smallest that its data have.
    chosen = model_named(model, (3, 8, 8) if model == "natural-linear" else (1, 8, 8))
    found = calibrate(
        chosen,
        method_warmed(method, warmup),
        mask=mask_named(mask, chosen.image_shape),
        datasets=datasets,
        draws=draws,
        chains=chains,
        seed=seed,
    )
    ranks, tarp = found.sbc(), found.tarp()
    write_all(
        out,
        {
            "ranks.png": lambda path: picture(calibration_plots.rank_ecdf(found), path),
            "tarp.png": lambda path: picture(calibration_plots.tarp_curve(found), path),
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
    from posterior_inpainting.inference.cli.catalogue import mask_named, model_named
    from posterior_inpainting.inference.evaluation.held_out import score_real, summary
    from posterior_inpainting.models import datasets

    check_folder(out)
    whole = some_of(datasets.load(dataset, root=root), images, dataset)
    shape = tuple(whole.shape[1:])
    masks = {name: mask_named(name, shape) for name in mask or ["half:bottom"]}
    chosen = model_named(model, shape)
    table = score_real(
        chosen, method_warmed(method, warmup), whole, masks, draws=draws, chains=chains, seed=seed
    )
    first = int(images.partition("-")[0])
    table.index = table.index.set_levels(table.index.levels[1] + first, level="image")
    means = summary(table)
    write_all(out, {"scores.csv": table.to_csv, "summary.csv": means.to_csv})
    typer.echo(
        f"{type(chosen).__name__} by {method}: {dataset} {images}, mean and standard error over images"
    )
    typer.echo(means.to_string(float_format=lambda value: f"{value:.4g}", na_rep=""))
    typer.echo(f"Wrote scores.csv and summary.csv to {out}/")
