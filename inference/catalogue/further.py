"""Models beside those that the README compares, by name: other images, other kinds of weights, photographs."""

from __future__ import annotations

from functools import partial

from posterior_inpainting.inference.catalogue import making
from posterior_inpainting.inference.catalogue.entry import Entry
from posterior_inpainting.inference.methods.auto import Auto
from posterior_inpainting.inference.methods.conditional_diffusion import ConditionalDiffusion
from posterior_inpainting.inference.methods.exact import Exact
from posterior_inpainting.inference.methods.gibbs import Gibbs
from posterior_inpainting.inference.methods.langevin import MALA
from posterior_inpainting.inference.methods.nested import Nested
from posterior_inpainting.inference.methods.optimum import MAP
from posterior_inpainting.inference.methods.smc import TemperedSMC

__all__ = ["FURTHER"]

#: In the order in which they are listed.
FURTHER = (
    Entry(
        name="pixel-constrained-binary",
        random="hidden pixels, one after another, black or white",
        source="Dupont & Suresha 2019",
        make=partial(making.pixel_constrained, "fashion-mnist-pixels-binary"),
        method=Exact(),
        draws=400,
        chains=1,
        seconds=6,
        gradients=0,
        priors=("fashion-mnist-pixels-binary",),
    ),
    Entry(
        name="weight-draws",
        random="one of 16 networks, and the code z under it",
        source="Blundell et al. 2015",
        make=making.weight_draws,
        method=Nested(),
        draws=50,
        chains=16,
        seconds=40,
        gradients=500_000,
        priors=("fashion-mnist-bayesian-decoder",),
    ),
    Entry(
        name="digits-vae-2d",
        random="code z, 2 numbers, of a variational autoencoder of digits",
        source="Kingma & Welling 2014",
        make=partial(making.code, "digits-vae-2d"),
        method=Auto(),
        draws=2000,
        chains=16,
        seconds=2,
        gradients=30_000,
        shape=(1, 8, 8),
        priors=("digits-vae-2d",),
    ),
    Entry(
        name="digits-linear",
        random="code z of a linear decoder: principal components of digits",
        source="Tipping & Bishop 1999",
        make=partial(making.patches_of, "digits", 8),
        method=Exact(),
        draws=400,
        chains=1,
        seconds=0.1,
        gradients=0,
        made_from="patches",
        shape=(1, 8, 8),
        largest=8,
    ),
    Entry(
        name="natural-linear",
        random="code z of a linear decoder: principal components of photographs",
        source="Tipping & Bishop 1999",
        make=partial(making.patches_of, "natural", 32),
        method=Exact(),
        draws=400,
        chains=1,
        seconds=1,
        gradients=0,
        made_from="patches",
        shape=(3, 8, 8),
        largest=32,
    ),
    Entry(
        name="deep-image-prior-full",
        random="weights of an untrained network of full size: photographs",
        source="Cheng et al. 2019",
        make=making.full_hourglass,
        method=MALA(warmup=100, thin=10, metric="identity", init="optimum"),
        draws=100,
        chains=4,
        seconds=60,
        gradients=7_000,
        made_from="image",
        shape=None,
    ),
    Entry(
        name="photographs-diffusion",
        random="pixels of photographs: a reverse diffusion from noise to image",
        source="Ho et al. 2020",
        make=partial(
            # So much noise that the mean of a hole of a hundred pixels says nothing either.
            making.diffusion,
            "photographs-diffusion",
            highest=30.0,
            noise=0.01,
        ),
        method=ConditionalDiffusion(steps=24),
        draws=8,
        chains=1,
        seconds=60,
        gradients=192,
        made_from="image",
        shape=None,
        priors=("photographs-diffusion",),
        channels=3,
        margin=32,
        least=16,
        bytes_a_value=600,
    ),
    Entry(
        name="photographs-experts",
        random="pixels of photographs: filters whose responses have heavy tails",
        source="Roth & Black 2005",
        make=partial(making.experts, "photographs-experts"),
        method=Gibbs(warmup=8, thin=3),
        draws=8,
        chains=2,
        seconds=200,
        gradients=64,
        made_from="image",
        shape=None,
        priors=("photographs-experts",),
        channels=3,
        margin=16,
        least=16,
        bytes_a_value=2_000,
    ),
    Entry(
        name="river-channels",
        random="code z of a generator of river channels, under the law of its codes",
        source="Dupont et al. 2018, its posterior",
        make=making.river_channels,
        method=TemperedSMC(),
        draws=256,
        chains=2,
        seconds=10,
        gradients=60_000,
        shape=(1, 64, 64),
        priors=("channels-generator",),
    ),
    Entry(
        name="river-channels-nearest",
        random="the same code with made-up targets near 8 wells; optima alone",
        source="Dupont et al. 2018",
        make=making.nearest_measurement,
        method=MAP(restarts=64, steps=300, learning_rate=0.01),
        draws=1,
        chains=64,
        seconds=5,
        gradients=19_000,
        shape=(1, 64, 64),
        priors=("channels-generator",),
    ),
)
