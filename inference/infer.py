"""`infer`: the posterior of one observation under any model by any method, as an ArviZ object."""

from __future__ import annotations

import time
from importlib.metadata import version

import pyro
import torch

from posterior_inpainting.inference import convert
from posterior_inpainting.inference.methods import Method, Problem
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import check_image, describe

__all__ = ["infer"]


def infer(
    model: ImageModel,
    observation: Observation,
    method: Method,
    *,
    draws: int = 1000,
    chains: int = 4,
    seed: int = 0,
    progress: bool = True,
):
    """Draw from p(latents, hidden pixels | seen pixels).

    Parameters
    ----------
    model
        A model of this collection.
    observation
        Image and mask; nothing hidden is ever read.
    method
        ``NUTS()``, ``HMC()``, ``Variational()``, ``MAP()`` or ``Exact()``, with its settings.
    draws, chains
        Kept draws a chain, and chains. A method without a chain splits independent draws among them.
    seed
        The same seed gives bit-identical draws on the same machine; the caller's generator is left alone.
    progress
        Whether to show a progress bar.

    Returns
    -------
    InferenceData
        Groups ``posterior``, ``posterior_predictive``, ``sample_stats``, ``log_likelihood``,
        ``observed_data``, ``constant_data``; ``attrs`` say what was run and what the draws are
        (``draws_are``). With ArviZ 1 a ``DataTree`` of the same groups.

    Raises
    ------
    ValueError
        If the image does not fit the model, a number is below 1, or the method does not fit the model.

    Examples
    --------
    >>> from posterior_inpainting.inference import Variational, infer
    >>> from posterior_inpainting.models import LatentCode, Observation, datasets, observations, pretrained
    >>> image = datasets.load("digits")[0]
    >>> seen = Observation(image, observations.half(image.shape, hide="bottom"))
    >>> model = LatentCode(pretrained.load("digits-vae-2d"))
    >>> posterior = infer(model, seen, Variational(), draws=50, chains=2, progress=False)
    >>> dict(posterior.posterior["completion"].sizes)
    {'chain': 2, 'draw': 50, 'channel': 1, 'row': 8, 'column': 8}
    """
    if not isinstance(model, ImageModel):
        raise ValueError(f"model is {describe(model)}; expected an ImageModel")
    if not isinstance(observation, Observation):
        raise ValueError(f"observation is {describe(observation)}; expected Observation(image, mask)")
    if not isinstance(method, Method) or isinstance(method, type):
        raise ValueError(f"method is {describe(method)}; expected one such as NUTS() or Variational()")
    for name, value in (("draws", draws), ("chains", chains)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}; expected a whole number of at least 1")
    check_image(observation.image, model.image_shape)
    problem = Problem(model, (observation.image, observation.mask), guide=model.guide)
    start = time.perf_counter()
    # Pyro's parameter store and torch's generator belong to the caller: both are as they were afterwards.
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        drawn = method.run(problem, draws=draws, chains=chains, seed=seed, progress=progress)
        torch.manual_seed(seed)
        groups = convert.image_groups(drawn, problem, observation)
    attrs = {
        "model": type(model).__name__,
        "method": type(method).__name__,
        "settings": convert.settings(method),
        "draws_are": drawn.draws_are,
        "density": "pseudo-posterior" if model.is_pseudo_posterior else "posterior",
        "seed": seed,
        "wall_time_s": time.perf_counter() - start,
        "versions": " ".join(
            f"{name}={version(name)}" for name in ("torch", "pyro-ppl", "posterior-inpainting")
        ),
        **drawn.attrs,
    }
    return convert.to_arviz(groups, attrs)
