"""Where chains start: at draws of the prior or of the model's own guide, at a pilot's particles, or at optima."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.tracing import batched_trace, draws_of, plate_nesting
from posterior_inpainting.inference.methods.climbing import climb
from posterior_inpainting.inference.methods.smc import TemperedSMC

__all__ = ["check_init", "from_guide", "starts"]

_INITS = ("prior", "tempered", "optimum", "guide")
#: A pilot of which only the particles are wanted: its moves end sooner than evidence would need.
_PILOT = TemperedSMC(max_moves=8)


def check_init(init: str) -> None:
    """Raise ``ValueError`` for what is no way to start.

    >>> check_init("zero")
    Traceback (most recent call last):
    ...
    ValueError: init='zero'; expected one of prior, tempered, optimum, guide
    """
    if init not in _INITS:
        raise ValueError(f"init={init!r}; expected one of {', '.join(_INITS)}")


def starts(init: str, density: Density, position: Tensor, generator: Generator) -> Tensor:
    """Return where chains start.

    Parameters
    ----------
    init
        ``"prior"`` at their own draws of the prior, so that R-hat can see several modes; ``"tempered"`` at particles of
        a ``TemperedSMC`` run, so that each mode gets its share of chains; ``"optimum"`` at the optimum that each
        reaches from its draw, for weights of networks; ``"guide"`` at draws of the model's own guide, which is quick
        and sees the modes that the guide sees.
    density, generator
        As for a kernel's start.
    position
        Draws of the prior ``(group, chain, dim)``.
    """
    if init == "tempered":
        return _PILOT.starts(density, position.shape[1], generator)
    if init == "optimum":
        return climb(density, position)
    return from_guide(density, position.shape[1]) if init == "guide" else position


def from_guide(density: Density, chains: int) -> Tensor:
    """Draw positions ``(group, chain, dim)`` from a guide with torch's global generator.

    Parameters
    ----------
    density
        Of a problem with a guide; with groups every latent lies in the plate of images.
    chains
        Draws for each group.

    Raises
    ------
    ValueError
        For a model without a guide.

    Examples
    --------
    >>> from posterior_inpainting.inference.contract import Problem
    >>> from posterior_inpainting.inference.density.potential import Potential
    >>> from posterior_inpainting.models import LinearGaussian, datasets
    >>> images = datasets.load("digits", split="train")[:20]
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> tuple(from_guide(Potential(Problem(model, (images[0],), guide=model.guide)), 5).shape)
    (1, 5, 3)
    """
    problem = density.problem
    if problem.guide is None:
        raise ValueError("init='guide' needs a model with a guide of its own")
    nesting, groups = plate_nesting(problem), density.groups or 1
    with torch.no_grad():
        trace = batched_trace(problem.guide, problem, chains, nesting)
        drawn = {name: draws_of(trace.nodes[name], nesting) for name in density.shapes}
    plates = 1 if density.groups is None else 2  # chains, and the images' plate, come before the event
    latents = {n: value.reshape(chains, groups, *value.shape[plates:]) for n, value in drawn.items()}
    return density.unconstrain(latents, batch=2).transpose(0, 1).contiguous()
