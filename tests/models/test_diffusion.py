"""The mixture that denoises exactly, the reverse chain of any prior, and networks that learn to denoise."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from posterior_inpainting.inference import DenoisingScoreMatching, train
from posterior_inpainting.models import DiffusionPrior, MixtureField, datasets, pretrained
from posterior_inpainting.models.densities.reverse_diffusion import noise_levels
from posterior_inpainting.models.networks import Denoiser

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

    def test_untrained_it_is_the_best_linear_one(self):
        network = Denoiser(features=(4,), centre=0.4, spread=0.2)
        noisy = torch.rand(1, 4, 4)
        mean, variance = network(noisy, torch.tensor(0.3))
        share = 0.04 / (0.04 + 0.09)
        torch.testing.assert_close(mean, 0.4 + share * (noisy - 0.4))
        torch.testing.assert_close(variance, torch.full_like(noisy, 0.04 * 0.09 / 0.13))

    def test_saved_and_loaded(self, tmp_path):
        network = Denoiser(1, (4, 8), 2, 2, centre=0.3, spread=0.4)
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
            (lambda: DiffusionPrior(Denoiser(3), (1, 8, 8)), "takes 3 channel"),
            (lambda: DiffusionPrior(Denoiser(), (1, 8, 8), steps=0), "steps=0"),
            (lambda: DiffusionPrior(Denoiser(), (1, 8, 8), noise=0.0), "noise=0.0"),
            (lambda: DiffusionPrior(Denoiser(), (1, 8)), "expected \\(channel, row, column\\)"),
            (lambda: DenoisingScoreMatching(sd_log_level=0.0), "sd_log_level=0.0"),
        ],
        ids=range(8),
    )
    def test_bad_input(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestTraining:
    def test_masks_are_refused(self):
        model = DiffusionPrior(Denoiser(features=(4,)), (1, 8, 8), steps=1)
        masks = torch.ones(2, 1, 8, 8, dtype=torch.bool)
        with pytest.raises(ValueError, match="learns from whole images"):
            train(
                model,
                model.guide,
                datasets.load("digits"),
                masks=masks,
                loss=DenoisingScoreMatching(),
                epochs=1,
                progress=False,
            )

    @pytest.mark.long
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
