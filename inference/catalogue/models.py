"""The models by name, each with its one default method and settings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from posterior_inpainting.inference.catalogue import making
from posterior_inpainting.inference.catalogue.approach import Approach
from posterior_inpainting.inference.catalogue.compared import COMPARED
from posterior_inpainting.inference.catalogue.entry import Entry
from posterior_inpainting.inference.catalogue.priors import PRIORS
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.conditional_diffusion import ConditionalDiffusion
from posterior_inpainting.inference.methods.exact import Exact
from posterior_inpainting.inference.methods.gibbs import Gibbs
from posterior_inpainting.inference.methods.langevin import MALA
from posterior_inpainting.inference.methods.nested import Nested
from posterior_inpainting.inference.methods.optimum import MAP
from posterior_inpainting.inference.methods.smc import TemperedSMC
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["APPROACHES", "MODELS", "approach", "build", "entry", "fitting"]

#: Beside those that are compared.
_OTHERS = (
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
        method=ChEES(),
        draws=100,
        chains=16,
        seconds=2,
        gradients=40_000,
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
        make=partial(making.diffusion, "photographs-diffusion"),
        method=ConditionalDiffusion(),
        draws=8,
        chains=1,
        seconds=60,
        gradients=320,
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
        method=Gibbs(warmup=40, thin=4),
        draws=8,
        chains=2,
        seconds=120,
        gradients=150,
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

#: Every model by name.
MODELS: dict[str, Entry] = {one.name: one for one in (*COMPARED, *_OTHERS)}

#: Names of those that the README compares, and ``compare`` where it is told no others.
APPROACHES: tuple[str, ...] = tuple(one.name for one in COMPARED)


def entry(name: str) -> Entry:
    """Return what the catalogue says of a name.

    Raises ``ValueError`` for an unknown name.

    >>> entry("gan").settings
    "ChEES(warmup=100, init='tempered'), 50 draws x 16"
    """
    if name in MODELS:
        return MODELS[name]
    if name in PRIORS:
        users = [one.name for one in MODELS.values() if name in one.priors]
        raise ValueError(
            f"{name!r} is a bundled prior, and no model; the models of it are {', '.join(users)}"
        )
    raise ValueError(f"unknown model {name!r}; there are {', '.join(MODELS)}")


def fitting(shape: ImageShape) -> tuple[str, str]:
    """Return the model for images of a shape where none is named, and why it is that one.

    >>> fitting((3, 480, 640))
    ('photographs-diffusion', 'a prior of photographs, as the image is 3 x 480 x 640')
    >>> fitting((1, 8, 8))
    ('gaussian-process', 'fitted to the seen pixels, as the image is 1 x 8 x 8')
    """
    size = " x ".join(map(str, shape))
    if tuple(shape) == MODELS["vae"].shape:
        return "vae", f"a prior of Fashion-MNIST, as the image is {size}"
    if shape[0] in (1, 3) and min(shape[1:]) >= MODELS["photographs-diffusion"].least:
        return "photographs-diffusion", f"a prior of photographs, as the image is {size}"
    return "gaussian-process", f"fitted to the seen pixels, as the image is {size}"


def approach(name: str, root: str | Path | None = None) -> Approach:
    """Return model, method and draws of a name; nothing is loaded before an observation comes.

    Parameters
    ----------
    name
        A key of ``MODELS``.
    root
        Folder of the data set, for models that are fitted to one and where it is not found by itself.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> approach("vae").chains
    16
    """
    return entry(name).approach(root)


def build(name: str, observation: Observation, root: str | Path | None = None) -> Approach:
    """Return model, method and draws of a name for one observation, with the model made.

    Parameters
    ----------
    name, root
        As for :func:`approach`.
    observation
        What is seen of the image.

    Raises
    ------
    ValueError
        For an unknown name, or an observation that the model cannot be made for.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import datasets, observations
    >>> image = datasets.load("fashion-mnist-samples")[0]
    >>> seen = Observation(image, observations.half(image.shape, hide="bottom"))
    >>> chosen = build("vae-amortised", seen)
    >>> posterior = infer(chosen.model, seen, chosen.method, draws=chosen.draws, chains=1, progress=False)
    >>> posterior.posterior.sizes["draw"]
    400
    """
    found = approach(name, root).made_for(observation)
    return replace(found, draws=entry(name).draws_for(observation.shape))
