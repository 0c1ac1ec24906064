r"""`OrderedModel`: a Pyro model whose latents come step by step, with a proposal, for particle methods.

.. math:: p(x_{1:T}, y_{1:T}) = \prod_t p(x_t \mid x_{<t})\, p(y_t \mid x_{\le t})

as a state-space model is (Gordon, Salmond & Smith 1993). Each step is a piece of a Pyro program, as for Pyro's own
``SMCFilter``; the model is also the whole program, so that ``sample(model, ChEES(), data)`` draws from the same
posterior.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from posterior_inpainting.models.abilities import Abilities
from posterior_inpainting.models.densities.sequential import Extended, SequentialModel

__all__ = ["OrderedModel"]


class OrderedModel(Abilities):
    """Abstract Pyro model in steps: a subclass writes :meth:`step`, and :meth:`propose` if it knows better.

    It is called with data whose first dimension is the step. Sites have a name of their own in each step, and no
    plates; inside a step, values have one leading dimension of particles, or none.

    Attributes
    ----------
    order
        How many steps what a latent does reaches: 1 if a step asks for nothing older than the last one's latents, as in
        a Markov model. Needed to draw ancestors anew; ``None`` says that it may be any number.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> from posterior_inpainting.inference import TwistedSMC, sample
    >>> class Walk(OrderedModel):
    ...     order = 1
    ...     def step(self, state, t, seen):
    ...         before = state["x"] if t else torch.zeros(())
    ...         state["x"] = pyro.sample(f"x_{t}", dist.Normal(before, 1.0))
    ...         pyro.sample(f"seen_{t}", dist.Normal(state["x"], 1.0), obs=seen)
    >>> idata = sample(Walk(), TwistedSMC(), torch.tensor([1.0, 2.0]), draws=500, chains=4, progress=False)
    >>> abs(float(idata.posterior["x_1"].mean()) - 1.4) < 0.2  # by Kalman's filter: 7 / 5
    True
    """

    order: int | None = None

    @abstractmethod
    def step(self, state: dict[str, Tensor], t: int, *data: Tensor) -> None:
        """Sample the latents of step ``t`` and observe its ``data``; what later steps need goes into ``state``."""

    def propose(self, state: dict[str, Tensor], t: int, *data: Tensor) -> None:
        """Sample the latents of step ``t`` from a proposal; by default as the model itself does."""
        with poutine.block(hide_fn=lambda site: site["type"] == "sample" and site["is_observed"]):
            self.step(state, t, *data)

    def log_twist(self, state: dict[str, Tensor], t: int, *data: Tensor) -> Tensor | float:
        """Return a guess of the log probability of the data after step ``t``, given the state after it.

        Parameters
        ----------
        state, t
            The particles, and the step that was made last.
        data
            All data, of all steps.
        """
        return 0.0

    def __call__(self, *data: Tensor) -> None:
        """Run all steps: the whole Pyro program."""
        state: dict[str, Tensor] = {}
        for t in range(len(data[0])):
            self.step(state, t, *(part[t] for part in data))

    def sequential(self, *data: Tensor) -> OrderedSteps:  # type: ignore[override]
        """Return the latents in the order of the steps."""
        return OrderedSteps(self, data)


@dataclass(frozen=True)
class Site:
    """A latent of a step, as one run of the model has it."""

    name: str
    shape: torch.Size
    dtype: torch.dtype


class OrderedSteps(SequentialModel):
    """The steps of an :class:`OrderedModel` given its data ``(step, ...)``."""

    def __init__(self, model: OrderedModel, data: tuple[Tensor, ...]):
        self.model, self.data, self.device = model, data, data[0].device
        self.rest_is_cheap = model.order is not None
        state: dict[str, Tensor] = {}
        self.sites: list[list[Site]] = []
        for t in range(len(data[0])):
            with torch.no_grad():
                trace = poutine.trace(self.model.step).get_trace(state, t, *self._at(t))
            latents = [(name, trace.nodes[name]["value"]) for name in trace.stochastic_nodes]
            self.sites.append([Site(name, value.shape, value.dtype) for name, value in latents])
        self.sizes = tuple(sum(site.shape.numel() for site in sites) for sites in self.sites)

    def start(self, count: int) -> Extended:
        """Return particles with an empty state."""
        zeros = torch.zeros(count, device=self.device)
        return Extended({"": zeros}, zeros, zeros)

    def propose(self, state: dict[str, Tensor], step: int) -> Tensor:
        """Draw the latents of a step from the proposal."""
        trace = self._trace(self.model.propose, state, step, None)
        return torch.cat(
            [
                trace.nodes[s.name]["value"].reshape(len(state[""]), -1).to(state[""])
                for s in self._wide(step, trace)
            ],
            1,
        )

    def extend(self, state: dict[str, Tensor], step: int, value: Tensor) -> Extended:
        """Run the model's step, and the proposal's, with the latents as they are given."""
        latents = self._split(step, value)
        log_proposal = _log_prob(self._trace(self.model.propose, state, step, latents), state)
        state = dict(state)
        increment = (
            _log_prob(self._trace(self.model.step, state, step, latents, keep=True), state) - log_proposal
        )
        twist = torch.as_tensor(self.model.log_twist(state, step, *self.data), device=self.device)
        return Extended(state, increment, twist.expand_as(increment))

    def select(self, state: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        """Return the particles of an index."""
        return {name: value.index_select(0, index) for name, value in state.items()}

    def log_rest(self, state: dict[str, Tensor], step: int, rest: Tensor) -> Tensor | None:
        """Return the log density of as many of the following steps as know of the particles' own."""
        if self.model.order is None:
            return None
        state, total = dict(state), state[""]
        values = rest.split(list(self.sizes[step:]), 1)
        for t in range(step, min(step + self.model.order, len(self.sizes))):
            latents = self._split(t, values[t - step])
            total = total + _log_prob(self._trace(self.model.step, state, t, latents, keep=True), state)
        return total

    def latents(self, path: Tensor) -> dict[str, Tensor]:
        """Return every step's sites."""
        parts = path.split(list(self.sizes), -1)
        return {name: value for t, part in enumerate(parts) for name, value in self._split(t, part).items()}

    def _at(self, step: int) -> tuple[Tensor, ...]:
        return tuple(part[step] for part in self.data)

    def _split(self, step: int, values: Tensor) -> dict[str, Tensor]:
        """Return a step's sites ``(*batch, *event)`` of its values ``(*batch, size)``."""
        sites = self.sites[step]
        parts = values.split([site.shape.numel() for site in sites], -1)
        return {
            site.name: part.reshape(*values.shape[:-1], *site.shape).to(site.dtype)
            for site, part in zip(sites, parts, strict=True)
        }

    def _trace(self, program: Any, state: dict, step: int, latents: dict | None, keep: bool = False) -> Any:
        """Run a step for all particles, with latents if they are given; the state changes only if ``keep``."""
        if latents is not None:
            program = poutine.condition(program, data=latents)
        given = state if keep else dict(state)
        with pyro.plate("particles", len(state[""]), dim=-1):
            trace = poutine.trace(program).get_trace(given, step, *self._at(step))
        return trace

    def _wide(self, step: int, trace: Any) -> list[Site]:
        """Return a step's sites, all of which a proposal has to sample."""
        missing = [site.name for site in self.sites[step] if site.name not in trace.nodes]
        if missing:
            raise ValueError(
                f"propose() of step {step} samples no {missing[0]}; expected every latent of step()"
            )
        return self.sites[step]


def _log_prob(trace: Any, state: dict[str, Tensor]) -> Tensor:
    """Return the log density of all sites of a step ``(count,)``."""
    trace.compute_log_prob()
    sites = [node for name, node in trace.nodes.items() if node["type"] == "sample" and name != "particles"]
    return sum((site["log_prob"] for site in sites), torch.zeros_like(state[""]))
