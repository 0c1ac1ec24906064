"""Decoder and guide are learnt together behind masks, from images of which pixels are missing, too."""

import math

import pytest
import torch

from posterior_inpainting.inference import Variational, catalogue, infer
from posterior_inpainting.inference.learning import course
from posterior_inpainting.inference.learning.learn import learn
from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.learning.lessons import Lessons
from posterior_inpainting.inference.learning.pluralistic import PluralisticLearner
from posterior_inpainting.inference.results.images_of_posterior import completed_images
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import PluralisticJoint
from posterior_inpainting.models.images.collection import collected


@pytest.fixture(scope="module")
def few(digits):
    return digits[:600]


@pytest.fixture(scope="module")
def masks(few):
    """A third of the pixels is missing, of each image others."""
    return torch.rand(few.shape, generator=torch.Generator().manual_seed(1)) < 0.67


def learner_of(images, masks=None):
    return PluralisticLearner(Lessons.of(collected(images, masks), Streams(0), "cpu"), Streams(0))


def short(monkeypatch, epochs):
    """End phases after so many epochs, so that the clock decides nothing, and measure briefly."""
    monkeypatch.setattr(course, "_EPOCHS", epochs)
    monkeypatch.setattr(Learner, "test_images", 2)


@pytest.fixture(scope="module")
def learnt(few, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        short(patch, 40)
        folder = tmp_path_factory.mktemp("pluralistic")
        return learn(few, "pluralistic", out=folder, device="cpu", progress=False)


def test_it_completes_better_than_untrained(learnt, few):
    assert learnt.figures["validation score"] > learner_of(few).score() + 0.3


def test_the_prior_loads_and_completes(learnt, seen):
    assert catalogue.entry(str(learnt.folder)).random == "code z of a joint density"
    model = catalogue.build(learnt.folder, seen).model
    assert isinstance(model, PluralisticJoint)
    posterior = infer(model, seen, Variational(), draws=5, chains=1, progress=False)
    images = completed_images(posterior)
    assert (images[..., seen.mask.numpy()] == seen.image[seen.mask].numpy()).all()


def test_nothing_missing_is_read(few, masks, monkeypatch):
    short(monkeypatch, 2)
    found = []
    for garbage in (0.0, 1.0):
        learner = learner_of(torch.where(masks, few, garbage)[:200], masks[:200])
        with Streams(0).seeded("learning"):
            course.Course(learner.phases(), len(learner.lessons.train), {}, progress=False).run()
        found.append([value for part in learner.parts().values() for value in part.state_dict().values()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_holes_cost_little(learnt, few, masks, monkeypatch, tmp_path):
    short(monkeypatch, 40)
    holed = torch.where(masks, few, math.nan)
    worse = learn(holed, "pluralistic", out=tmp_path, device="cpu", progress=False)
    assert worse.figures["validation score"] > learnt.figures["validation score"] - 0.2


def test_half_of_a_minibatch_shows_all_there_is(few):
    """So that the loss of a minibatch whose bank hides everything is that of the other half alone, and a KL."""
    learner = learner_of(few)
    shown = []
    learner.loss = lambda model, part: shown.append(part.masks)
    learner._half_behind_masks(torch.arange(200))
    assert shown[0][:100].all()
    assert 0.3 < shown[0][100:].float().mean() < 0.9
