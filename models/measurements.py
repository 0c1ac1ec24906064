r"""Measurements that are no pixels: what a linear operator gives of an image, with noise.

With an image x whose pixels are independent around the completion f, variances V, operator A and noise t,

.. math:: y = A x + t\,\epsilon, \qquad y \mid f \;\sim\; N(A f,\; A V A^\top + t^2 I),

where pixels are normal. Others enter with their means and variances: of sums of many pixels that is nearly their law
(Lyapunov's central limit theorem), of a mask it is not, for which there is ``Observation``.

Values that share pixels are correlated through the noise of these, which costs a Cholesky factor of all values wherever
the density is asked for; of masks, averages and grey films nothing more than the values.

The image given a measurement is drawn by Matheron's rule: an image around f, corrected by what it gets wrong about y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from posterior_inpainting.models.operators.linear_operator import LinearOperator
from posterior_inpainting.models.shapes import Image, ImageShape, InputError, Mask, describe

__all__ = ["Instrument", "Measurement"]


@dataclass(frozen=True, eq=False)
class Instrument:
    """What measures: an operator and its noise. Models take it where they take a mask, and values for the image.

    Parameters
    ----------
    operator
        From images to values.
    noise
        Standard deviation of a value around what the operator gives, in the units of values.

    Raises
    ------
    ValueError
        For something else than an operator, or noise below 0.

    Examples
    --------
    >>> from posterior_inpainting.models import operators
    >>> camera = Instrument(operators.average((1, 4, 4), 2), noise=0.1)
    >>> law = camera.law(torch.zeros(5, 1, 4, 4), torch.full((1, 4, 4), 0.04))
    >>> law.batch_shape, law.event_shape, round(float(law.variance.max()), 4)
    (torch.Size([5]), torch.Size([4]), 0.02)
    """

    operator: LinearOperator
    noise: float = 0.01

    def __post_init__(self):
        if not isinstance(self.operator, LinearOperator):
            raise InputError(f"operator is {describe(self.operator)}; expected one of models.operators")
        if not self.noise >= 0 or math.isinf(self.noise):
            raise InputError(f"noise={self.noise}; expected a number of at least 0")

    def law(self, mean: Image, variance: Image | None = None) -> TorchDistribution:
        """Return the law of flattened values, batch shape ``(*batch,)``, event shape ``(value,)``.

        Parameters
        ----------
        mean
            Of pixels, ``(*batch, channel, row, column)``.
        variance
            Of independent pixels around it, which broadcasts to it; ``None`` where the image is the mean itself.

        Raises
        ------
        ValueError
            Without noise where the image is the mean itself.
        """
        loc = self.operator(mean).flatten(-3)
        if variance is None:
            if not self.noise:
                raise InputError(
                    "noise=0 leaves a measurement of this model no density; expected a positive noise"
                )
            return dist.Normal(loc, self.noise, validate_args=False).to_event(1)
        variance = variance.expand(mean.shape)
        if self.operator.rows_are_disjoint:
            return dist.Normal(loc, self._variances(variance).sqrt(), validate_args=False).to_event(1)
        return dist.MultivariateNormal(loc, scale_tril=self._factor(variance), validate_args=False)

    def image_given(self, values: Tensor, mean: Image, variance: Image) -> Image:
        """Draw images given values, ``(*batch, channel, row, column)``, with torch's global generator.

        Parameters
        ----------
        values
            ``(*output_shape)``, or a row of them each.
        mean, variance
            Of independent normal pixels, ``(*batch, channel, row, column)``.
        """
        variance = variance.expand(mean.shape)
        drawn = mean + variance.sqrt() * torch.randn_like(mean)
        noisy = self.operator(drawn)
        wrong = values - noisy - self.noise * torch.randn_like(noisy)
        if self.operator.rows_are_disjoint:
            solved = (wrong.flatten(-3) / self._variances(variance)).reshape(wrong.shape)
        else:
            solved = torch.cholesky_solve(wrong.flatten(-3).unsqueeze(-1), self._factor(variance))
            solved = solved.reshape(wrong.shape)
        return drawn + variance * self.operator.adjoint(solved)

    def whitened(self, variance: float | Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows of the operator over the noise that values have in all, and what turns values into such rows.

        For models that are linear and normal: with :math:`L L^T = v A A^T + t^2 I`.

        Parameters
        ----------
        variance
            v, of every pixel around the completion, one number.
        like
            A tensor of the type and on the device of what is returned.

        Returns
        -------
        rows, root, log_det
            :math:`L^{-1} A` ``(value, pixel)``, L ``(value, value)``, and the logarithm of its determinant.
        """
        weights = self.operator.dense(like)
        covariance = variance * weights @ weights.T + self.noise**2 * torch.eye(len(weights)).to(weights)
        root, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed):
            raise InputError(
                f"noise={self.noise} leaves this measurement no density; expected a larger noise"
            )
        rows = torch.linalg.solve_triangular(root, weights, upper=False)
        return rows, root, root.diagonal().log().sum()

    def _variances(self, variance: Image) -> Tensor:
        return self.operator.variances(variance).flatten(-3) + self.noise**2

    def _factor(self, variance: Image) -> Tensor:
        """Return Cholesky factors of values' covariances, NaN where rounding leaves none."""
        weights = self.operator.dense(variance)
        scaled = weights * variance.flatten(-3).unsqueeze(-2)
        covariance = scaled @ weights.T + self.noise**2 * torch.eye(len(weights)).to(weights)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        return torch.where((failed > 0)[..., None, None], torch.nan, factor)


@dataclass(frozen=True, eq=False)
class Measurement:
    """What an instrument gave of one image: what a posterior is conditioned on, beside ``Observation``.

    The whole image is hidden then, and scores count all of it.

    Parameters
    ----------
    operator
        One of ``models.operators``, made for images of the shape that the model has.
    values
        Finite, of the operator's ``output_shape``; kept in single precision.
    noise
        Standard deviation of a value around what the operator gives of the image.

    Raises
    ------
    ValueError
        For values of another shape, or that are not finite, and as ``Instrument``.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets, operators
    >>> image = datasets.load("digits")[0]
    >>> small = operators.average(image.shape, 2)
    >>> measured = Measurement(small, small(image), noise=0.02)
    >>> measured.shape, tuple(measured.values.shape)
    ((1, 8, 8), (1, 4, 4))
    """

    operator: LinearOperator
    values: Tensor
    noise: float = 0.01

    def __post_init__(self):
        instrument = Instrument(self.operator, self.noise)
        values, expected = self.values, self.operator.output_shape
        if (
            not isinstance(values, Tensor)
            or not values.is_floating_point()
            or tuple(values.shape) != expected
        ):
            raise InputError(f"values is {describe(values)}; expected a float tensor of shape {expected}")
        if not bool(values.isfinite().all()):
            raise InputError(
                f"{int((~values.isfinite()).sum())} values are NaN or infinite; expected finite ones: leave them out "
                "by operators.mask(...) @ operator"
            )
        object.__setattr__(self, "values", values.to(torch.get_default_dtype()))
        object.__setattr__(self, "_instrument", instrument)

    @property
    def shape(self) -> ImageShape:
        """``(channel, row, column)`` of the image."""
        return self.operator.image_shape

    @property
    def mask(self) -> Mask:
        """No pixel of the image is seen itself."""
        return torch.zeros(self.shape, dtype=torch.bool, device=self.values.device)

    @property
    def arguments(self) -> tuple[Tensor, Instrument]:
        """What models are called with: values and instrument."""
        return self.values, self._instrument  # type: ignore[attr-defined]
