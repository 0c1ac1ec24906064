"""What a method of inference is given and what it gives back; every family of methods lives beside this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from posterior_inpainting.models.abilities import Abilities

__all__ = ["Draws", "DrawsAre", "Method", "Problem"]

#: ``markov``: correlated draws of a chain. ``independent``: independent and identically distributed.
#: ``restarts``: one optimum a chain, not draws at all; ``path``: the way to one. ``particles``: chains are
#: independent replicates.
DrawsAre = Literal["markov", "independent", "restarts", "path", "particles"]


@dataclass(frozen=True)
class Problem:
    """A Pyro model, what it is called with, and the guide that belongs to it.

    Parameters
    ----------
    model
        Any Pyro model.
    args, kwargs
        Its arguments; for an image model the image and the mask.
    guide
        Called with the same arguments; ``None`` where there is none.
    """

    model: Callable
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    guide: Any = None

    @property
    def abilities(self) -> Abilities:
        """What the model offers beyond being a Pyro model."""
        return self.model if isinstance(self.model, Abilities) else Abilities()


@dataclass(frozen=True)
class Draws:
    """What a method returns.

    Parameters
    ----------
    latents
        Site name -> ``(chain, draw, *event)``, in the site's own (constrained) space.
    stats
        Statistic -> ``(chain, draw)``: ``lp``, ``energy``, ``acceptance_rate``, ``step_size``,
        ``n_steps``, ``diverging``, ``log_weight``, as the method has them.
    draws_are
        What the draws are; diagnostics and scores read it.
    attrs
        Numbers and words about the run; ``gradient_evaluations`` among them.
    """

    latents: dict[str, Tensor]
    stats: dict[str, Tensor]
    draws_are: DrawsAre
    attrs: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Method(Protocol):
    """A frozen dataclass of settings with a ``run``."""

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Draw ``chains`` x ``draws`` times from the posterior of ``problem``."""
        ...
