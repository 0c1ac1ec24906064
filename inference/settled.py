"""What a call of ``infer``, ``infer_many`` or ``sample`` asks for, settled and checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from posterior_inpainting.inference.contract import Method, Problem
from posterior_inpainting.inference.methods.auto import Auto
from posterior_inpainting.inference.methods.ranges import check_ranges
from posterior_inpainting.inference.results.convert import KEPT
from posterior_inpainting.inference.results.trusted import Trusted
from posterior_inpainting.inference.streams import callers_state_kept
from posterior_inpainting.models.images.available_memory import check_memory
from posterior_inpainting.models.shapes import describe

__all__ = ["Settled", "check_kept", "check_memory_of_draws", "check_run", "check_until", "settled"]

#: Draws of a chain that hardly any posterior takes longer than to reach the usual goal.
_WITH_GOAL = 500


@dataclass(frozen=True)
class Settled:
    """What is run in answer to a call: the method that was named or chosen, how much of it, and with which goal."""

    method: Method
    draws: int
    chains: int
    goal: Trusted | None
    chosen_by: str

    @property
    def draws_to_expect(self) -> int:
        """Draws of one posterior among many: with a goal few of them come near to the most that there may be."""
        return self.draws if self.goal is None else min(self.draws, _WITH_GOAL)

    @property
    def attrs(self) -> dict[str, str]:
        """What the result says of the choice."""
        return {"chosen_by": self.chosen_by} if self.chosen_by else {}


def settled(
    problem: Problem,
    method: Method | None,
    draws: int | None,
    chains: int | None,
    until: Trusted | None,
    thin: int = 1,
) -> Settled:
    """Return what to run where the caller leaves something open, checked; arguments are those of ``infer``."""
    named = Auto() if method is None else method
    if not isinstance(named, Method):
        raise ValueError(f"method is {describe(named)}; expected one such as NUTS() or Variational()")
    with callers_state_kept():
        chosen = named.chosen(problem)
    draws = chosen.usual_draws if draws is None else draws
    chains = chosen.usual_chains if chains is None else chains
    check_run(chosen, draws, chains, thin)
    check_until(named, until)
    goal = (named.goal if until is None else until) if chosen.can_end_early else None
    return Settled(chosen, draws, chains, goal, "" if chosen is named else named.label)


def check_run(method: Method, draws: int, chains: int, thin: int = 1) -> None:
    """Raise ``ValueError`` unless it is a method with settings in their ranges, of at least one draw and one chain.

    Only the draws of a Markov chain are thinned: others are no better for it.
    """
    if not isinstance(method, Method):
        raise ValueError(f"method is {describe(method)}; expected one such as NUTS() or Variational()")
    check_ranges(method)
    for name, value in (("draws", draws), ("chains", chains), ("thin", thin)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}; expected a whole number of at least 1")
    if thin > 1 and method.draws_are != "markov":
        raise ValueError(f"thin={thin}: {method.label} makes no Markov chain; take fewer draws instead")


def check_memory_of_draws(
    values: int,
    draws: int,
    chains: int,
    max_memory: float | None,
    images: int = 1,
    keep: Collection[str] = KEPT,
) -> None:
    """Raise ``ValueError`` where the draws of a run do not fit into memory, before it begins.

    Parameters
    ----------
    values
        Of an image, or of the latents of a model.
    draws, chains, images
        How many there will be.
    max_memory
        Bytes that they may take; those that are free where ``None``.
    keep
        Groups of a result beside the draws.
    """
    if max_memory is not None and not max_memory > 0:
        raise ValueError(f"max_memory={max_memory}; expected a positive number of bytes")
    of_images = "" if images == 1 else f" x {images} images"
    check_memory(
        4.0
        * (2 + len(keep))
        * values
        * draws
        * chains
        * images,  # with the latents on the way to completions
        f"{draws} draws x {chains} chains{of_images} of {values} values",
        available=max_memory,
        remedy="take fewer draws, further apart (thin=), keep less of them (keep=()), or say max_memory= in bytes if "
        "there are more",
    )


def check_until(method: Method, until: Trusted | None) -> None:
    """Raise ``ValueError`` for a goal that is none, or of a method that cannot end when it is reached."""
    if until is not None and not isinstance(until, Trusted):
        raise ValueError(f"until is {describe(until)}; expected Trusted()")
    if until is not None and not method.can_end_early:
        raise ValueError(
            f"until={until}: {method.label} does not look at its draws as it goes; use ChEES(), NUTS() or another "
            "method of Markov chains"
        )


def check_kept(keep: Collection[str]) -> None:
    """Raise ``ValueError`` for groups that are not among those that may be left out."""
    wrong = [keep] if isinstance(keep, str) else [name for name in keep if name not in KEPT]
    if wrong:
        raise ValueError(f"keep has {wrong[0]!r}; expected some of {', '.join(KEPT)}, in a list")
