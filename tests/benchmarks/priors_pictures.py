"""Halves of a shoe, a shirt and a bag, completed by each prior: writes `docs/priors.png`.

    OMP_NUM_THREADS=1 python tests/benchmarks/priors_pictures.py [--before FOLDER]

The first sneaker, shirt and bag from test image 5000 on, the top half hidden, six draws each; `--before` adds an older
decoder, as for `priors.py`.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tables
from cases import masks
from priors import APPROACHES, drawn

from posterior_inpainting.inference.evaluation.plots import picture, with_holes
from posterior_inpainting.models import datasets

#: Classes of Fashion-MNIST.
KINDS = {7: "sneaker", 6: "shirt", 8: "bag"}
FIRST, DRAWS = 5000, 6


def main() -> None:
    """Draw the sheet."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--before", help="folder or bundled name of an older decoder")
    options = tables.parsed(parser, out=Path("docs/priors.png"))
    images = datasets.load("fashion-mnist", "test")
    classes = datasets.labels("fashion-mnist", "test")
    (mask,) = masks("half:top").values()
    approaches = [a for a in APPROACHES if a != "nearest-20"] + (["before"] if options.before else [])
    figure, axes = plt.subplots(
        len(KINDS) * len(approaches),
        DRAWS + 2,
        figsize=(0.95 * (DRAWS + 2), len(KINDS) * len(approaches)),
        layout="constrained",
    )
    rows = iter(axes)
    for kind, name in KINDS.items():
        number = FIRST + int((classes[FIRST:] == kind).nonzero()[0])
        for approach in approaches:
            _, (posterior,), _ = drawn(approach, mask, images[number : number + 1], options.before)
            completions = posterior.posterior["completion"].to_numpy().reshape(-1, *images.shape[1:])
            apart = np.linspace(0, len(completions) - 1, DRAWS).astype(int)
            row = next(rows)
            shown = [
                with_holes(images[number].numpy(), mask.numpy()),
                *map(picture, completions[apart]),
                picture(images[number].numpy()),
            ]
            for ax, one in zip(row, shown, strict=True):
                ax.imshow(one, cmap="gray", vmin=0, vmax=1)
                ax.set(xticks=[], yticks=[])
            row[0].set_ylabel(f"{name} {number}\n{approach}", fontsize=6)
    for column, title in ((0, "seen"), (DRAWS + 1, "truth")):
        axes[0, column].set_title(title, fontsize=8)
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
