"""Chains in rounds, where those of one disagree, each longer than the one before, which it learns from.

A round ends when its draws have reached the goal, or when they are many and chains still disagree by far; where they
agree and are only few, it goes on, because to begin anew until draws look good would choose among them by their looks.
The draws of a run are those of its last round: what was drawn before is thrown away like any other warm-up. Of many
posteriors together all that lack something begin anew, so that the others leave the batch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Plan, Problem
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.numerical_failures import warn_of_failures
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.kernel import (
    Kernel,
    KernelProcess,
    as_draws,
    positions,
    run_kernel,
)
from posterior_inpainting.inference.methods.loop import ENDED_BY, Run, drive

__all__ = ["KernelInRounds"]

#: Draws a chain after which the first round ends if its chains disagree, and how many times more each later one has.
_FIRST, _MORE = 300, 2
#: Draws of all chains before the first look, so that a mode of a hundredth has been seen by then as often as it should.
_LEAST = 4000


class KernelInRounds(Kernel):
    """A kernel that begins anew, with what it has learnt, where there is a goal and chains disagree."""

    @abstractmethod
    def later(self) -> KernelInRounds:
        """Return the kernel of the rounds after the first."""

    @abstractmethod
    def go_on(self, density: Density, position: Tensor, draws: Tensor, generator: Generator) -> Any:
        """Return the first state of a later round.

        Parameters
        ----------
        density, generator
            As for a start.
        position
            Where the chains are, ``(group, chain, dim)``.
        draws
            Of the last round, ``(group, draw, dim)``.
        """

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run all chains at once, in rounds where there is a goal; what follows other draws is a later round."""
        if plan.watch is not None:
            return _run_in_rounds(self, problem, None, plan)[0]
        if plan.after is None:
            return super().run(problem, plan)
        kernel, density = self.later(), Potential(problem)
        begin = partial(kernel.go_on, density, *_learnt_before(density, plan.after))
        return as_draws(kernel, run_kernel(kernel, density, plan, begin=begin), density, 0)

    def run_together(self, problem: Problem, groups: int, plan: Plan) -> list[Draws]:
        """Run the chains of all posteriors in one batch, which those leave that have reached the goal."""
        if plan.watch is None:
            return super().run_together(problem, groups, plan)
        return _run_in_rounds(self, problem, groups, plan)


def _run_in_rounds(kernel: KernelInRounds, problem: Problem, groups: int | None, plan: Plan) -> list[Draws]:
    """Return the draws of each posterior's last round.

    Parameters
    ----------
    kernel
        What draws.
    problem, groups
        One posterior where ``None``, else as many.
    plan
        Its draws are the most of a round, its watch says when one may end.
    """
    assert plan.watch is not None
    todo, spent = [*range(groups or 1)], [0.0] * (groups or 1)
    found: dict[int, Draws] = {}
    learnt: tuple[Tensor, Tensor] | None = None
    number, count = 0, min(_FIRST, plan.draws)
    while todo:
        part = _of(problem, groups, todo)
        density = Potential(part, groups=None if groups is None else len(todo))
        # The sooner a look, the more it is a look at chance: later rounds not before half of what did not suffice.
        first = max(math.ceil(_LEAST / plan.chains), count // (2 * _MORE) if number else 0)
        watch = plan.watch.again(todo, first, None if count == plan.draws else count)
        round_plan = replace(plan.part("round", number), watch=watch)
        if plan.after is not None and not number:
            learnt = _learnt_before(density, plan.after)
        this = kernel if learnt is None else kernel.later()
        begin = None if learnt is None else partial(kernel.go_on, density, *learnt)
        process = KernelProcess(this, density, round_plan, begin=begin)
        try:
            run = drive(process, round_plan)
        except tuple(ENDED_BY) as reason:  # before a draw of this round: those of the last one are there
            if not number:
                raise
            ended = {ENDED_BY[type(reason)]: 1}
            return [
                replace(one, attrs=one.attrs | ended) if g in todo else one
                for g, one in sorted(found.items())
            ]
        watch.look()
        warn_of_failures(density.failures, density.gradients)
        size = next(iter(run.latents.values())).shape[2]
        for index, group in enumerate(todo):
            spent[group] += run.gradients / len(todo)
            drawn = as_draws(this, run, density, index)
            about = {"rounds": number + 1, "gradient_evaluations": int(spent[group])}
            before = found.get(group, drawn)
            if (
                run.ended and next(iter(before.latents.values())).shape[1] > size
            ):  # cut short: more were there
                drawn, about["rounds"] = before, number
            found[group] = replace(drawn, attrs=drawn.attrs | run.label | about)
        whole = run.ended or size >= plan.draws
        left = [] if whole else [index for index, group in enumerate(todo) if watch.lacks(group)]
        if left:
            learnt = _learnt(run, process, density, left)
        todo = [todo[index] for index in left]
        number, count = number + 1, min(_MORE * count, plan.draws)
    return [found[group] for group in sorted(found)]


def _learnt(run: Run, process: KernelProcess, density: Potential, left: list[int]) -> tuple[Tensor, Tensor]:
    """Return where the chains of some posteriors are, and what was drawn of each ``(group, draw, dim)``."""
    draws = density.unconstrain({name: value.flatten(1, 2) for name, value in run.latents.items()}, batch=2)
    return process.position_now[left], draws[left]


def _learnt_before(density: Potential, latents: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the same of draws ``(chain, draw, ...)`` of an earlier run."""
    found = positions(density, latents)
    return found[:, :, -1], found.flatten(1, 2)


def _of(problem: Problem, groups: int | None, which: list[int]) -> Problem:
    """Return the problem of some of the posteriors."""
    if groups is None or len(which) == groups:
        return problem

    def some(value: Any) -> Any:
        """Return the rows of a tensor."""
        return value[which] if isinstance(value, Tensor) else value

    args = tuple(some(one) for one in problem.args)
    return replace(problem, args=args, kwargs={name: some(one) for name, one in problem.kwargs.items()})
