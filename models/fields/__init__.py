"""Stationary Gaussian fields on a pixel grid: kernels, and the linear algebra that never makes their matrix."""

from posterior_inpainting.models.fields.channel_prior import ChannelPrior
from posterior_inpainting.models.fields.hourglass_kernel import HourglassKernel
from posterior_inpainting.models.fields.stationary_kernels import (
    DeepImagePriorKernel,
    Matern,
    SquaredExponential,
    StationaryKernel,
)

__all__ = [
    "ChannelPrior",
    "DeepImagePriorKernel",
    "HourglassKernel",
    "Matern",
    "SquaredExponential",
    "StationaryKernel",
]
