"""Markov chain methods that move all chains at once: a kernel says how to start and how to step.

A *kernel* is a frozen dataclass of settings. Everything that it learns is in its state, one entry a *group*: a group is
one posterior, drawn from by many chains, and several groups (images) can run in one batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.numerical_failures import warn_of_failures
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.starts_of_finite_density import draw_starts
from posterior_inpainting.inference.methods.loop import Process, Row, Run, drive, kept_at_positions

__all__ = ["Kernel", "KernelProcess", "positions", "run_kernel"]


class Kernel(Method):
    """A vectorised Markov chain method; see ``ChEES`` for one.

    Its field ``warmup`` counts the iterations that adapt and are thrown away.
    """

    draws_are = "markov"
    is_resumable = True
    can_end_early = True
    warmup: int

    @property
    def runs_together(self) -> bool:
        """Whether it draws from many posteriors in one batch; most kernels do."""
        return True

    @abstractmethod
    def start(self, density: Density, position: Tensor, generator: Generator) -> Any:
        """Return the first state, from positions ``(group, chain, dim)``."""

    @abstractmethod
    def step(self, density: Density, state: Any, generator: Generator) -> tuple[Any, dict[str, Tensor]]:
        """Return the next state, and statistics ``(group, chain)`` by name.

        A state has ``point``, where the chains are, and ``iteration``, how many steps led there.
        """

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run all chains at once, each from its own draw of the prior, or from where the plan says that it was."""
        density, kernel, position = Potential(problem), self, None
        if plan.after is not None:
            kernel, position = self.from_given(), positions(density, plan.after)[:, :, -1]
        return as_draws(kernel, run_kernel(kernel, density, plan, position), density, 0)

    def from_given(self) -> Kernel:
        """Return the kernel that starts chains where it is told, whatever its ``init`` says."""
        return replace(self, init="prior") if "init" in vars(self) else self  # type: ignore[type-var]

    def run_together(self, problem: Problem, groups: int, plan: Plan) -> list[Draws]:
        """Run the chains of all posteriors in one batch."""
        if not self.runs_together:
            return super().run_together(problem, groups, plan)
        density = Potential(problem, groups=groups)
        run = run_kernel(self, density, plan)
        return [as_draws(self, run, density, group) for group in range(groups)]


def as_draws(kernel: Kernel, run: Run, density: Density, group: int) -> Draws:
    """Return the draws of one group of a run; gradients are its share of the whole."""
    latents, stats = ({n: v[group] for n, v in part.items()} for part in (run.latents, run.stats))
    attrs = {
        "warmup": kernel.warmup,
        "gradient_evaluations": run.gradients // (density.groups or 1),
        "potential": density.route,
        **run.label,
    }
    return Draws(latents, stats, kernel.draws_are, attrs)


def run_kernel(
    kernel: Kernel,
    density: Density,
    plan: Plan,
    position: Tensor | None = None,
    begin: Callable[[Generator], Any] | None = None,
) -> Run:
    """Run a kernel on a density.

    Parameters
    ----------
    kernel, density, plan
        What to run on what, and how long.
    position
        Where the chains start, ``(group, chain, dim)``; at draws of the prior by default.
    begin
        Makes the first state from a generator, in place of the kernel's start at ``position``.
    """
    run = drive(KernelProcess(kernel, density, plan, position, begin), plan)
    warn_of_failures(density.failures, density.gradients)
    return run


def positions(density: Density, latents: dict[str, Tensor]) -> Tensor:
    """Return where chains were at draws of latents ``(chain, draw, ...)``: ``(1, chain, draw, dim)``.

    Raises ``ValueError`` where a latent is not among what was kept of them.
    """
    return density.unconstrain({name: value.unsqueeze(0) for name, value in latents.items()}, batch=3)


class KernelProcess(Process):
    """A kernel on a density as a process: an iteration a step, positions kept after the warm-up.

    Parameters
    ----------
    kernel, density, plan, position, begin
        As for :func:`run_kernel`.
    """

    def __init__(
        self,
        kernel: Kernel,
        density: Density,
        plan: Plan,
        position: Tensor | None = None,
        begin: Callable[[Generator], Any] | None = None,
    ):
        self.kernel, self.density, self.plan, self.position = kernel, density, plan, position
        self.begin = begin
        self.total, self.draws = kernel.warmup + plan.iterations, plan.draws
        self._info: dict[str, Tensor] = {}

    @property
    def label(self) -> str:  # type: ignore[override]
        """Which method, and whether it still warms up."""
        doing = "warming up" if self.iteration <= self.kernel.warmup else "drawing"
        return f"{self.kernel.label} {doing}"

    @property
    def iteration(self) -> int:  # type: ignore[override]
        """Iterations made so far."""
        return self._state.iteration

    @property
    def gradients(self) -> int:
        """Gradient evaluations so far."""
        return self.density.gradients

    def start(self) -> None:
        """Draw the starts, and let the kernel make its first state of them."""
        streams, begin = self.plan.streams, self.begin
        if begin is None:
            given = self.position
            position = draw_starts(self.density, self.plan.chains, streams) if given is None else given
            begin = partial(self.kernel.start, self.density, position)
        self._generator = streams.generator("momenta", device=self.density.like.device)
        with streams.seeded("initialisation"):
            self._state = begin(self._generator)

    @property
    def position_now(self) -> Tensor:
        """Where the chains are, ``(group, chain, dim)``."""
        return self._state.point.position

    def step(self) -> Row | None:
        """Make one iteration of every chain."""
        warming = self._state.iteration < self.kernel.warmup
        self._state, self._info = self.kernel.step(self.density, self._state, self._generator)
        if self.density.may_fail:
            self._info = self._info | {"failures": self.density.take_failures(*self._info["lp"].shape[:2])}
        return None if warming else (self._state.point.position, self._info)

    def gather(self, rows: list[Row]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what is kept at the rows' positions, and their statistics."""
        return kept_at_positions(rows, self.density)

    def state(self) -> dict[str, Any]:
        """Return the kernel's state, and that of its generator."""
        return {
            "kernel": self._state,
            "generator": self._generator.get_state(),
            "device": str(self._generator.device),
            "gradients": self.density.gradients,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a stored state; what it cost counts against the budget."""
        self._state = state["kernel"]
        self._generator = Generator(device=state["device"])
        self._generator.set_state(state["generator"])
        self.density.gradients = state["gradients"]
        spend(state["gradients"])

    def status(self) -> str:
        """Say how many proposals are accepted."""
        rate = self._info.get("acceptance_rate")
        return "" if rate is None else f"acceptance={float(rate.nanmean()):.2f}"
