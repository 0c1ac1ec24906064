"""Pyro models of images with missing pixels: each a joint density, with a guide beside it."""

from posterior_inpainting.models import datasets, fields, geology, hub, observations, operators, pretrained
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.bayesian_completion import BayesianCompletion
from posterior_inpainting.models.bayesian_decoder import BayesianDecoder
from posterior_inpainting.models.code_and_units import CodeAndUnits
from posterior_inpainting.models.code_and_weights import CodeAndWeights, WeightDraws
from posterior_inpainting.models.deep_image_prior import DeepImagePrior
from posterior_inpainting.models.diffusion import DiffusionPrior
from posterior_inpainting.models.empirical_prior import EmpiricalPrior
from posterior_inpainting.models.expert_field import ExpertField
from posterior_inpainting.models.gaussian_process import GaussianProcess
from posterior_inpainting.models.geology.nearest_measurement import NearestMeasurement
from posterior_inpainting.models.images import image_files
from posterior_inpainting.models.images.collection import Collection, read_collection
from posterior_inpainting.models.latent_code import LatentCode, PriorLoss
from posterior_inpainting.models.linear_gaussian import LinearGaussian
from posterior_inpainting.models.measurements import Instrument, Measurement
from posterior_inpainting.models.mixture_field import MixtureField
from posterior_inpainting.models.mixture_prior import MixturePrior
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.ordered import OrderedModel
from posterior_inpainting.models.pixel_constrained import PixelConstrained
from posterior_inpainting.models.pluralistic import (
    PluralisticConditional,
    PluralisticJoint,
    PluralisticTwoPath,
)
from posterior_inpainting.models.random_weights.layers import (
    BayesianConv2d,
    BayesianLinear,
    BayesianModule,
    bayesian,
)
from posterior_inpainting.models.random_weights.weight_laws import LowRankGaussian, WeightSamples
from posterior_inpainting.models.random_weights.weight_priors import FanIn, Gaussian, ScaleMixture
from posterior_inpainting.models.supervised import Supervised
from posterior_inpainting.models.variational_autoencoder import VariationalAutoencoder

__all__ = [
    "BayesianCompletion",
    "BayesianConv2d",
    "BayesianDecoder",
    "BayesianLinear",
    "BayesianModule",
    "CodeAndUnits",
    "CodeAndWeights",
    "Collection",
    "DeepImagePrior",
    "DiffusionPrior",
    "EmpiricalPrior",
    "FanIn",
    "Gaussian",
    "ExpertField",
    "GaussianProcess",
    "ImageModel",
    "Instrument",
    "LatentCode",
    "LinearGaussian",
    "LowRankGaussian",
    "Measurement",
    "MixtureField",
    "MixturePrior",
    "NearestMeasurement",
    "Observation",
    "OrderedModel",
    "PixelConstrained",
    "PluralisticConditional",
    "PluralisticJoint",
    "PluralisticTwoPath",
    "PriorLoss",
    "ScaleMixture",
    "Supervised",
    "VariationalAutoencoder",
    "WeightDraws",
    "WeightSamples",
    "bayesian",
    "datasets",
    "fields",
    "hub",
    "image_files",
    "geology",
    "observations",
    "operators",
    "pretrained",
    "read_collection",
]
