r"""Fits of a linear decoder by maximum likelihood: in closed form, or where pixels are missing, by iterations.

Tipping & Bishop 1999, *Probabilistic Principal Component Analysis*. Of whole images the leading principal components
are the answer. Of images with holes (Ilin & Raiko 2010, *Practical Approaches to Principal Component Analysis in the
Presence of Missing Values*, sections 3.2 and 3.4) each one's code has the posterior that its seen pixels give it,

.. math:: z_i \mid x_i \sim N(\bar z_i, C_i), \qquad
          C_i = \Big(I + \sum_{d \,\mathrm{seen}} w_d w_d^\top / s^2\Big)^{-1},

and every pixel's row of loadings and its mean are then a regression on the codes of the images in which it is seen. So
that pixels which are hardly ever seen have rows too, these have a normal prior of the pixels' own variance: the fit is
the mode of all but the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Spectrum", "fit_of_seen", "spectrum_of"]

#: Least variance of the noise, and pixel values of images that are held at once.
_LEAST, _AT_ONCE = 1e-8, 2_000_000


@dataclass(frozen=True)
class Spectrum:
    """Principal components of whole images, from which a fit with any number of them follows.

    Parameters
    ----------
    mean
        ``(pixel,)``, float64 as all.
    variances
        Along the components, ``(component,)``, largest first.
    components
        Of length one, ``(pixel, component)``.
    """

    mean: Tensor
    variances: Tensor
    components: Tensor

    def fit(self, latent: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return loadings ``(pixel, latent)``, mean and noise (Tipping & Bishop 1999, equations 7 and 8)."""
        variances, pixels = self.variances, len(self.mean)
        # The discarded variance, over all discarded directions, also those beyond the rank of the data.
        noise2 = (variances[latent:].sum() / (pixels - latent)).clamp(min=_LEAST)
        loadings = self.components[:, :latent] * (variances[:latent] - noise2).clamp(min=0).sqrt()
        return loadings, self.mean, noise2.sqrt()


def spectrum_of(images: Image) -> Spectrum:
    """Return the principal components of whole images, by the smaller of their two matrices of products.

    Parameters
    ----------
    images
        ``(n, channel, row, column)``.

    Examples
    --------
    >>> spectrum = spectrum_of(torch.rand(50, 1, 4, 4))
    >>> loadings, mean, noise = spectrum.fit(latent=3)
    >>> tuple(loadings.shape), bool((spectrum.variances.diff() <= 0).all())
    ((16, 3), True)
    """
    flat = images.flatten(1).double()
    mean = flat.mean(0)
    centred = flat - mean
    n, pixels = flat.shape
    if pixels <= n:
        variances, components = torch.linalg.eigh(centred.T @ centred / n)
    else:
        variances, rows = torch.linalg.eigh(centred @ centred.T / n)
        lengths = (n * variances).clamp(min=torch.finfo(flat.dtype).tiny).sqrt()
        components = centred.T @ rows / lengths
    return Spectrum(mean, variances.flip(0).clamp(min=0), components.flip(1))


