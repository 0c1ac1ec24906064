"""The three verbs of inference: `infer` one image, `infer_many` at once, `sample` any Pyro model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posterior_inpainting.inference.contract import Method, Plan, Problem
from posterior_inpainting.inference.density.budget import within
from posterior_inpainting.inference.execution import (
    attributes,
    deterministics,
    executed,
    of_goal,
    of_image,
    timed_from,
    values_of,
    with_efficiency,
)
from posterior_inpainting.inference.problems import problem_of, stacked
from posterior_inpainting.inference.results import convert
from posterior_inpainting.inference.results.convert import KEPT
from posterior_inpainting.inference.results.fit_attributes import fit_attributes
from posterior_inpainting.inference.results.trusted import Trusted, Watch
from posterior_inpainting.inference.results.watched_values import values_of_images, values_of_latents
from posterior_inpainting.inference.settled import check_kept, check_memory_of_draws, settled
from posterior_inpainting.inference.streams import Streams, callers_state_kept
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.observations import Observation

__all__ = ["infer", "infer_many", "sample"]


def infer(
    model: ImageModel,
    observation: Observation | Measurement,
    method: Method | None = None,
    *,
    draws: int | None = None,
    chains: int | None = None,
    seed: int = 0,
    progress: bool = True,
    store: str | Path | None = None,
    thin: int = 1,
    keep: Collection[str] = KEPT,
    max_memory: float | None = None,
    until: Trusted | None = None,
    budget: str | None = None,
):
    """Draw from p(latents, hidden pixels | seen pixels), or given what an instrument measured of the image.

    Parameters
    ----------
    model
        A model of this collection.
    observation
        Image and mask, of which nothing hidden is ever read; or a ``Measurement``: an image made small, a grey
        photograph, a tomogram. The whole image is hidden then, and its draws agree with what was measured.
    method
        ``Auto()`` if not given, which chooses by the model and draws until the draws can be trusted. By name:
        ``ChEES()``, ``ParallelTempering()``, ``TemperedSMC()``, ``MALA()``, ``NUTS()``, ``Variational()``, ``MAP()``,
        ``Exact()`` and so on, with its settings.
    draws, chains
        Kept draws a chain, at the most where there is a goal, and chains; the method's usual numbers if not given. A
        method without a chain splits independent draws among them.
    seed
        The same seed gives bit-identical draws on the same machine; the caller's generator is left alone.
    progress
        Whether to show a progress bar.
    store
        Folder, such as ``"run.zarr"``, to which draws and sampler state are written as the run goes. Killed
        at any moment, the same call goes on where it was, and ends with the same draws. Every method that goes
        step by step can use one; ``Exact`` has nothing to go on from.
    thin
        Of a Markov chain a draw of every so many iterations is kept, beside a method's own ``thin``. Divergences of
        the iterations between are those of the draw that follows; its other statistics are its own.
    keep
        Which of the groups ``posterior_predictive`` and ``log_likelihood`` the result shall have: they take more than
        half of its memory, and what reads neither goes without: ``diagnostics.summary``, maps, posterior means.
    max_memory
        Bytes that the draws may take; a run that would take more is refused before it begins. Those that are free on
        this machine if not given.
    until
        What the draws have to reach: the run ends as soon as they do, and ``draws`` is the most that there will be.
        For every method that makes Markov chains step by step. ``attrs`` say what was reached and what not.
    budget
        Time or gradients at which the run ends with the draws that it has, such as ``"60 s"``, ``"5 min"`` or
        ``"2e6 gradients"``.

    Returns
    -------
    InferenceData
        Groups ``posterior``, ``posterior_predictive``, ``sample_stats``, ``log_likelihood``,
        ``observed_data``, ``constant_data``; ``attrs`` say what was run and what the draws are
        (``draws_are``). With ArviZ 1 a ``DataTree`` of the same groups. Of a measurement, values are ``measurement`` in
        ``observed_data`` and ``log_likelihood``.

    Raises
    ------
    ValueError
        If the image does not fit the model, a number is below 1, the method does not fit the model, or the model takes
        no measurements.

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
    start = time.perf_counter()
    check_kept(keep)
    problem = problem_of(model, observation)
    run = settled(problem, method, draws, chains, until, thin)
    check_memory_of_draws(math.prod(observation.shape), run.draws, run.chains, max_memory, keep=keep)
    watch = None if run.goal is None else Watch(run.goal, values_of_images(problem, [observation]))
    plan = Plan(run.draws, run.chains, Streams(seed), progress, thin=thin, watch=watch)
    with within(budget):
        return timed_from(start, of_image(problem, run, plan, observation, keep, store))


