"""Recipe of the bundled generator of meandering channels, which is trained on simulated images.

The images are a function of a seed, so there is nothing to download. The generator is the decoder of a variational
autoencoder: its pixel scale sigma(z) is learnt with it, and is what lets an interval for a hidden pixel cover. Its
prior is fitted to the codes afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes.model_card import figures_table, listed, table
from posterior_inpainting.inference.recipes.recipe import Data, Description, Recipe, Written
from posterior_inpainting.inference.training.law_of_codes import fit_law_of_codes
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import LatentCode, VariationalAutoencoder
from posterior_inpainting.models.geology.meandering_channels import MeanderingChannels
from posterior_inpainting.models.mixture_prior import MixturePrior
from posterior_inpainting.models.networks import MultilayerDecoder
from posterior_inpainting.models.networks.code_mixture import CodeMixture
from posterior_inpainting.models.networks.convolutional_encoder import ConvolutionalEncoder
from posterior_inpainting.models.shapes import Image, ImageShape

__all__ = ["GEOLOGY_RECIPES", "GeologyRecipe"]


class FittedChannels(NamedTuple):
    """Decoder and encoder, and the law of their codes."""

    vae: VariationalAutoencoder
    prior: CodeMixture


@dataclass(frozen=True, kw_only=True)
class GeologyRecipe(Recipe):
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
    """

    leave_out: ClassVar[tuple[str, ...]] = ("simulator",)

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

    def data(self, root: str | Path | None = None) -> Data:
        """Simulate the images; no folder is read."""
        seeds = (self.streams.number(name) for name in ("images", "held-out images"))
        return Data(
            *(
                self.simulator.simulate(n, self.shape, s)
                for n, s in zip((self.images, 1000), seeds, strict=True)
            )
        )

    def fit(self, images: Image, progress: bool = True) -> FittedChannels:
        """Train decoder and encoder on the images and their mirror images, then fit the law of the codes."""
        with self.streams.seeded("networks"):
            decoder = MultilayerDecoder(self.latent, self.shape, self.widths, self.scale_rank, self.floor)
            encoder = ConvolutionalEncoder(
                self.latent, self.shape, self.encoder_channels, self.encoder_widths
            )
            vae = VariationalAutoencoder(decoder, encoder)
        mirrored = torch.cat([images, images.flip(-1), images.flip(-2), images.flip(-1, -2)])
        train(vae, vae.guide, mirrored, schedule=self.schedule(progress))
        some = images[: self.codes]
        both = torch.cat([some, some.flip(-1)])
        return FittedChannels(vae, fit_law_of_codes(encoder, both, self.components, self.streams))

    def parts(self, fitted: FittedChannels) -> dict[str, Any]:
        """Return decoder and law of the codes; the encoder is not kept."""
        return {"decoder": fitted.vae.decoder, "prior": fitted.prior}

    def measure(self, fitted: FittedChannels, data: Data, written: Written) -> str:
        """Measure the weights as they are saved, in half precision."""
        law_of_codes = MixturePrior(fitted.prior.half().float())
        fitted.vae.decoder.half().float()
        return (
            f"{self._bounds(fitted.vae, law_of_codes, data.held_out)}\n\n"
            f"The nugget of the simulator, {self.simulator.nugget:g}, is the least that either error can be. "
            f"Of 1000 images each:\n\n{self._rocks(fitted.vae.decoder, law_of_codes, data.held_out)}\n\n"
            "A pixel is channel above 0.5, and between the rocks from 0.35 to 0.65."
        )

    def _bounds(self, vae: VariationalAutoencoder, law_of_codes: MixturePrior, images: Image) -> str:
        decoder: Any = vae.decoder
        found, plain = (
            bounds(LatentCode(decoder, prior=p, encoder=vae.encoder), images[:200], samples=100)
            for p in (law_of_codes, None)
        )
        with torch.no_grad():
            everything = torch.ones_like(images, dtype=torch.bool)
            mean, scale = decoder.mean_and_scale(vae.encoder(images, everything)[0])
        levels = scale.flatten()[::7].quantile(scale.new_tensor([0.05, 0.5, 0.95]))
        return figures_table(
            {
                "ELBO, nats an image": f"{found.elbo:.1f}",
                "the same under a standard normal prior": f"{plain.elbo:.1f}",
                f"importance-weighted bound, {found.samples} samples, nats an image": (
                    f"{found.importance_weighted:.1f}"
                ),
                "root mean square reconstruction error": f"{float((mean - images).square().mean().sqrt()):.4f}",
                "pixel scale sigma(z), 5 / 50 / 95 %": listed(levels, 3, " / "),
            }
        )

    def _rocks(self, decoder: Any, law_of_codes: MixturePrior, images: Image) -> str:
        with torch.no_grad(), self.streams.seeded("figures"):
            drawn, scale = decoder.mean_and_scale(law_of_codes.sample((1000,)))
            naive = decoder(torch.randn(1000, decoder.latent))
            rows = {
                "simulated": images,
                "generated, with noise": drawn + scale * torch.randn_like(drawn),
                "generated, without noise": drawn,
                "generated from standard normal codes, without noise": naive,
            }
        columns = "share of channel, mean | its sd over images | sd of a pixel over images | pixels between the rocks"
        return "\n".join(
            [
                f"| images | {columns} |",
                "|---" * 5 + "|",
                *(f"| {k} | {_figures(v)} |" for k, v in rows.items()),
            ]
        )

    def describe(self, name: str, fitted: FittedChannels, data: Data) -> Description:
        """Return the card's words."""
        law = table(
            "of the simulator", {f.name: getattr(self.simulator, f.name) for f in fields(self.simulator)}
        )
        return Description(
            about=_ABOUT.format(
                name=name, shape=self.shape, components=self.components, codes=2 * self.codes
            ),
            trained_on=(
                f"{self.images} images of `MeanderingChannels` (nothing is downloaded) and their mirror images"
            ),
            measured_on=f"{len(data.held_out)} images simulated anew",
            limits=_LIMITS,
            remark=f"The time includes the simulation.\n\n{law}",
        )


_ABOUT = """A decoder f(z) with pixel scale sigma(z) of meandering river channels, for images of shape
{shape} in [0, 1], and a prior over z: a mixture of {components} Gaussians, fitted to the codes of
{codes} images after training (Ghosh et al. 2020), because as a whole they are not standard normal.

    parts = pretrained.load_parts("{name}")
    model = LatentCode(parts["decoder"], prior=MixturePrior(parts["prior"]))

Weights are stored in half precision; the encoder it was trained with is not kept."""

_LIMITS = """\
A fully connected decoder of this size draws blurred channels where it is unsure, and some that break off. Its noise
says how unsure: a hidden pixel is one of two rocks, which a Gaussian law around f(z) describes only roughly.
`tests/benchmarks/geology.md` says what that does to coverage."""


GEOLOGY_RECIPES: dict[str, GeologyRecipe] = {"channels-generator": GeologyRecipe()}


def _figures(images: Image) -> str:
    """Say how much of images is channel, and how much neither rock."""
    share = (images > 0.5).float().mean((1, 2, 3))
    between = ((images > 0.35) & (images < 0.65)).float().mean()
    figures = (share.mean(), share.std(), images.std(0).mean(), between)
    return " | ".join(f"{float(value):.3f}" for value in figures)
