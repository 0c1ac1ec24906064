"""Experts are learnt from few images; of holes nothing is read, and filters that see one say nothing."""

import math

import pytest
import torch
from short_learning import completes, folder_of, learner_of, reads_nothing_missing

from posterior_inpainting.inference import Gibbs
from posterior_inpainting.inference.learning import course
from posterior_inpainting.inference.learning.experts import ExpertsLearner, experts_for
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.expert_losses import ExpertLikelihood, ExpertScoreMatching
from posterior_inpainting.inference.training.principal_filters import begin_with_principal_filters
from posterior_inpainting.models import ExpertField, Observation, observations

#: Of both phases, and of score matching alone, which is fast.
EPOCHS, MATCHED = 6, 25
SHAPE = (1, 12, 12)


@pytest.fixture(scope="module")
def few():
    """Rectangles on rectangles, as things before things: edges, and what lies between them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(150, 1, 1, 1, generator=generator).expand(-1, *SHAPE).clone()
    for image in images:
        for grey in torch.rand(5, generator=generator).tolist():
            top, bottom, left, right = torch.randint(SHAPE[1], (4,), generator=generator).tolist()
            image[:, min(top, bottom) : max(top, bottom) + 1, min(left, right) : max(left, right) + 1] = grey
    return (images + 0.01 * torch.randn(images.shape, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="module")
def observed(few):
    return Observation(few[0], observations.half(SHAPE, hide="bottom"))


@pytest.fixture(scope="module")
def masks(few):
    """Of each image a square of 4 x 4 pixels is missing, each at another place."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.randint(9, (len(few), 2), generator=generator).tolist()
    return torch.stack([observations.box(SHAPE, *corner, 4, 4) for corner in corners])


@pytest.fixture(scope="module")
def learnt(few, tmp_path_factory):
    return folder_of(ExpertsLearner, few, tmp_path_factory.mktemp("experts"), EPOCHS)


@pytest.fixture(scope="module")
def matched(few):
    return matched_of(few)


def matched_of(images, masks=None):
    """A learner after score matching alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "_EPOCHS", MATCHED)
        learner = learner_of(ExpertsLearner, images, masks)
        with Streams(0).seeded("learning"):
            course.Course(learner.phases()[:1], len(learner.lessons.train), {}, progress=False).run()
    return learner


def test_score_matching_learns(matched, few):
    """Nats a hidden pixel."""
    assert matched.score() > learner_of(ExpertsLearner, few).score() + 0.1


def test_both_phases_are_better_than_untrained(learnt, few):
    assert learnt.figures["validation score"] > learner_of(ExpertsLearner, few).score()


def test_the_prior_loads_and_completes(learnt, observed):
    assert completes(learnt, observed, Gibbs(warmup=2))


def test_nothing_missing_is_read(few, masks):
    assert reads_nothing_missing(ExpertsLearner, few, masks)


def test_holes_cost_little(matched, few, masks):
    """Of the same question, nats a hidden pixel."""
    of_whole = learner_of(ExpertsLearner, few)
    of_whole.experts = matched_of(torch.where(masks, few, math.nan), masks).experts
    assert of_whole.score() > matched.score() - 0.1


def test_a_score_is_the_density_of_a_pixel_given_the_others(few):
    """Where experts say nothing, a pixel is any of the values: its density is 1, but at the ends."""
    learner = learner_of(ExpertsLearner, few)
    assert learner.score() == learner.score()
    with torch.no_grad():
        learner.experts.filters.zero_()
    learner.experts.ridge = 1e-9
    assert learner.score() == pytest.approx(0, abs=0.1)


def test_samples_are_drawn_together(few):
    learner = learner_of(ExpertsLearner, few)
    drawn = learner.samples(learner.model(), 3)
    assert tuple(drawn.shape) == (3, *SHAPE)
    assert drawn.std(0).min() > 0


def test_holes_side_by_side_leave_fewer_levels_or_none(few):
    scattered = torch.rand(few.shape, generator=torch.Generator().manual_seed(2))
    assert learner_of(ExpertsLearner, few).experts.levels == 3
    assert learner_of(ExpertsLearner, few, scattered < 0.9).experts.levels == 2
    with pytest.raises(ValueError, match="squares of 3 x 3 pixels is seen whole"):
        learner_of(ExpertsLearner, few, scattered < 0.3)


class TestFiltersThatSeeHoles:
    @pytest.fixture
    def experts(self):
        torch.manual_seed(0)
        return experts_for(SHAPE)

    def test_a_place_is_seen_if_all_its_pixels_are(self, experts, masks):
        """Beside the responses to one pixel that is NaN."""
        for mask in masks[:5]:
            image = torch.where(mask, 0.5, math.nan)[None]
            for seen, said in zip(experts.places_seen(mask[None]), experts.responses(image), strict=True):
                assert torch.equal(seen, ~said.isnan().any(1, keepdim=True))

    @pytest.mark.parametrize("kind", [lambda: ExpertScoreMatching(0.1), lambda: ExpertLikelihood(2)])
    def test_losses_have_no_slope_in_what_is_missing(self, experts, few, masks, kind):
        model = ExpertField(experts, SHAPE)
        images, known = few[:9].clone().requires_grad_(), masks[:9]
        torch.manual_seed(0)
        loss = kind().differentiable_loss(model, None, images, known=known)
        (slope,) = torch.autograd.grad(loss, images)
        assert (slope[~known] == 0).all()
        assert (slope[known] != 0).float().mean() > 0.9

    @pytest.mark.parametrize("kind", [lambda: ExpertScoreMatching(0.1), lambda: ExpertLikelihood(2)])
    def test_of_whole_images_losses_are_as_without_masks(self, experts, few, kind):
        """But for the ridge, which has no parameter."""
        model, slopes = ExpertField(experts, SHAPE), []
        for known in (None, torch.ones_like(few[:9], dtype=torch.bool)):
            torch.manual_seed(0)
            loss = kind().differentiable_loss(model, None, few[:9], known=known)
            slopes.append(torch.autograd.grad(loss, [*experts.parameters()]))
        for one, other in zip(*slopes, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)

    def test_filters_begin_with_what_is_seen(self, experts, few, masks):
        found = []
        for garbage in (0.0, 1.0):
            begin_with_principal_filters(experts, torch.where(masks, few, garbage), 0.02, masks)
            found.append(experts.filters.detach().clone())
        assert torch.equal(*found)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (3, 64, 48)])
def test_experts_suit_sizes(shape):
    experts = experts_for(shape)
    assert 2 ** (experts.levels - 1) * 3 <= min(shape[1:])
    assert experts.count == 8 * shape[0]
