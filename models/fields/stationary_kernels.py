r"""Stationary kernels of pixel distance, each with value 1 at distance 0.

Squared exponential and Matérn (Rasmussen & Williams 2006, *Gaussian Processes for Machine Learning*,
section 4.2), and the kernel that a convolutional network with random weights has in the limit of
infinitely many channels (Cheng et al. 2019, *A Bayesian Perspective on the Deep Image Prior*, section 3).

Glossary: the *lengthscale* is in pixels; the *floor* is what the kernel falls to far away, the share of
the variance that all pixels have in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DeepImagePriorKernel", "Matern", "SquaredExponential", "StationaryKernel", "leaky_units"]


@dataclass(frozen=True)
class StationaryKernel:
    """Abstract kernel k(d), k(0) = 1, of the distance d between two pixels.

    Parameters
    ----------
    lengthscale
        In pixels, above 0; a tensor of one element where gradients are wanted.
    """

    lengthscale: float | Tensor

    def __post_init__(self):
        if not self.lengthscale > 0:
            raise ValueError(f"lengthscale={self.lengthscale}; expected a positive number of pixels")

    def __call__(self, squared_distance: Tensor) -> Tensor:
        """Return k of squared distances in square pixels, of their shape; differentiable in the lengthscale."""
        raise NotImplementedError

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return k of two pixels that are so many rows and columns apart, tensors of any shapes that broadcast."""
        return self(rows.double() ** 2 + columns.double() ** 2)

    @property
    def floor(self) -> float:
        """The limit of k at infinite distance."""
        return 0.0


@dataclass(frozen=True)
class SquaredExponential(StationaryKernel):
    r"""The radial basis function :math:`k(d) = \exp(-d^2 / 2 \ell^2)`.

    Examples
    --------
    >>> round(float(SquaredExponential(2.0)(torch.tensor(4.0))), 4)
    0.6065
    """

    def __call__(self, squared_distance: Tensor) -> Tensor:
        """Return k of squared distances."""
        return (-squared_distance / (2 * self.lengthscale**2)).exp()


@dataclass(frozen=True)
class Matern(StationaryKernel):
    r"""The Matérn kernel of smoothness :math:`\nu`, with :math:`s = \sqrt{2\nu}\, d / \ell`.

    .. math:: \nu = 1/2: e^{-s}, \qquad 3/2: (1 + s) e^{-s}, \qquad 5/2: (1 + s + s^2/3) e^{-s}.

    Parameters
    ----------
    lengthscale
        In pixels.
    smoothness
        0.5, 1.5 or 2.5.

    Raises
    ------
    ValueError
        For another smoothness, or a lengthscale that is not positive.

    Examples
    --------
    >>> round(float(Matern(2.0, smoothness=0.5)(torch.tensor(4.0))), 4)
    0.3679
    """

    smoothness: float = 1.5

    def __post_init__(self):
        super().__post_init__()
        if self.smoothness not in (0.5, 1.5, 2.5):
            raise ValueError(f"smoothness={self.smoothness}; expected 0.5, 1.5 or 2.5")

    def __call__(self, squared_distance: Tensor) -> Tensor:
        """Return k of squared distances."""
        # The derivative of a square root at 0 is infinite, that of k there is not asked for: k(0) = 1.
        apart = squared_distance > 0
        distance = torch.where(apart, squared_distance, 1.0).sqrt()
        s = math.sqrt(2 * self.smoothness) * distance / self.lengthscale
        polynomial = {0.5: torch.ones_like(s), 1.5: 1 + s, 2.5: 1 + s + s.square() / 3}[self.smoothness]
        return torch.where(apart, polynomial * (-s).exp(), 1.0)


@dataclass(frozen=True)
class DeepImagePriorKernel(StationaryKernel):
    r"""The wide limit of a convolutional network of ``depth`` layers on a fixed blurred random input.

    The input has the kernel :math:`\exp(-d^2 / 4 \sigma^2)` (white noise blurred with scale :math:`\sigma`);
    every convolution followed by a LeakyReLU of slope a maps a correlation :math:`\cos t` to

    .. math:: \cos t' \propto \frac{(1-a)^2}{2\pi} \left(\sin t + (\pi - t) \cos t\right) + a \cos t

    (Cho & Saul 2009 for a = 0). Width and filter size leave the shape alone. Down- and up-sampling,
    which make another kernel (:class:`~posterior_inpainting.models.fields.hourglass_kernel.HourglassKernel`), are left
    out, as are normalisation layers.

    Parameters
    ----------
    lengthscale
        :math:`\sigma`, in pixels.
    depth
        Number of convolutional layers, at least 1.
    slope
        a in [0, 1): 0 is ReLU.

    Raises
    ------
    ValueError
        For a number outside its range.

    Examples
    --------
    >>> kernel = DeepImagePriorKernel(2.5, depth=8)
    >>> round(kernel.floor, 2), round(float(kernel(torch.tensor(1e6))), 2)
    (0.83, 0.83)
    """

    depth: int = 8
    slope: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.depth < 1 or not 0 <= self.slope < 1:
            raise ValueError(
                f"depth={self.depth}, slope={self.slope}; expected depth >= 1 and slope in [0, 1)"
            )

    def __call__(self, squared_distance: Tensor) -> Tensor:
        """Return k of squared distances."""
        correlation = (-squared_distance / (4 * self.lengthscale**2)).exp()
        for _ in range(self.depth):
            correlation = leaky_units(correlation, self.slope)
        return correlation

    @property
    def floor(self) -> float:
        """The limit of k at infinite distance, where the inputs are uncorrelated."""
        return float(self(torch.tensor(math.inf, dtype=torch.double, device="cpu")))


def leaky_units(correlation: Tensor, slope: float) -> Tensor:
    """Return the correlation of LeakyReLU units whose inputs have this one (Cho & Saul 2009 for ``slope`` 0).

    >>> [round(float(c), 3) for c in leaky_units(torch.tensor([0.0, 0.5, 1.0]), 0.0)]
    [0.318, 0.609, 1.0]
    """
    # The angle's derivative at correlation 1 is infinite, though that of the layer is not.
    apart = correlation < 1
    cosine = torch.where(apart, correlation, 0.0)
    angle, a = cosine.acos(), slope
    arc = ((1 - cosine**2).sqrt() + (math.pi - angle) * cosine) / math.pi
    mixed = ((1 - a) ** 2 * arc + 2 * a * cosine) / (1 + a**2)
    return torch.where(apart, mixed, 1.0)
