"""Where chains start, if not at draws of the prior: at draws of the model's own guide."""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.tracing import batched_trace, draws_of, plate_nesting

__all__ = ["from_guide"]


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
