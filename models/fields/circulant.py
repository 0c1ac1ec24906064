r"""Stationary covariances on a pixel grid by circulant embedding: products and draws by FFT, never a matrix.

Dietrich & Newsam 1997, *Fast and Exact Simulation of Stationary Gaussian Processes through Circulant
Embedding of the Covariance Matrix*. The grid is a window of a torus, on which the covariance is a
convolution with spectrum S. With F the discrete Fourier transform and W the window,

.. math:: K = W F^* S F W^\top = R R^\top, \qquad R = W F^* S^{1/2} F.

So white noise z on the torus becomes a field R z with exactly the covariance K on the grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posterior_inpainting.models.fields.stationary_kernels import StationaryKernel
from posterior_inpainting.models.images.available_memory import check_memory

__all__ = ["CirculantEmbedding", "fast_length", "offsets"]

#: Largest difference between the kernel and its embedding on the grid, relative to the variance.
_TOLERANCE = 1e-6


def fast_length(length: int) -> int:
    """Return the smallest even number of at least ``length`` without prime factors above 5.

    >>> fast_length(97)
    100
    """
    length += length % 2
    while length % 2 or _without_small_factors(length) > 1:
        length += 2
    return length


def offsets(rows: int, columns: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return how many rows ``(rows, 1)`` and columns ``(columns,)`` every pixel of a grid is from its first, float64.

    >>> [lag.tolist() for lag in offsets(2, 3)]
    [[[0.0], [1.0]], [0.0, 1.0, 2.0]]
    """
    row, column = (torch.arange(extent, dtype=torch.double, device=device) for extent in (rows, columns))
    return row[:, None], column


class CirculantEmbedding(nn.Module):
    """A stationary kernel on a grid of pixels, as a convolution on the smallest torus that will do.

    The torus grows until the kernel that it implies differs from the one asked for by less than 1e-6
    anywhere on the grid; negative values of the spectrum (there are few then) are set to 0.

    Parameters
    ----------
    kernel
        The kernel; its constant floor is common to all pixels of any torus, and needs no padding.
    rows, columns
        Size of the grid.

    Raises
    ------
    ValueError
        If no torus of up to 8 times the grid (or 128 pixels a side) will do: the lengthscale is too long. Or
        if the grid does not fit into memory; the message names the size that does.

    Examples
    --------
    >>> from posterior_inpainting.models.fields.stationary_kernels import SquaredExponential
    >>> embedding = CirculantEmbedding(SquaredExponential(2.0), rows=16, columns=16)
    >>> embedding.torus, tuple(embedding.field(torch.randn(3, *embedding.torus)).shape)
    ((30, 30), (3, 16, 16))
    """

    spectrum: Tensor
    root: Tensor
    covariance: Tensor

    def __init__(self, kernel: StationaryKernel, rows: int, columns: int):
        super().__init__()
        self.grid = (rows, columns)
        check_memory(
            64.0 * rows * columns, f"a Gaussian process on {rows} x {columns} pixels", max(rows, columns)
        )
        with torch.no_grad():
            wanted = kernel.at(*offsets(rows, columns, torch.device("cpu")))  # a buffer, which moves later
            padding, least = 8.0, min(rows, columns)
            while True:
                self.torus = tuple(fast_length(math.ceil(extent + padding)) for extent in self.grid)
                spectrum = _spectrum(kernel, *self.torus)
                covariance = torch.fft.irfft2(spectrum, s=self.torus)
                error = float((covariance[:rows, :columns] - wanted).abs().max())
                if error < _TOLERANCE:
                    break
                padding *= 1.2
                if padding > max(128, 7 * least):
                    raise ValueError(
                        f"lengthscale={float(kernel.lengthscale):.4g} is too long for {rows} x {columns} pixels: "
                        f"on a torus of {self.torus[0]} x {self.torus[1]} the covariance is off by {error:.1g}"
                    )
        self.register_buffer("spectrum", spectrum, persistent=False)
        self.register_buffer("root", spectrum.sqrt(), persistent=False)
        self.register_buffer("covariance", covariance, persistent=False)

    def field(self, white: Tensor) -> Tensor:
        """Return R z on the grid for white noise z ``(..., *torus)``."""
        product = torch.fft.rfft2(white) * self.root.to(white.dtype)
        return self._window(torch.fft.irfft2(product, s=self.torus))

    def adjoint(self, field: Tensor) -> Tensor:
        """Return R' v on the torus for v on the grid ``(..., *grid)``."""
        return torch.fft.irfft2(self.transform(field) * self.root.to(field.dtype), s=self.torus)

    def product(self, field: Tensor) -> Tensor:
        """Return K v for v on the grid."""
        return self.filtered(self.transform(field), self.spectrum)

    def transform(self, field: Tensor) -> Tensor:
        """Return the Fourier transform of a field on the grid, padded with zeros to the torus."""
        return torch.fft.rfft2(field, s=self.torus)

    def filtered(self, transformed: Tensor, gain: Tensor) -> Tensor:
        """Multiply a Fourier transform by a gain, and return the result on the grid."""
        return self._window(torch.fft.irfft2(transformed * gain, s=self.torus))

    def dense(self, pixels: Tensor, others: Tensor | None = None) -> Tensor:
        """Return the matrix of covariances between pixels, given by flat index on the grid."""
        others = pixels if others is None else others
        columns = self.grid[1]
        row = (pixels[:, None] // columns - others // columns).abs_()
        row *= self.torus[1]
        row += (pixels[:, None] % columns - others % columns).abs_()
        return self.covariance.flatten()[row]

    def _window(self, torus: Tensor) -> Tensor:
        return torus[..., : self.grid[0], : self.grid[1]]


def _spectrum(kernel: StationaryKernel, rows: int, columns: int) -> Tensor:
    """Spectrum ``(rows, columns // 2 + 1)`` of a kernel wrapped around a torus, without negative values."""
    row, column = offsets(rows, columns, torch.device("cpu"))
    row, column = torch.minimum(row, rows - row), torch.minimum(column, columns - column)
    return torch.fft.rfft2(kernel.at(row, column)).real.clamp(min=0)


def _without_small_factors(number: int) -> int:
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number
