r"""The posterior density as samplers want it: flat, unconstrained, for all chains at once.

Any Pyro model with continuous latents becomes a function of a batch of positions
:math:`q \in R^{\mathrm{chain} \times \mathrm{dim}}` to the log prior (with the Jacobian of the change to
unconstrained space) and the log likelihood, apart from each other, so that tempering can weigh them:

.. math:: \log p_\beta(q) = \log p(T(q)) + \log |\det T'(q)| + \beta \log p(\tilde x \mid T(q)).

Three routes, the first that applies: the model's own closed form (``log_densities``), ``torch.func.vmap``
over Pyro's trace, and a loop over chains where vmap cannot go. A chain at whose position the trace fails numerically
has density zero there, and the others go on.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.numerical_failures import Tolerant, or_else
from posterior_inpainting.inference.density.replayed_density import ReplayedDensity
from posterior_inpainting.inference.density.structure_of_model import read_structure, run_group
from posterior_inpainting.inference.density.supports import is_identity
from posterior_inpainting.inference.density.traced_density import (
    TracedDensity,
    over_rows,
    rows,
    slow_but_right,
    with_gradient,
)
from posterior_inpainting.inference.density.tracing import deterministic_sites, observed_sites
from posterior_inpainting.models.abilities import JointDensity
from posterior_inpainting.models.base import ImageModel

__all__ = ["Potential"]


class Potential(Density):
    """Log density and gradient of a Pyro model's posterior for a batch of chains.

    Parameters
    ----------
    problem
        A Pyro model and its arguments; latents continuous, the same sites in every run. The support of one may
        depend on another: then the model is traced to go between positions and latents.
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
    route
        ``"closed form"``, ``"vmap"`` or ``"loop"``.

    Raises
    ------
    ValueError
        For a model without latent sites, with a discrete one, or with one whose prior cannot be drawn from; for
        latents on several devices; for supports that differ between groups.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
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
        self._change, trace = read_structure(problem, groups)
        self.shapes, self.sizes, self.dim = self._change.shapes, self._change.sizes, self._change.dim
        self.like = self._change.like
        self.transforms = self._change.transforms
        mean_image = {"completion"} if isinstance(problem.model, ImageModel) else set()
        self._deterministic = [name for name in deterministic_sites(trace) if name not in mean_image]
        self._curved = [n for n, t in self.transforms.items() if jacobian and not is_identity(t)]
        self._traced = TracedDensity(problem, groups, self._change, jacobian)
        self._closed: JointDensity | None = None
        if closed_form and not self._change.moving and observed_sites(trace):
            self._closed = self._offered_density()
        # A gradient by hand is that of one unconstrained site, the code.
        is_one = len(self.shapes) == 1 and all(is_identity(t) for t in self.transforms.values())
        self._has_gradient = self._closed is not None and self._closed.has_gradient and is_one
        self._replayed: ReplayedDensity | None = None
        self._tolerant: Tolerant | None = None
        self._density, self.route = self._choose_route()

    def __call__(self, position: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood, both ``(..., chain)``.

        Parameters
        ----------
        position
            ``(..., chain, dim)``; with groups ``(group, chain, dim)``.
        which
            Indices of the groups that ``position`` holds; all of them by default.
        """
        shape = position.shape[:-1]
        if self.groups is None:
            position, which = position.reshape(-1, self.dim), None
        replayed = None
        if self._replayed is not None and not position.requires_grad:
            replayed = self._replayed(position, which)
        prior, likelihood = self._density(position, which) if replayed is None else replayed
        return prior.reshape(shape), likelihood.reshape(shape)

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
        if self._closed is not None and self._has_gradient:
            images = which if self.groups is not None else None  # else `which` are temperatures of one image
            pieces = self._change.split(position.detach())
            log_prior, log_likelihood, gradient = self._closed.gradient(pieces, inverse_temperature, images)
            return log_prior, log_likelihood, gradient.reshape(position.shape)
        if self._replayed is not None:
            replayed = self._replayed.gradient(position, inverse_temperature, which)
            if replayed is not None:
                return replayed
        return with_gradient(lambda leaf: self(leaf, which), position, inverse_temperature)

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return latents in the model's own space, site -> ``(..., *shape)``, of positions ``(..., dim)``."""
        if not self._change.moving:
            return self._change.constrain(self._change.split(position))

        def latents(one: Tensor) -> dict[str, Tensor]:
            """Return the latents of one chain."""
            args = self.problem.args if self.groups is None else rows(self.problem.args, 0)
            nodes = self._traced.run_at(one, args)[0].nodes
            return {name: nodes[name]["value"] for name in self.shapes}

        found = self._by_row(latents, (position.reshape(-1, self.dim),))
        return {name: v.reshape(position.shape[:-1] + v.shape[1:]) for name, v in found.items()}

    def unconstrain(self, latents: Mapping[str, Tensor], batch: int = 0) -> Tensor:
        """Return positions ``(*batch, dim)`` of latents with ``batch`` leading dimensions."""
        if not self._change.moving:
            return self._change.unconstrain(latents, batch)
        leading = latents[next(iter(self.shapes))].shape[:batch]
        flat = {name: latents[name].reshape(-1, *latents[name].shape[batch:]) for name in self.shapes}

        def position(one: Mapping[str, Tensor]) -> dict[str, Tensor]:
            """Return the position of given latents."""
            return {
                "position": self._change.unconstrain_trace(run_group(self.problem, self.groups, given=one))
            }

        return self._by_row(position, (flat,))["position"].reshape(*leading, self.dim)

    def draw_prior(self, count: int) -> Tensor:
        """Return positions ``(count, dim)`` drawn from the prior with torch's global generator."""

        def position(_: Tensor) -> dict[str, Tensor]:
            """Return the position of a draw of the model."""
            return {"position": self._change.unconstrain_trace(run_group(self.problem, self.groups))}

        with torch.no_grad():
            together = or_else(None, lambda: self._by_row(position, (self.like.new_zeros(count),)))
            if together is not None:
                return together["position"]
            # One by one: where a draw fails, the start is hopeless and drawn again.
            lost = self.like.new_full((self.dim,), torch.nan)
            return torch.stack([or_else(lost, lambda: position(lost)["position"]) for _ in range(count)])

    @property
    def failures(self) -> int:
        """How many positions failed so far."""
        return 0 if self._tolerant is None else self._tolerant.total

    @property
    def may_fail(self) -> bool:
        """Whether the density is traced: a closed form has a number, or none, for each chain by itself."""
        return self._tolerant is not None

    def take_failures(self, groups: int, chains: int) -> Tensor:
        """Return how often each chain failed since this was last asked; of tempered replicas all are their chain's."""
        found = None if self._tolerant is None else self._tolerant.take(groups, chains)
        return super().take_failures(groups, chains) if found is None else found

    def deterministics(self, position: Tensor) -> dict[str, Tensor]:
        """Return the values of the model's deterministic sites, name -> ``(..., *event)``.

        An ``ImageModel``'s ``completion`` is left out, which is kept in its own way.

        Parameters
        ----------
        position
            ``(..., dim)``; with groups ``(group, ..., dim)``.

        Examples
        --------
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.deterministic("cube", pyro.sample("x", dist.Normal(0.0, 1.0)) ** 3)
        >>> Potential(Problem(model)).deterministics(torch.tensor([[1.0], [2.0]]))
        {'cube': tensor([1., 8.])}
        """
        if not self._deterministic:
            return {}

        def values(one: Tensor, args: tuple) -> dict[str, Tensor]:
            """Return the deterministic sites of one chain."""
            nodes = self._traced.run_at(one, args)[0].nodes
            return {name: nodes[name]["value"] for name in self._deterministic}

        found = []
        for i, chains in enumerate(position.unsqueeze(0) if self.groups is None else position):
            args = self.problem.args if self.groups is None else rows(self.problem.args, i)
            found.append(self._by_row(functools.partial(values, args=args), (chains.reshape(-1, self.dim),)))
        joined = {name: torch.cat([one[name] for one in found]) for name in self._deterministic}
        return {name: v.reshape(position.shape[:-1] + v.shape[1:]) for name, v in joined.items()}

    def _by_row(self, one: Callable[..., dict[str, Tensor]], batch: tuple) -> dict[str, Tensor]:
        return over_rows(one, batch, vectorised=self.route != "loop")

    def _offered_density(self) -> JointDensity | None:
        # Someone else's Pyro model has other arguments than the default ability knows.
        abilities, args = self.problem.abilities, self.problem.args
        return (
            abilities.log_densities(*args, **self.problem.kwargs) if abilities is self.problem.model else None
        )

    def _choose_route(self) -> tuple[Callable, str]:
        if self._closed is not None:
            return functools.partial(self._closed_form, self._closed), "closed form"
        zeros = self.like.new_zeros(self.groups or 1, 2, self.dim)
        try:
            with slow_but_right():
                self._traced.vectorised(zeros if self.groups is not None else zeros[0], None)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            warnings.warn(
                f"the model cannot be vectorised ({reason}); chains are evaluated one after another",
                stacklevel=4,
            )
            self._tolerant = Tolerant(self._traced.looped, self.groups)
            return self._tolerant, "loop"
        self._tolerant = Tolerant(self._traced.vectorised, self.groups)
        self._replayed = ReplayedDensity(self._traced)
        return self._tolerant, "vmap"

    def _closed_form(
        self, density: JointDensity, position: Tensor, which: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        pieces = self._change.split(position)
        latents = self._change.constrain(pieces)
        log_prior, log_likelihood = density(latents, which)
        for name in self._curved:
            jacobian = self.transforms[name].log_abs_det_jacobian(pieces[name], latents[name])
            log_prior = log_prior + jacobian.reshape(*position.shape[:-1], -1).sum(-1)
        return log_prior, log_likelihood
