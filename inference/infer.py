"""The three verbs of inference: `infer` one image, `infer_many` at once, `sample` any Pyro model."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyro
import torch

from posterior_inpainting.inference.contract import Draws, Method, Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.evaluation import diagnostics
from posterior_inpainting.inference.evaluation.thinning import runs_together
from posterior_inpainting.inference.methods.loop import run_kernel
from posterior_inpainting.inference.results import convert
from posterior_inpainting.inference.results.fingerprint import fingerprint
from posterior_inpainting.inference.results.store import Store
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import check_image, describe

__all__ = ["infer", "infer_many", "sample"]


def infer(
    model: ImageModel,
    observation: Observation,
    method: Method,
    *,
    draws: int = 1000,
    chains: int = 4,
    seed: int = 0,
    progress: bool = True,
    store: str | Path | None = None,
):
    """Draw from p(latents, hidden pixels | seen pixels).

    Parameters
    ----------
    model
        A model of this collection.
    observation
        Image and mask; nothing hidden is ever read.
    method
        ``ChEES()``, ``ParallelTempering()``, ``TemperedSMC()``, ``MALA()``, ``NUTS()``, ``Variational()``,
        ``MAP()``, ``Exact()`` and so on, with its settings.
    draws, chains
        Kept draws a chain, and chains. A method without a chain splits independent draws among them.
    seed
        The same seed gives bit-identical draws on the same machine; the caller's generator is left alone.
    progress
        Whether to show a progress bar.
    store
        Folder, such as ``"run.zarr"``, to which draws and sampler state are written as the run goes. Killed
        at any moment, the same call goes on where it was, and ends with the same draws. For the methods
        that run all chains at once; the others repeat from their seed.

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
    _check_image_problem(model, observation)
    _check_run(method, draws, chains)
    problem = Problem(model, (observation.image, observation.mask), guide=model.guide)
    start = time.perf_counter()
    with _callers_state_kept():
        drawn = _drawn(problem, method, draws, chains, seed, progress, store)
        groups = convert.image_groups(drawn, problem, observation, Streams(seed))
    idata = convert.to_arviz(groups, _attrs(model, method, drawn, seed, time.perf_counter() - start))
    idata.attrs.update(diagnostics.efficiency(idata))
    return idata


