"""The gradient by hand against autograd and against Pyro's trace."""

import pyro.distributions as dist
import pytest
import torch

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.models import LatentCode, LinearGaussian, datasets
from posterior_inpainting.models.networks import MultilayerDecoder

SHAPE = (1, 8, 8)


def shared_scale():
    torch.manual_seed(0)
    return LatentCode(MultilayerDecoder(3, SHAPE, (16, 12), scale_rank=None))


def scale_of_z():
    torch.manual_seed(0)
    return LatentCode(MultilayerDecoder(3, SHAPE, (16, 12), scale_rank=4))


def other_prior():
    torch.manual_seed(0)
    decoder = MultilayerDecoder(3, SHAPE, (16,), scale_rank=4)
    return LatentCode(decoder, prior=dist.StudentT(4.0, torch.zeros(3), 1.0).to_event(1))


def censored():
    torch.manual_seed(0)
    return LatentCode(
        MultilayerDecoder(3, SHAPE, (16, 12), scale_rank=4, likelihood="censored_normal", scale_factor=1.7)
    )


def censored_with_one_scale():
    torch.manual_seed(0)
    return LatentCode(
        MultilayerDecoder(3, SHAPE, (16,), scale_rank=None, likelihood="censored_normal", scale_factor=0.6)
    )


def linear():
    return LinearGaussian.fit(datasets.load("digits", split="train"), latent=3)


MODELS = [shared_scale, scale_of_z, other_prior, censored, censored_with_one_scale, linear]


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
class TestGradient:
    def test_one_image_at_two_temperatures(self, make):
        model = make()
        image = datasets.load("digits")[0]
        mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.6
        position = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2))
        beta = torch.tensor([[1.0], [0.3]])
        self.compare(Problem(model, (image, mask)), None, position, beta, None)

    def test_images_with_masks_of_their_own(self, make):
        model = make()
        images = datasets.load("digits")[:4]
        masks = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1)) < 0.6
        position = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(2))
        which = torch.tensor([0, 2, 3])
        self.compare(Problem(model, (images, masks)), 4, position, 0.7, which)

    @staticmethod
    def compare(problem, groups, position, beta, which):
        fast = Potential(problem, groups=groups)
        general = Potential(problem, groups=groups, closed_form=False)
        assert fast.route == "closed form"
        for mine, theirs in zip(
            fast.gradient(position, beta, which), general.gradient(position, beta, which), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-3)
        for mine, theirs in zip(fast(position, which), general(position, which), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-3)
