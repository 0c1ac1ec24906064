r"""Solving with the covariance of what an instrument gives of a field, :math:`C = A (B \otimes K) A^\top + t^2 I`.

As for seen pixels there are two routes: a Cholesky factor, and conjugate gradients that only convolve and measure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.models.fields.circulant import CirculantEmbedding
from posterior_inpainting.models.fields.conjugate_gradients import conjugate_gradients
from posterior_inpainting.models.fields.seen_covariance import Cholesky, SeenCovariance, mixed
from posterior_inpainting.models.images.available_memory import check_memory
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.operators.linear_operator import LinearOperator
from posterior_inpainting.models.shapes import Image, InputError

__all__ = ["measured_covariance"]

#: Columns of C that are made at once.
_TOGETHER = 64


def measured_covariance(
    embedding: CirculantEmbedding,
    channels: Tensor,
    instrument: Instrument,
    dense_limit: int,
    tolerance: float,
) -> SeenCovariance:
    """Return C of an instrument: factorised for at most ``dense_limit`` values, iterated with otherwise.

    Parameters
    ----------
    embedding, channels
        As for ``SeenCovariance``; float64.
    instrument
        A and t, which is positive.
    dense_limit, tolerance
        As for ``GaussianProcess``.

    Raises
    ------
    ValueError
        For an instrument without noise.
    """
    if not instrument.noise:
        raise InputError("noise=0 leaves a measurement of this model no density; expected a positive noise")
    shape = instrument.operator.output_shape
    noise = channels.new_tensor(instrument.noise)
    seen = torch.ones(shape, dtype=torch.bool, device=channels.device)
    parts = embedding, channels, noise, seen
    if seen.numel() <= dense_limit:
        return _Factorised(instrument.operator, *parts)
    return _Iterated(instrument.operator, *parts, tolerance=tolerance)


def _times_field(one: SeenCovariance, operator: LinearOperator, values: Tensor) -> Tensor:
    """Multiply values ``(n, *output_shape)`` by A (B x K) A'."""
    spread = mixed(one.channels, operator.adjoint(values))
    return operator(one.embedding.field(one.embedding.adjoint(spread)))


class _Factorised(Cholesky):
    """The exact route."""

    def __init__(self, operator: LinearOperator, *parts):
        SeenCovariance.__init__(self, *parts)
        check_memory(24 * self.seen**2, f"a Cholesky factor for {self.seen} values; lower dense_limit")
        self.operator, self.index = operator, torch.arange(self.seen, device=self.mask.device)
        unit = torch.eye(self.seen, dtype=self.noise.dtype, device=self.noise.device)
        rows = [
            _times_field(self, operator, some.reshape(-1, *operator.output_shape)).flatten(1)
            for some in unit.split(_TOGETHER)
        ]
        matrix = torch.cat(rows)
        matrix = 0.5 * (matrix + matrix.T)
        matrix.diagonal().add_(self.noise**2)
        self.factor = torch.linalg.cholesky(matrix)

    def seen_of(self, field: Image) -> Tensor:
        """Return what the operator gives."""
        return self.operator(field)

    def spread(self, values: Tensor) -> Image:
        """Return the adjoint's image."""
        return self.operator.adjoint(values)


class _Iterated(SeenCovariance):
    """The route for many values."""

    def __init__(self, operator: LinearOperator, *parts, tolerance: float, iterations: int = 2000):
        super().__init__(*parts)
        self.operator, self.tolerance, self.iterations = operator, tolerance, iterations

    def seen_of(self, field: Image) -> Tensor:
        """Return what the operator gives."""
        return self.operator(field)

    def spread(self, values: Tensor) -> Image:
        """Return the adjoint's image."""
        return self.operator.adjoint(values)

    def solve(self, right: Tensor) -> Tensor:
        """Solve for all right-hand sides until the slowest has converged."""

        def times(values: Tensor) -> Tensor:
            """Multiply by C."""
            return _times_field(self, self.operator, values) + self.noise**2 * values

        return conjugate_gradients(times, lambda values: values, right, self.tolerance, self.iterations)
