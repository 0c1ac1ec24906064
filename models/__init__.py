"""Pyro models of images with missing pixels: each a joint density, with a guide beside it."""

from posterior_inpainting.models import datasets, files, observations, pretrained
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.latent_code import LatentCode
from posterior_inpainting.models.linear_gaussian import LinearGaussian
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.variational_autoencoder import VariationalAutoencoder

__all__ = [
    "ImageModel",
    "LatentCode",
    "LinearGaussian",
    "Observation",
    "VariationalAutoencoder",
    "datasets",
    "files",
    "observations",
    "pretrained",
]
