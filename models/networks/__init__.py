"""Plain torch networks that the models are made of; nothing here imports Pyro."""

from posterior_inpainting.models.networks.hourglass import Hourglass
from posterior_inpainting.models.networks.multilayer import MaskedEncoder, MultilayerDecoder

__all__ = ["Hourglass", "MaskedEncoder", "MultilayerDecoder"]
