"""The same density in coordinates in which one site is nearly white."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from posterior_inpainting.inference.density.density import Density

__all__ = ["Whitened"]


class Whitened(Density):
    r"""A density over u and the other sites, where the site z that comes first is :math:`z = m + L u`.

    m and :math:`L L^\top` are mean and covariance of draws of z. The log prior is that of z, without the constant log
    determinant of L, which no sampler sees.

    Parameters
    ----------
    density
        Over z and the other sites, with groups.
    site
        Name of z.
    draws
        ``(group, draw, latent)``.

    Raises
    ------
    ValueError
        If the site is not the first of the density's.
    """

    def __init__(self, density: Density, site: str, draws: Tensor):
        if next(iter(density.shapes)) != site:
            raise ValueError(f"{site!r} is not the first site; there are {', '.join(density.shapes)}")
        self.density, self.latent = density, draws.shape[-1]
        self.problem, self.groups, self.route = density.problem, density.groups, density.route
        self.dim, self.shapes, self.like = density.dim, density.shapes, density.like
        self.mean = draws.mean(1, keepdim=True)
        centred = draws - self.mean
        # Towards its diagonal by as much as draws are few: of full rank whatever the chains did.
        share = self.latent / (draws.shape[1] + self.latent)
        variance = torch.diag_embed(centred.square().mean(1))
        covariance = (1 - share) * centred.mT @ centred / draws.shape[1] + share * variance
        ridge = 1e-6 * torch.eye(self.latent, device=draws.device, dtype=draws.dtype)
        self.root = torch.linalg.cholesky(covariance + ridge)

    @property
    def gradients(self) -> int:  # type: ignore[override]
        """Evaluations of the plain density's gradients."""
        return self.density.gradients

    @gradients.setter
    def gradients(self, count: int) -> None:
        """Set that number, as a run that is taken up again does."""
        self.density.gradients = count

    def white(self, position: Tensor) -> Tensor:
        """Return positions in these coordinates, ``(group, chain, dim)``, of the plain density's."""
        code, rest = position[..., : self.latent], position[..., self.latent :]
        u = torch.linalg.solve_triangular(self.root, (code - self.mean).mT, upper=False).mT
        return torch.cat([u, rest], -1)

    def plain(self, position: Tensor, which: Tensor | None = None) -> Tensor:
        """Return the plain density's positions, ``(group, ..., dim)``."""
        mean, root = (part if which is None else part[which] for part in (self.mean, self.root))
        between = (1,) * (position.dim() - 3)
        mean = mean.reshape(len(mean), 1, *between, self.latent)
        root = root.reshape(len(root), *between, self.latent, self.latent)
        code = mean + position[..., : self.latent] @ root.mT
        return torch.cat([code, position[..., self.latent :]], -1)

    def __call__(self, position: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log prior and log likelihood there."""
        return self.density(self.plain(position, which), which)

    def gradient(
        self, position: Tensor, inverse_temperature: float | Tensor = 1.0, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log prior, log likelihood and the gradient in these coordinates."""
        plain = self.plain(position, which)
        log_prior, log_likelihood, slope = self.density.gradient(plain, inverse_temperature, which)
        root = self.root if which is None else self.root[which]
        return (
            log_prior,
            log_likelihood,
            torch.cat([slope[..., : self.latent] @ root, slope[..., self.latent :]], -1),
        )

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return latents in the model's own space."""
        return self.density.constrain(self.plain(position))

    def unconstrain(self, latents: Mapping[str, Tensor], batch: int = 0) -> Tensor:
        """Return positions in these coordinates of latents ``(group, chain, ...)``."""
        return self.white(self.density.unconstrain(latents, batch))

    def draw_prior(self, count: int) -> Tensor:
        """Return draws of the prior in these coordinates, as many in each group."""
        drawn = self.density.draw_prior(count).reshape(self.groups or 1, -1, self.dim)
        return self.white(drawn).reshape(count, self.dim)
