"""Posteriors over weights beyond mean-field: CRPS, coverage, spread due to the weights; writes `weight_posteriors.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/weight_posteriors.py [--quick] [--images 0-15] [--masks half:bottom]

Every law and every row is kept in `build/bench/weight_posteriors`, and the page is written again after every law: a run
that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import tables
import torch
from cases import GARMENT, HALF, masks, test_garments
from code_and_weights import figures
from timing import Stopwatch

from posterior_inpainting.inference import ChEES, Nested, Plan, Problem
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.bayes_by_backprop import BayesByBackprop
from posterior_inpainting.inference.training.cycles import Cycles
from posterior_inpainting.inference.training.last_layer_laplace import last_layer_laplace
from posterior_inpainting.inference.training.sample_weights import sample_weights
from posterior_inpainting.inference.training.swag import swag
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.inference.training.weight_kernels import SGHMC, SGLD
from posterior_inpainting.models import BayesianDecoder, VariationalAutoencoder, WeightDraws, datasets
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.random_weights.weight_laws import WeightSamples

LATENT, WIDTHS, BATCH = 20, (256, 256), 256
WITHIN = ChEES(warmup=80, max_steps=32)
PLAN = Plan(draws=30, chains=8, streams=Streams(0))
DRAWS = 480
#: As many runs as the other laws have networks: more chains see more modes of z, whatever the weights are.
ONE = "one network, as many runs"
#: Passes of what begins at the first network: cycles or snapshots, and passes in each.
CYCLES = Cycles(
    cycles=2, epochs=2, batch_size=BATCH, learning_rate=1e-4, exploring=0.5, samples=2, progress=False
)
SNAPSHOTS = Cycles(
    cycles=6, epochs=1, batch_size=BATCH, learning_rate=1e-4, last=1.0, exploring=0.5, samples=1, progress=False
)  # fmt: skip


def member(number: int, images, epochs: int) -> tuple[VariationalAutoencoder, list[float]]:
    """Train one network from a start and an order of its own."""
    torch.manual_seed(number)
    vae = VariationalAutoencoder(
        MultilayerDecoder(LATENT, GARMENT, WIDTHS), MaskedEncoder(LATENT, GARMENT, WIDTHS)
    )
    training = train(vae, vae.guide, images, epochs=epochs, batch_size=BATCH, seed=number, progress=False)
    return vae, training.losses


class Laws:
    """The laws of the weights, made at their first use or taken from the store: name -> ``WeightSamples``."""

    def __init__(self, options: argparse.Namespace, store: Path):
        self.options, self.store, self.seconds = options, store, {}
        images = datasets.load("fashion-mnist", "train")
        self.images, self.epochs = (images[:1000], 1) if options.quick else (images, 12)
        walk = partial(self._walk, sample_weights, cycles=CYCLES)
        preconditioned = {"preconditioned": True, "floor": 1e-3}
        self.makers: dict[str, Callable[[], WeightSamples]] = {
            ONE: lambda: WeightSamples.of_networks([self._member(0)] * options.networks),
            "mean field": self._mean_field,
            "last-layer Laplace": self._laplace,
            "SGLD, preconditioned": lambda: walk(kernel=SGLD(**preconditioned)),
            "SGHMC, preconditioned, cyclical": lambda: walk(kernel=SGHMC(**preconditioned)),
            "SWAG": lambda: self._walk(swag, cycles=SNAPSHOTS, kernel=SGHMC(**preconditioned)),
            "deep ensemble": lambda: WeightSamples.of_networks(
                [self._member(number) for number in range(options.networks)]
            ),
        }

    def of(self, name: str) -> WeightSamples:
        """Return the networks of a law."""
        if name in (ONE, "deep ensemble"):
            return self.makers[name]()
        file = self.store / f"{name.replace(', ', '_').replace(' ', '_')}.pt"
        if not file.is_file():
            with Stopwatch() as watch:
                weights = self.makers[name]()
            torch.save({"weights": weights, "seconds": watch.cpu}, file)
        saved = torch.load(file)
        self.seconds[name] = saved["seconds"]
        return WeightSamples(self._member(0), saved["weights"])

    def _member(self, number: int) -> MultilayerDecoder:
        """Return a decoder that carries its encoder."""
        file = self.store / f"member_{number}.pt"
        if not file.is_file():
            with Stopwatch() as watch:
                vae, losses = member(number, self.images, self.epochs)
            parts = {"decoder": vae.decoder.state_dict(), "encoder": vae.encoder.state_dict()}
            torch.save({**parts, "seconds": watch.cpu, "losses": losses}, file)
        saved = torch.load(file)
        self.seconds[f"network {number}"] = saved["seconds"]
        decoder = MultilayerDecoder(LATENT, GARMENT, WIDTHS)
        decoder.load_state_dict(saved["decoder"])
        encoder = MaskedEncoder(LATENT, GARMENT, WIDTHS)
        encoder.load_state_dict(saved["encoder"])
        decoder.encoder = encoder
        return decoder

    def _first(self) -> tuple[MultilayerDecoder, MaskedEncoder]:
        decoder = self._member(0)
        encoder, decoder.encoder = decoder.encoder, None
        return decoder, encoder

    def _walk(self, sampler: Callable, **settings):
        """Weights of a walk from the first network, whose encoder stays as it is."""
        vae = VariationalAutoencoder(*self._first())
        law = sampler(vae, vae.guide, self.images, network=vae.decoder, **settings)
        torch.manual_seed(0)
        return law.draw_weights(self.options.networks)

    def _laplace(self):
        """A Gaussian over the weights of the first network's pixel means, around where they are."""
        law = last_layer_laplace(self._member(0), self.images, progress=False)
        torch.manual_seed(0)
        return law.draw_weights(self.options.networks)

    def _mean_field(self):
        """Bayes by Backprop from the first network on, with the whole divergence."""
        model = BayesianDecoder(*self._first(), posterior_scale=0.01, local_reparametrisation=True)
        model.encoder.requires_grad_(False)
        train(
            model.train(), model.guide, self.images, loss=BayesByBackprop(), epochs=1 if self.options.quick else 5,
            batch_size=BATCH, learning_rate=5e-4, progress=False,
        )  # fmt: skip
        torch.manual_seed(0)
        return model.eval().decoder.draw_weights(self.options.networks)


