r"""Evidences from posterior draws, those of several posteriors over the same latents together: bridge sampling.

Meng & Wong 1996, *Simulating Ratios of Normalizing Constants via a Simple Identity*, in its form for several
densities (Shirts & Chodera 2008, *Statistically Optimal Analysis of Samples from Multiple Equilibrium States*). The
draws of all posteriors serve each; a Gaussian fitted to them is the one whose constant is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["bridge", "evidences"]


def evidences(
    potentials: Sequence[Callable], z: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the log evidence of several posteriors over z for each image, and its error from halves of the chains.

    Parameters
    ----------
    potentials
        From ``(image, point, latent)`` to log prior and log likelihood ``(image, point)``, one for each posterior.
    z
        Draws ``(image, posterior, chain, draw, latent)``. The first half of each chain fits the Gaussian, the second
        is bridged, so that no draw is used twice.
    count
        Draws from the Gaussian.
    generator
        Of those.

    Returns
    -------
    Tensor, Tensor
        Both ``(image, posterior)``. The error is that of differences between posteriors, which is all that their
        weights see.
    """
    early, late = z.chunk(2, dim=3) if z.shape[3] > 1 else (z, z)
    fitted = early.flatten(1, 3).double()
    mean, centred = fitted.mean(1), fitted - fitted.mean(1, keepdim=True)
    latent = z.shape[-1]
    covariance = centred.mT @ centred / fitted.shape[1]
    ridge = 1e-4 * torch.eye(
        latent, dtype=torch.double, device=z.device
    )  # of N(0, I), which every posterior is narrower than
    law = torch.distributions.MultivariateNormal(mean, covariance + ridge)
    noise = torch.randn(len(z), count, latent, generator=generator, dtype=torch.double, device=z.device)
    drawn = mean.unsqueeze(1) + noise @ law.scale_tril.mT
    networks, chains = z.shape[1], z.shape[2]
    halves = [late[:, :, part] for part in torch.arange(chains, device=z.device).tensor_split(2) if len(part)]
    points = torch.cat([*(half.flatten(1, 3).double() for half in halves), drawn], 1)
    with torch.no_grad():
        densities = [sum(potential(points.to(z))).double() for potential in potentials]
        density = torch.stack([law.log_prob(points.transpose(0, 1)).T, *densities], 1)
    sizes = [half[0, 0].numel() // latent for half in halves]

    def estimate(some: Iterable[int]) -> Tensor:
        """Return the bridge's estimate from the draws of some networks."""
        starts = [networks * sum(sizes[:k]) for k in range(len(sizes) + 1)]
        spans = [torch.arange(starts[i], starts[i + 1], device=z.device) for i in some]
        where = torch.cat([*spans, torch.arange(starts[-1], points.shape[1], device=z.device)])
        each = sum(sizes[i] for i in some)
        return bridge(density[:, :, where], torch.tensor([count] + [each] * networks, device=z.device))

    whole = estimate(range(len(halves)))
    if len(halves) < 2:
        return whole, torch.full_like(whole, math.nan)
    first, second = (e - e.mean(1, keepdim=True) for e in (estimate([0]), estimate([1])))
    return whole, 0.5 * (first - second).abs()


def bridge(log_density: Tensor, counts: Tensor, iterations: int = 200) -> Tensor:
    r"""Return the log normalising constants of several densities from draws of each of them.

    .. math:: Z_k = \sum_n \frac{p_k(x_n)}{\sum_j N_j\, p_j(x_n) / Z_j}, \qquad Z_0 = 1,

    solved by iteration (Shirts & Chodera 2008, equation 11).

    Parameters
    ----------
    log_density
        ``(*batch, density, point)``, unnormalised but for the first: every density at every point.
    counts
        ``(density,)``: how many of the points come from each density, all above 0; their order is of no account.

    Returns
    -------
    Tensor
        ``(*batch, density - 1)``: those of all but the first.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(2, 4000, generator=generator).double() + torch.tensor([[0.0], [1.0]])
    >>> x = x.flatten()
    >>> first = torch.distributions.Normal(0.0, 1.0).log_prob(x)
    >>> found = bridge(torch.stack([first, -0.5 * (x - 1) ** 2]), torch.tensor([4000, 4000]))
    >>> abs(float(found[0]) - 0.5 * math.log(2 * math.pi)) < 0.05
    True
    """
    log_count = counts.to(log_density).log()
    constants = log_density.new_zeros(log_density.shape[:-1])
    for _ in range(iterations):
        mixture = (log_density + (log_count - constants).unsqueeze(-1)).logsumexp(-2)
        updated = (log_density - mixture.unsqueeze(-2)).logsumexp(-1)
        updated = updated - updated[..., :1]
        if float((updated - constants).abs().max()) < 1e-6:
            constants = updated
            break
        constants = updated
    return constants[..., 1:]
