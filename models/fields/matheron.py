r"""The exact posterior of the white noise behind a Gaussian field, drawn by Matheron's rule.

Wilson et al. 2020, *Efficiently Sampling Functions from Gaussian Process Posteriors*, equation 9 (after
Journel & Huijbregts 1978). With z white, field A z, noise :math:`\epsilon \sim N(0, s^2)`, seen pixels
:math:`r = \tilde x - m` and C the covariance of r,

.. math:: z \mid r \;\sim\; z + A^\top M^\top C^{-1} (r - M A z - \epsilon), \qquad z \sim N(0, I):

a draw from the prior, corrected by what it gets wrong about the seen pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from posterior_inpainting.models.fields.circulant import check_memory
from posterior_inpainting.models.fields.seen_covariance import Cholesky, SeenCovariance, mixed
from posterior_inpainting.models.shapes import Image, InputError

__all__ = ["WhitePosterior"]

#: Values on the torus that are solved for at once: few, because what stays in the processor's cache is faster.
_CHUNK = 400_000


class WhitePosterior(TorchDistribution):
    """p(z | seen pixels) of flat white noise z ``(channel * torus,)``; batch shape that of the images.

    Parameters
    ----------
    covariances
        One for each image of the batch, or one for all of them.
    factor
        Lower Cholesky factor of the channels' covariance, ``(channel, channel)``, float64.
    residual
        Seen pixels less the mean, 0 where hidden: ``(channel, row, column)``, or ``(n, ...)`` for a batch. Of an
        instrument, values less those of the mean.
    dtype
        That of the draws; what is solved is solved in float64.

    Notes
    -----
    ``log_prob`` is p(z) p(r | z) / p(r), by Bayes' theorem. On the route of conjugate gradients p(r) is not
    known, and ``log_prob`` lacks this constant.
    """

    support = constraints.real_vector
    arg_constraints: dict = {}  # noqa: RUF012 -- what torch.distributions wants it to be
    has_rsample = False

    def __init__(
        self,
        covariances: list[SeenCovariance],
        factor: Tensor,
        residual: Image,
        dtype: torch.dtype = torch.float32,
        batch_shape: torch.Size | None = None,
    ):
        self.covariances, self.factor, self.residual, self.dtype = covariances, factor, residual, dtype
        self.torus = covariances[0].embedding.torus
        super().__init__(
            residual.shape[:-3] if batch_shape is None else batch_shape,
            torch.Size([len(factor) * math.prod(self.torus)]),
            validate_args=False,
        )

    def expand(self, batch_shape, _instance=None) -> WhitePosterior:
        """Return the same law for a larger batch shape."""
        torch.broadcast_shapes(self.residual.shape[:-3], batch_shape)
        return type(self)(self.covariances, self.factor, self.residual, self.dtype, torch.Size(batch_shape))

    @property
    def mean(self) -> Tensor:
        """Posterior mean of z."""
        with torch.no_grad():
            return self._by_image(lambda covariance, r: self._explained(covariance, r)).to(self.dtype)

    @property
    def variance(self) -> Tensor:
        """Posterior variance of every element of z, on the Cholesky route only."""
        with torch.no_grad():
            return self._by_image(self._variance).to(self.dtype)

    def sample(self, sample_shape=()) -> Tensor:
        """Draw; a ``ValueError`` names the size that fits where so many draws do not fit into memory."""
        shape = self._extended_shape(torch.Size(sample_shape))
        side = max(self.residual.shape[-2:])
        check_memory(16.0 * shape.numel(), f"drawing {shape[:-1].numel()} times", side)
        with torch.no_grad():
            z = torch.randn(shape, dtype=self.dtype, device=self.residual.device)
            images = z.reshape(-1, len(self._rows()), self.event_shape[0])  # a view: corrected in place
            for number, (covariance, r) in enumerate(self._rows()):
                for draws in images[:, number].split(max(1, _CHUNK // self.event_shape[0])):
                    draws += self._correction(covariance, r, draws.double()).to(self.dtype)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(z | r)."""
        prior = -0.5 * (value.square() + math.log(2 * math.pi)).sum(-1)
        mask = torch.stack([c.mask for c in self.covariances]).squeeze(0)
        noise = self.covariances[0].noise
        field = self.covariances[0].seen_of(self._field(value))
        error = ((self.residual - field) / noise).square() + (2 * math.pi * noise**2).log()
        likelihood = -0.5 * torch.where(mask, error, 0.0).sum((-3, -2, -1))
        return prior + (likelihood - self.log_evidence().nan_to_num()).to(prior.dtype)

    def log_evidence(self) -> Tensor:
        """Return log p(r) in nats, float64, batch shape that of the images; NaN by conjugate gradients."""
        return self._by_image(_log_evidence)

    def _correction(self, covariance: SeenCovariance, residual: Image, z: Tensor) -> Tensor:
        """Return what Matheron's rule adds to prior draws ``(n, event)``."""
        field = covariance.seen_of(self._field(z))
        noise = covariance.noise * torch.randn_like(field)
        return self._explained(covariance, residual - field - noise)

    def _explained(self, covariance: SeenCovariance, residual: Image) -> Tensor:
        """Regress z on residuals ``(*batch, channel, row, column)``: A' M' C^-1 r."""
        solution = covariance.solve(residual.reshape(-1, *residual.shape[-3:])).view_as(residual)
        return self._adjoint(covariance, solution)

    def _variance(self, covariance: SeenCovariance, residual: Image) -> Tensor:
        if not isinstance(covariance, Cholesky):
            raise InputError(
                f"{covariance.seen} seen values are too many for exact variances; take those of draws"
            )
        rows = torch.zeros(covariance.seen, residual.numel(), dtype=residual.dtype, device=residual.device)
        rows[torch.arange(covariance.seen, device=residual.device), covariance.index] = 1
        rows = self._adjoint(covariance, rows.unflatten(1, residual.shape))
        return 1 - covariance.whitened(rows).square().sum(0)

    def _field(self, z: Tensor) -> Image:
        white = z.double().unflatten(-1, (len(self.factor), *self.torus))
        return mixed(self.factor, self.covariances[0].embedding.field(white))

    def _adjoint(self, covariance: SeenCovariance, image: Image) -> Tensor:
        spread = mixed(self.factor.T, covariance.spread(image))
        return covariance.embedding.adjoint(spread).flatten(-3)

    def _rows(self) -> list[tuple[SeenCovariance, Image]]:
        """Every image of the batch with the covariance of its mask."""
        images = self.residual if self.residual.dim() == 4 else self.residual[None]
        covariances = self.covariances * (len(images) // len(self.covariances))
        return list(zip(covariances, images, strict=True))

    def _by_image(self, function: Callable[[SeenCovariance, Image], Tensor]) -> Tensor:
        values = [function(*row) for row in self._rows()]
        value = values[0] if self.residual.dim() == 3 else torch.stack(values)
        return value.expand(self.batch_shape + value.shape[self.residual.dim() - 3 :])


def _log_evidence(covariance: SeenCovariance, residual: Image) -> Tensor:
    if not isinstance(covariance, Cholesky):
        return residual.new_tensor(math.nan)
    error = covariance.whitened(residual.flatten()[covariance.index, None]).square().sum()
    return -0.5 * (error + covariance.log_det() + covariance.seen * math.log(2 * math.pi))
