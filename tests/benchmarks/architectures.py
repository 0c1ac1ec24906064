"""Compare decoders for the bundled Fashion-MNIST prior: importance-weighted bound against gradient cost.

    python tests/benchmarks/architectures.py [--epochs 20] [--out models/networks/weights]

Trains every variant for the same short time and writes the table that the prior's card shows. Bounds of
decoders with different floors of the pixel scale are densities on different footings (a lower floor
scores black pixels higher without completing them better): the floor is chosen by CRPS and coverage of
hidden pixels, the rest by the bound.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from posterior_inpainting.inference import train
from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes.variational_autoencoders import AUTOENCODER_RECIPES, gradient_cost
from posterior_inpainting.models import datasets

VARIANTS = {
    "constant scale": {"scale_rank": None, "widths": (400, 400)},
    "rank 64": {"scale_rank": 64, "widths": (400, 400)},
    "rank 192": {"scale_rank": 192, "widths": (400, 400)},
    "rank 192, latent 16": {"scale_rank": 192, "widths": (400, 400), "latent": 16},
    "rank 192, latent 64": {"scale_rank": 192, "widths": (400, 400), "latent": 64},
    "rank 192, wide": {"scale_rank": 192, "widths": (512, 512)},
}


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("models/networks/weights"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, held_out = (datasets.load("fashion-mnist", split) for split in ("train", "test"))
    made = {}
    for name, change in VARIANTS.items():
        recipe = replace(AUTOENCODER_RECIPES["fashion-mnist-vae"], epochs=options.epochs, **change)
        vae = recipe.networks(tuple(images.shape[1:]))
        train(vae, vae.guide, images, schedule=recipe.schedule(progress=True))
        made[name] = recipe, vae, bounds(vae, held_out[:500], samples=500)
    lines = [
        f"{options.epochs} epochs each, floor {recipe.floor}; bounds on 500 test images, nats an image; cost of a",
        "chain-gradient at 256 chains on one thread, over the first row's, all measured in one run.\n",
        "| decoder | latent | hidden | weights | ELBO | bound, 500 samples | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    cheapest = None
    for name, (recipe, vae, found) in made.items():
        weights = sum(p.numel() for p in vae.decoder.parameters())
        cost = gradient_cost(vae.decoder.requires_grad_(False))
        cheapest = cheapest or cost
        lines.append(
            f"| {name} | {recipe.latent} | {'-'.join(map(str, recipe.widths))} | {weights:,} | {found.elbo:.1f} "
            f"| {found.importance_weighted:.1f} | {cost / cheapest:.2f} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    (options.out / "fashion-mnist-vae.architectures.md").write_text(text)


if __name__ == "__main__":
    main()
