"""The mixture that denoises exactly, the reverse chain of any prior, and networks that learn to denoise."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from statistics_of_draws import assert_moments
from torch.nn import functional as F

from posterior_inpainting.inference import ChEES, DenoisingScoreMatching, FillLikelihood, infer, train
from posterior_inpainting.models import (
    DiffusionPrior,
    LatentCode,
    LinearGaussian,
    MixtureField,
    Observation,
    observations,
    pretrained,
)
from posterior_inpainting.models.densities.reverse_diffusion import noise_levels
from posterior_inpainting.models.diffusion import FewStepDecoder
from posterior_inpainting.models.networks import Denoiser
from posterior_inpainting.models.networks.global_branch import GlobalBranch
from posterior_inpainting.models.networks.pyramid import Pyramid

SHAPE = (1, 1, 3)


@pytest.fixture(scope="module")
def field():
    factors = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    covariances = 0.1 * factors @ factors.mT + 0.05 * torch.eye(3).double()
    means = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.0, 0.2]]).double()
    return MixtureField(torch.tensor([3.0, 1.0]), means, covariances, SHAPE, noise=0.2)


class TestMixtureField:
    MASK = torch.tensor([[[True, False, True]]])
    IMAGE = torch.tensor([[[0.3, 0.0, 0.4]]])

    def test_evidence_is_that_of_the_seen_pixels(self, field):
        seen = [0, 2]
        densities = [
            multivariate_normal(mean[seen], cov[np.ix_(seen, seen)] + 0.04 * np.eye(2)).pdf([0.3, 0.4])
            for mean, cov in zip(field.means.numpy(), field.covariances.numpy(), strict=True)
        ]
        expected = math.log(0.75 * densities[0] + 0.25 * densities[1])
        assert float(field.log_evidence(self.IMAGE, self.MASK)) == pytest.approx(expected, abs=1e-6)

    def test_posterior_by_quadrature(self, field):
        """The hidden pixel alone, given the seen ones exactly, by Bayes on a grid over all three pixels."""
        grid = np.linspace(-3, 4, 141)
        x = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1).reshape(-1, 3)
        prior = sum(
            weight * multivariate_normal(mean, cov).pdf(x)
            for weight, mean, cov in zip(
                (0.75, 0.25), field.means.numpy(), field.covariances.numpy(), strict=True
            )
        )
        likelihood = np.exp(-0.5 * (((x[:, [0, 2]] - [0.3, 0.4]) / 0.2) ** 2).sum(1))
        weight = prior * likelihood / (prior * likelihood).sum()
        mean = weight @ x
        posterior = field.exact_posterior(self.IMAGE, self.MASK)
        np.testing.assert_allclose(posterior.mean.numpy(), mean, atol=1e-4)
        np.testing.assert_allclose(posterior.variance.numpy(), weight @ (x - mean) ** 2, atol=1e-4)

    def test_denoised_is_the_posterior_under_noise_on_all_pixels(self, field):
        noisy, level = torch.tensor([[[0.4, 0.2, 0.1]]]), 0.37
        other = MixtureField(
            field.log_weights.exp(), field.means, field.covariances, SHAPE, noise=level
        ).exact_posterior(noisy)
        mean, variance = field.reverse_diffusion().denoised(noisy, torch.tensor(level))
        torch.testing.assert_close(mean.flatten(), other.mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(variance.flatten(), other.variance, atol=1e-5, rtol=1e-5)

    def test_denoised_is_the_score(self, field):
        """Tweedie's formula: (D - u) / level^2 is the gradient of the noisy density's logarithm."""
        noisy, level = torch.tensor([[[0.4, 0.2, 0.1]]]), 0.5
        law = MixtureField(field.log_weights.exp(), field.means, field.covariances, SHAPE, noise=level)
        moved = [
            float(law.log_evidence(noisy + 1e-3 * torch.eye(3)[i] * s)) for i in range(3) for s in (1, -1)
        ]
        score = (np.array(moved[::2]) - np.array(moved[1::2])) / 2e-3
        mean = field.reverse_diffusion().denoised(noisy, torch.tensor(level))[0]
        np.testing.assert_allclose(((mean - noisy) / level**2).flatten().numpy(), score, atol=2e-3)

    @pytest.mark.parametrize("level", [0.1, 1.0])
    def test_draws_without_steps_are_exact(self, field, level):
        reverse, generator = field.reverse_diffusion(), torch.Generator().manual_seed(0)
        noisy = torch.tensor([[[0.6, 0.2, 0.5]]]).expand(20_000, *SHAPE)
        mean, variance = (part[0].flatten() for part in reverse.denoised(noisy[:1], torch.tensor(level)))
        drawn = reverse.draw(noisy, torch.tensor(level), None, generator).flatten(1)
        assert ((drawn.mean(0) - mean).abs() < 5 * (variance / 20_000).sqrt()).all()
        assert (drawn.var(0) / variance - 1).abs().max() < 0.06

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"means": torch.zeros(2, 4)}, "expected \\(2, 3\\)"),
            ({"weights": torch.tensor([1.0, 0.0])}, "expected positive numbers"),
            ({"noise": 0.0}, "noise=0.0; expected positive"),
            ({"covariances": -torch.eye(3).expand(2, 3, 3)}, "covariance 0 is not positive definite"),
        ],
    )
    def test_bad_input(self, change, message):
        given = {
            "weights": torch.ones(2),
            "means": torch.zeros(2, 3),
            "covariances": torch.eye(3).expand(2, 3, 3),
            "noise": 0.1,
        }
        with pytest.raises(ValueError, match=message):
            MixtureField(image_shape=SHAPE, **(given | change))


class TestReverseChain:
    def test_more_steps_come_nearer(self, field):
        """Half the error in the spread with twice the steps, and none that can be seen with many."""
        reverse, generator = field.reverse_diffusion(), torch.Generator().manual_seed(0)
        noisy = torch.tensor([[[0.6, 0.2, 0.5]]]).expand(20_000, *SHAPE)
        level = torch.tensor(1.0)
        mean, variance = (part[0].flatten() for part in reverse.denoised(noisy[:1], level))
        missing = {}
        for steps in (10, 20, 160):
            drawn = reverse.draw(noisy, level, steps, generator).flatten(1)
            assert ((drawn.mean(0) - mean).abs() < 0.05 * variance.sqrt()).all()
            missing[steps] = float(1 - (drawn.var(0) / variance).mean())
        assert missing[10] > 0.05
        assert 0.3 < missing[20] / missing[10] < 0.7
        assert abs(missing[160]) < 0.03

    def test_levels_of_each_its_own(self):
        highest = torch.tensor([[1.0, 2.0], [0.005, 4.0]])
        levels = noise_levels(3, highest, lowest=0.01)
        assert levels.shape == (4, 2, 2)
        assert torch.equal(levels[0], highest)
        assert (levels[-1] == 0).all()
        assert (levels.diff(dim=0) <= 1e-8).all()
        torch.testing.assert_close(levels[:, 0, 1], noise_levels(3, 2.0, 0.01))

    @pytest.mark.parametrize(("count", "lowest"), [(0, 0.1), (3, 0.0), (3, 2.0)])
    def test_bad_levels(self, count, lowest):
        with pytest.raises(ValueError, match="expected at least one step, and 0 < lowest <= highest"):
            noise_levels(count, 1.0, lowest)


class TestDenoiser:
    @pytest.mark.parametrize("patch", [1, 2])
    @pytest.mark.parametrize("size", [(8, 8), (7, 10)])
    def test_any_size_and_batch(self, patch, size):
        network = Denoiser(3, (4, 8), patch=patch)
        noisy = torch.rand(2, 5, 3, *size)
        mean, variance = network(noisy, torch.rand(5) + 0.1)
        assert mean.shape == variance.shape == noisy.shape
        one = network(noisy[1, 2], torch.tensor(0.3))[0]
        torch.testing.assert_close(network(noisy[1], torch.tensor(0.3))[0][2], one, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("size", [None, (4, 4)])
    def test_untrained_it_is_the_best_linear_one(self, size):
        network = Denoiser(features=(4,), size=size, centre=0.4, spread=0.2)
        noisy = torch.rand(1, 4, 4)
        mean, variance = network(noisy, torch.tensor(0.3))
        share = 0.04 / (0.04 + 0.09)
        torch.testing.assert_close(mean, 0.4 + share * (noisy - 0.4))
        torch.testing.assert_close(variance, torch.full_like(noisy, 0.04 * 0.09 / 0.13))

    def test_the_global_branch_sees_from_corner_to_corner(self):
        torch.manual_seed(0)
        branch = GlobalBranch(2, 3, (9, 9), embedding=4, units=16, blocks=2)
        for layer in (branch.last, branch.blocks[0].level, branch.blocks[0].second):
            torch.nn.init.normal_(layer.weight)
        images, embedded = torch.rand(1, 2, 9, 9, requires_grad=True), torch.rand(1, 4, requires_grad=True)
        branch(images, embedded)[0, 0, 8, 8].backward()
        assert float(images.grad[0, 1, 0, 0].abs()) > 1e-4
        assert float(embedded.grad.abs().min()) > 1e-4

    def test_with_a_global_branch_of_any_batch(self):
        torch.manual_seed(0)
        network = Denoiser(3, (4, 8), patch=2, size=(7, 10), global_units=16, global_blocks=1)
        torch.nn.init.normal_(network.whole.last.weight)
        noisy = torch.rand(2, 5, 3, 7, 10)
        mean, variance = network(noisy, torch.tensor(0.3))
        assert mean.shape == variance.shape == noisy.shape
        torch.testing.assert_close(
            network(noisy[1, 2], torch.tensor(0.3))[0], mean[1, 2], atol=1e-5, rtol=1e-4
        )

    def test_only_the_loss_drops_units(self):
        torch.manual_seed(0)
        network = Denoiser(features=(4,), size=(4, 4), dropout=0.5)
        for layer in (network.whole.last, network.whole.blocks[0].second):
            torch.nn.init.normal_(layer.weight)
        noisy, level = torch.rand(1, 4, 4), torch.tensor(0.3)
        torch.testing.assert_close(network(noisy, level), network(noisy, level), rtol=0, atol=0)
        found = []

        def listen(_, given, out):
            found.append(float((out == 0).float().mean() - (given[0] == 0).float().mean()))

        network.whole.blocks[0].dropout.register_forward_hook(listen)
        model = DiffusionPrior(network, (1, 4, 4), steps=1)
        DenoisingScoreMatching().differentiable_loss(model, model.guide, torch.rand(50, 1, 4, 4))
        network(noisy, level)
        assert found[0] == pytest.approx(0.5, abs=0.02)
        assert found[1] == 0

    @pytest.mark.parametrize("size", [None, (8, 8)])
    def test_saved_and_loaded(self, tmp_path, size):
        network = Denoiser(1, (4, 8), 2, 2, size=size, centre=0.3, spread=0.4)
        pretrained.save_parts(tmp_path, "", {"denoiser": network})
        model = DiffusionPrior.load(tmp_path, (1, 8, 8), steps=3)
        noisy = torch.rand(2, 1, 8, 8)
        found, expected = model.denoiser(noisy, torch.tensor(0.2)), network(noisy, torch.tensor(0.2))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-2)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Denoiser(features=()), "expected at least 1 of each"),
            (lambda: Denoiser(spread=0.0), "a positive spread"),
            (lambda: Denoiser(1)(torch.rand(3, 8, 8), torch.tensor(0.1)), "takes 1 channel"),
            (lambda: Denoiser(pyramid=-1), "pyramid=-1"),
            (lambda: Pyramid(0), "levels=0"),
            (lambda: Pyramid(sweeps=-1), "sweeps=-1"),
            (lambda: DenoisingScoreMatching(evenness=2.0), "evenness=2.0"),
            (lambda: DiffusionPrior(Denoiser(size=(8, 9)), (1, 8, 8)), "takes 8 x 9 pixels, and shape"),
            (lambda: Denoiser(dropout=1.0), "a dropout in \\[0, 1\\)"),
            (lambda: Denoiser(size=(8, 0)), "expected at least 1 of each"),
            (lambda: Denoiser(size=(8, 9))(torch.rand(1, 8, 8), torch.tensor(0.1)), "takes 8 x 9 pixels"),
            (lambda: DiffusionPrior(Denoiser(3), (1, 8, 8)), "takes 3 channel"),
            (lambda: DiffusionPrior(Denoiser(), (1, 8, 8), steps=0), "steps=0"),
            (lambda: DiffusionPrior(Denoiser(), (1, 8, 8), noise=0.0), "noise=0.0"),
            (lambda: DiffusionPrior(Denoiser(), (1, 8)), "expected \\(channel, row, column\\)"),
            (lambda: DenoisingScoreMatching(sd_log_level=0.0), "sd_log_level=0.0"),
            (lambda: DenoisingScoreMatching(seen_weight=0.0), "seen_weight=0.0"),
            (lambda: DenoisingScoreMatching(most=0.004), "most=0.004"),
        ],
        ids=range(18),
    )
    def test_bad_input(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestPyramid:
    @pytest.mark.parametrize("size", [(8, 8), (7, 13), (1, 3)])
    def test_an_image_that_is_seen_stays_and_one_that_is_not_is_the_centre(self, size):
        image, pyramid = torch.rand(2, 3, *size), Pyramid(3, centre=0.4)
        with torch.no_grad():
            all_of_it, certain = pyramid(image, torch.tensor(1e-4))
            nothing, uncertain = pyramid(image, torch.tensor(1e4))
        torch.testing.assert_close(all_of_it, image, atol=1e-3, rtol=0)
        torch.testing.assert_close(nothing, torch.full_like(image, 0.4), atol=1e-3, rtol=0)
        assert float(certain.max()) < 1.01e-8
        torch.testing.assert_close(
            uncertain, (pyramid.spread**2 + pyramid.log_doubts.detach().exp().sum()).expand_as(uncertain)
        )

    def test_of_one_level_without_neighbours_it_is_exact(self):
        """Four pixels about a mean about the centre: Gaussian, with a posterior that is known."""
        pyramid = Pyramid(1, centre=0.4, spread=0.3, sweeps=0)
        q = float(pyramid.log_variances.detach().exp())
        level = torch.tensor([[[[0.1, 10.0], [0.2, 0.05]]]])
        noisy = torch.tensor([[[[0.9, 4.0], [0.7, 0.6]]]])
        covariance = 0.3**2 + q * torch.eye(4)
        gain = covariance @ torch.linalg.inv(covariance + level.square().flatten().diag())
        mean = 0.4 + gain @ (noisy.flatten() - 0.4)
        with torch.no_grad():
            found, variance = (part.flatten() for part in pyramid(noisy, level))
        # What comes down holds a pixel's own part once more: hidden pixels are exact, and seen ones nearly.
        assert float(found[1] - mean[1]) == pytest.approx(0, abs=2e-3)
        assert float((found - mean).abs().max()) < 0.02
        left = (covariance - gain @ covariance).diag()
        assert float(variance[1]) == pytest.approx(float(left[1]), rel=1e-3)
        assert float((variance / left - 1).abs().max()) < 0.3

    @pytest.mark.parametrize(("curvature", "most"), [(0.0, 0.5), (0.5, 0.6)])
    def test_slopes_and_curves_go_on_through_a_hole(self, curvature, most):
        """By the sweeps: of the error without them a half is left, or little more."""
        across = torch.linspace(-1, 1, 32)
        image = (0.4 + 0.3 * across + curvature * across.square()).expand(1, 1, 32, 32).contiguous()
        level = torch.full_like(image, 0.01)
        level[..., 8:20, 10:22] = 10.0
        noisy = image + level * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            swept, pulled = (
                float((Pyramid(sweeps=sweeps)(noisy, level)[0] - image)[level > 1].abs().mean())
                for sweeps in (6, 0)
            )
        assert swept < most * pulled

    def test_sweeps_go_to_the_mean_of_a_markov_field(self):
        """In the end every hidden pixel is the mean of those around it, as of a membrane: Laplace's equation."""
        pyramid = Pyramid(1, sweeps=800)
        membrane = torch.zeros(5, 5)
        membrane[[1, 2, 2, 3], [2, 1, 3, 2]] = 0.25
        with torch.no_grad():
            pyramid.filters.copy_(membrane)
            pyramid.log_conditional.fill_(2 * math.log(0.05))
            noisy = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
            level = torch.full_like(noisy, 1e-4)
            level[..., 3:6, 3:6] = 1e4
            found = pyramid(noisy, level)[0][0, 0]
        around = (found[2:5, 3:6] + found[4:7, 3:6] + found[3:6, 2:5] + found[3:6, 4:7]) / 4
        torch.testing.assert_close(found[3:6, 3:6], around, atol=1e-5, rtol=0)
        torch.testing.assert_close(found[2], noisy[0, 0, 2], atol=1e-5, rtol=0)

    def test_its_likelihood_teaches_what_it_claims(self):
        """Errors about the fill, over the variance that it claims, are 1 on average."""
        generator = torch.Generator().manual_seed(0)
        images = F.avg_pool2d(torch.rand(600, 1, 20, 20, generator=generator), 5, 1)
        masks = observations.random_masks((1, 16, 16), 100, 0)
        network = Denoiser(features=(4,), pyramid=3, centre=0.5, spread=0.06)
        model = DiffusionPrior(network, (1, 16, 16), steps=1)
        loss = FillLikelihood(mean_log_level=-1.0)

        def standardised():
            level = torch.where(masks, 0.005, 1.0)
            with torch.no_grad():
                fill, variance = network.fill(
                    images[500:] + level * torch.randn(level.shape, generator=generator), level
                )
            return float(((images[500:] - fill).square() / variance)[~masks].mean())

        before = standardised()
        train(
            model,
            model.guide,
            images[:500],
            masks=masks,
            loss=loss,
            epochs=8,
            batch_size=20,
            learning_rate=0.05,
            progress=False,
        )
        assert not 0.5 < before < 2
        assert 0.6 < standardised() < 1.6

    def test_a_denoiser_begins_with_it(self):
        """Untrained, its mean is the fill, and it is saved and loaded with it."""
        denoiser = Denoiser(3, (4, 8), pyramid=2, spread=0.2)
        again = Denoiser(**denoiser.configuration())
        again.load_state_dict(denoiser.state_dict())
        noisy, level = torch.rand(2, 5, 3, 9, 10), torch.rand(2, 5, 3, 9, 10) + 0.01
        with torch.no_grad():
            for one in (denoiser, again):
                fill = one.fill(noisy.flatten(0, 1), level.flatten(0, 1))[0].reshape(noisy.shape)
                torch.testing.assert_close(one(noisy, level)[0], fill)


