r"""Mixtures of Student's t as proposals: fitted to draws, with a wide component that reaches what they miss.

.. math:: g(q) = \tfrac1{10}\, t_{10}(q; m_0, S_0) + \tfrac9{10} \sum_k w_k\, t_{10}(q; m_k, S_k),

where the wide component has the place and scale of the prior, and the others are those of a Gaussian mixture whose
number of components, and whether they share a covariance, the Bayesian information criterion chooses. Tails are heavy
so that weights p / g stay bounded where components are too narrow (Hesterberg 1995, *Weighted Average Importance
Sampling and Defensive Mixture Distributions*).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

__all__ = ["MixtureOfT", "fitted", "wide"]

#: Degrees of freedom, and the share of the wide component.
FREEDOM, SHARE = 10, 0.1
#: Most components, points for each parameter that a component has of its own, and the least share of one.
_MOST, _POINTS, _LEAST = 8, 1.0, 0.02
#: Points that are fitted: more add seconds and nothing else.
_FITTED = 2000


@dataclass(frozen=True)
class MixtureOfT:
    """A mixture for each group; components that a group does not have are without weight.

    Parameters
    ----------
    log_weight
        ``(group, component)``.
    mean
        ``(group, component, dim)``.
    root
        Lower triangular roots of the scale matrices, ``(group, component, dim, dim)``.

    Examples
    --------
    >>> one = MixtureOfT(torch.zeros(1, 1), torch.zeros(1, 1, 2), torch.eye(2).reshape(1, 1, 2, 2))
    >>> draws = one.draw(1000, Generator().manual_seed(0))
    >>> tuple(draws.shape), tuple(one.log_density(draws).shape)
    ((1, 1000, 2), (1, 1000))
    """

    log_weight: Tensor
    mean: Tensor
    root: Tensor

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Return draws ``(group, count, dim)``."""
        device, like = self.mean.device, self.mean
        shape = len(like), count
        which = torch.multinomial(self.log_weight.exp(), count, replacement=True, generator=generator)
        noise = torch.randn(*shape, like.shape[-1], generator=generator, device=device).to(like)
        chi = torch.randn(*shape, FREEDOM, generator=generator, device=device).to(like).square().mean(-1)
        place = like.gather(1, which.unsqueeze(-1).expand(*shape, like.shape[-1]))
        scaled = torch.zeros_like(place)
        for component in range(like.shape[1]):  # a root for each draw would take draws x dim x dim
            mine = (which == component).unsqueeze(-1)
            scaled = torch.where(mine, noise @ self.root[:, component].mT, scaled)
        return place + scaled / chi.sqrt().unsqueeze(-1)

    def log_density(self, position: Tensor) -> Tensor:
        """Return the log density ``(group, point)`` of positions ``(group, point, dim)``."""
        dim = position.shape[-1]
        constant = (
            math.lgamma((FREEDOM + dim) / 2)
            - math.lgamma(FREEDOM / 2)
            - 0.5 * dim * math.log(FREEDOM * math.pi)
        )
        centred = position.unsqueeze(1) - self.mean.unsqueeze(2)
        white = torch.linalg.solve_triangular(self.root, centred.mT, upper=False)
        distance = white.square().sum(-2)
        volume = self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        each = constant - volume - 0.5 * (FREEDOM + dim) * torch.log1p(distance / FREEDOM)
        return (each + self.log_weight.unsqueeze(-1)).logsumexp(1)


def wide(prior: Tensor) -> MixtureOfT:
    """Return the wide component, from draws of the prior ``(group, draw, dim)``: by quartiles, whatever their tails.

    >>> prior = torch.randn(1, 4000, 2, generator=Generator().manual_seed(0)) * torch.tensor([1.0, 10.0])
    >>> [round(float(one)) for one in wide(prior).root[0, 0].diagonal()]
    [1, 10]
    """
    low, middle, high = (prior.nanquantile(share, dim=1) for share in (0.25, 0.5, 0.75))
    scale = ((high - low) / 1.349).clamp(min=1e-6)
    return MixtureOfT(
        scale.new_zeros(len(scale), 1), middle.unsqueeze(1), torch.diag_embed(scale).unsqueeze(1)
    )


def fitted(points: Tensor, wide: MixtureOfT) -> MixtureOfT:
    """Return the mixture that fits points ``(group, point, dim)``, with the wide component as its first.

    Examples
    --------
    >>> generator = Generator().manual_seed(0)
    >>> points = torch.randn(1, 400, 2, generator=generator)
    >>> points[:, 200:] += 10
    >>> both = fitted(points, wide(torch.randn(1, 400, 2, generator=generator)))
    >>> [round(float(one), 2) for one in both.log_weight.exp()[0]], both.mean[0, 1:].round().tolist()
    ([0.1, 0.45, 0.45], [[0.0, 0.0], [10.0, 10.0]])
    """
    # In units of the prior's scale, in which the clusters that begin the fit are looked for.
    scales = wide.root[:, 0].diagonal(dim1=-2, dim2=-1).cpu().numpy().astype(float)
    found = [
        _fitted(group.detach().cpu().numpy().astype(float), scale)
        for group, scale in zip(points, scales, strict=True)
    ]
    most = max(len(weights) for weights, _, _ in found)
    dim = points.shape[-1]
    log_weight = wide.log_weight.new_full((len(found), 1 + most), -torch.inf)
    mean = wide.mean[:, :1].repeat(1, 1 + most, 1)
    root = wide.root[:, :1].repeat(1, 1 + most, 1, 1)
    log_weight[:, 0] = math.log(SHARE)
    for group, (weights, means, covariances) in enumerate(found):
        order = np.argsort(means[:, 0])  # the order in which they are found is of no account
        count = len(order)
        log_weight[group, 1 : 1 + count] = torch.as_tensor(np.log((1 - SHARE) * weights[order]))
        mean[group, 1 : 1 + count] = torch.as_tensor(means[order])
        jitter = 1e-9 * np.trace(covariances, axis1=1, axis2=2)[:, None, None] / dim * np.eye(dim)
        roots = np.linalg.cholesky(covariances[order] + jitter[order])
        root[group, 1 : 1 + count] = torch.as_tensor(roots)
    return MixtureOfT(log_weight, mean, root)


def _fitted(points: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights, means and covariances of the Gaussian mixture that the criterion prefers."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = points[np.isfinite(points).all(1)][:: max(1, len(points) // _FITTED)]
    centre, dim = points.mean(0), points.shape[1]
    white = (points - centre) / scale
    best, least = None, math.inf
    for kind, parameters in (("full", dim * (dim + 3) / 2), ("tied", dim)):
        for count in range(1 if kind == "full" else 2, _MOST + 1):
            own = count * parameters + (dim * (dim + 1) / 2 if kind == "tied" else 0)
            if count > 1 and len(white) * dim < _POINTS * own:
                break
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                one = GaussianMixture(count, covariance_type=kind, reg_covar=1e-6, random_state=0).fit(white)
            criterion = float(one.bic(white))
            if criterion < least:
                best, least = one, criterion
            elif count > 2:
                break
    assert best is not None
    covariances = np.broadcast_to(best.covariances_, (best.n_components, dim, dim))
    weights = np.maximum(best.weights_, _LEAST)
    return (
        weights / weights.sum(),
        best.means_ * scale + centre,
        covariances * scale[:, None] * scale,
    )
