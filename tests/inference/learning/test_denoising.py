"""A denoiser is learnt from few images, whole or with holes, of one size or of any."""

import math

import pytest
import torch
from short_learning import completes, folder_of, learner_of, reads_nothing_missing, trained

from posterior_inpainting.inference import ConditionalDiffusion
from posterior_inpainting.inference.learning import course
from posterior_inpainting.inference.learning.denoising import DenoisingLearner, denoiser_for
from posterior_inpainting.inference.learning.lessons import Lessons
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import pretrained
from posterior_inpainting.models.images.collection import Collection

EPOCHS = 12


@pytest.fixture(scope="module")
def few(digits):
    return digits[:300]


@pytest.fixture(scope="module")
def masks(few):
    """A third of the pixels is missing, of each image others."""
    return torch.rand(few.shape, generator=torch.Generator().manual_seed(1)) < 0.67


@pytest.fixture(scope="module")
def learnt(few, tmp_path_factory):
    return folder_of(DenoisingLearner, few, tmp_path_factory.mktemp("diffusion"), EPOCHS)


def patches(count=40):
    """Waves of colour as patches of 16 pixels."""
    generator = torch.Generator().manual_seed(0)
    phase = 6 * torch.rand(count, 3, 1, 1, generator=generator)
    places = torch.arange(16.0)[:, None] + 0.5 * torch.arange(16.0)
    names = tuple(map(str, range(count)))
    images = 0.5 + 0.4 * torch.sin(0.4 * places + phase)
    return Collection(images, None, names, names, (), {"size": None, "patches": 16, "channels": 3})


def test_it_denoises_better_than_untrained(learnt, few):
    assert learnt.figures["validation score"] > learner_of(DenoisingLearner, few).score() + 0.1


def test_the_prior_loads_and_completes(learnt, seen):
    assert completes(learnt, seen, ConditionalDiffusion(steps=4))


def test_the_chain_is_kept(learnt, few):
    settings = pretrained.read_prior(learnt.folder).config["settings"]
    assert settings == learner_of(DenoisingLearner, few).settings()


def test_a_score_is_the_same_twice_and_leaves_random_numbers_alone(few):
    learner = learner_of(DenoisingLearner, few)
    before = torch.get_rng_state()
    assert learner.score() == learner.score()
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_missing_is_read(few, masks):
    assert reads_nothing_missing(DenoisingLearner, few[:100], masks[:100])


def test_what_is_missing_has_no_slope(few, masks):
    """Of the loss in the images, under the same noise."""
    learner = learner_of(DenoisingLearner, few, masks)
    images, known = few[:9].clone().requires_grad_(), masks[:9]
    torch.nn.init.normal_(learner.denoiser.near.last[-1].weight, std=0.1)  # an untrained one says nothing
    loss = learner.loss.differentiable_loss(learner.model(), None, images, known, known)
    (slope,) = torch.autograd.grad(loss, images)
    assert (slope[~known] == 0).all()
    assert (slope[known] != 0).float().mean() > 0.9


def test_holes_cost_little(learnt, few, masks):
    """Of the same question: less than a quarter of what is learnt, though no training image was whole."""
    holed, _ = trained(DenoisingLearner, torch.where(masks, few, math.nan), masks, EPOCHS)
    of_whole = learner_of(DenoisingLearner, few)
    untrained, best = of_whole.score(), learnt.figures["validation score"]
    of_whole.denoiser = holed.denoiser
    assert of_whole.score() > best - 0.25 * (best - untrained)


class TestPatches:
    def learner(self):
        return DenoisingLearner(Lessons.of(patches(), Streams(0), "cpu"), Streams(0))

    def test_they_teach_a_denoiser_of_any_size(self):
        learner = self.learner()
        assert learner.denoiser.size is None
        mean, _ = learner.denoiser(torch.rand(1, 3, 21, 30), torch.tensor(0.1))
        assert tuple(mean.shape) == (1, 3, 21, 30)
        assert [phase.name for phase in learner.phases()] == ["fill", "denoiser"]

    def test_the_fill_is_learnt_first_and_then_stays(self, monkeypatch):
        monkeypatch.setattr(course, "_EPOCHS", 4)
        learner = self.learner()
        filled, network = learner.phases()
        before = [filled.score(), learner.score()]
        records = course.Course([filled, network], len(learner.lessons.train), {}, progress=False).run()
        assert records[0].scores[-1] > before[0]
        assert records[1].scores[-1] > before[1]
        assert not any(one.requires_grad for one in learner.denoiser.fill.parameters())


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 48), (1, 128, 128)])
def test_networks_suit_sizes(shape):
    """No network has more than twelve million weights, 24 megabytes in half precision."""
    denoiser = denoiser_for(shape, of_any_size=False)
    assert sum(one.numel() for one in denoiser.parameters()) < 12_000_000
    mean, variance = denoiser(torch.rand(1, *shape), torch.tensor(0.5))
    assert tuple(mean.shape) == (1, *shape)
    assert (variance > 0).all()