class TestTraining:
    def test_learns_the_mean_and_the_variance(self):
        """Of images whose exact denoiser is known: errors near the least possible, and variances that say so."""
        torch.manual_seed(0)
        means = torch.tensor([[0.1, 0.1, 0.1, 0.9] * 4, [0.9, 0.1, 0.9, 0.1] * 4]).double()
        field = MixtureField(torch.ones(2), means, 0.02 * torch.eye(16).double().expand(2, 16, 16), (1, 4, 4))
        images = field.exact_posterior().sample((6000,)).reshape(-1, 1, 4, 4)
        network = Denoiser(features=(16, 32), centre=0.4, spread=0.4)
        model = DiffusionPrior(network, (1, 4, 4), steps=1)
        loss = DenoisingScoreMatching()
        train(
            model,
            model.guide,
            images[:5000],
            loss=loss,
            epochs=25,
            batch_size=100,
            averaging=0.99,
            progress=False,
        )
        for level in (0.1, 0.3, 1.0):
            t = torch.tensor(level)
            noisy = images[5000:] + t * torch.randn(1000, 1, 4, 4)
            with torch.no_grad():
                mean, variance = network(noisy, t)
            best = field.reverse_diffusion().denoised(noisy, t)[0]
            error, least = ((images[5000:] - m).square() for m in (mean, best))
            assert float(error.mean()) < 1.1 * float(least.mean())
            assert 0.85 < float((error / variance).mean()) < 1.15


