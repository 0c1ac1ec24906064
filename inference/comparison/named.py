"""The approaches that come with the package, by name: what `compare` runs when it is told nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from posterior_inpainting.inference.comparison.approach import Approach
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.exact import Exact
from posterior_inpainting.inference.methods.langevin import MALA
from posterior_inpainting.inference.methods.optimum import MAP
from posterior_inpainting.inference.methods.two_stage import TwoStage
from posterior_inpainting.inference.methods.variational import Variational
from posterior_inpainting.models import (
    BayesianCompletion,
    BayesianDecoder,
    CodeAndUnits,
    DeepImagePrior,
    GaussianProcess,
    LatentCode,
    LinearGaussian,
    Observation,
    PixelConstrained,
    PluralisticConditional,
    PluralisticJoint,
    PluralisticTwoPath,
    datasets,
    pretrained,
)
from posterior_inpainting.models.likelihoods import laplace
from posterior_inpainting.models.networks import Hourglass

__all__ = ["APPROACHES", "approach_named"]


def _untrained(observation: Observation) -> DeepImagePrior:
    """Make a small hourglass: chains of a posterior over weights need many gradients."""
    return DeepImagePrior(observation.shape, Hourglass(observation.shape, channels=16, scales=2))


def _linear_gaussian(root: str | Path | None = None) -> Approach:
    images = datasets.load("fashion-mnist", split="train", root=root)
    return Approach(LinearGaussian.fit(images[:10_000], latent=100), Exact(), draws=400, chains=1)


def _gaussian_process() -> Approach:
    return Approach(GaussianProcess.fit, Exact(), draws=400, chains=1)


def _optimum_of_weights() -> Approach:
    return Approach(_untrained, MAP(restarts=4, steps=300, learning_rate=0.01))


def _posterior_of_weights() -> Approach:
    method = MALA(warmup=40, thin=4, metric="identity", init="optimum")
    return Approach(_untrained, method, draws=30, chains=4)


def _yeh() -> Approach:
    """Make Yeh et al. 2017: weights of the context, L1, the discriminator's term, 64 restarts."""
    parts = pretrained.load_parts("fashion-mnist-generator")
    model = LatentCode(
        parts["decoder"],
        likelihood=laplace,
        noise=0.1,
        context_window=7,
        discriminator=parts["discriminator"],
        discriminator_weight=2**0.5 * 0.003 / 0.1,  # the paper's lambda, beside an error over its noise
    )
    return Approach(model, MAP(restarts=64, steps=300))


def _generator() -> Approach:
    """Make the posterior that Yeh's restarts stand for: the same generator, its fitted noise, tempered starts."""
    return Approach(
        LatentCode(pretrained.load("fashion-mnist-generator")), ChEES(warmup=100, init="tempered")
    )


def _amortised() -> Approach:
    return Approach(LatentCode(pretrained.load("fashion-mnist-vae")), Variational(), draws=400, chains=1)


def _code() -> Approach:
    return Approach(LatentCode(pretrained.load("fashion-mnist-vae")), ChEES(warmup=150))


def _code_and_weights() -> Approach:
    return Approach(CodeAndUnits(BayesianDecoder.load()), TwoStage(), draws=50)


def _completion_network() -> Approach:
    return Approach(BayesianCompletion.load(), Exact(), draws=400, chains=1)


def _pixels() -> Approach:
    return Approach(PixelConstrained.load(), Exact(), draws=400, chains=1)


def _two_path() -> Approach:
    return Approach(PluralisticTwoPath.load(), Exact(), draws=400, chains=1)


def _conditional() -> Approach:
    return Approach(PluralisticConditional.load(), Exact(), draws=400, chains=1)


def _joint() -> Approach:
    return Approach(PluralisticJoint.load(), ChEES(warmup=100, init="guide"))


APPROACHES: dict[str, Callable[[], Approach]] = {
    "linear-gaussian": _linear_gaussian,
    "gaussian-process": _gaussian_process,
    "deep-image-prior-optimum": _optimum_of_weights,
    "deep-image-prior": _posterior_of_weights,
    "yeh": _yeh,
    "gan": _generator,
    "vae-amortised": _amortised,
    "vae": _code,
    "code-and-weights": _code_and_weights,
    "bayesian-completion": _completion_network,
    "pixel-constrained": _pixels,
    "pluralistic-two-path": _two_path,
    "pluralistic-conditional": _conditional,
    "pluralistic-joint": _joint,
}


def approach_named(name: str, root: str | Path | None = None) -> Approach:
    """Make the approach of a name; networks are loaded from the package, training images from ``root``.

    Raises ``ValueError`` for an unknown name.

    >>> approach_named("vae").chains
    16
    """
    check_name(name)
    make = APPROACHES[name]
    return _linear_gaussian(root) if make is _linear_gaussian else make()


def check_name(name: str) -> None:
    """Raise ``ValueError`` unless there is an approach of that name; nothing is loaded."""
    if name not in APPROACHES:
        raise ValueError(f"unknown approach {name!r}; there are {', '.join(APPROACHES)}")
