"""What a method of inference is given, what it says of itself, and what it gives back.

``Method`` declares everything that the rest of the package may ask of a method, each with a default, so that a new
one writes ``run`` and states where it differs. Nothing is looked up by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, Protocol

from torch import Tensor

from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.abilities import Abilities, refuse_misspelt

__all__ = ["Checkpoints", "Draws", "DrawsAre", "Method", "Plan", "Problem", "Watching"]

#: ``markov``: correlated draws of a chain. ``independent``: independent and identically distributed.
#: ``restarts``: one optimum a chain, not draws at all; ``path``: the way to one. ``particles``: draws resampled from
#: independent replicates.
DrawsAre = Literal["markov", "independent", "restarts", "path", "particles"]

#: Abilities of a Pyro model that is none of ours.
_PLAIN = Abilities()


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
    guide: Callable | None = None

    @property
    def abilities(self) -> Abilities:
        """What the model offers beyond being a Pyro model."""
        return self.model if isinstance(self.model, Abilities) else _PLAIN

    def in_a_batch(self) -> Problem:
        """Return the problem of one observation as that of a batch of one; what is no tensor serves all of a batch."""
        return replace(self, args=tuple(a.unsqueeze(0) if isinstance(a, Tensor) else a for a in self.args))

    def of(self, index: int) -> Problem:
        """Return the problem of one observation of a batch."""
        return replace(self, args=tuple(a[index] if isinstance(a, Tensor) else a for a in self.args))


class Checkpoints(Protocol):
    """Where a run keeps draws and state as it goes; ``results.store.Store`` is one on disk."""

    block: int

    def load_state(self) -> dict[str, Any] | None:
        """Return what was last committed, or ``None`` for a new run."""
        ...

    def read(self, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the first ``count`` draws' latents and statistics, ``(group, chain, draw, ...)``."""
        ...

    def write(
        self, rows: tuple[dict[str, Tensor], dict[str, Tensor]], first: int, total: int, saved: dict[str, Any]
    ) -> None:
        """Write draws ``first`` and following, then commit the state that comes after them."""
        ...

    def part(self, name: str) -> Checkpoints:
        """Return the checkpoints of a part of the run."""
        ...


class Watching(Protocol):
    """What looks at draws as they come, and says when a run may end; ``results.trusted.Watch`` does."""

    @property
    def goal(self) -> Any:
        """What they have to reach."""
        ...

    @property
    def missing(self) -> str:
        """What the draws lacked at the last look, ``""`` where it was nothing."""
        ...

    def is_enough(self, latents: dict[str, Tensor], stats: dict[str, Tensor]) -> bool:
        """Take in a block of draws and statistics ``(group, chain, draw, ...)``; return whether no more are needed."""
        ...

    def look(self) -> str:
        """Return what the draws so far lack, ``""`` where it is nothing."""
        ...

    def lacks(self, group: int) -> str:
        """Return what those of one posterior lacked when they were last looked at."""
        ...

    def again(self, groups: Sequence[int], first: int = 8, patience: int | None = None) -> Watching:
        """Return a watch with the same goal on new draws of some of the posteriors.

        Parameters
        ----------
        groups
            Their numbers.
        first
            Draws a chain at the first look.
        patience
            Draws a chain after which chains that disagree need not go on.
        """
        ...


@dataclass(frozen=True)
class Plan:
    """How much to draw, from which random numbers, and where to keep it on the way.

    Parameters
    ----------
    draws, chains
        Kept draws a chain, and chains.
    streams
        Source of all random numbers of the run.
    progress
        Whether to show a progress bar.
    store
        Where to keep draws and state, ``None`` for nowhere.
    thin
        A draw of every how many iterations of a chain is kept.
    watch
        What may end the run before it has all draws; ``None`` for nothing. It is of a whole run, and of none of its
        parts.
    after
        Latents ``(chain, draw, ...)`` of the run that this one goes on from, at whose last draws chains begin; ``None``
        for a new one. What draws independently has no use for it.

    Examples
    --------
    >>> Plan(100, 4).part("network", 3).streams.path
    ('network', 3)
    >>> Plan(100, 4, thin=5).iterations
    500
    """

    draws: int
    chains: int
    streams: Streams = field(default_factory=Streams)
    progress: bool = False
    store: Checkpoints | None = None
    thin: int = 1
    watch: Watching | None = None
    after: dict[str, Tensor] | None = None

    @property
    def iterations(self) -> int:
        """Iterations after the warm-up of a chain of which each would be a draw."""
        return self.draws * self.thin

    def part(self, *names: str | int, **changes: Any) -> Plan:
        """Return the plan of a part of the run: streams and store of its own, and ``changes`` of other fields."""
        store = None if self.store is None else self.store.part("-".join(map(str, names)))
        return replace(self, streams=self.streams.child(*names), store=store, watch=None, **changes)


