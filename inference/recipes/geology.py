"""Recipe of the bundled generator of meandering channels: simulated, trained, measured and described in one command.

The images are a function of a seed, so there is nothing to download. The generator is the decoder of a variational
autoencoder: its pixel scale sigma(z) is learnt with it, and is what lets an interval for a hidden pixel cover. Its
prior is fitted to the codes afterwards.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes.model_card import machine, settings_table
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import LatentCode, VariationalAutoencoder, pretrained
from posterior_inpainting.models.geology.meandering_channels import MeanderingChannels
from posterior_inpainting.models.mixture_prior import MixturePrior
from posterior_inpainting.models.networks import MultilayerDecoder
from posterior_inpainting.models.networks.code_mixture import CodeMixture
from posterior_inpainting.models.networks.convolutional_encoder import ConvolutionalEncoder
from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["GEOLOGY_RECIPES", "GeologyRecipe", "train_geology"]

HELD_OUT_SEED = 500_000


@dataclass(frozen=True)
class GeologyRecipe:
    """Everything that determines the generator of channels.

    Parameters
    ----------
    simulator
        The law of the images.
    images, shape
        How many to simulate, and their ``(channel, row, column)``; each is trained on with its three mirror images,
        which are as likely.
    latent, widths, scale_rank, floor
        The decoder's; see ``MultilayerDecoder``. A narrow last layer keeps the file small.
    encoder_channels, encoder_widths
        Of the ``ConvolutionalEncoder``, which is not kept.
    components, codes
        Gaussians of the prior over z, and the images whose codes they are fitted to, each with one mirror image.
    epochs, batch_size, learning_rate, seed
        As for ``train``.
    """

    simulator: MeanderingChannels = MeanderingChannels()  # noqa: RUF009 - frozen
    images: int = 40_000
    shape: ImageShape = (1, 64, 64)
    latent: int = 24
    widths: tuple[int, ...] = (256, 512, 192)
    scale_rank: int | None = 32
    floor: float = 0.05
    encoder_channels: tuple[int, ...] = (8, 16, 32)
    encoder_widths: tuple[int, ...] = (256,)
    components: int = 64
    codes: int = 20_000
    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0

    def fit(self, images: Image, progress: bool = True) -> VariationalAutoencoder:
        """Train decoder and encoder by the recipe."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            decoder = MultilayerDecoder(self.latent, self.shape, self.widths, self.scale_rank, self.floor)
            encoder = ConvolutionalEncoder(
                self.latent, self.shape, self.encoder_channels, self.encoder_widths
            )
            vae = VariationalAutoencoder(decoder, encoder)
        train(
            vae,
            vae.guide,
            images,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            progress=progress,
        )
        return vae

    def fit_prior(self, encoder: Any, images: Image) -> CodeMixture:
        """Fit a mixture of Gaussians to draws of q(z | x) of images, by expectation maximisation."""
        from sklearn.mixture import GaussianMixture

        some = images[: self.codes]
        both = torch.cat([some, some.flip(-1)])
        everything = torch.ones(self.shape, dtype=torch.bool)
        with torch.no_grad():
            pairs = [encoder(batch, everything) for batch in both.split(500)]
        loc, scale = (torch.cat(part) for part in zip(*pairs, strict=True))
        noise = torch.randn(loc.shape, generator=torch.Generator().manual_seed(self.seed))
        fitted = GaussianMixture(
            self.components, reg_covar=1e-3, max_iter=30, init_params="kmeans", random_state=self.seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it could climb further
            fitted.fit((loc + scale * noise).double().numpy())
        covariances = torch.from_numpy(fitted.covariances_)
        return CodeMixture(self.components, self.latent).set(
            torch.from_numpy(fitted.weights_),
            torch.from_numpy(fitted.means_),
            torch.linalg.cholesky(0.5 * (covariances + covariances.mT)),
        )


GEOLOGY_RECIPES: dict[str, GeologyRecipe] = {"channels-generator": GeologyRecipe()}


def train_geology(name: str, out: str | Path, root: str | Path | None = None, progress: bool = True) -> str:
    """Simulate images, train the generator on them, write weights, digests and card, and return the card.

    Parameters
    ----------
    name
        A key of ``GEOLOGY_RECIPES``.
    out
        Folder for ``NAME.decoder.safetensors``, ``NAME.prior.safetensors``, ``NAME.md`` and ``SHA256SUMS``.
    root
        Not read: there is no data set.
    progress
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in GEOLOGY_RECIPES:
        raise ValueError(f"unknown prior {name!r}; there are recipes for {', '.join(GEOLOGY_RECIPES)}")
    recipe = GEOLOGY_RECIPES[name]
    start = time.perf_counter()
    images = recipe.simulator.simulate(recipe.images, recipe.shape, recipe.seed)
    vae = recipe.fit(torch.cat([images, images.flip(-1), images.flip(-2), images.flip(-1, -2)]), progress)
    prior = recipe.fit_prior(vae.encoder, images)
    minutes = (time.perf_counter() - start) / 60
    out = Path(out)
    pretrained.save_parts(out, f"{name}.", {"decoder": vae.decoder, "prior": prior})
    text = _card(name, recipe, vae, prior, minutes)
    (out / f"{name}.md").write_text(text)
    return text


def _card(
    name: str, recipe: GeologyRecipe, vae: VariationalAutoencoder, prior: CodeMixture, minutes: float
) -> str:
    """Measure the weights as they are saved, in half precision, and say so."""
    decoder: Any = vae.decoder.half().float()
    law_of_codes = MixturePrior(prior.half().float())
    held_out = recipe.simulator.simulate(1000, recipe.shape, HELD_OUT_SEED)
    found, plain = (
        bounds(LatentCode(decoder, prior=p, encoder=vae.encoder), held_out[:200], samples=100)
        for p in (law_of_codes, None)
    )
    with torch.no_grad():
        everything = torch.ones_like(held_out, dtype=torch.bool)
        mean, scale = decoder.mean_and_scale(vae.encoder(held_out, everything)[0])
        torch.manual_seed(recipe.seed)
        drawn, drawn_scale = decoder.mean_and_scale(law_of_codes.sample((1000,)))
        naive = decoder(torch.randn(1000, decoder.latent))
    low, middle, high = scale.flatten()[::7].quantile(torch.tensor([0.05, 0.5, 0.95]))
    law = "\n".join(f"| {f.name} | {getattr(recipe.simulator, f.name)} |" for f in fields(recipe.simulator))
    shares = "\n".join(
        f"| {said} | {_figures(part)} |"
        for said, part in (
            ("simulated", held_out),
            ("generated, with noise", drawn + drawn_scale * torch.randn_like(drawn)),
            ("generated, without noise", drawn),
            ("generated from standard normal codes, without noise", naive),
        )
    )
    return f"""# {name}

A decoder f(z) with pixel scale sigma(z) of meandering river channels, for images of shape
{recipe.shape} in [0, 1], and a prior over z: a mixture of {recipe.components} Gaussians, fitted to the codes of
{2 * recipe.codes} images after training (Ghosh et al. 2020), because as a whole they are not standard normal.

    parts = pretrained.load_parts("{name}")
    model = LatentCode(parts["decoder"], prior=MixturePrior(parts["prior"]))

Weights are stored in half precision; the encoder it was trained with is not kept.

Trained on {recipe.images} images of `MeanderingChannels` (nothing is downloaded) and their mirror images with

    posterior-inpainting train {name} --out DIR

in {minutes:.1f} minutes, simulation included, on {machine()}.

{settings_table(recipe, ("simulator",))}

| of the simulator | value |
|---|---|
{law}

## Measured on {len(held_out)} images simulated anew

| figure | value |
|---|---|
| ELBO, nats an image | {found.elbo:.1f} |
| the same under a standard normal prior | {plain.elbo:.1f} |
| importance-weighted bound, {found.samples} samples, nats an image | {found.importance_weighted:.1f} |
| root mean square reconstruction error | {float((mean - held_out).square().mean().sqrt()):.4f} |
| pixel scale sigma(z), 5 / 50 / 95 % | {float(low):.3f} / {float(middle):.3f} / {float(high):.3f} |

The nugget of the simulator, {recipe.simulator.nugget:g}, is the least that either error can be. Of 1000 images each:

| images | share of channel, mean | its sd over images | sd of a pixel over images | pixels between the rocks |
|---|---|---|---|---|
{shares}

A pixel is channel above 0.5, and between the rocks from 0.35 to 0.65.

## Limits

A fully connected decoder of this size draws blurred channels where it is unsure, and some that break off. Its noise
says how unsure: a hidden pixel is one of two rocks, which a Gaussian law around f(z) describes only roughly.
`tests/benchmarks/geology.md` says what that does to coverage.
"""


def _figures(images: Image) -> str:
    share = (images > 0.5).float().mean((1, 2, 3))
    between = ((images > 0.35) & (images < 0.65)).float().mean()
    figures = (share.mean(), share.std(), images.std(0).mean(), between)
    return " | ".join(f"{float(value):.3f}" for value in figures)
