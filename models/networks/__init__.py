"""Plain torch networks that the models are made of; nothing here imports Pyro."""

from posterior_inpainting.models.networks.code_mixture import CodeMixture
from posterior_inpainting.models.networks.constraint import ConstraintNetwork
from posterior_inpainting.models.networks.context_encoder import ContextEncoder
from posterior_inpainting.models.networks.convolutional_decoder import ConvolutionalDecoder
from posterior_inpainting.models.networks.convolutional_encoder import ConvolutionalEncoder
from posterior_inpainting.models.networks.decoder import Decoder
from posterior_inpainting.models.networks.denoiser import Denoiser
from posterior_inpainting.models.networks.discriminator import Discriminator
from posterior_inpainting.models.networks.domain_judge import DomainJudge
from posterior_inpainting.models.networks.experts import Experts
from posterior_inpainting.models.networks.generator import ConvolutionalGenerator, Generator
from posterior_inpainting.models.networks.hourglass import Hourglass, Layers
from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN
from posterior_inpainting.models.networks.multilayer import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.networks.pluralistic import PluralisticDecoder, PluralisticEncoder

__all__ = [
    "CodeMixture",
    "ConstraintNetwork",
    "ContextEncoder",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "ConvolutionalGenerator",
    "Decoder",
    "Denoiser",
    "Discriminator",
    "DomainJudge",
    "Experts",
    "GatedPixelCNN",
    "Generator",
    "Hourglass",
    "Layers",
    "MaskedEncoder",
    "MultilayerDecoder",
    "PluralisticDecoder",
    "PluralisticEncoder",
]
