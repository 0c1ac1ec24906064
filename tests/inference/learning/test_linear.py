"""Principal components are as many as further hidden pixels ask for, and learnt where pixels are missing too."""

import math

import pytest
import torch
from short_learning import completes, folder_of, learner_of, reads_nothing_missing

from posterior_inpainting.inference import Exact
from posterior_inpainting.inference.learning.linear import LinearLearner
from posterior_inpainting.models import LinearGaussian
from posterior_inpainting.models.principal_components import fit_of_seen, spectrum_of


@pytest.fixture(scope="module")
def few(digits):
    return digits[:800]


@pytest.fixture(scope="module")
def masks(few):
    """A third of the pixels is missing, of each image others."""
    return torch.rand(few.shape, generator=torch.Generator().manual_seed(1)) < 0.67


@pytest.fixture(scope="module")
def learnt(few, tmp_path_factory):
    return folder_of(LinearLearner, few, tmp_path_factory.mktemp("linear"))


def drawn_from_a_plane(count=400):
    """Images of two components and what they were made with, all double precision but the images."""
    generator = torch.Generator().manual_seed(0)
    loadings = 0.2 * torch.randn(12, 2, generator=generator, dtype=torch.double)
    codes = torch.randn(count, 2, generator=generator, dtype=torch.double)
    noise = torch.randn(count, 12, generator=generator, dtype=torch.double)
    return (0.5 + codes @ loadings.T + 0.05 * noise).reshape(count, 1, 3, 4).float(), loadings


def test_the_prior_loads_and_completes(learnt, seen):
    assert learnt.records == []
    assert completes(learnt, seen, Exact())


