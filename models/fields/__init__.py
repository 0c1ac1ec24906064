"""Stationary Gaussian fields on a pixel grid: kernels, and the linear algebra that never makes their matrix."""

from posterior_inpainting.models.fields.stationary_kernels import (
    DeepImagePriorKernel,
    Matern,
    SquaredExponential,
    StationaryKernel,
)

__all__ = ["DeepImagePriorKernel", "Matern", "SquaredExponential", "StationaryKernel"]
