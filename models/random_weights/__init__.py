"""Networks whose weights are random variables: priors per weight, layers, and any ``nn.Module`` turned into one."""

from posterior_inpainting.models.random_weights.layers import (
    BayesianConv2d,
    BayesianLinear,
    BayesianModule,
    bayesian,
)
from posterior_inpainting.models.random_weights.weight_priors import FanIn, Gaussian, ScaleMixture

__all__ = [
    "BayesianConv2d",
    "BayesianLinear",
    "BayesianModule",
    "FanIn",
    "Gaussian",
    "ScaleMixture",
    "bayesian",
]