def fit_of_seen(
    images: Image,
    masks: Mask,
    latent: int,
    start: tuple[Tensor, Tensor, Tensor] | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loadings, mean and noise of images with holes, by expectation maximisation.

    Parameters
    ----------
    images
        ``(n, channel, row, column)``; nothing is read of what is hidden.
    masks
        Of their shape, ``True`` = seen.
    latent
        Number of components.
    start
        Loadings ``(pixel, some)``, mean ``(pixel,)`` and noise to begin with, of ``latent`` components or fewer.
    iterations, tolerance
        At most how many, and the rise of the log evidence, in nats a seen pixel, below which they end.

    Returns
    -------
    loadings, mean, noise
        ``(pixel, latent)``, ``(pixel,)``, ``()``, in double precision.

    Examples
    --------
    >>> images = torch.rand(60, 1, 4, 4)
    >>> loadings, mean, noise = fit_of_seen(images, torch.rand_like(images) < 0.8, latent=2)
    >>> tuple(loadings.shape), bool(noise > 0)
    ((16, 2), True)
    """
    seen = masks.expand_as(images).flatten(1)
    # Single precision for the large products, whose terms are all of one sign where they matter.
    values = torch.where(seen, images.flatten(1), 0.0).float()
    seen = seen.to(values)
    count, average = seen.sum(0).double(), float(values.sum() / seen.sum())
    variance = float((seen * (values - average).square()).sum() / seen.sum()) + _LEAST
    means = (values.sum(0).double() + average) / (count + 1)
    found, before = _begun(start, means, latent, variance), -math.inf
    for _ in range(iterations):
        found, evidence = _step(values, seen, found, average, variance)
        if evidence - before <= tolerance:
            break
        before = evidence
    loadings, mean, noise2 = found
    return loadings, mean, loadings.new_tensor(noise2).sqrt()


def _begun(start: tuple | None, means: Tensor, latent: int, variance: float) -> tuple[Tensor, Tensor, float]:
    """Return what is given, with small random columns beyond it: the same ones every time."""
    pixels = len(means)
    given, mean, noise = (means.new_zeros(pixels, 0), means, None) if start is None else start
    noise2 = variance / 2 if noise is None else float(noise) ** 2
    generator = torch.Generator().manual_seed(latent)
    added = torch.randn(
        pixels, latent - given.shape[1], generator=generator, dtype=torch.double, device="cpu"
    )
    return torch.cat([given.double(), (noise2 / 4) ** 0.5 * added.to(means.device)], 1), mean.double(), noise2


def _step(
    values: Tensor, seen: Tensor, fitted: tuple[Tensor, Tensor, float], average: float, variance: float
) -> tuple[tuple[Tensor, Tensor, float], float]:
    """Return what is fitted after one iteration, and the log evidence before it, nats a seen pixel."""
    (pixels, latent), noise2 = fitted[0].shape, fitted[2]
    upper = torch.triu_indices(latent + 1, latent + 1, device=values.device)
    moments = fitted[0].new_zeros(pixels, upper.shape[1])
    products, whole = fitted[0].new_zeros(pixels, latent + 1), fitted[0].new_zeros(latent + 1, latent + 1)
    evidence, size = 0.0, max(1, _AT_ONCE // pixels)
    for some, shown in zip(values.split(size), seen.split(size), strict=True):
        codes, squares, told = _codes(some, shown, fitted)
        moments += (shown.T @ squares[:, upper[0], upper[1]].float()).double()
        products += (some.T @ codes.float()).double()
        whole += squares.sum(0)
        evidence += told
    ridge = noise2 / variance
    full = _symmetric(moments, upper, latent + 1)
    full.diagonal(dim1=-2, dim2=-1).add_(ridge)
    right = products.clone()
    right[:, -1] += ridge * average
    rows = torch.linalg.solve(full, right)
    # Of the regression: sum of E (x - w z)^2 = sum of x^2 - w . (2 E x z - E z z' w).
    full.diagonal(dim1=-2, dim2=-1).sub_(ridge)
    explained = (rows * (2 * products - (full @ rows[..., None])[..., 0])).sum()
    left = (values.double().square().sum() - explained) / seen.double().sum()
    # Codes are standard normal in the mean over images too, which takes few iterations where there were hundreds
    # (Liu, Rubin & Wu 1998, parameter expansion).
    centre = whole[:-1, -1] / len(values)
    spread = torch.linalg.cholesky(whole[:-1, :-1] / len(values) - centre[:, None] * centre)
    loadings, mean = rows[:, :-1], rows[:, -1]
    return (loadings @ spread, mean + loadings @ centre, float(left.clamp(min=_LEAST))), evidence / float(
        seen.sum()
    )


def _codes(
    values: Tensor, seen: Tensor, fitted: tuple[Tensor, Tensor, float]
) -> tuple[Tensor, Tensor, float]:
    """Return the mean of (z, 1) of each image, that of its products, and the log evidence of what is seen."""
    (loadings, mean, noise2), latent = fitted, fitted[0].shape[1]
    upper = torch.triu_indices(latent, latent, device=values.device)
    pairs = (loadings[:, upper[0]] * loadings[:, upper[1]]).float()
    precision = _symmetric((seen @ pairs).double() / noise2, upper, latent)
    precision.diagonal(dim1=-2, dim2=-1).add_(1.0)
    residual = (values - mean.float()) * seen
    weighted = (residual @ loadings.float()).double() / noise2
    root = torch.linalg.cholesky(precision)
    covariance = torch.cholesky_inverse(root)
    codes = (covariance @ weighted[..., None])[..., 0]
    log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum() + seen.sum() * math.log(2 * math.pi * noise2)
    quadratic = residual.double().square().sum() / noise2 - (weighted * codes).sum()
    codes = torch.cat([codes, torch.ones_like(codes[:, :1])], 1)
    squares = codes[:, :, None] * codes[:, None, :]
    squares[:, :-1, :-1] += covariance
    return codes, squares, float(-0.5 * (quadratic + log_det))


def _symmetric(packed: Tensor, upper: Tensor, size: int) -> Tensor:
    """Return symmetric matrices ``(n, size, size)`` of their upper triangles."""
    full = packed.new_empty(len(packed), size, size)
    full[:, upper[0], upper[1]] = packed
    full[:, upper[1], upper[0]] = packed
    return full
