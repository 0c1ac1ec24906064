"""Images of 8 bits are refused by all that learns from images, and other values are those of any data."""

import pytest
import torch

from posterior_inpainting.inference import train, train_gan
from posterior_inpainting.models import EmpiricalPrior, LinearGaussian, MixtureField, VariationalAutoencoder
from posterior_inpainting.models.networks import Discriminator, Generator, MaskedEncoder, MultilayerDecoder

SHAPE = (1, 8, 8)
IMAGES = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(0))


def trained(images):
    torch.manual_seed(0)
    model = VariationalAutoencoder(MultilayerDecoder(2, SHAPE, (8,)), MaskedEncoder(2, SHAPE, (8,)))
    train(model, model.guide, images, epochs=1, progress=False)


def trained_against_a_judge(images):
    torch.manual_seed(0)
    train_gan(
        Generator(2, SHAPE, (8,)),
        Discriminator(SHAPE, widths=(8,)),
        images,
        epochs=1,
        batch_size=4,
        progress=False,
    )


LEARNERS = {
    "LinearGaussian.fit": lambda images: LinearGaussian.fit(images, latent=2),
    "MixtureField.fit": lambda images: MixtureField.fit(images, components=1),
    "EmpiricalPrior": lambda images: EmpiricalPrior(images, noise=0.1),
    "train": trained,
    "train_gan": trained_against_a_judge,
}


@pytest.mark.parametrize("learner", LEARNERS)
def test_eight_bits(learner):
    with pytest.raises(ValueError, match=r"^images run from .* to 25.*; expected \[0, 1\]: divide by 255$"):
        LEARNERS[learner](255 * IMAGES)


@pytest.mark.parametrize("learner", LEARNERS)
def test_noise(learner):
    LEARNERS[learner](IMAGES + 0.1 * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(1)))
