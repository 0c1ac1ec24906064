"""Where chains start, if not at draws of the prior: at draws of the model's own guide."""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.tracing import batched_trace, draws_of, plate_nesting

__all__ = ["from_guide"]


def from_guide(potential: Potential, chains: int) -> Tensor:
    """Draw positions ``(group, chain, dim)`` from a guide with torch's global generator.

    Parameters
    ----------
    potential
        Of a model with a guide; with groups every latent lies in the plate of images.
    chains
        Draws for each group.

    Raises
    ------
    ValueError
        For a model without a guide.

    Examples
    --------
    >>> from posterior_inpainting.inference.contract import Problem
    >>> from posterior_inpainting.models import LinearGaussian, datasets
    >>> images = datasets.load("digits", split="train")[:20]
    >>> potential = Potential(Problem(LinearGaussian.fit(images, latent=3), (images[0],)))
    >>> tuple(from_guide(potential, 5).shape)
    (1, 5, 3)
    """
    problem = potential.problem
    guide = problem.guide if problem.guide is not None else getattr(problem.model, "guide", None)
    if guide is None:
        raise ValueError("init='guide' needs a model with a guide of its own")
    nesting = plate_nesting(problem)
    with torch.no_grad():
        trace = batched_trace(guide, problem, chains, nesting)
        pieces = [
            potential.transforms[name].inv(draws_of(trace.nodes[name], nesting)) for name in potential.shapes
        ]
    position = torch.cat([piece.reshape(chains, potential.groups or 1, -1) for piece in pieces], -1)
    return position.transpose(0, 1).contiguous()
