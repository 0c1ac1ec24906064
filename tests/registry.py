"""All that the tests know of each public model: how it is made small, and what is special about it."""

import torch
from digit import SHAPE

from posterior_inpainting.models import (
    BayesianCompletion,
    BayesianDecoder,
    CodeAndUnits,
    CodeAndWeights,
    DeepImagePrior,
    DiffusionPrior,
    EmpiricalPrior,
    ExpertField,
    GaussianProcess,
    LatentCode,
    LinearGaussian,
    MixtureField,
    NearestMeasurement,
    PixelConstrained,
    PluralisticConditional,
    PluralisticJoint,
    PluralisticTwoPath,
    VariationalAutoencoder,
    WeightDraws,
    datasets,
    pretrained,
)
from posterior_inpainting.models.bayesian_completion import CompletionNetwork
from posterior_inpainting.models.fields import Matern
from posterior_inpainting.models.networks import (
    ConstraintNetwork,
    ContextEncoder,
    Denoiser,
    Experts,
    GatedPixelCNN,
    Hourglass,
    MaskedEncoder,
    MultilayerDecoder,
    PluralisticDecoder,
    PluralisticEncoder,
)


def _bayesian_decoder():
    torch.manual_seed(0)
    decoder, encoder = MultilayerDecoder(2, SHAPE, (4,), scale_rank=2), MaskedEncoder(2, SHAPE, (4,))
    return BayesianDecoder(decoder, encoder, posterior_scale=0.3).eval()


def _conditional():
    parts = ContextEncoder(2, SHAPE, (8,), context=3), MultilayerDecoder(5, SHAPE, (8,))
    return PluralisticConditional(*parts, MaskedEncoder(2, (2, 8, 8), (8,)))


#: Models that are a density of the seen pixels over continuous latents.
DENSITIES = {
    BayesianDecoder: _bayesian_decoder,
    CodeAndUnits: lambda: CodeAndUnits(_bayesian_decoder()),
    CodeAndWeights: lambda: CodeAndWeights(_bayesian_decoder()),
    DeepImagePrior: lambda: DeepImagePrior(SHAPE, Hourglass(SHAPE, channels=3, scales=1, input_channels=2)),
    DiffusionPrior: lambda: DiffusionPrior(Denoiser(features=(4, 8)), SHAPE, steps=3),
    ExpertField: lambda: ExpertField(Experts(1, 3, 3, 1), SHAPE),
    GaussianProcess: lambda: GaussianProcess(Matern(1.5), SHAPE, mean=0.3, covariance=0.1, noise=0.1),
    LatentCode: lambda: LatentCode(pretrained.load("digits-vae-2d")),
    LinearGaussian: lambda: LinearGaussian.fit(datasets.load("digits", split="train"), latent=3),
    MixtureField: lambda: MixtureField.fit(datasets.load("digits", split="train"), components=2),
    PluralisticJoint: lambda: PluralisticJoint(
        MultilayerDecoder(2, SHAPE, (16,)), MaskedEncoder(2, SHAPE, (16,))
    ),
    VariationalAutoencoder: lambda: VariationalAutoencoder(
        MultilayerDecoder(2, SHAPE, (16,)), MaskedEncoder(2, SHAPE, (16,))
    ),
}

#: Models that are no density of the seen pixels, or have a discrete site: what all models share is tested of them too.
OTHERS = {
    BayesianCompletion: lambda: BayesianCompletion(
        CompletionNetwork(MaskedEncoder(4, SHAPE, (8,)), MultilayerDecoder(4, SHAPE, (8,)))
    ),
    EmpiricalPrior: lambda: EmpiricalPrior(datasets.load("digits", split="train"), noise=0.1),
    NearestMeasurement: lambda: NearestMeasurement(pretrained.load("digits-vae-2d"), radius=3.0),
    PixelConstrained: lambda: PixelConstrained(
        GatedPixelCNN(SHAPE, 2, features=4), ConstraintNetwork(SHAPE, 2, features=4)
    ),
    PluralisticConditional: _conditional,
    PluralisticTwoPath: lambda: PluralisticTwoPath(
        PluralisticEncoder(SHAPE, 2, (8, 8)), PluralisticDecoder(SHAPE, 2, (8, 8))
    ),
    WeightDraws: lambda: WeightDraws(_bayesian_decoder(), count=3),
}
MODELS = DENSITIES | OTHERS

#: Where what is special about those of `OTHERS` is tested.
ELSEWHERE = {
    BayesianCompletion: "test_bayesian_decoder.py",
    EmpiricalPrior: "test_empirical_prior.py",
    NearestMeasurement: "test_geology.py",
    PixelConstrained: "test_pixel_constrained.py",
    PluralisticConditional: "test_pluralistic.py",
    PluralisticTwoPath: "test_pluralistic.py",
    WeightDraws: "test_code_and_weights.py",
}

#: Public names that a model defines beside the abilities of models/abilities.py: what its users call, and inference
#: never asks for.
OWN = {
    BayesianCompletion: {"load", "predict", "score_hidden", "training_model"},
    BayesianDecoder: {"load"},
    CodeAndUnits: {"decode", "mean_network"},
    CodeAndWeights: {"theta"},
    DeepImagePrior: {"complete", "squash"},
    DiffusionPrior: {"decode", "load"},
    EmpiricalPrior: {"exact_posterior"},
    ExpertField: {"load"},
    GaussianProcess: {"completion", "exact_posterior", "fit", "pixel_posterior"},
    LatentCode: {"pixel_law", "prior", "speed", "wrap"},
    LinearGaussian: {"exact_posterior", "fit", "of"},
    MixtureField: {"exact_posterior", "fit"},
    PixelConstrained: {"constrained_law", "cross_entropies", "load", "overwritten", "save"},
    PluralisticConditional: {"load", "score_hidden", "training_guide", "training_model"},
    PluralisticJoint: {"load"},
    PluralisticTwoPath: {"load", "score_whole", "training_guide", "training_model", "two_paths"},
}

#: Those that complete no image under a name of their own in the catalogue, and why.
UNNAMED = {
    BayesianDecoder: "trained on many images; one image is completed by CodeAndUnits, code-and-weights",
    CodeAndWeights: "the posterior of code-and-weights in all weights' coordinates, which takes minutes an image",
    EmpiricalPrior: "nearest-5 and nearest-20 are made of training images, which tests do without",
    MixtureField: "the yardstick of samplers that denoise, fitted to small images of one's own",
    VariationalAutoencoder: "trained on many images; one image is completed by LatentCode, vae",
}
