"""Compare decoders for the bundled Fashion-MNIST prior: importance-weighted bound against gradient cost.

    OMP_NUM_THREADS=1 python tests/benchmarks/architectures.py [--quick] [--epochs 10] [--out FILE]

Trains every variant for the same short time, on what the recipe trains on, and measures it on training images that
are held back: nothing is chosen on test images. Bounds of decoders with different floors of the pixel scale are
densities on different footings: the floor and the scale factor are chosen by CRPS and coverage of hidden pixels, the
rest by the bound. Codes are standard normal here; their law comes after the training.
"""

from dataclasses import replace
from pathlib import Path

import tables

from posterior_inpainting.inference import train
from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes import variational_autoencoders
from posterior_inpainting.models import datasets

VARIANTS = {
    "constant scale": {"scale_rank": None, "widths": (400, 400)},
    "rank 64": {"scale_rank": 64, "widths": (400, 400)},
    "rank 192": {"scale_rank": 192, "widths": (400, 400)},
    "rank 192, latent 16": {"scale_rank": 192, "widths": (400, 400), "latent": 16},
    "rank 192, latent 64": {"scale_rank": 192, "widths": (400, 400), "latent": 64},
    "rank 192, wide": {"scale_rank": 192, "widths": (512, 512)},
    "rank 192, wider": {"scale_rank": 192, "widths": (768, 768)},
}
CARD = Path("models/networks/weights/fashion-mnist-vae.architectures.md")


def trained(change: dict, images, epochs: int):
    """Return a variant of the bundled recipe, and its networks after some epochs."""
    recipe = replace(
        variational_autoencoders.AUTOENCODER_RECIPES["fashion-mnist-vae"], epochs=epochs, **change
    )
    vae = recipe.networks(tuple(images.shape[1:]))
    train(vae, vae.guide, images, schedule=recipe.schedule(progress=True))
    return recipe, vae


def row(name: str, recipe, vae, found, cheapest: float | None) -> tuple[list[str], float]:
    """Return one line of the table, and the cost to which the others' are compared."""
    weights = sum(p.numel() for p in vae.decoder.parameters())
    cost = variational_autoencoders.gradient_cost(vae.decoder.requires_grad_(False))
    cheapest = cheapest or cost
    widths = "-".join(map(str, recipe.widths))
    bound = f"{found.importance_weighted:.1f}"
    cells = [name, str(recipe.latent), widths, f"{weights:,}", f"{found.elbo:.1f}", bound]
    return [*cells, f"{cost / cheapest:.2f}"], cheapest


def main() -> None:
    """Train, measure, print and write."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--epochs", type=int, default=10)
    options = tables.parsed(parser, out=CARD)
    whole = datasets.load("fashion-mnist", "train")
    held_back = variational_autoencoders.AUTOENCODER_RECIPES["fashion-mnist-vae"].held_back
    images, held_out = whole[:-held_back], whole[-held_back:]
    variants, scored = VARIANTS, 500
    if options.quick:
        variants, images, scored, options.epochs = dict(list(VARIANTS.items())[:2]), images[:1000], 20, 1
    made = {}
    for name, change in variants.items():
        recipe, vae = trained(change, images, options.epochs)
        made[name] = recipe, vae, bounds(vae, held_out[:scored], samples=scored)
    rows, cheapest = [], None
    for name, (recipe, vae, found) in made.items():
        cells, cheapest = row(name, recipe, vae, found, cheapest)
        rows.append(cells)
    floor = next(iter(made.values()))[0].floor
    head = ["decoder", "latent", "hidden", "weights", "ELBO", f"bound, {scored} samples", "cost"]
    text = (
        f"{options.epochs} epochs each, floor {floor}; bounds on {scored} images held back, nats an image; cost of a\n"
        "chain-gradient at 256 chains on one thread, over the first row's, all measured in one run.\n\n"
        f"{tables.markdown(head, rows)}\n"
    )
    print(text)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
