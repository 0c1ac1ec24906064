"""`learn`: a prior from a folder of one's own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posterior_inpainting.inference.cli.app import app, check_folder


@app.command()
def learn(
    images: Annotated[Path, typer.Argument(help="Folder of images, or a file of many: NPY, NPZ or IDX.")],
    out: Annotated[Path, typer.Option(help="Folder of the prior; after a kill the same command goes on.")],
    kind: Annotated[
        str, typer.Option(help="vae, pixels, pluralistic, gan, linear, diffusion or experts.")
    ] = "vae",
    size: Annotated[int | None, typer.Option(help="Side that each image is scaled and cut to.")] = None,
    patches: Annotated[
        int | None, typer.Option(help="Side of squares that are cut at random places, unscaled.")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="1 for grey, 3 for colour; as the images are if not given.")
    ] = None,
    missing: Annotated[
        Path | None, typer.Option(help="Folder of masks of the images' names: what is bright is missing.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of training at most; until it gets no better if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="Keep no image in the folder; nor is then told what it does not know."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed: the same one gives the same prior.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Learn a prior from your own images, measure it on some that were held out, and write it to a folder.

    Transparent pixels and NaN are missing. The folder goes wherever a model's name goes: --model ./my-prior.
    """
    from posterior_inpainting.inference.learning.learn import learn as learn_prior
    from posterior_inpainting.models.images.collection import read_collection

    check_folder(out)
    collection = read_collection(
        images, size=size, patches=patches, channels=channels, masks=missing, seed=seed
    )
    shape = " x ".join(map(str, collection.images.shape[1:]))
    if not quiet:
        hidden = (
            "" if collection.masks is None else f", {1 - float(collection.masks.float().mean()):.0%} missing"
        )
        typer.echo(f"{len(collection)} images of {shape}{hidden}")
        for name, reason in collection.skipped[:5]:
            typer.echo(f"  skipped {name}: {reason}")
        if len(collection.skipped) > 5:
            typer.echo(f"  skipped {len(collection.skipped) - 5} more")
    found = learn_prior(
        collection,
        kind,
        out=out,
        minutes=minutes,
        device=device,
        private=private,
        seed=seed,
        progress=not quiet,
    )
    if quiet:
        return
    width = max(map(len, found.figures))
    for name, value in found.figures.items():
        typer.echo(f"  {name:<{width}}  {value:10.4g}")
    typer.echo(f"Wrote model.safetensors, config.json, README.md and samples.png to {out}/")
    typer.echo(f"Use it: posterior-inpainting complete IMAGE --missing MASK --model {out}")