class TestLevelsOfPixels:
    """A level for each pixel: the mixture conditions on the pixels that have little noise, networks learn to."""

    LEVELS = torch.tensor([[[0.2, 5.0, 0.7]]])
    NOISY = torch.tensor([[[0.4, 0.2, 0.1]], [[-0.3, 1.2, 0.6]]]).unsqueeze(1)

    def test_the_mixture_agrees_with_bayes(self, field):
        """By quadrature over all three pixels."""
        grid = np.linspace(-3, 4, 111)
        x = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1).reshape(-1, 3)
        prior = sum(
            weight * multivariate_normal(mean, cov).pdf(x)
            for weight, mean, cov in zip(
                (0.75, 0.25), field.means.numpy(), field.covariances.numpy(), strict=True
            )
        )
        mean, variance = field.reverse_diffusion().denoised(self.NOISY, self.LEVELS.unsqueeze(0))
        for index, noisy in enumerate(self.NOISY.reshape(2, 3).numpy()):
            weight = prior * np.exp(-0.5 * np.square((x - noisy) / self.LEVELS.numpy().ravel()).sum(1))
            weight /= weight.sum()
            expected = weight @ x
            np.testing.assert_allclose(mean[index].ravel(), expected, atol=2e-4)
            np.testing.assert_allclose(variance[index].ravel(), weight @ (x - expected) ** 2, atol=2e-4)

    def test_one_level_written_as_many(self, field):
        reverse, level = field.reverse_diffusion(), torch.tensor(0.37)
        for levels in (torch.full((1, *SHAPE), 0.37), torch.full((2, *SHAPE), 0.37)):
            for one, many in zip(
                reverse.denoised(self.NOISY, level), reverse.denoised(self.NOISY, levels), strict=True
            ):
                torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-4)

    def test_a_network_takes_both(self):
        torch.manual_seed(0)
        network = Denoiser(features=(8, 8))
        torch.nn.init.normal_(network.near.last[-1].weight, std=0.1)
        images = torch.rand(3, 1, 8, 8)
        one = network(images, torch.tensor(0.3))[0]
        torch.testing.assert_close(network(images, torch.full((3, 1, 8, 8), 0.3))[0], one)
        levels = torch.full((3, 1, 8, 8), 0.3)
        levels[:, :, :4] = 0.01
        assert not torch.allclose(network(images, levels)[0][:, :, 4:], one[:, :, 4:], atol=1e-3)

    def test_a_pixel_whose_level_stays_is_left_alone(self, field):
        now, following = torch.tensor([[[[0.2, 5.0, 0.7]]]]), torch.tensor([[[[0.2, 1.0, 0.7]]]])
        mean, spread = field.reverse_diffusion().step(self.NOISY, now, following)
        torch.testing.assert_close(mean[..., [0, 2]], self.NOISY[..., [0, 2]])
        assert float(spread[..., [0, 2]].max()) < 1e-6
        assert float(spread[..., 1].min()) > 0.1

    def test_training_with_masks_gives_seen_pixels_less_noise(self):
        loss = DenoisingScoreMatching(lowest=0.01, whole=0.25)
        torch.manual_seed(0)
        images, masks = torch.zeros(4000, 1, 2, 2), torch.zeros(4000, 1, 2, 2, dtype=torch.bool)
        masks[:, :, 0] = True
        levels, less = loss._levels(images, masks)
        seen, hidden = levels[:, 0, 0, 0], levels[:, 0, 1, 0]
        assert bool((less[:, 0, 1] == 0).all())
        assert abs(float(less[:, 0, 0].float().mean()) - 0.75) < 0.04
        assert bool((seen <= hidden).all())
        assert abs(float((seen == hidden).float().mean()) - 0.25) < 0.04
        less = seen[(seen < hidden) & (hidden > 0.2)]
        assert 0.01 <= float(less.min()) < 0.011
        assert 0.18 < float(less.max()) <= 0.2
        alone, none = loss._levels(images, None)
        assert not bool(none.any())
        assert bool((alone == alone[:, :, :1, :1]).all())

    def test_a_seen_pixel_counts_for_less(self):
        """By what the loss falls when seen pixels count for nothing, nearly, and for half."""
        torch.manual_seed(0)
        images, masks = torch.rand(50, 1, 2, 2), torch.ones(50, 1, 2, 2, dtype=torch.bool)
        model = DiffusionPrior(Denoiser(features=(8,)), (1, 2, 2), steps=1)
        found = []
        for weight in (1.0, 0.5, 1e-9):
            torch.manual_seed(1)
            loss = DenoisingScoreMatching(whole=0.0, seen_weight=weight)
            found.append(loss.differentiable_loss(model, model.guide, images, masks).item())
        assert found[0] > 1
        assert abs(found[1] - found[0] / 2) < 1e-3 * found[0]
        assert abs(found[2]) < 1e-3

    def test_squares_are_divided_by_the_variance_that_is_claimed(self):
        """By what the loss falls where a network claims four times the variance: a part of it, or a quarter of all."""
        model = DiffusionPrior(Denoiser(features=(8,)), (1, 2, 2), steps=1)
        images, found = torch.rand(50, 1, 2, 2), []
        for evenness, claimed in ((0.0, 0.0), (0.0, math.log(4)), (1.0, math.log(4))):
            with torch.no_grad():
                model.denoiser.near.last[-1].bias.copy_(torch.tensor([0.0, claimed]))
            torch.manual_seed(1)
            loss = DenoisingScoreMatching(evenness=evenness)
            total = loss.differentiable_loss(model, model.guide, images).item()
            found.append(total - 0.5 * claimed * images.numel())
        assert found[1] == pytest.approx(0.625 * found[0], rel=1e-3)
        assert found[2] == pytest.approx(0.25 * found[0], rel=1e-3)

    def test_it_learns_to_condition(self):
        """Two pixels that are equal, one of them seen: what is left of the other is little."""
        torch.manual_seed(0)
        value = torch.rand(2000, 1, 1, 1)
        images = value.expand(-1, 1, 2, 2).contiguous()
        masks = torch.tensor([[[True, False], [False, False]]]).expand(1, 1, 2, 2)
        network = Denoiser(features=(16,), spread=0.3)
        model = DiffusionPrior(network, (1, 2, 2), steps=2)
        train(
            model,
            model.guide,
            images,
            masks=masks,
            loss=DenoisingScoreMatching(),
            epochs=25,
            learning_rate=3e-3,
            averaging=0.9,
            progress=False,
        )
        levels = torch.where(masks, 0.02, 3.0)
        held_out = torch.rand(500, 1, 1, 1).expand(-1, 1, 2, 2)
        noisy = held_out + levels * torch.randn(500, 1, 2, 2)
        with torch.no_grad():
            error = (network(noisy, levels.expand_as(noisy))[0] - held_out)[:, 0, 1, 1]
        assert float(error.square().mean().sqrt()) < 0.1  # 0.29 without the seen pixel