def infer_many(
    model: ImageModel,
    observations: Sequence[Observation | Measurement],
    method: Method | None = None,
    *,
    draws: int | None = None,
    chains: int | None = None,
    seed: int = 0,
    progress: bool = True,
    thin: int = 1,
    keep: Collection[str] = KEPT,
    max_memory: float | None = None,
    until: Trusted | None = None,
    budget: str | None = None,
) -> list:
    """Draw from the posteriors of many images in one batch, images x chains, each with its own adaptation.

    Equal in distribution to :func:`infer` image by image, and faster where there are few chains: the
    decoder sees all images at once.

    Parameters
    ----------
    model
        A model of this collection.
    observations
        Images of one shape, each with its mask; or measurements by one operator with one noise.
    method
        ``Auto()`` if not given, ``GlobalLocal()``, ``ChEES()``, ``MALA()`` or ``ULA()``.
    draws, chains, seed, progress, thin, keep
        As for :func:`infer`, for each image.
    max_memory
        As for :func:`infer`, for all of them; with a goal as many draws are reckoned as posteriors usually take.
    until
        As for :func:`infer`: the run ends when the draws of all of them have reached it; with ``GlobalLocal()`` images
        that have leave the batch at the end of a round.
    budget
        As for :func:`infer`, for all of them.

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
    start = time.perf_counter()
    if not observations:
        raise ValueError("observations is empty; expected at least one")
    for observation in observations:
        problem_of(model, observation)
    check_kept(keep)
    first = problem_of(model, observations[0])
    run = settled(first, method, draws, chains, until, thin)
    if not run.method.runs_together:
        raise ValueError(
            f"{run.method.label} draws from one posterior at a time; use a method such as ChEES(), MALA() or ULA()"
        )
    count = len(observations)
    check_memory_of_draws(
        math.prod(observations[0].shape), run.draws_to_expect, run.chains, max_memory, count, keep
    )
    problem = replace(first, args=stacked(observations))
    values = values_of_images(problem, observations)
    watch = None if run.goal is None else Watch(run.goal, values, range(count))
    plan = Plan(run.draws, run.chains, Streams(seed), progress, thin=thin, watch=watch)
    results = []
    with callers_state_kept(), within(budget):
        together = run.method.run_together(problem, len(observations), plan)
    fits = fit_attributes(model, observations)
    with callers_state_kept():
        share = (time.perf_counter() - start) / len(observations)
        for index, (drawn, observation) in enumerate(zip(together, observations, strict=True)):
            one = replace(problem, args=observation.arguments)
            streams = plan.streams.child("image", index)
            groups = convert.image_groups(drawn, one, observation, streams, keep)
            attrs = attributes(one, run, drawn, seed, share)
            results.append(with_efficiency(groups, attrs | of_goal(watch, index) | fits[index]))
    return results


def sample(
    model: Callable,
    method: Method | None = None,
    *args: Any,
    draws: int | None = None,
    chains: int | None = None,
    seed: int = 0,
    progress: bool = True,
    store: str | Path | None = None,
    guide: Callable | None = None,
    thin: int = 1,
    max_memory: float | None = None,
    until: Trusted | None = None,
    budget: str | None = None,
    **kwargs: Any,
):
    """Draw from the posterior of any Pyro model with continuous latents.

    Parameters
    ----------
    model
        A Pyro model; it is called with ``args`` and ``kwargs``.
    method
        As for :func:`infer`.
    draws, chains, seed, progress, store, thin, max_memory, until, budget
        As for :func:`infer`; the quantities are the latents.
    guide
        For ``Variational(guide="amortised")``.

    Returns
    -------
    InferenceData
        Groups ``posterior``, with the model's deterministic sites beside the latents, and ``sample_stats``.

    Raises
    ------
    ValueError
        If a latent is discrete, a number is below 1, or the method does not fit the model.

    Examples
    --------
    >>> import pyro
    >>> import pyro.distributions as dist
    >>> import torch
    >>> from posterior_inpainting.inference import ChEES, sample
    >>> def coin(heads):
    ...     fairness = pyro.sample("fairness", dist.Beta(2.0, 2.0))
    ...     with pyro.plate("tosses", len(heads)):
    ...         pyro.sample("heads", dist.Bernoulli(fairness), obs=heads)
    >>> idata = sample(coin, ChEES(), torch.tensor([1.0, 1.0, 0.0]), draws=100, chains=16, progress=False)
    >>> abs(float(idata.posterior["fairness"].mean()) - 4 / 7) < 0.05
    True
    """
    start = time.perf_counter()
    problem = Problem(model, args, kwargs, guide)
    run = settled(problem, method, draws, chains, until, thin)
    check_memory_of_draws(values_of(problem), run.draws, run.chains, max_memory)
    watch = None if run.goal is None else Watch(run.goal, values_of_latents)
    plan = Plan(run.draws, run.chains, Streams(seed), progress, thin=thin, watch=watch)
    with callers_state_kept(), within(budget):
        drawn = executed(problem, run.method, plan, store)
    with callers_state_kept():
        derived = deterministics(problem, drawn.latents)
        groups = convert.latent_groups(replace(drawn, latents=drawn.latents | derived))
    attrs = attributes(problem, run, drawn, seed, time.perf_counter() - start)
    return with_efficiency(groups, attrs | of_goal(watch))
