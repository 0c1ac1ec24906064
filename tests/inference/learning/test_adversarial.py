"""A generator is learnt from images of which pixels are missing, too, and nothing is read of those."""

import math

import pytest
import torch

from posterior_inpainting.inference import Variational, catalogue, infer
from posterior_inpainting.inference.learning import adversarial, course
from posterior_inpainting.inference.learning.adversarial import AdversarialLearner
from posterior_inpainting.inference.learning.learn import learn
from posterior_inpainting.inference.learning.learner import Learner
from posterior_inpainting.inference.learning.lessons import Lessons
from posterior_inpainting.inference.results.images_of_posterior import completed_images
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.noise_of_projections import fit_noise
from posterior_inpainting.models import observations, pretrained
from posterior_inpainting.models.images.collection import collected
from posterior_inpainting.models.networks import Generator


@pytest.fixture(scope="module")
def few(digits):
    return digits[:600]


@pytest.fixture(scope="module")
def masks(few):
    """A third of the pixels is missing, of each image others."""
    return torch.rand(few.shape, generator=torch.Generator().manual_seed(1)) < 0.67


def learner_of(images, masks=None):
    return AdversarialLearner(Lessons.of(collected(images, masks), Streams(0), "cpu"), Streams(0))


def short(monkeypatch, epochs, steps=20):
    """End phases after so many epochs, so that the clock decides nothing; search for codes and measure briefly."""
    monkeypatch.setattr(course, "_EPOCHS", epochs)
    monkeypatch.setattr(Learner, "test_images", 2)
    monkeypatch.setattr(adversarial, "_SEARCH", adversarial.Projection(restarts=1, steps=steps))


@pytest.fixture(scope="module")
def learnt(few, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        short(patch, 20)
        return learn(few, "gan", out=tmp_path_factory.mktemp("gan"), device="cpu", progress=False)


def test_it_draws_more_like_real_images_than_at_first(learnt):
    """Minus the distance after a few epochs, and of the best weights."""
    game = learnt.records[0]
    assert max(game.scores) > 0.7 * game.scores[0]


def test_it_completes_better_than_untrained(learnt, few):
    assert learnt.figures["validation score"] > learner_of(few).score() + 3


def test_the_prior_loads_and_completes(learnt, seen):
    entry = catalogue.entry(str(learnt.folder))
    assert entry.random.startswith("code z of a GAN")
    model = catalogue.build(learnt.folder, seen).model
    posterior = infer(model, seen, Variational(), draws=5, chains=1, progress=False)
    images = completed_images(posterior)
    assert (images[..., seen.mask.numpy()] == seen.image[seen.mask].numpy()).all()


def test_the_discriminator_is_kept(learnt):
    parts = pretrained.load_parts(learnt.folder, "discriminator")
    assert tuple(parts["discriminator"](torch.rand(3, 1, 8, 8)).shape) == (3,)


def test_the_noise_is_that_of_held_out_images(learnt):
    """Neither the one that it began with nor the smallest that may be, everywhere."""
    noise = pretrained.load_parts(learnt.folder, "decoder")["decoder"].pixel_scale
    assert noise.min() >= 0.029  # 0.03 in half precision
    assert noise.std() > 0.02


def test_nothing_missing_is_read(few, masks, monkeypatch):
    short(monkeypatch, 2)
    found = []
    for garbage in (0.0, 1.0):
        learner = learner_of(torch.where(masks, few, garbage)[:200], masks[:200])
        with Streams(0).seeded("learning"):
            course.Course(learner.phases(), len(learner.lessons.train), {}, progress=False).run()
        found.append([value for part in learner.parts().values() for value in part.state_dict().values()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_generated_images_are_judged_by_what_is_seen_alone(few, masks):
    learner = learner_of(few, masks)
    part = learner.batch(torch.arange(9))
    drawn = torch.rand(9, 1, 8, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(learner._judged(drawn, part).sum(), drawn)
    assert (slope[~part.masks] == 0).all()
    assert (slope[part.masks] != 0).all()


def test_holes_cost_little(learnt, few, masks, monkeypatch, tmp_path):
    """Scores are nats a hidden pixel: that of an untrained one is 7 lower."""
    short(monkeypatch, 20)
    holed = torch.where(masks, few, math.nan)
    worse = learn(holed, "gan", out=tmp_path, device="cpu", progress=False)
    assert worse.figures["validation score"] > learnt.figures["validation score"] - 1


class TestNoiseBehindMasks:
    def fitted(self, images, masks=None, per_pixel=False):
        torch.manual_seed(0)
        generator = Generator(2, (1, 8, 8), (16,))
        settings = {"rounds": 2, "steps": 30, "progress": False}
        return fit_noise(generator, images, masks=masks, per_pixel=per_pixel, **settings).scale

    def test_what_is_hidden_changes_nothing(self, few, masks):
        images, seen = few[:50], masks[:50]
        found = [self.fitted(torch.where(seen, images, x), seen, per_pixel=True) for x in (0.0, 1.0)]
        assert torch.equal(*found)

    def test_where_all_is_seen_it_is_that_of_whole_images(self, few):
        images = few[:50]
        assert torch.allclose(self.fitted(images), self.fitted(images, torch.ones_like(images) > 0))

    def test_a_pixel_that_none_shows_has_the_noise_of_all(self, few):
        images, seen = few[:50], torch.ones(50, 1, 8, 8, dtype=torch.bool)
        seen[:, :, 3, 3] = False
        scale = self.fitted(images, seen, per_pixel=True)
        shown = seen[0]
        # Of 63 pixels as many squares each, each drawn a little towards the mean, which leaves the mean as it is.
        assert scale[0, 3, 3] == pytest.approx(float(scale[shown].square().mean().sqrt()), rel=0.01)


def test_networks_suit_sizes():
    for shape in ((1, 8, 8), (3, 16, 20), (1, 28, 28), (3, 128, 96)):
        generator, discriminator = adversarial.players_for(shape, latent=4)
        images = generator(torch.zeros(2, 4))
        assert tuple(images.shape) == (2, *shape)
        assert tuple(discriminator(images).shape) == (2,)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28)])
def test_convolutional_ones_learn(shape, monkeypatch):
    """Two epochs of a few small images: every network moves, and scores are finite."""
    short(monkeypatch, 2, steps=5)
    monkeypatch.setattr(adversarial, "_COMPARED", 100)
    images = torch.rand(40, *shape) * observations.half(shape, hide="bottom")
    learner = learner_of(images)
    before = [one.detach().clone() for part in learner.parts().values() for one in part.parameters()]
    records = course.Course(learner.phases(), len(learner.lessons.train), {}, progress=False).run()
    after = [one for part in learner.parts().values() for one in part.parameters()]
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(math.isfinite(score) for record in records for score in record.scores)
