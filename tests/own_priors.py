"""Priors of one's own, small: what tests of folders are made of."""

import torch

from posterior_inpainting.models import LinearGaussian
from posterior_inpainting.models.autoregressive import LogisticMixturePixels
from posterior_inpainting.models.networks import (
    CodeMixture,
    ConstraintNetwork,
    Denoiser,
    Discriminator,
    Experts,
    GatedPixelCNN,
    Generator,
    MaskedEncoder,
    MultilayerDecoder,
)
from posterior_inpainting.models.saved.folders import write_prior

SHAPE = (1, 8, 8)
LAW = LogisticMixturePixels(16, 2)
SETTINGS = {"pixels": {"law": LAW.to_json()}, "diffusion": {"steps": 4}}


def autoencoder():
    return {"decoder": MultilayerDecoder(2, SHAPE, (8,)), "encoder": MaskedEncoder(2, SHAPE, (8,))}


PARTS = {
    "vae": lambda: autoencoder() | {"prior": CodeMixture(3, 2)},
    "gan": lambda: {
        "decoder": Generator(2, SHAPE, widths=(8, 4)),
        "encoder": MaskedEncoder(2, SHAPE, (8,)),
        "discriminator": Discriminator(SHAPE, widths=(4,)),
    },
    "pluralistic": autoencoder,
    "pixels": lambda: {
        "prior": GatedPixelCNN(SHAPE, LAW.outputs(1), features=4),
        "constraint": ConstraintNetwork(SHAPE, LAW.outputs(1), features=4),
    },
    "linear": lambda: {"linear": LinearGaussian.fit(torch.rand(40, *SHAPE), latent=3)},
    "diffusion": lambda: {"denoiser": Denoiser(features=(4, 8))},
    "experts": lambda: {"experts": Experts(channels=1, count=2, side=3, levels=1)},
}


def written(folder, kind="vae", parts=None, patches=None, **changed):
    """Write an untrained prior; of any size if it is of patches."""
    said = {
        "preprocessing": {"size": None if patches else [8, 8], "patches": patches, "channels": 1},
        "data": {"digest": "0" * 64, "images": 40, "train": 30, "validation": 5, "test": 5},
        "figures": {"CRPS": 0.1},
        "card": "# Mine\n\nOf noise.\n",
        "settings": SETTINGS.get(kind),
    }
    write_prior(folder, kind=kind, parts=parts or PARTS[kind](), **(said | changed))
    return folder
