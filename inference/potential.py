r"""The posterior density as samplers want it: flat, unconstrained, for all chains at once.

Any Pyro model with continuous latents becomes a function of a batch of positions
:math:`q \in R^{\mathrm{chain} \times \mathrm{dim}}` to the log prior (with the Jacobian of the change to
unconstrained space) and the log likelihood, apart from each other, so that tempering can weigh them:

.. math:: \log p_\beta(q) = \log p(T(q)) + \log |\det T'(q)| + \beta \log p(\tilde x \mid T(q)).

Three routes, the first that applies: the model's own closed form (``log_densities``), ``torch.func.vmap``
over Pyro's trace, and a loop over chains where vmap cannot go.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import ComposeTransform, IndependentTransform, Transform

from posterior_inpainting.inference.methods import Problem
from posterior_inpainting.inference.tracing import latent_sites, observed_sites

__all__ = ["Potential"]


class Potential:
    """Log density and gradient of a problem's posterior for a batch of chains.

    Parameters
    ----------
    problem
        A Pyro model and its arguments; latents continuous, structure fixed.
    closed_form
        Whether to use the model's ``log_densities`` where it has one.

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

    def __init__(self, problem: Problem, closed_form: bool = True):
        self.problem = problem
        self.gradients = 0
        with torch.no_grad(), poutine.block():
            trace = poutine.trace(problem.model).get_trace(*problem.args, **problem.kwargs)
        self.transforms: dict[str, Transform] = {}
        self.shapes: dict[str, torch.Size] = {}
        for name in latent_sites(trace):
            site = trace.nodes[name]
            if site["fn"].support.is_discrete:
                raise ValueError(f"site {name!r} is discrete; these methods need continuous latents")
            self.transforms[name] = biject_to(site["fn"].support)
            unconstrained = self.transforms[name].inv(site["value"])
            self.shapes[name] = unconstrained.shape
            self._like = unconstrained
        if not self.shapes:
            raise ValueError("the model has no latent site to draw")
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.dim = sum(self.sizes)
        self._density, self.route = self._route(closed_form)

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, both ``(chain,)``, at positions ``(chain, dim)``."""
        return self._density(position)

    def gradient(self, position: Tensor, inverse_temperature: float | Tensor = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood and the gradient ``(chain, dim)`` of their tempered sum.

        Parameters
        ----------
        position
            ``(chain, dim)``.
        inverse_temperature
            Weight of the log likelihood, one number or ``(chain,)``.
        """
        self.gradients += len(position)
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            log_prior, log_likelihood = self._density(position)
            total = (log_prior + inverse_temperature * log_likelihood).sum()
            (gradient,) = torch.autograd.grad(total, position)
        return log_prior.detach(), log_likelihood.detach(), gradient

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return latents in the model's own space, site -> ``(..., *shape)``, of positions ``(..., dim)``."""
        return {
            name: self.transforms[name](piece) for name, piece in self._split(position).items()
        }

    def draw_prior(self, chains: int) -> Tensor:
        """Return positions ``(chain, dim)`` drawn from the prior with torch's global generator."""
        rows = []
        with torch.no_grad(), poutine.block():
            for _ in range(chains):
                trace = poutine.trace(self.problem.model).get_trace(*self.problem.args, **self.problem.kwargs)
                pieces = [self.transforms[n].inv(trace.nodes[n]["value"]).reshape(-1) for n in self.shapes]
                rows.append(torch.cat(pieces))
        return torch.stack(rows)

    def _route(self, closed_form: bool) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], str]:
        offered = getattr(self.problem.model, "log_densities", None) if closed_form else None
        density = offered(*self.problem.args, **self.problem.kwargs) if offered is not None else None
        if density is not None:
            return self._closed_form(density), "closed form"
        batched = torch.func.vmap(self._one_chain, randomness="error")
        try:
            batched(self._like.new_zeros(2, self.dim))
        except (RuntimeError, ValueError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0][:120]
            warnings.warn(
                f"the model cannot be vectorised ({reason}); chains are evaluated one after another",
                stacklevel=4,
            )
            return self._loop, "loop"
        return batched, "vmap"

    def _closed_form(self, density: Callable) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        curved = [name for name, transform in self.transforms.items() if not _is_identity(transform)]

        def densities(position: Tensor) -> tuple[Tensor, Tensor]:
            pieces = self._split(position)
            latents = {name: self.transforms[name](piece) for name, piece in pieces.items()}
            log_prior, log_likelihood = density(latents)
            for name in curved:
                jacobian = self.transforms[name].log_abs_det_jacobian(pieces[name], latents[name])
                log_prior = log_prior + jacobian.reshape(len(position), -1).sum(-1)
            return log_prior, log_likelihood

        return densities

    def _loop(self, position: Tensor) -> tuple[Tensor, Tensor]:
        prior, likelihood = zip(*(self._one_chain(one) for one in position), strict=True)
        return torch.stack(prior), torch.stack(likelihood)

    def _one_chain(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Log prior with Jacobian and log likelihood of one position ``(dim,)``, through Pyro's trace."""
        pieces = self._split(position)
        latents = {name: self.transforms[name](piece) for name, piece in pieces.items()}
        # Pyro's validation branches on values, which vmap does not allow.
        with pyro.validation_enabled(False), poutine.block():
            conditioned = poutine.condition(self.problem.model, data=latents)
            trace = poutine.trace(conditioned).get_trace(*self.problem.args, **self.problem.kwargs)
            trace.compute_log_prob()
        zero = position.new_zeros(())
        prior = zero
        for name, piece in pieces.items():
            prior = prior + trace.nodes[name]["log_prob_sum"]
            prior = prior + self.transforms[name].log_abs_det_jacobian(piece, latents[name]).sum()
        likelihood = sum((trace.nodes[name]["log_prob_sum"] for name in observed_sites(trace) if name not in latents), zero)
        return prior, likelihood

    def _split(self, position: Tensor) -> dict[str, Tensor]:
        pieces = position.split(self.sizes, dim=-1)
        return {
            name: piece.reshape(*position.shape[:-1], *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


def _is_identity(transform: Transform) -> bool:
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, ComposeTransform) and not transform.parts
