r"""Between a flat, unconstrained position and the values of a model's latent sites.

A latent with support S is written :math:`x = T(q)` with T from all real numbers onto S. Where S depends on another
latent (``x ~ Uniform(0, 1)``, ``y ~ Uniform(0, x)``) there is no T until x is known: such a site gets its T from the
law that the model gives it in the very run that is scored, site after site, as NumPyro does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions.transforms import Transform

from posterior_inpainting.inference.density.supports import is_identity, same_support, transform_of
from posterior_inpainting.inference.density.tracing import latent_sites

__all__ = ["AtPosition", "ChangeOfVariables"]


class ChangeOfVariables:
    """The latent sites of one model, where a position holds each, and the transforms that do not move.

    Parameters
    ----------
    traces
        Runs of the model; the first gives names, shapes and types. A site whose support differs between runs is in
        ``moving``.

    Attributes
    ----------
    shapes
        Site -> its shape in unconstrained space, in the order in which a position holds them.
    transforms
        Site -> transform onto its support, of the sites whose support is always the same.
    moving
        Names of the other sites.
    like
        An empty tensor of the positions' type, on their device: the widest type of any site.

    Raises
    ------
    ValueError
        For no latent site, a discrete one, latents on several devices, or a site that some runs do not have.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro import poutine
    >>> def model():
    ...     pyro.sample("y", dist.Uniform(0.0, pyro.sample("x", dist.LogNormal(0.0, 1.0))))
    >>> change = ChangeOfVariables([poutine.trace(model).get_trace() for _ in range(3)])
    >>> list(change.transforms), change.moving
    (['x'], ['y'])
    """

    def __init__(self, traces: list[Trace]):
        self.shapes: dict[str, torch.Size] = {}
        self.transforms: dict[str, Transform] = {}
        self.moving: list[str] = []
        self._like: dict[str, Tensor] = {}
        for name in latent_sites(traces[0]):
            law, value = traces[0].nodes[name]["fn"], traces[0].nodes[name]["value"]
            if law.support.is_discrete:
                raise ValueError(f"site {name!r} is discrete; these methods need continuous latents")
            missing = [trace for trace in traces if name not in trace.nodes]
            if missing:
                raise ValueError(
                    f"site {name!r} is in some runs of the model only; expected the same sites in all"
                )
            transform = transform_of(law)
            if all(same_support(law.support, trace.nodes[name]["fn"].support) for trace in traces[1:]):
                self.transforms[name] = transform
            else:
                self.moving.append(name)
            self.shapes[name] = transform.inv(value).shape
            self._like[name] = value.new_empty(0)
        if not self.shapes:
            raise ValueError("the model has no latent site to draw")
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.dim = sum(self.sizes)
        self.like = self._widest()
        self._is_mixed = any(like.dtype != self.like.dtype for like in self._like.values())

    def _widest(self) -> Tensor:
        devices = {like.device: name for name, like in self._like.items()}
        if len(devices) > 1:
            (first, one), (second, other), *_ = devices.items()
            raise ValueError(
                f"site {one!r} is on {first}, {other!r} on {second}; expected one device for all latents"
            )
        return torch.cat(list(self._like.values()))

    def split(self, position: Tensor) -> dict[str, Tensor]:
        """Return site -> ``(..., *shape)``, still unconstrained, of positions ``(..., dim)``."""
        pieces = {
            name: piece.reshape(position.shape[:-1] + shape)
            for (name, shape), piece in zip(
                self.shapes.items(), position.split(self.sizes, dim=-1), strict=True
            )
        }
        return (
            {name: piece.to(self._like[name].dtype) for name, piece in pieces.items()}
            if self._is_mixed
            else pieces
        )

    def join(self, pieces: Mapping[str, Tensor], batch: int = 0) -> Tensor:
        """Return positions ``(*batch, dim)`` of unconstrained pieces with ``batch`` leading dimensions."""
        flat = [pieces[name].reshape(*pieces[name].shape[:batch], -1) for name in self.shapes]
        return torch.cat(flat, -1).to(self.like)

    def constrain(self, pieces: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the values of unconstrained pieces, if no support moves."""
        return {name: self.transforms[name](piece) for name, piece in pieces.items()}

    def unconstrain(self, latents: Mapping[str, Tensor], batch: int = 0) -> Tensor:
        """Return positions ``(*batch, dim)`` of values, if no support moves."""
        return self.join({name: t.inv(latents[name]) for name, t in self.transforms.items()}, batch)

    def unconstrain_trace(self, trace: Trace) -> Tensor:
        """Return the position ``(dim,)`` of the values in a run of the model."""
        nodes, fixed = trace.nodes, self.transforms
        transforms = {n: fixed[n] if n in fixed else transform_of(nodes[n]["fn"]) for n in self.shapes}
        return self.join(
            {name: transform.inv(nodes[name]["value"]) for name, transform in transforms.items()}
        )


class AtPosition(Messenger):
    r"""Give a model's latent sites the values of a position, each on the support that it has in this run.

    Parameters
    ----------
    change
        Of the model.
    position
        ``(dim,)``.

    Attributes
    ----------
    log_jacobian
        :math:`\log |\det T'(q)|`, of the sites that were met so far.
    """

    def __init__(self, change: ChangeOfVariables, position: Tensor):
        super().__init__()
        self._fixed = change.transforms
        self._pieces = change.split(position)
        self.log_jacobian = position.new_zeros(())

    def _pyro_sample(self, msg: Any) -> None:
        piece = self._pieces.get(msg["name"])
        if piece is None:
            return
        fixed = self._fixed.get(msg["name"])
        transform = transform_of(msg["fn"]) if fixed is None else fixed
        msg["value"] = transform(piece)
        if not is_identity(transform):
            self.log_jacobian = self.log_jacobian + transform.log_abs_det_jacobian(piece, msg["value"]).sum()
