r"""The posterior density as samplers want it: flat, unconstrained, for all chains at once.

Any Pyro model with continuous latents becomes a function of a batch of positions
:math:`q \in R^{\mathrm{chain} \times \mathrm{dim}}` to the log prior (with the Jacobian of the change to
unconstrained space) and the log likelihood, apart from each other, so that tempering can weigh them:

.. math:: \log p_\beta(q) = \log p(T(q)) + \log |\det T'(q)| + \beta \log p(\tilde x \mid T(q)).

Three routes, the first that applies: the model's own closed form (``log_densities``), ``torch.func.vmap``
over Pyro's trace, and a loop over chains where vmap cannot go.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import ComposeTransform, IndependentTransform, Transform

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.budget import spend
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.tracing import latent_sites, observed_sites

__all__ = ["Potential"]


class Potential(Density):
    """Log density and gradient of a problem's posterior for a batch of chains.

    Parameters
    ----------
    problem
        A Pyro model and its arguments; latents continuous, structure fixed.
    groups
        Number of observations, if every tensor among the arguments carries them as its first dimension:
        then there are that many posteriors, evaluated together. ``None`` for a single one.
    closed_form
        Whether to use the model's ``log_densities`` where it has one.
    jacobian
        Whether the log prior counts the change to unconstrained space: for draws it must, for an optimum in
        the model's own space it must not.

    Attributes
    ----------
    dim
        Length of a position.
    route
        ``"closed form"``, ``"vmap"`` or ``"loop"``.
    gradients
        Gradient evaluations so far, all chains counted.

    Raises
    ------
    ValueError
        For a model without latent sites, or with a discrete one.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> def model():
    ...     scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(0.0, scale), obs=torch.tensor(1.0))
    >>> potential = Potential(Problem(model))
    >>> log_prior, log_likelihood = potential(torch.zeros(5, potential.dim))
    >>> potential.dim, tuple(log_prior.shape), round(float(log_likelihood[0]), 4)
    (1, (5,), -1.4189)
    """

    def __init__(
        self,
        problem: Problem,
        *,
        groups: int | None = None,
        closed_form: bool = True,
        jacobian: bool = True,
    ):
        self.problem = problem
        self.groups = groups
        self.gradients = 0
        self._one = problem if groups is None else replace(problem, args=_rows(problem.args, 0))
        trace = self._trace(self._one)
        self.transforms: dict[str, Transform] = {}
        self.shapes: dict[str, torch.Size] = {}
        for name in latent_sites(trace):
            site = trace.nodes[name]
            if site["fn"].support.is_discrete:
                raise ValueError(f"site {name!r} is discrete; these methods need continuous latents")
            self.transforms[name] = biject_to(site["fn"].support)
            self._like = self.transforms[name].inv(site["value"])
            self.shapes[name] = self._like.shape
        if not self.shapes:
            raise ValueError("the model has no latent site to draw")
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.dim = sum(self.sizes)
        self._flat = all(_is_identity(transform) for transform in self.transforms.values())
        self._curved = [n for n, t in self.transforms.items() if jacobian and not _is_identity(t)]
        self._by_hand: Callable | None = None
        self._density, self.route = self._choose_route(closed_form)

    def __call__(self, position: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, both ``(..., chain)``.

        Parameters
        ----------
        position
            ``(..., chain, dim)``; with groups ``(group, chain, dim)``.
        which
            Indices of the groups that ``position`` holds; all of them by default.
        """
        if self.groups is not None:
            return self._density(position, which)
        prior, likelihood = self._density(position.reshape(-1, self.dim), None)
        return prior.reshape(position.shape[:-1]), likelihood.reshape(position.shape[:-1])

    def gradient(
        self, position: Tensor, inverse_temperature: float | Tensor = 1.0, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood and the gradient of their tempered sum, shaped as ``position``.

        Parameters
        ----------
        position, which
            As for a call.
        inverse_temperature
            Weight of the log likelihood, one number or ``(..., chain)``.
        """
        self.count(position[..., 0].numel())
        if self._by_hand is not None:
            images = which if self.groups is not None else None  # else `which` are temperatures of one image
            return self._by_hand(self._split(position.detach()), inverse_temperature, images)
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            log_prior, log_likelihood = self(position, which)
            total = (log_prior + inverse_temperature * log_likelihood).sum()
            (gradient,) = torch.autograd.grad(total, position)
        return log_prior.detach(), log_likelihood.detach(), gradient

    def count(self, gradients: int) -> None:
        """Count gradients that are about to be taken, and take them from the budget if there is one."""
        spend(gradients)
        self.gradients += gradients

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return latents in the model's own space, site -> ``(..., *shape)``, of positions ``(..., dim)``."""
        return {name: self.transforms[name](piece) for name, piece in self._split(position).items()}

    def keep(self, position: Tensor) -> dict[str, Tensor]:
        """Return what is kept of draws at positions ``(..., dim)``: the latents, or what the model says."""
        latents = self.constrain(position)
        kept = getattr(self.problem.model, "kept", None)
        return latents if kept is None else kept(latents)

    @property
    def like(self):
        return self._like

    def unconstrain(self, latents, batch=0):
        return torch.cat(
            [t.inv(latents[n]).reshape(*latents[n].shape[:batch], -1) for n, t in self.transforms.items()], -1
        )

    def draw_prior(self, count: int) -> Tensor:
        """Return positions ``(count, dim)`` drawn from the prior with torch's global generator."""

        def draw(_: Tensor) -> Tensor:
            nodes = self._trace(self._one).nodes
            return torch.cat([self.transforms[n].inv(nodes[n]["value"]).reshape(-1) for n in self.shapes])

        with torch.no_grad(), _slow_but_right():
            if self.route != "loop":
                with contextlib.suppress(RuntimeError):  # a law whose draws cannot be vectorised
                    return torch.func.vmap(draw, randomness="different")(torch.zeros(count))
            return torch.stack([draw(self._like) for _ in range(count)])

    def _choose_route(self, closed_form: bool) -> tuple[Callable, str]:
        offered = getattr(self.problem.model, "log_densities", None) if closed_form else None
        density = offered(*self.problem.args, **self.problem.kwargs) if offered is not None else None
        if density is not None:
            # A gradient by hand is that of one unconstrained site, the code.
            if len(self.shapes) == 1 and self._flat:
                self._by_hand = density.gradient if density.has_gradient else None
            return functools.partial(self._closed_form, density), "closed form"
        try:
            zeros = self._like.new_zeros(self.groups or 1, 2, self.dim)
            with _slow_but_right():
                self._vmap(zeros if self.groups is not None else zeros[0], None)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0][:120]
            warnings.warn(
                f"the model cannot be vectorised ({reason}); chains are evaluated one after another",
                stacklevel=4,
            )
            return self._loop, "loop"
        return self._vmap, "vmap"

    def _closed_form(
        self, density: Callable, position: Tensor, which: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        pieces = self._split(position)
        latents = {name: self.transforms[name](piece) for name, piece in pieces.items()}
        log_prior, log_likelihood = density(latents, which)
        for name in self._curved:
            jacobian = self.transforms[name].log_abs_det_jacobian(pieces[name], latents[name])
            log_prior = log_prior + jacobian.reshape(*position.shape[:-1], -1).sum(-1)
        return log_prior, log_likelihood

    def _vmap(self, position: Tensor, which: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.groups is None:
            return torch.func.vmap(self._one_chain, in_dims=(0, None))(position, self.problem.args)
        args = self.problem.args if which is None else _rows(self.problem.args, which)
        dims = tuple(0 if isinstance(a, Tensor) else None for a in args)
        chains = torch.func.vmap(self._one_chain, in_dims=(0, None))
        return torch.func.vmap(chains, in_dims=(0, dims))(position, args)

    def _loop(self, position: Tensor, which: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.groups is None:
            pairs = [self._one_chain(one, self.problem.args) for one in position]
        else:
            groups = range(self.groups) if which is None else which.tolist()
            pairs = [
                self._one_chain(one, _rows(self.problem.args, group))
                for group, chains in zip(groups, position, strict=True)
                for one in chains
            ]
        prior, likelihood = zip(*pairs, strict=True)
        shape = position.shape[:-1]
        return torch.stack(prior).reshape(shape), torch.stack(likelihood).reshape(shape)

    def _one_chain(self, position: Tensor, args: tuple) -> tuple[Tensor, Tensor]:
        """Log prior with Jacobian and log likelihood of one position ``(dim,)``, through Pyro's trace."""
        pieces = self._split(position)
        latents = {name: self.transforms[name](piece) for name, piece in pieces.items()}
        conditioned = poutine.condition(self.problem.model, data=latents)
        trace = self._trace(Problem(conditioned, args, self.problem.kwargs))
        with pyro.validation_enabled(False):
            trace.compute_log_prob()
        prior = likelihood = position.new_zeros(())
        for name, piece in pieces.items():
            prior = prior + trace.nodes[name]["log_prob_sum"]
            if name in self._curved:
                prior = prior + self.transforms[name].log_abs_det_jacobian(piece, latents[name]).sum()
        for name in observed_sites(trace):
            if name not in latents:
                likelihood = likelihood + trace.nodes[name]["log_prob_sum"]
        return prior, likelihood

    @staticmethod
    def _trace(problem: Problem) -> poutine.Trace:
        # Pyro's validation branches on values, which vmap does not allow.
        with pyro.validation_enabled(False), poutine.block():
            return poutine.trace(problem.model).get_trace(*problem.args, **problem.kwargs)

    def _split(self, position: Tensor) -> dict[str, Tensor]:
        pieces = position.split(self.sizes, dim=-1)
        return {
            name: piece.reshape(position.shape[:-1] + shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


def _rows(args: tuple, index) -> tuple:
    """Take the observations of some groups out of batched arguments."""
    return tuple(a[index] if isinstance(a, Tensor) else a for a in args)


@contextlib.contextmanager
def _slow_but_right():
    """Silence torch where it has no batched kernel for an operation and loops by itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        yield


def _is_identity(transform: Transform) -> bool:
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, ComposeTransform) and not transform.parts
