"""Latents that all images share count once an epoch, whether or not their model tags them as random weights."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroParam
from torch import nn

from posterior_inpainting.inference import train
from posterior_inpainting.models.base import ImageModel

SHAPE = (1, 1, 2)
COUNT, NOISE, PRIOR = 40, 4.0, 0.3


class SharedMean(ImageModel):
    """One level of all pixels, drawn once for all images; with ``grouped``, inside a plate that is not of images."""

    image_shape = SHAPE

    def __init__(self, guide_is_a_point=False, grouped=False):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))
        self.scale = PyroParam(torch.tensor(0.5), constraint=constraints.positive)
        self.guide_is_a_point, self.grouped = guide_is_a_point, grouped

    def draw(self, law):
        if not self.grouped:
            return pyro.sample("level", law)
        with pyro.plate("groups", 2):  # as many as the images of a minibatch of 2
            return pyro.sample("level", law).mean()

    def forward(self, image=None, mask=None):
        level = self.draw(dist.Normal(torch.zeros(()), PRIOR))
        with self.images_plate(image):
            return self.observe(dist.Normal(level.expand(SHAPE), NOISE), image, mask)

    def guide(self, image=None, mask=None):
        return self.draw(dist.Delta(self.loc) if self.guide_is_a_point else dist.Normal(self.loc, self.scale))


@pytest.fixture
def images():
    return 3 + NOISE * torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(1))


def posterior(images, times=1):
    """Mean and standard deviation where the prior counts ``times`` times."""
    precision = times / PRIOR**2 + images.numel() / NOISE**2
    return float(images.sum() / NOISE**2 / precision), precision**-0.5


@pytest.mark.parametrize("batch_size", [4, 7, COUNT])
@pytest.mark.parametrize("elbo", [None, Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("grouped", [False, True])
def test_loss_of_an_epoch_is_minus_the_elbo(images, batch_size, elbo, grouped):
    """A guide of one point has no noise: the losses of an epoch add up to the joint density there, exactly."""
    model = SharedMean(guide_is_a_point=True, grouped=grouped)
    nn.init.constant_(model.loc, 0.7)
    with torch.no_grad():
        values = {"level": model.loc.expand(2) if grouped else model.loc}
        exact = -poutine.trace(poutine.condition(model, values)).get_trace(images).log_prob_sum()
    settings = {"batch_size": batch_size, "learning_rate": 0.0, "progress": False}
    loss = train(model, model.guide, images, epochs=1, loss=elbo and elbo(), **settings).losses[0]
    assert loss == pytest.approx(float(exact) / COUNT, rel=1e-5)


def test_fitted_guide_is_the_posterior(images):
    """Minibatches of a tenth of the images; the divergence counted ten times has its optimum elsewhere."""
    mean, sd = posterior(images)
    assert abs(posterior(images, times=10)[0] - mean) > 2 * sd
    model = SharedMean()
    settings = {"batch_size": 4, "learning_rate": 0.03, "progress": False}
    train(model, model.guide, images, epochs=120, loss=TraceMeanField_ELBO(num_particles=4), **settings)
    # What is left is the noise of the last steps, whose size falls to 0: a fraction of a standard deviation.
    assert abs(float(model.loc.detach()) - mean) < 0.1 * sd
    assert float(model.scale.detach()) == pytest.approx(sd, rel=0.05)


def test_latents_of_single_images_count_whole(images):
    """One code an image beside the shared level: its divergence is whole in every minibatch."""

    class WithCodes(SharedMean):
        def forward(self, image=None, mask=None):
            level = self.draw(dist.Normal(torch.zeros(()), PRIOR))
            with self.images_plate(image):
                code = pyro.sample("code", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                return self.observe(dist.Normal(level + code[..., None, None, :], NOISE), image, mask)

        def guide(self, image=None, mask=None):
            super().guide(image, mask)
            with self.images_plate(image):
                pyro.sample("code", dist.Delta(image[..., 0, 0, :] / 3, event_dim=1))

    model = WithCodes(guide_is_a_point=True)
    with torch.no_grad():
        values = {"level": model.loc, "code": images[:, 0, 0] / 3}
        exact = -poutine.trace(poutine.condition(model, values)).get_trace(images).log_prob_sum()
    settings = {"batch_size": 4, "learning_rate": 0.0, "progress": False}
    loss = train(model, model.guide, images, epochs=1, **settings).losses[0]
    assert loss == pytest.approx(float(exact) / COUNT, rel=1e-5)


def test_a_plate_that_scales_its_images_is_refused(images):
    """Pyro would count each minibatch as all images, and the epoch as many times that."""

    class Subsampled(SharedMean):
        def images_plate(self, image):
            return pyro.plate("images", COUNT, subsample=torch.arange(len(image)), dim=-1)

    model = Subsampled()
    with pytest.raises(
        ValueError, match=r"^the plate 'images' has 2 of 40 images; expected a plate of the images"
    ):
        train(model, model.guide, images, batch_size=4, progress=False)


def test_what_is_no_loss_is_refused(images):
    """An object that happens to have a method of the right name is no loss: train asks for more than that."""

    class Imitation:
        def differentiable_loss(self, model, guide, images, masks=None):
            return guide(images).square()

    model = SharedMean()
    with pytest.raises(
        ValueError, match=r"^loss is a Imitation; expected an ELBO of Pyro's or a subclass of"
    ):
        train(model, model.guide, images, loss=Imitation(), progress=False)