@dataclass(frozen=True)
class Draws:
    """What a method returns.

    Parameters
    ----------
    latents
        Site name -> ``(chain, draw, *event)``, in the site's own (constrained) space.
    stats
        Statistic -> ``(chain, draw)``: ``lp``, ``energy``, ``acceptance_rate``, ``step_size``,
        ``n_steps``, ``diverging``, ``log_weight``, as the method has them. ``expected_completion``, an image a draw:
        the mean of the completion given a part of what led to the draw, for a posterior mean with less chance in it.
    draws_are
        What the draws are; diagnostics and scores read it.
    attrs
        Numbers and words about the run; ``gradient_evaluations`` among them.
    """

    latents: dict[str, Tensor]
    stats: dict[str, Tensor]
    draws_are: DrawsAre
    attrs: dict[str, Any] = field(default_factory=dict)


class Method(ABC):
    """A method of inference: a frozen dataclass of settings, with a ``run``.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import torch
    >>> @dataclass(frozen=True)
    ... class Zeros(Method):
    ...     draws_are = "independent"
    ...
    ...     def run(self, problem, plan):
    ...         shape = plan.chains, plan.draws
    ...         return Draws({"z": torch.zeros(*shape, 2)}, {"lp": torch.zeros(shape)}, self.draws_are)
    >>> Zeros().label, Zeros().is_biased, Zeros().runs_together
    ('Zeros', False, False)
    """

    #: What the draws are.
    draws_are: DrawsAre = "markov"
    #: Whether the draws carry an error of the method's own that more of them do not mend, such as a step size's.
    is_biased: bool = False
    #: Whether the draws are of an approximation to the posterior, which their weights may judge.
    is_approximate: bool = False
    #: Whether a run can keep its state in a store and go on from it.
    is_resumable: bool = False
    #: Whether a run looks at its plan's ``watch`` and ends when that says so.
    can_end_early: bool = False
    #: Draws a chain, at the most where there is a goal, and chains, where the caller names none.
    usual_draws: int = 1000
    usual_chains: int = 4

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls, Method)

    @property
    def label(self) -> str:
        """What the result calls the method."""
        return type(self).__name__

    @property
    def runs_together(self) -> bool:
        """Whether :meth:`run_together` draws from many posteriors in one batch."""
        return False

    @property
    def goal(self) -> Any:
        """What its draws have to reach where the caller says nothing; ``None`` to draw as many as are asked for."""
        return None

    def chosen(self, problem: Problem) -> Method:
        """Return the method that draws: itself, of all but those that choose another by the problem."""
        return self

    @abstractmethod
    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Draw ``plan.chains`` x ``plan.draws`` times from the posterior of ``problem``."""

    def run_together(self, problem: Problem, groups: int, plan: Plan) -> list[Draws]:
        """Draw from ``groups`` posteriors at once: every tensor among the arguments has them as its first dimension."""
        raise ValueError(f"{self.label} draws from one posterior at a time; use ChEES(), MALA() or ULA()")

    def warmed(self, warmup: int) -> Method:
        """Return the method with another number of warm-up iterations."""
        if not is_dataclass(self) or "warmup" not in {one.name for one in fields(self)}:
            raise ValueError(f"warmup={warmup} is given, but {self.label} does not warm up")
        if warmup < 1:
            raise ValueError(f"warmup={warmup}; expected at least 1")
        return replace(self, warmup=warmup)
