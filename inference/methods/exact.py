"""`Exact`: independent draws from the posterior itself, for the models that know it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.methods.variational import draw_from_guide

__all__ = ["Exact"]


@dataclass(frozen=True)
class Exact(Method):
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

    draws_are = "independent"

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Draw ``chains`` x ``draws`` times, independently."""
        model = problem.abilities
        if not model.guide_is_exact:
            raise ValueError(
                f"{type(problem.model).__name__} has no exact posterior; use NUTS(), HMC() or Variational()"
            )
        shape = plan.chains, plan.draws
        with plan.streams.seeded("guide"):
            kept = model.draw_completions(*problem.args, **problem.kwargs, draws=shape[0] * shape[1])
            if kept is None:
                latents, stats = draw_from_guide(problem, plan.draws, plan.chains)
            else:
                latents = {name: value.unflatten(0, shape) for name, value in kept.items()}
                like = next(iter(latents.values()))
                stats = {"log_weight": torch.zeros(shape, device=like.device)}
        attrs: dict[str, Any] = {"gradient_evaluations": 0}
        evidence = None if model.is_pseudo_posterior else model.log_evidence(*problem.args, **problem.kwargs)
        if evidence is not None and math.isfinite(float(evidence)):
            attrs["log_evidence"] = float(evidence)
        if model.law_of_draws:  # where the weights, not the draws, are the posterior's
            attrs["law"] = model.law_of_draws
        return Draws(latents, stats, self.draws_are, attrs)
