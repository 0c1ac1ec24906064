"""Pixel networks are learnt from few images, whole or with holes, in levels that suit them."""

import math

import pytest
import torch
from short_learning import completes, folder_of, learner_of, reads_nothing_missing, trained

from posterior_inpainting.inference import Exact
from posterior_inpainting.inference.learning.autoregressive import AutoregressiveLearner, pixel_networks_for
from posterior_inpainting.models import pretrained
from posterior_inpainting.models.autoregressive.pixel_laws import CategoricalPixels

EPOCHS = 8


@pytest.fixture(scope="module")
def few(digits):
    return digits[:300]


@pytest.fixture(scope="module")
def masks(few):
    """A third of the pixels is missing, of each image others."""
    return torch.rand(few.shape, generator=torch.Generator().manual_seed(1)) < 0.67


@pytest.fixture(scope="module")
def learnt(few, tmp_path_factory):
    return folder_of(AutoregressiveLearner, few, tmp_path_factory.mktemp("pixels"), EPOCHS)


def test_both_networks_learn(learnt, few):
    """Nats a pixel: both begin with nearly even odds of 16 levels, log 16 = 2.77."""
    assert learner_of(AutoregressiveLearner, few).score() < -2.5
    prior, constraint = (record.scores for record in learnt.records)
    assert max(prior) > -2
    assert max(constraint) > max(prior) - 0.1
    assert learnt.figures["validation score"] > -2


def test_the_prior_loads_and_completes(learnt, seen):
    assert completes(learnt, seen, Exact())
    assert pretrained.words(learnt.folder, "prior")["law"] == CategoricalPixels(16).to_json()


def test_black_and_white_images_have_two_levels(few):
    assert learner_of(AutoregressiveLearner, (few > 0.5).float()).law.levels == 2
    assert learner_of(AutoregressiveLearner, few).law.levels == 16


def test_the_score_counts_further_hidden_pixels(few):
    """Of two levels, in a loop over images."""
    learner = learner_of(AutoregressiveLearner, (few > 0.5).float())
    validation, further = learner.lessons.validation, learner.lessons.further
    found = []
    for image, mask in zip(validation.images, further.seen(), strict=True):
        each = learner.model().cross_entropies(image[None], mask[None])["constrained"][0]
        found.append(each[~mask].detach())
    assert learner.score() == pytest.approx(-float(torch.cat(found).mean()), abs=0.01)  # in bfloat16


def test_samples_are_images_of_the_lattice(few):
    learner = learner_of(AutoregressiveLearner, few)
    drawn = learner.samples(learner.model(), 3)
    assert tuple(drawn.shape) == (3, 1, 8, 8)
    assert torch.equal(learner.law.quantise(drawn), drawn)


def test_nothing_missing_is_read(few, masks):
    assert reads_nothing_missing(AutoregressiveLearner, few[:100], masks[:100])


def test_holes_cost_little(learnt, few, masks):
    """Of the same question: less than a third of what is learnt."""
    holed, _ = trained(AutoregressiveLearner, torch.where(masks, few, math.nan), masks, EPOCHS)
    of_whole = learner_of(AutoregressiveLearner, few)
    untrained, best = of_whole.score(), learnt.figures["validation score"]
    of_whole.prior, of_whole.constraint = holed.prior, holed.constraint
    assert of_whole.score() > best - 0.33 * (best - untrained)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 48)])
def test_networks_suit_sizes(shape):
    prior, constraint = pixel_networks_for(shape, 16)
    image = torch.rand(1, *shape)
    assert prior(image).shape == constraint(image, image > 0.5).shape == (1, prior.outputs, *shape[1:])
