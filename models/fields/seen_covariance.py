r"""Solving with the covariance of the seen pixels, :math:`C = M (B \otimes K) M^\top + s^2 I`.

B is the channels' covariance, K the pixels' (a convolution), M picks what is seen, s is the noise. Two
routes with one interface: a Cholesky factor of C itself, and conjugate gradients that only ever convolve
(:mod:`~posterior_inpainting.models.fields.completed_field`). A vector over seen pixels is kept as an image
``(..., channel, row, column)`` with 0 at what is hidden.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posterior_inpainting.models.fields.circulant import CirculantEmbedding
from posterior_inpainting.models.images.available_memory import check_memory
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Cholesky", "SeenCovariance", "mixed"]


def mixed(matrix: Tensor, image: Image) -> Image:
    """Mix channels: multiply ``(..., channel, row, column)`` by a matrix ``(channel, channel)``.

    >>> mixed(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([3.0, 4.0]).reshape(2, 1, 1)).flatten().tolist()
    [8.0, 3.0]
    """
    if len(matrix) == 1:
        return image * matrix
    return torch.einsum("cd,...dhw->...chw", matrix, image)


class SeenCovariance:
    """Abstract covariance C of the seen pixels of one mask.

    Parameters
    ----------
    embedding
        K, on the image's grid.
    channels
        B, ``(channel, channel)``, positive definite, float64.
    noise
        s, float64.
    mask
        ``(channel, row, column)``, ``True`` = seen.
    """

    def __init__(self, embedding: CirculantEmbedding, channels: Tensor, noise: Tensor, mask: Mask):
        self.embedding, self.channels, self.noise, self.mask = embedding, channels, noise, mask
        self.seen = int(mask.sum())

    def seen_of(self, field: Image) -> Tensor:
        """Return what is seen of a field, as :meth:`solve` takes it: pixels, of which hidden ones are not read."""
        return field

    def spread(self, values: Tensor) -> Image:
        """Return the image ``(..., channel, row, column)`` of what :meth:`solve` returns: the adjoint of seeing."""
        return values

    def solve(self, right: Image) -> Image:
        """Return the inverse of C times ``(n, channel, row, column)``, of which only seen values are read."""
        raise NotImplementedError


class Cholesky(SeenCovariance):
    """The exact route: one factorisation, cubic in the number of seen values, then cheap for any number of draws."""

    def __init__(self, embedding: CirculantEmbedding, channels: Tensor, noise: Tensor, mask: Mask):
        super().__init__(embedding, channels, noise, mask)
        check_memory(24 * self.seen**2, f"a Cholesky factor for {self.seen} seen values; lower dense_limit")
        self.index = mask.flatten().nonzero().flatten()
        matrix = self.covariance(self.index, self.index)
        matrix.diagonal().add_(noise**2)
        self.factor = torch.linalg.cholesky(matrix, out=matrix)

    def covariance(self, some: Tensor, others: Tensor) -> Tensor:
        """Return the noiseless covariances between values given by flat index into the image."""
        size = math.prod(self.embedding.grid)
        matrix = self.embedding.dense(some % size, others % size)
        if len(self.channels) == 1:
            return matrix.mul_(self.channels[0, 0])
        return matrix.mul_(self.channels[some // size][:, others // size])

    def solve(self, right: Image) -> Image:
        """Solve by back substitution."""
        values = right.flatten(1)[:, self.index].T
        solution = torch.zeros_like(right).flatten(1)
        solution[:, self.index] = torch.cholesky_solve(values, self.factor).T
        return solution.view_as(right)

    def whitened(self, right: Tensor) -> Tensor:
        """Return the inverse of the factor times ``(seen, n)``."""
        return torch.linalg.solve_triangular(self.factor, right, upper=False)

    def log_det(self) -> Tensor:
        """Return log det C."""
        return 2 * self.factor.diagonal().log().sum()
