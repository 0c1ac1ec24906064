"""The validation score of learners of a code is a proper one: no more than the truth, and worse for a worse guide."""

import pytest
import torch

from posterior_inpainting.inference.learning.autoencoder import AutoencoderLearner
from posterior_inpainting.inference.learning.latent_learner import LatentLearner, channels_for, encoder_for
from posterior_inpainting.inference.learning.lessons import Lessons
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import LinearGaussian, pretrained
from posterior_inpainting.models.images.collection import collected


@pytest.fixture(scope="module")
def lessons(digits):
    return Lessons.of(collected(digits[:600], None), Streams(0), "cpu")


class Yardstick(LatentLearner):
    """Of a linear decoder, whose guide is exact."""

    def __init__(self, lessons, linear):
        super().__init__(lessons, Streams(0), linear.latent)
        self.linear = linear

    def phases(self):
        return ()

    def model(self):
        return self.linear


class Loaded(LatentLearner):
    """Of networks that are trained already."""

    def __init__(self, lessons):
        super().__init__(lessons, Streams(0), 2)
        self.decoder = pretrained.load("digits-vae-2d")
        self.encoder = self.decoder.encoder

    def phases(self):
        return ()


def test_score_of_an_exact_guide_is_the_conditional_density(lessons, digits):
    """One code of one number leaves little to the draws: the bound is below the truth, by less than a twentieth nat."""
    linear = LinearGaussian.fit(digits, latent=1)
    further, whole = lessons.further, lessons.validation
    hidden = (whole.seen() & ~further.seen()).sum()
    evidence = linear.log_evidence(whole.images) - linear.log_evidence(further.images, further.masks)
    truth = float(evidence.sum() / hidden)
    assert truth - 0.05 < Yardstick(lessons, linear).score() < truth + 0.005


def test_bound_of_an_exact_guide_is_the_evidence(lessons, linear):
    part = lessons.further
    truth = float(linear.log_evidence(part.images, part.masks).mean())
    assert Yardstick(lessons, linear).bound(linear, part) == pytest.approx(truth, abs=1e-2)


@pytest.mark.parametrize("damage", ["lost", "shifted"])
def test_a_worse_guide_scores_worse(lessons, damage):
    learner = Loaded(lessons)
    good, same = learner.score(), learner.score()
    assert good == same
    head = next(one for one in reversed(list(learner.encoder.modules())) if isinstance(one, torch.nn.Linear))
    with torch.no_grad():
        if damage == "lost":
            head.weight.zero_()
            head.bias.zero_()
        else:
            head.bias[:2] += 2.0
    assert learner.score() < good - 0.01


def test_fewer_images_have_shorter_codes(lessons):
    assert AutoencoderLearner(lessons, Streams(0)).latent == len(lessons.train) // 20


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 20), (1, 28, 28), (3, 128, 128)])
def test_maps_and_encoders_suit_sizes(shape):
    channels = channels_for(shape)
    if channels:
        assert 4 <= min(shape[1:]) / 2 ** len(channels) <= 8
    images = torch.rand(2, *shape)
    loc, scale = encoder_for(shape, latent=3)(images, images < 0.5)
    assert loc.shape == scale.shape == (2, 3)
