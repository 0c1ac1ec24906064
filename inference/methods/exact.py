"""`Exact`: independent draws from the posterior itself, for the models that know it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from posterior_inpainting.inference.contract import Draws, Problem
from posterior_inpainting.inference.methods.variational import draw_from_guide

__all__ = ["Exact"]


@dataclass(frozen=True)
class Exact:
    """Draw from the model's exact conditional law; ``log_evidence`` (nats) is in ``attrs`` where known.

    Raises ``ValueError`` for a model that does not say ``guide_is_exact``.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=5)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> idata = infer(model, seen, Exact(), draws=100, chains=2, progress=False)
    >>> idata.attrs["draws_are"]
    'independent'
    """

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Draw ``chains`` x ``draws`` times, independently."""
        if not getattr(problem.model, "guide_is_exact", False):
            raise ValueError(
                f"{type(problem.model).__name__} has no exact posterior; use NUTS(), HMC() or Variational()"
            )
        torch.manual_seed(seed)
        kept = problem.abilities.draw_completions(*problem.args, **problem.kwargs, draws=draws * chains)
        if kept is not None:  # its latents are too many to be carried along
            latents = {name: value.unflatten(0, (chains, draws)) for name, value in kept.items()}
            stats = {"log_weight": torch.zeros(chains, draws)}
        else:
            latents, stats = draw_from_guide(problem, draws, chains)
        attrs: dict = {"gradient_evaluations": 0}
        evidence = problem.abilities.log_evidence(*problem.args, **problem.kwargs)
        if evidence is not None and math.isfinite(float(evidence)):
            attrs["log_evidence"] = float(evidence)
        if problem.abilities.law_of_draws:  # where the weights, not the draws, are the posterior's
            attrs["law"] = problem.abilities.law_of_draws
        return Draws(latents, stats, "independent", attrs)