def test_as_many_components_as_validation_asks_for(few, learnt):
    """Of 800 images many more than one; of 60 fewer than the half of them that there may be."""
    learner = learner_of(LinearLearner, few)
    assert learner.score() > learner._score_of(LinearGaussian.fit(learner.lessons.train.images, 1)) + 0.2
    assert learnt.figures["validation score"] == pytest.approx(learner.score())
    fewer = learner_of(LinearLearner, few[:60])
    many = LinearGaussian.fit(fewer.lessons.train.images, len(fewer.lessons.train) // 2)
    assert fewer.model().latent < many.latent
    assert fewer.score() > fewer._score_of(many)


def test_the_score_is_the_dense_conditional_density(few):
    learner = learner_of(LinearLearner, few)
    model, total, count = learner.model(), 0.0, 0
    covariance = (model.loadings @ model.loadings.T).double()
    covariance += model.noise.double() ** 2 * torch.eye(64, dtype=torch.double)
    for image, mask in zip(learner.lessons.validation.images, learner.lessons.further.seen(), strict=True):
        residual, a = (image - model.mean).flatten().double(), mask.flatten()
        gain = covariance[~a][:, a] @ torch.linalg.inv(covariance[a][:, a])
        left = covariance[~a][:, ~a] - gain @ covariance[a][:, ~a]
        law = torch.distributions.MultivariateNormal(gain @ residual[a], (left + left.T) / 2)
        total, count = total + float(law.log_prob(residual[~a])), count + int((~a).sum())
    assert learner.score() == pytest.approx(total / count, abs=1e-6)


def test_nothing_missing_is_read(few, masks):
    assert reads_nothing_missing(LinearLearner, few[:200], masks[:200])


def test_holes_cost_little(few, masks):
    """Nats a hidden pixel, of the same images: one component of whole ones has 0.6 fewer than the best of them."""
    learner = learner_of(LinearLearner, torch.where(masks, few, math.nan), masks)
    of_whole = learner_of(LinearLearner, few)
    assert of_whole._score_of(learner.model()) > of_whole.score() - 0.3


class TestExpectationMaximisation:
    def test_of_whole_images_it_is_the_closed_form(self, few):
        """Up to its own tolerance, and the weak prior of rows, whose share is about a hundredth."""
        whole = torch.ones_like(few, dtype=torch.bool)
        found = LinearGaussian.of(fit_of_seen(few, whole, 6, iterations=300, tolerance=1e-7), (1, 8, 8))
        closed = LinearGaussian.fit(few, 6)
        assert float(found.noise) == pytest.approx(float(closed.noise), rel=1e-3)
        pairs = [(one.loadings @ one.loadings.T) for one in (found, closed)]
        assert (pairs[0] - pairs[1]).abs().max() < 0.03 * pairs[1].abs().max()

    def test_a_step_is_that_of_dense_algebra(self):
        """One iteration from given numbers, beside loops over images and pixels, with the same prior of rows."""
        images, _ = drawn_from_a_plane(40)
        masks = torch.rand(images.shape, generator=torch.Generator().manual_seed(3)) < 0.6
        generator = torch.Generator().manual_seed(4)
        loadings = torch.randn(12, 2, generator=generator, dtype=torch.double)
        mean, noise = torch.full((12,), 0.4, dtype=torch.double), torch.tensor(0.3, dtype=torch.double)
        found = fit_of_seen(images, masks, 2, (loadings, mean, noise), iterations=1)
        rows, whole = _dense_step(images.flatten(1).double(), masks.flatten(1), loadings, mean, noise)
        centre = whole[:2, 2] / 40
        spread = whole[:2, :2] / 40 - centre[:, None] * centre
        assert torch.allclose(found[1], rows[:, 2] + rows[:, :2] @ centre, atol=1e-5)
        assert torch.allclose(found[0] @ found[0].T, rows[:, :2] @ spread @ rows[:, :2].T, atol=1e-5)

    def test_the_plane_is_found_behind_holes(self):
        images, loadings = drawn_from_a_plane()
        masks = torch.rand(images.shape, generator=torch.Generator().manual_seed(2)) < 0.6
        found = LinearGaussian.fit(images, 2, masks=masks)
        assert float(found.noise) == pytest.approx(0.05, rel=0.1)
        # Of 400 codes the covariance has a standard error of a fourteenth of itself.
        truth = (loadings @ loadings.T).float()
        assert (found.loadings @ found.loadings.T - truth).abs().max() < 0.3 * truth.abs().max()

    def test_evidence_of_held_out_images_is_above_that_of_filled_holes(self, few, masks):
        """Beside the closed form of images whose holes have the mean of what is seen of their pixel."""
        train, held_out = few[:600], few[600:]
        mean = (train * masks[:600]).sum(0) / masks[:600].sum(0)
        filled = LinearGaussian.fit(torch.where(masks[:600], train, mean), 4)
        found = LinearGaussian.fit(train, 4, masks=masks[:600])
        assert found.log_evidence(held_out).mean() > filled.log_evidence(held_out).mean() + 1

    def test_a_pixel_that_is_never_seen_has_the_mean_of_all(self):
        images, _ = drawn_from_a_plane()
        masks = torch.ones_like(images, dtype=torch.bool)
        masks[:, 0, 1, 1] = False
        loadings, mean, _ = fit_of_seen(images, masks, 2)
        seen = images[masks]
        assert loadings[5].abs().max() < 1e-6
        assert float(mean[5]) == pytest.approx(float(seen.mean()), abs=1e-4)

    def test_masks_are_checked(self, few):
        with pytest.raises(ValueError, match="mask"):
            LinearGaussian.fit(few, 3, masks=torch.ones(few.shape))


def test_both_matrices_of_products_say_the_same(few):
    """Fewer images than pixels, and more."""
    some = few[:80].repeat(2, 1, 1, 1)  # the components of 80 images are those of them twice
    pairs = [spectrum_of(images).fit(5) for images in (few[:40].repeat(2, 1, 1, 1), few[:40], some, few[:80])]
    for one, other in (pairs[:2], pairs[2:]):
        assert torch.allclose(one[0] @ one[0].T, other[0] @ other[0].T, atol=1e-9)


def _dense_step(images, masks, loadings, mean, noise):
    """Return rows (w, m) after one iteration, and the sum of the products of (z, 1)."""
    values = images[masks]
    average, variance = values.mean(), values.var(correction=0)
    moments, products, whole = torch.zeros(12, 3, 3), torch.zeros(12, 3), torch.zeros(3, 3)
    moments, products, whole = (one.double() for one in (moments, products, whole))
    for image, mask in zip(images, masks, strict=True):
        shown = loadings[mask]
        covariance = torch.linalg.inv(torch.eye(2).double() + shown.T @ shown / noise**2)
        code = torch.cat([covariance @ shown.T @ (image - mean)[mask] / noise**2, torch.ones(1).double()])
        square = torch.outer(code, code)
        square[:2, :2] += covariance
        moments[mask] += square
        products[mask] += image[mask, None] * code
        whole += square
    ridge = noise**2 / variance
    products[:, 2] += ridge * average
    return torch.linalg.solve(moments + ridge * torch.eye(3).double(), products), whole