def score(law: WeightSamples, images: torch.Tensor, mask: torch.Tensor) -> list[dict[str, dict[str, float]]]:
    """For each image the figures by evidence and with equal weights."""
    model, hidden = WeightDraws(copy.copy(law), law.count), ~mask.flatten()
    problem = Problem(model, (images, mask.expand(images.shape)))
    drawn = Nested(WITHIN).networks(problem, len(images), PLAN)
    found = []
    for i, image in enumerate(images):
        one = {}
        for name, cut in (("by evidence", False), ("equal weights", True)):
            torch.manual_seed(i)
            draws = drawn.resample(i, DRAWS, PLAN.streams.generator("resampling", i), cut)
            with torch.no_grad():
                mean, scale = (value.flatten(1) for value in model._decode(draws["network"], draws["z"]))
            weights = drawn.weights(cut)[i].float()
            one[name] = figures(mean, scale, image.flatten(), hidden) | {
                "effective networks": float(1 / weights.square().sum()),
                "spread of theta": spread_of_networks(model, drawn.z[i], weights, hidden),
                "rhat": float(drawn.rhat[i]),
            }
        found.append(one)
    return found


def spread_of_networks(model: WeightDraws, z: torch.Tensor, weights: torch.Tensor, hidden) -> float:
    """Standard deviation over networks of a hidden pixel's posterior mean under each, averaged over pixels."""
    with torch.no_grad():
        means = torch.stack(
            [
                model._decode(torch.tensor(index), codes)[0].flatten(1)[:, hidden].mean(0)
                for index, codes in enumerate(z)
            ]
        )
    centre = weights @ means
    return float((weights @ (means - centre).square()).sqrt().mean())


def table(frame: pd.DataFrame) -> str:
    """Means over images, a line a mask and law, with paired differences from one network."""
    rows = []
    for (mask, law, weighed), part in frame.groupby(["mask", "law", "weighed"], sort=False):
        if law == ONE and weighed != "equal weights":
            continue
        base = frame[(frame["mask"] == mask) & (frame.law == ONE) & (frame.weighed == "equal weights")]
        joined = part.set_index("image").join(base.set_index("image"), rsuffix=" of one")

        def against(name: str, joined=joined, law=law) -> str:
            """Return the paired difference from one network and its standard error."""
            gain = (joined[name] - joined[f"{name} of one"]).dropna()
            if law == ONE or len(gain) < 2:
                return ""
            return f"{gain.mean():+.4f} ({gain.std() / np.sqrt(len(gain)):.4f})"

        mean = part.mean(numeric_only=True)
        row = [
            mask,
            law if law == ONE else f"{law}, {weighed}",
            len(part),
            f"{mean['CRPS']:.4f}",
            against("CRPS"),
        ]
        row += [f"{mean['energy score']:.4f}", f"{mean['coverage 95%']:.3f}"]
        row += [f"{mean['coverage 95%, positive']:.3f}", against("coverage 95%, positive")]
        row += [f"{mean['spread of theta']:.4f}", f"{mean['sd of the means']:.4f}"]
        rows.append([*row, f"{mean['effective networks']:.2f}", f"{part['rhat'].median():.2f}"])
    head = ["mask", "law of the weights", "images", "CRPS", "against one network (se)", "energy score"]
    head += ["95 % coverage", "where the truth is above 0", "against one network (se)", "sd due to theta"]
    return tables.markdown(
        [*head, "sd of a pixel's mean", "effective networks", "R-hat of z, median image"], rows
    )