class TestFewStepDecoder:
    """An untrained denoiser is the best linear one of single pixels, and its map of noise a known multiple of it."""

    @pytest.fixture
    def decoder(self):
        return FewStepDecoder(
            Denoiser(features=(8,), centre=0.4, spread=0.3), (1, 4, 4), steps=6, noise=0.1, lowest=0.05
        )

    def factor(self, levels, spread):
        """Of z in the image: x - c shrinks by (d^2 + t s) / (d^2 + t^2) a step."""
        found = math.sqrt(levels[0] ** 2 + spread**2)
        for t, s in itertools.pairwise(levels):
            found *= (spread**2 + t * s) / (spread**2 + t**2)
        return found

    def test_map(self, decoder):
        z = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
        expected = 0.4 + self.factor(decoder.levels.tolist(), 0.3) * z.reshape(5, 1, 4, 4)
        torch.testing.assert_close(decoder(z), expected, atol=1e-4, rtol=1e-4)

    def test_chees_finds_the_posterior_that_is_known(self, decoder):
        factor = self.factor(decoder.levels.tolist(), 0.3)
        linear = LinearGaussian(factor * torch.eye(16), torch.full((1, 4, 4), 0.4), torch.tensor(0.1))
        seen = Observation(torch.full((1, 4, 4), 0.9), torch.arange(16).reshape(1, 4, 4) < 8)
        idata = infer(LatentCode(decoder), seen, ChEES(), draws=300, chains=16, progress=False)
        exact = linear.exact_posterior(seen.image, seen.mask)
        assert_moments(idata.posterior["z"].to_numpy(), exact.mean.numpy(), exact.variance.sqrt().numpy())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"steps": 0}, "steps=0"),
            ({"noise": 0.0}, "noise=0.0; expected a positive number"),
            ({"lowest": 20.0}, "lowest=20; expected"),
            ({"image_shape": (3, 4, 4)}, "takes 1 channel"),
        ],
    )
    def test_bad_input(self, change, message):
        settings = {"image_shape": (1, 4, 4)} | change
        with pytest.raises(ValueError, match=message):
            FewStepDecoder(Denoiser(features=(8,)), **settings)