def infer_many(
    model: ImageModel,
    observations: Sequence[Observation],
    method: Any,
    *,
    draws: int = 1000,
    chains: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> list:
    """Draw from the posteriors of many images in one batch, images x chains, each with its own adaptation.

    Equal in distribution to :func:`infer` image by image, and faster where there are few chains: the
    decoder sees all images at once.

    Parameters
    ----------
    model
        A model of this collection.
    observations
        Images of one shape, each with its mask.
    method
        ``ChEES()``, ``MALA()`` or ``ULA()``.
    draws, chains, seed, progress
        As for :func:`infer`, for each image.

    Returns
    -------
    list of InferenceData
        One an image, in order; gradients and seconds in ``attrs`` are an image's share of the whole.

    Raises
    ------
    ValueError
        As :func:`infer`; or for a method that draws from one posterior at a time.

    Examples
    --------
    >>> from posterior_inpainting.inference import ChEES, infer_many
    >>> from posterior_inpainting.models import LatentCode, Observation, datasets, observations, pretrained
    >>> images = datasets.load("digits")[:3]
    >>> seen = [Observation(image, observations.half(image.shape, hide="bottom")) for image in images]
    >>> model = LatentCode(pretrained.load("digits-vae-2d"))
    >>> posteriors = infer_many(model, seen, ChEES(warmup=50), draws=20, chains=8, progress=False)
    >>> len(posteriors), dict(posteriors[0].posterior["z"].sizes)
    (3, {'chain': 8, 'draw': 20, 'latent': 2})
    """
    if not observations:
        raise ValueError("observations is empty; expected at least one")
    for observation in observations:
        _check_image_problem(model, observation)
    _check_run(method, draws, chains)
    if not runs_together(method):
        raise ValueError(
            f"{type(method).__name__} draws from one posterior at a time; use ChEES(), MALA() or ULA()"
        )
    images = torch.stack([o.image for o in observations])
    masks = torch.stack([o.mask for o in observations])
    start = time.perf_counter()
    results = []
    with _callers_state_kept():
        potential = Potential(Problem(model, (images, masks)), groups=len(observations))
        run = run_kernel(method, potential, draws=draws, chains=chains, seed=seed, progress=progress)
        share = (time.perf_counter() - start) / len(observations)
        attrs = {**run.attrs, "gradient_evaluations": potential.gradients // len(observations)}
        for index, observation in enumerate(observations):
            latents, stats = (
                {name: values[index] for name, values in part.items()} for part in (run.latents, run.stats)
            )
            drawn = Draws(latents, stats, method.draws_are, attrs)
            problem = Problem(model, (observation.image, observation.mask))
            groups = convert.image_groups(drawn, problem, observation, Streams(seed).child("image", index))
            results.append(convert.to_arviz(groups, _attrs(model, method, drawn, seed, share)))
    return results


def sample(
    model: Callable,
    method: Method,
    *args: Any,
    draws: int = 1000,
    chains: int = 4,
    seed: int = 0,
    progress: bool = True,
    store: str | Path | None = None,
    guide: Callable | None = None,
    **kwargs: Any,
):
    """Draw from the posterior of any Pyro model with continuous latents.

    Parameters
    ----------
    model
        A Pyro model; it is called with ``args`` and ``kwargs``.
    method
        As for :func:`infer`.
    draws, chains, seed, progress, store
        As for :func:`infer`.
    guide
        For ``Variational(guide="amortised")``.

    Returns
    -------
    InferenceData
        Groups ``posterior`` and ``sample_stats``.

    Raises
    ------
    ValueError
        If a latent is discrete, a number is below 1, or the method does not fit the model.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> from posterior_inpainting.inference import ChEES, sample
    >>> def coin(heads):
    ...     fairness = pyro.sample("fairness", dist.Beta(2.0, 2.0))
    ...     with pyro.plate("tosses", len(heads)):
    ...         pyro.sample("heads", dist.Bernoulli(fairness), obs=heads)
    >>> idata = sample(coin, ChEES(), torch.tensor([1.0, 1.0, 0.0]), draws=100, chains=16, progress=False)
    >>> abs(float(idata.posterior["fairness"].mean()) - 4 / 7) < 0.05
    True
    """
    _check_run(method, draws, chains)
    problem = Problem(model, args, kwargs, guide)
    start = time.perf_counter()
    with _callers_state_kept():
        drawn = _drawn(problem, method, draws, chains, seed, progress, store)
    attrs = _attrs(model, method, drawn, seed, time.perf_counter() - start)
    idata = convert.to_arviz(convert.latent_groups(drawn), attrs)
    idata.attrs.update(diagnostics.efficiency(idata))
    return idata


def _drawn(
    problem: Problem,
    method: Any,
    draws: int,
    chains: int,
    seed: int,
    progress: bool,
    store: str | Path | None,
) -> Draws:
    """Run a method, with a store where it can use one."""
    options: dict[str, Any] = {"draws": draws, "chains": chains, "seed": seed, "progress": progress}
    if store is not None:
        if not hasattr(method, "step"):
            raise ValueError(
                f"{type(method).__name__} cannot use a store; ChEES(), MALA(), ULA() and ParallelTempering() can"
            )
        signature = {
            "method": type(method).__name__,
            **json.loads(convert.settings(method)),
            "draws": draws,
            "chains": chains,
            "seed": seed,
            "model": fingerprint(problem.model),
            "data": fingerprint([problem.args, problem.kwargs]),
            "torch": torch.__version__,
        }
        options["store"] = Store(store, signature)
    return method.run(problem, **options)


@contextlib.contextmanager
def _callers_state_kept():
    """Leave torch's generator and Pyro's parameter store, which belong to the caller, as they were."""
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        yield


def _check_image_problem(model: ImageModel, observation: Observation) -> None:
    if not isinstance(model, ImageModel):
        raise ValueError(f"model is {describe(model)}; expected an ImageModel")
    if not isinstance(observation, Observation):
        raise ValueError(f"observation is {describe(observation)}; expected Observation(image, mask)")
    check_image(observation.image, model.image_shape)


def _check_run(method: Method, draws: int, chains: int) -> None:
    if not isinstance(method, Method) or isinstance(method, type):
        raise ValueError(f"method is {describe(method)}; expected one such as NUTS() or Variational()")
    for name, value in (("draws", draws), ("chains", chains)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}; expected a whole number of at least 1")


def _attrs(model: Callable, method: Method, drawn: Draws, seed: int, seconds: float) -> dict[str, Any]:
    """Say what was run, in numbers and words that survive netCDF."""
    packages = ("torch", "pyro-ppl", "posterior-inpainting")
    return {
        "model": getattr(model, "__name__", type(model).__name__),
        "method": getattr(method, "label", type(method).__name__),
        "settings": convert.settings(method),
        "draws_are": drawn.draws_are,
        "density": "pseudo-posterior" if getattr(model, "is_pseudo_posterior", False) else "posterior",
        "seed": seed,
        "wall_time_s": seconds,
        "versions": " ".join(f"{name}={version(name)}" for name in packages),
        **drawn.attrs,
    }
