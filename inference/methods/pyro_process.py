"""Pyro's Hamiltonian kernels as a process: an iteration of every chain a step, all of them resumable."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Plan
from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.starts_of_finite_density import draw_starts
from posterior_inpainting.inference.methods.loop import Process, Row, kept_at_positions
from posterior_inpainting.inference.streams import global_state, set_global_state

__all__ = ["PyroProcess"]


class PyroProcess(Process):
    """Chains of one of Pyro's kernels, in step with each other, so that a run that is ended early has equal chains.

    Parameters
    ----------
    label
        Name of the method.
    make
        From a function of ``{"position": ...}`` to a kernel that keeps the ``kinetic`` energy it started with.
    density
        What to draw from, a single posterior.
    warmup
        Iterations that adapt and are thrown away.
    plan
        Draws, chains and streams.
    """

    def __init__(
        self, label: str, make: Callable[[Callable], Any], density: Density, warmup: int, plan: Plan
    ):
        self.label, self.make, self.density, self.warmup, self.plan = label, make, density, warmup, plan
        self.total, self.draws = warmup + plan.iterations, plan.draws

    @property
    def gradients(self) -> int:
        """Gradient evaluations so far."""
        return self.density.gradients

    def start(self) -> None:
        """Set up a kernel for each chain, which searches for its first step size."""
        streams = self.plan.streams
        positions = draw_starts(self.density, self.plan.chains, streams)[0]
        self.kernels = [self.make(self._potential_energy) for _ in positions]
        self.positions = [{"position": position} for position in positions]
        self.random = []
        for chain, kernel in enumerate(self.kernels):
            # Pyro's kernels draw from torch's global generators: each chain has a state of them.
            with streams.seeded("chain", chain):
                kernel.initial_params = self.positions[chain]
                kernel.setup(self.warmup)
                self.random.append(global_state())

    def step(self) -> Row | None:
        """Make one iteration of each chain."""
        rows = [self._step_chain(chain) for chain in range(len(self.kernels))]
        self.iteration += 1
        if self.iteration <= self.warmup:
            return None
        position = torch.stack([state["position"].detach() for state in self.positions])
        stats = {
            name: torch.tensor([row[name] for row in rows], device=position.device).unsqueeze(0)
            for name in rows[0]
        }
        return position.unsqueeze(0), stats

    def gather(self, rows: list[Row]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what is kept at the rows' positions, and their statistics."""
        return kept_at_positions(rows, self.density)

    def state(self) -> dict[str, Any]:
        """Return what the kernels have learnt, where they are, and their random numbers."""
        return {
            "kernels": [_captured(kernel) for kernel in self.kernels],
            "positions": [state["position"].detach() for state in self.positions],
            "random": self.random,
            "iteration": self.iteration,
            "gradients": self.density.gradients,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put it back into new kernels."""
        self.start()
        for kernel, captured in zip(self.kernels, state["kernels"], strict=True):
            _put_back(kernel, captured)
        self.positions = [{"position": position} for position in state["positions"]]
        self.random, self.iteration = state["random"], state["iteration"]
        # What setting up cost anew is part of what the stored run had spent.
        spend(max(0, state["gradients"] - self.density.gradients))
        self.density.gradients = state["gradients"]

    def status(self) -> str:
        """Say the median step size."""
        return f"step={statistics.median(float(kernel.step_size) for kernel in self.kernels):.2g}"

    def _potential_energy(self, state: dict[str, Tensor]) -> Tensor:
        self.density.count(1)
        log_prior, log_likelihood = self.density(state["position"].unsqueeze(0))
        return -(log_prior + log_likelihood).squeeze(0)

    def _step_chain(self, chain: int) -> dict[str, Any]:
        """Move one chain; return its statistics."""
        kernel = self.kernels[chain]
        before, start = _Counters(kernel, self.density), kernel._potential_energy_last
        with torch.random.fork_rng(devices=[*range(torch.cuda.device_count())]):
            set_global_state(self.random[chain])
            self.positions[chain] = kernel.sample(self.positions[chain])
            self.random[chain] = global_state()
        after = _Counters(kernel, self.density)
        return {
            "lp": -float(kernel._potential_energy_last),
            "energy": float(start + kernel.kinetic),
            "acceptance_rate": after.acceptance_since(before, max(0, self.iteration - self.warmup)),
            "step_size": float(kernel.step_size),
            "n_steps": after.gradients - before.gradients,
            "diverging": after.divergences > before.divergences,
            **({"failures": after.failures - before.failures} if self.density.may_fail else {}),
        }


class _Counters:
    """The running totals of a kernel, from whose differences one iteration's figures follow."""

    def __init__(self, kernel: Any, density: Density):
        self.gradients, self.failures = density.gradients, density.failures
        self.divergences = len(kernel._divergences)
        self.mean_acceptance = kernel._mean_accept_prob

    def acceptance_since(self, before: _Counters, index: int) -> float:
        """Undo the kernel's running mean, which starts anew after warm-up."""
        return min(1.0, max(0.0, self.mean_acceptance * (index + 1) - before.mean_acceptance * index))


#: What a kernel of Pyro's remembers of its chain, what its adapter knows, and the adapter's mass matrix.
_OF_KERNEL = (
    "_t",
    "_accept_cnt",
    "_mean_accept_prob",
    "_divergences",
    "_z_last",
    "_potential_energy_last",
    "_z_grads_last",
)
_OF_ADAPTER = ("step_size", "_current_window", "_adaptation_disabled")
_OF_MASS = ("_inverse_mass_matrix", "_mass_matrix_sqrt", "_mass_matrix_sqrt_inverse", "_mass_matrix_size")


def _captured(kernel: Any) -> dict[str, Any]:
    """Return everything that a kernel has learnt, as plain values."""
    adapter = kernel._adapter
    mass = adapter._mass_matrix_adapter
    return {
        "kernel": {name: vars(kernel)[name] for name in _OF_KERNEL},
        "adapter": {name: vars(adapter)[name] for name in _OF_ADAPTER},
        "averaging": dict(vars(adapter._step_size_adapt_scheme)),
        "mass": {name: vars(mass)[name] for name in _OF_MASS},
        "schemes": {site: dict(vars(scheme)) for site, scheme in mass._adapt_scheme.items()},
    }


def _put_back(kernel: Any, captured: dict[str, Any]) -> None:
    """Give a kernel that has been set up what :func:`_captured` returned of another."""
    adapter = kernel._adapter
    mass = adapter._mass_matrix_adapter
    for owner, part in (
        (kernel, "kernel"),
        (adapter, "adapter"),
        (adapter._step_size_adapt_scheme, "averaging"),
        (mass, "mass"),
    ):
        vars(owner).update(captured[part])
    for site, learnt in captured["schemes"].items():
        vars(mass._adapt_scheme[site]).update(learnt)
