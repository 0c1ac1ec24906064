"""Log densities of any Pyro model at positions, through Pyro's trace: chain by chain, or all of them under vmap."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.change_of_variables import AtPosition, ChangeOfVariables
from posterior_inpainting.inference.density.tracing import latent_sites, observed_sites, trace_of

__all__ = ["TracedDensity", "over_rows", "rows", "run_unvalidated", "slow_but_right", "with_gradient"]

#: Runs of a model under one vmap, where results are collected, so that memory does not grow with their number.
_CHUNK = 1024


def run_unvalidated(model: Callable, args: tuple, kwargs: Mapping[str, Any]) -> Trace:
    """Run a model as vmap needs it, seen by no handler outside, and return its trace."""
    # Pyro's validation branches on values, which vmap does not allow.
    with pyro.validation_enabled(False), poutine.block():
        return trace_of(model, *args, **kwargs)


def rows(args: tuple, index: int | Tensor) -> tuple:
    """Take the observations of some groups out of batched arguments."""
    return tuple(a[index] if isinstance(a, Tensor) else a for a in args)


def over_rows(
    one: Callable[..., dict[str, Tensor]], batch: tuple, *, vectorised: bool = True
) -> dict[str, Tensor]:
    """Apply a function to every row, under vmap or, where vmap cannot go, row after row; random calls differ.

    Parameters
    ----------
    one
        From rows to name -> tensor.
    batch
        The function's arguments, tensors or name -> tensor, with the rows as first dimension.
    vectorised
        Whether to try vmap.

    Examples
    --------
    >>> over_rows(lambda row: {"sum": row.sum()}, (torch.ones(2, 3),))
    {'sum': tensor([3., 3.])}
    """
    if vectorised:
        # The loop says what is wrong, if it is not vmap.
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError), slow_but_right():
            return torch.func.vmap(one, randomness="different", chunk_size=_CHUNK)(*batch)
    first = batch[0] if isinstance(batch[0], Tensor) else next(iter(batch[0].values()))
    found = [one(*(_row(argument, i) for argument in batch)) for i in range(len(first))]
    return {name: torch.stack([row[name] for row in found]) for name in found[0]}


def _row(argument: Tensor | Mapping[str, Tensor], index: int) -> Any:
    if isinstance(argument, Tensor):
        return argument[index]
    return {name: value[index] for name, value in argument.items()}


def with_gradient(
    density: Callable[[Tensor], tuple[Tensor, Tensor]], position: Tensor, inverse_temperature: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log prior and log likelihood at positions, and the gradient of their tempered sum, by autograd.

    >>> with_gradient(lambda q: (-q.square().sum(-1), q.sum(-1)), torch.tensor([[1.0, 2.0]]), 0.5)
    (tensor([-5.]), tensor([3.]), tensor([[-1.5000, -3.5000]]))
    """
    with torch.enable_grad():
        position = position.detach().requires_grad_()
        log_prior, log_likelihood = density(position)
        total = (log_prior + inverse_temperature * log_likelihood).sum()
        (gradient,) = torch.autograd.grad(total, position)
    return log_prior.detach(), log_likelihood.detach(), gradient


@contextlib.contextmanager
def slow_but_right() -> Iterator[None]:
    """Silence torch where it has no batched kernel for an operation and loops by itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        yield


@dataclass(frozen=True)
class TracedDensity:
    """Log prior and log likelihood of positions, read from traces of the model.

    Parameters
    ----------
    problem
        A Pyro model and its arguments.
    groups
        Number of observations in the arguments, ``None`` for a single one.
    change
        The model's change of variables.
    jacobian
        Whether the log prior counts the change to unconstrained space.
    """

    problem: Problem
    groups: int | None
    change: ChangeOfVariables
    jacobian: bool = True

    def vectorised(self, position: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood ``([group,] chain)`` of ``([group,] chain, dim)``, under vmap."""
        if self.groups is None:
            return torch.func.vmap(self.one_chain, in_dims=(0, None))(position, self.problem.args)
        args = self.problem.args if which is None else rows(self.problem.args, which)
        dims = tuple(0 if isinstance(a, Tensor) else None for a in args)
        chains = torch.func.vmap(self.one_chain, in_dims=(0, None))
        return torch.func.vmap(chains, in_dims=(0, dims))(position, args)

    def gradient(
        self, position: Tensor, inverse_temperature: Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same with the gradient of the tempered sum, under vmap."""
        return with_gradient(lambda leaf: self.vectorised(leaf, which), position, inverse_temperature)

    def looped(self, position: Tensor, which: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the same, chain after chain."""
        if self.groups is None:
            pairs = [self.one_chain(one, self.problem.args) for one in position]
        else:
            groups = range(self.groups) if which is None else which.tolist()
            pairs = [
                self.one_chain(one, rows(self.problem.args, group))
                for group, chains in zip(groups, position, strict=True)
                for one in chains
            ]
        prior, likelihood = zip(*pairs, strict=True)
        shape = position.shape[:-1]
        return torch.stack(prior).reshape(shape), torch.stack(likelihood).reshape(shape)

    def one_chain(self, position: Tensor, args: tuple) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood of one position ``(dim,)``."""
        trace, log_jacobian = self.run_at(position, args)
        with pyro.validation_enabled(False):
            trace.compute_log_prob()
        prior = log_jacobian if self.jacobian else torch.zeros_like(log_jacobian)
        sites = latent_sites(trace)
        if set(sites) != set(self.change.shapes):
            odd = min(set(sites) ^ set(self.change.shapes))
            raise ValueError(
                f"site {odd!r} is in some runs of the model only; expected the same sites in all"
            )
        for name in sites:
            prior = prior + trace.nodes[name]["log_prob_sum"]
        likelihood = position.new_zeros(())
        for name in observed_sites(trace):
            likelihood = likelihood + trace.nodes[name]["log_prob_sum"]
        return prior, likelihood

    def run_at(self, position: Tensor, args: tuple) -> tuple[Trace, Tensor]:
        """Return the model's trace at one position ``(dim,)``, and the log Jacobian there."""
        placed = AtPosition(self.change, position)
        return run_unvalidated(placed(self.problem.model), args, self.problem.kwargs), placed.log_jacobian
