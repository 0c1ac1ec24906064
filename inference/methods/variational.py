r"""Variational inference: draws from a guide, the model's own or an automatic one fitted to one image.

The guide maximises the ELBO :math:`E_q[\log p(\tilde x, z) - \log q(z)]` (Kingma & Welling 2014); an
amortised guide needs no fitting. Every draw carries its importance weight p/q, whose Pareto k-hat says
how far the guide is from the posterior (Yao et al. 2018, *Yes, but Did It Work?*).
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal, init_to_sample
from torch import nn

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import affordable, spend
from posterior_inpainting.inference.density.tracing import (
    batched_trace,
    draws_of,
    latent_sites,
    log_prob_by_draw,
    plate_nesting,
)
from posterior_inpainting.inference.methods.loop import Process, Row, check_planned, drive
from posterior_inpainting.inference.streams import global_state, set_global_state

__all__ = ["GUIDES", "Variational", "draw_from_guide"]

_AUTOMATIC: dict[str, Callable] = {
    "normal": partial(AutoNormal, init_loc_fn=init_to_sample),
    "multivariate_normal": partial(AutoMultivariateNormal, init_loc_fn=init_to_sample),
    "iaf": AutoIAFNormal,
}
GUIDES = ("amortised", *_AUTOMATIC)


@dataclass(frozen=True)
class Variational(Method):
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

    draws_are = "independent"
    is_approximate = True
    is_resumable = True

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Fit, then draw ``chains`` x ``draws`` times from the one fitted guide."""
        model, guide, trained = self._guide(problem)
        problem = Problem(model, problem.args, problem.kwargs, guide)
        steps = self.steps if self.steps is not None else (0 if trained else 2000)
        if not steps:
            return self._drawn(problem, plan, {"gradient_evaluations": 0})
        with plan.streams.seeded("parameters"):
            guide(*problem.args, **problem.kwargs)  # makes what is made at the first call
        # A guide of the caller's is given back as it was; a copy would not do, which Pyro's own guides lose a part in.
        with nullcontext() if isinstance(self.guide, str) else _put_back(guide):
            with plan.streams.seeded("fit"):
                fit = Fit(self, problem, affordable(steps, self.particles))
                run = drive(fit, plan)
            # A fit that was planned shorter, to stay within the budget, is labelled as one cut short.
            cut = {"budget_spent": 1} if fit.steps < steps else {}
            attrs: dict[str, Any] = {"gradient_evaluations": run.gradients, **cut, **run.label}
            if fit.losses:
                attrs["elbo"] = -sum(fit.losses[-100:]) / len(fit.losses[-100:])
            return self._drawn(problem, plan, attrs)

    def _drawn(self, problem: Problem, plan: Plan, attrs: dict[str, Any]) -> Draws:
        """Draw from the guide as it is now."""
        with plan.streams.seeded("guide"):
            latents, stats = draw_from_guide(problem, plan.draws, plan.chains)
        return Draws(latents, stats, self.draws_are, attrs)

    def _guide(self, problem: Problem) -> tuple[Callable, Callable, bool]:
        """Return the model, its guide, and whether that guide can be drawn from as it is."""
        if not isinstance(self.guide, str):
            return problem.model, self.guide, False
        if self.guide != "amortised":
            hidden = poutine.block(problem.model, expose=_names(problem))
            return problem.model, _AUTOMATIC[self.guide](hidden), False
        if problem.guide is None:
            raise ValueError("guide='amortised' needs a model with a guide of its own")
        # A bound guide refines its own model: work on a copy of both, in which they still belong together.
        model, guide = copy.deepcopy((problem.model, problem.guide))
        return model, guide, problem.abilities.guide_is_trained


class Fit(Process):
    """The fit of a guide by Adam: a gradient step a step; where it stops, the guide can be drawn from.

    Draws come from torch's global generators.

    Parameters
    ----------
    method
        Settings.
    problem
        The model, and the guide that is fitted.
    steps
        Their number.
    """

    label = "fitting the guide"
    draws = 0

    def __init__(self, method: Variational, problem: Problem, steps: int):
        self.method, self.problem, self.total, self.steps = method, problem, steps, steps
        self.losses: list[float] = []

    @property
    def gradients(self) -> int:
        """Gradient evaluations so far."""
        return self.iteration * self.method.particles

    def start(self) -> None:
        """Make the guide's parameters, and an optimiser of them."""
        problem = self.problem
        assert problem.guide is not None
        self.parameters = _parameters_of(problem.guide)
        self.optimiser = torch.optim.Adam(self.parameters, lr=self.method.learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, self.steps)
        particles, nesting = self.method.particles, plate_nesting(problem)
        self.elbo = Trace_ELBO(num_particles=particles, vectorize_particles=True, max_plate_nesting=nesting)

    def step(self) -> Row | None:
        """Climb the ELBO once."""
        spend(self.method.particles)
        problem = self.problem
        self.optimiser.zero_grad()
        loss = self.elbo.differentiable_loss(problem.model, problem.guide, *problem.args, **problem.kwargs)
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        self.losses.append(float(loss.detach()))
        if self.losses[-1] != self.losses[-1]:
            raise ValueError(
                f"the ELBO is NaN at step {self.iteration}; try a learning rate below {self.method.learning_rate}"
            )
        self.iteration += 1
        return None

    def conclude(self) -> list[Row] | None:
        """Nothing is kept of the way: the guide itself is the result, once it has been fitted at all."""
        return [] if self.losses else None

    def state(self) -> dict[str, Any]:
        """Return the parameters and what the optimiser remembers."""
        return {
            "parameters": [parameter.detach().clone() for parameter in self.parameters],
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generators": global_state(),
            "losses": self.losses,
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from stored parameters; the schedule of step sizes must be the same."""
        check_planned(state["steps"], self.steps)
        self.start()
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.losses = list(state["losses"])
        self.iteration = len(self.losses)
        set_global_state(state["generators"])
        spend(self.gradients)

    def status(self) -> str:
        """Say what the ELBO is."""
        return f"elbo={-self.losses[-1]:.1f}"


@contextmanager
def _put_back(guide: Callable) -> Iterator[None]:
    """Give a guide's parameters their values back after the block."""
    parameters = _parameters_of(guide)
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def _parameters_of(guide: Callable) -> list[nn.Parameter]:
    """Return what can be trained of a guide: a module, or a method of one."""
    owner = guide.__self__ if isinstance(guide, types.MethodType) else guide
    found = [p for p in owner.parameters() if p.requires_grad] if isinstance(owner, nn.Module) else []
    if not found:
        raise ValueError("the guide has no trainable parameter, so that steps=0 is all there is to do")
    return found


def draw_from_guide(problem: Problem, draws: int, chains: int) -> tuple[dict, dict]:
    """Draw from a guide as it stands: latents ``(chain, draw, ...)``, ``lp`` and ``log_weight`` = lp - log q."""
    if problem.guide is None:
        raise ValueError("there is no guide to draw from")
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
