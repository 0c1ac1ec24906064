"""`calibrate` and `score`: hold a model and a method to simulated and to real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posterior_inpainting.inference.cli.app import app, check_folder, picture, write_all
from posterior_inpainting.inference.cli.options import DATA_FOLDER, Drawing, HeldOut, laid_out


@app.command()
@laid_out
def calibrate(
    drawing: Drawing,
    mask: Annotated[str, typer.Option(help="Such as half:bottom, scatter:0.3, box:2,2,4,4.")] = "half:bottom",
    model: Annotated[
        str, typer.Option(help="Name of a model, see `list models`, or folder of a prior.")
    ] = "digits-vae-2d",
    datasets: Annotated[int, typer.Option(help="Data sets to simulate.")] = 500,
    root: DATA_FOLDER = None,
    out: Annotated[Path, typer.Option(help="Folder for ranks.png, tarp.png, calibration.csv.")] = Path("out"),
) -> None:
    """Test a method on data that the model itself made: rank ECDF (SBC), TARP, coverage of hidden pixels."""
    from posterior_inpainting.inference import calibration_plots, catalogue
    from posterior_inpainting.inference.evaluation.calibration import calibrate

    check_folder(out)
    entry = catalogue.entry(model)
    approach = drawing.of(entry, root)
    chosen = entry.model(root)
    found = calibrate(
        chosen,
        approach.method,
        mask=catalogue.mask(mask, chosen.image_shape),
        datasets=datasets,
        draws=approach.draws,
        chains=approach.chains,
        seed=drawing.seed,
    )
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
    for name, verdict in (("SBC", found.sbc()), ("TARP", found.tarp())):
        word = "inside" if verdict.inside_band else "OUTSIDE"
        worst = f": {', '.join(verdict.outside)}" if name == "SBC" and verdict.outside else ""
        typer.echo(f"  {name:<5}{word} the {verdict.level:.0%} band (p = {verdict.pvalue:.3g}){worst}")
    typer.echo(found.coverage().to_string(float_format=lambda value: f"{value:.4g}"))
    typer.echo(f"Wrote ranks.png, tarp.png and calibration.csv to {out}/")


@app.command()
@laid_out
def score(
    held_out: HeldOut,
    drawing: Drawing,
    model: Annotated[
        str, typer.Option(help="Name of a model, see `list models`, or folder of a prior.")
    ] = "vae",
    out: Annotated[Path, typer.Option(help="Folder for scores.csv and summary.csv.")] = Path("out"),
) -> None:
    """Score posteriors of real held-out images, hidden pixels only: a row an image and mask, and the means.

    At least 40 draws an image. Images run in one batch where the method can; `compare` runs each as `complete` does.
    """
    from posterior_inpainting.inference import catalogue
    from posterior_inpainting.inference.evaluation.held_out import score_real, summary
    from posterior_inpainting.models import Observation

    check_folder(out)
    approach = drawing.of(catalogue.entry(model), held_out.root)
    if catalogue.entry(model).made_from == "image":
        raise ValueError(f"{model} is made for each image; use `compare --approach {model}`")
    images, masks = held_out.read(("half:bottom",))
    chosen = approach.model_for(Observation(images[0], next(iter(masks.values()))))
    table = score_real(
        chosen,
        approach.method,
        images,
        masks,
        draws=approach.draws,
        chains=approach.chains,
        seed=drawing.seed,
    )
    table.index = table.index.set_levels(table.index.levels[1] + held_out.first, level="image")
    means = summary(table)
    write_all(out, {"scores.csv": table.to_csv, "summary.csv": means.to_csv})
    typer.echo(
        f"{model} by {approach.method.label}: {held_out.dataset} {held_out.images}, mean and standard error over images"
    )
    typer.echo(means.to_string(float_format=lambda value: f"{value:.4g}", na_rep=""))
    typer.echo(f"Wrote scores.csv and summary.csv to {out}/")
