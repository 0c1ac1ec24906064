r"""Variational inference: draws from a guide, the model's own or an automatic one fitted to one image.

The guide maximises the ELBO :math:`E_q[\log p(\tilde x, z) - \log q(z)]` (Kingma & Welling 2014); an
amortised guide needs no fitting. Every draw carries its importance weight p/q, whose Pareto k-hat says
how far the guide is from the posterior (Yao et al. 2018, *Yes, but Did It Work?*).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal, init_to_sample
from torch import nn
from tqdm.auto import tqdm

from posterior_inpainting.inference.contract import Draws, Problem
from posterior_inpainting.inference.density.budget import affordable, spend
from posterior_inpainting.inference.density.tracing import (
    batched_trace,
    draws_of,
    latent_sites,
    log_prob_by_draw,
    plate_nesting,
)

__all__ = ["GUIDES", "Variational", "draw_from_guide"]

_AUTOMATIC: dict[str, Callable] = {
    "normal": partial(AutoNormal, init_loc_fn=init_to_sample),
    "multivariate_normal": partial(AutoMultivariateNormal, init_loc_fn=init_to_sample),
    "iaf": AutoIAFNormal,
}
GUIDES = ("amortised", *_AUTOMATIC)


@dataclass(frozen=True)
class Variational:
    """Fit a guide to one observation, if it needs fitting, and draw from it independently.

    Parameters
    ----------
    guide
        ``"amortised"`` (the model's own guide), ``"normal"`` (mean field), ``"multivariate_normal"``,
        ``"iaf"`` (inverse autoregressive flow, Kingma et al. 2016), or any Pyro guide of the model.
    steps
        Gradient steps; ``None`` takes 0 for an amortised guide with weights of its own and 2,000
        otherwise. A model's own guide is refined as a copy: the model is left as it was.
    learning_rate
        First step size of Adam; it falls to 0 along half a cosine.
    particles
        Draws for each estimate of the ELBO.

    Examples
    --------
    >>> Variational(guide="normal", steps=500).particles
    8
    """

    guide: str | Callable = "amortised"
    steps: int | None = None
    learning_rate: float = 0.02
    particles: int = 8

    def __post_init__(self):
        if isinstance(self.guide, str) and self.guide not in GUIDES:
            raise ValueError(f"guide={self.guide!r}; expected one of {', '.join(GUIDES)}, or a Pyro guide")

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Fit, then draw ``chains`` x ``draws`` times from the one fitted guide."""
        torch.manual_seed(seed)
        model, guide, amortised = self._guide(problem)
        problem = Problem(model, problem.args, problem.kwargs, guide)
        steps = self.steps if self.steps is not None else (0 if amortised else 2000)
        steps = affordable(steps, self.particles) if steps else 0
        losses = self._fit(problem, steps, progress)
        latents, stats = draw_from_guide(problem, draws, chains)
        attrs: dict = {"gradient_evaluations": len(losses) * self.particles}
        if losses:
            attrs["elbo"] = -sum(losses[-100:]) / len(losses[-100:])
        return Draws(latents, stats, "independent", attrs)

    def _guide(self, problem: Problem) -> tuple[Callable, Callable, bool]:
        """Return the model, its guide, and whether that guide is amortised already."""
        if not isinstance(self.guide, str):
            return problem.model, self.guide, False
        if self.guide != "amortised":
            hidden = poutine.block(problem.model, expose=_names(problem))
            return problem.model, _AUTOMATIC[self.guide](hidden), False
        if problem.guide is None:
            raise ValueError("guide='amortised' needs a model with a guide of its own")
        model = copy.deepcopy(problem.model)  # a bound guide refines its own model: work on a copy
        guide = getattr(model, "guide", problem.guide)
        return model, guide, problem.abilities.guide_is_trained

    def _fit(self, problem: Problem, steps: int, progress: bool) -> list[float]:
        if steps == 0:
            return []
        problem.guide(*problem.args, **problem.kwargs)  # makes what is made at the first call
        owner = getattr(problem.guide, "__self__", problem.guide)
        parameters = (
            [p for p in owner.parameters() if p.requires_grad] if isinstance(owner, nn.Module) else []
        )
        if not parameters:
            raise ValueError("the guide has no trainable parameter, so that steps=0 is all there is to do")
        optimiser = torch.optim.Adam(parameters, lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        elbo = Trace_ELBO(
            num_particles=self.particles, vectorize_particles=True, max_plate_nesting=plate_nesting(problem)
        )
        losses = []
        bar = tqdm(range(steps), desc="fitting the guide", disable=not progress, unit="step")
        for step in bar:
            spend(self.particles)
            optimiser.zero_grad()
            loss = elbo.differentiable_loss(problem.model, problem.guide, *problem.args, **problem.kwargs)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if step % 50 == 0:
                bar.set_postfix(elbo=f"{-losses[-1]:.1f}", refresh=False)
            if losses[-1] != losses[-1]:
                raise ValueError(
                    f"the ELBO is NaN at step {step}; try a learning rate below {self.learning_rate}"
                )
        return losses


def draw_from_guide(problem: Problem, draws: int, chains: int) -> tuple[dict, dict]:
    """Draw from a guide as it stands: latents ``(chain, draw, ...)``, ``lp`` and ``log_weight`` = lp - log q."""
    nesting, count = plate_nesting(problem), draws * chains
    with torch.no_grad():
        guide_trace = batched_trace(problem.guide, problem, count, nesting)
        model_trace = batched_trace(problem.model, problem, count, nesting, guide_trace)
    lp = log_prob_by_draw(model_trace, count, nesting)
    log_q = log_prob_by_draw(guide_trace, count, nesting)
    latents = {}
    for name in latent_sites(model_trace):
        values = draws_of(model_trace.nodes[name], nesting)
        latents[name] = values.reshape(chains, draws, *values.shape[1:])
    stats = {"lp": lp.reshape(chains, draws), "log_weight": (lp - log_q).reshape(chains, draws)}
    return latents, stats


def _names(problem: Problem) -> list[str]:
    """Latent sites of the model, without its plates' and deterministic ones."""
    with torch.no_grad():
        return latent_sites(poutine.trace(problem.model).get_trace(*problem.args, **problem.kwargs))