def main() -> None:
    """Make each law, score it, and write the page after each."""
    parser = tables.arguments(__file__, __doc__, images="0-15")
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--masks", nargs="+", default=[HALF])
    options = tables.parsed(parser, quick_images="0-1")
    options.networks = 2 if options.quick else options.networks
    store = tables.QUICK / f"weight_posteriors{'_quick' * options.quick}"
    store.mkdir(parents=True, exist_ok=True)
    rows = tables.stored_rows(store / "rows.json", [])
    laws, numbers = Laws(options, store), tables.image_numbers(options.images)
    for mask_name, mask in masks(*options.masks).items():
        for name in laws.makers:
            law, done = laws.of(name), {(r["mask"], r["law"], r["image"]) for r in rows}
            todo = [n for n in numbers if (mask_name, name, n) not in done]
            if todo:
                some = range(todo[0], todo[-1] + 1)
                with Stopwatch() as watch:
                    found = score(law, test_garments(some), mask)
                rows += [
                    {"mask": mask_name, "law": name, "weighed": weighed, "image": number, **values}
                    for number, one in zip(some, found, strict=True)
                    for weighed, values in one.items()
                ]
                tables.save_rows(store / "rows.json", rows)
                print(f"{mask_name}, {name}: {watch.cpu:.0f} s of CPU", flush=True)
            write(pd.DataFrame(rows), options, laws)


def write(frame: pd.DataFrame, options: argparse.Namespace, laws: Laws) -> None:
    """Write the page."""
    frame = frame[frame.law.isin(laws.makers) & frame["mask"].isin(options.masks)].sort_values(
        "law", key=lambda law: law.map(list(laws.makers).index), kind="stable"
    )
    frame = frame.sort_values("mask", key=lambda mask: mask.map(options.masks.index), kind="stable")
    spent = ", ".join(f"{name} {seconds:.0f}" for name, seconds in laws.seconds.items())
    options.out.write_text(
        f"""# Posteriors over weights

By `{tables.command(options)}`. {tables.measured_on()}
Fashion-MNIST test images {frame["image"].min()}-{frame["image"].max()}, hidden pixels only, {DRAWS} draws with the
pixels' noise, clipped to [0, 1]. Decoders {LATENT}-{"-".join(map(str, WIDTHS))}-784 with a scale for each pixel,
{len(laws.images):,} training images, {laws.epochs} epochs from nothing; {options.networks} networks of each law, ChEES
over z under each with a warm-up of {WITHIN.warmup}.

- *one network*: z alone, under the first network, by {options.networks} runs.
- *mean field*: Bayes by Backprop from the first network on, 5 epochs, the whole divergence; its means move too.
- *last-layer Laplace*: a Gaussian over the weights of the first network's pixel means around where they are, with the
  Gauss-Newton curvature of all images at a code each of the encoder's; nothing is fitted further.
- *SGLD*, *SGHMC*: from the first network on, at temperature 1, {CYCLES.cycles} cycles of {CYCLES.epochs} epochs, the
  second half of each with noise: biased by steps and minibatches. The preconditioner is held while they draw.
- *SWAG*: {SNAPSHOTS.cycles} snapshots, one after each of as many epochs at constant steps.
- *deep ensemble*: networks and encoders from other starts and orders of the images.
- *by evidence* is p(z, theta | x~, D) over the networks drawn; *equal weights* is the cut posterior, in which the seen
  pixels say nothing of the network.

*sd due to theta* is that of a hidden pixel's posterior mean between networks, and between runs for the one network:
what chains alone make of it. An R-hat (the largest over networks) far above 1.01 says that chains this short have not
mixed. Standard errors are of paired differences, over images.

{table(frame)}

CPU seconds of a fit: {spent}.
"""
    )


if __name__ == "__main__":
    main()
