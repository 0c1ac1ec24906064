"""Holes completed window by window are the posterior of the whole where windows may be."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from posterior_inpainting.inference import ConditionalDiffusion, Exact, diagnostics
from posterior_inpainting.inference.contract import Draws, Method
from posterior_inpainting.inference.drawing_in_windows import infer_in_windows
from posterior_inpainting.inference.results.images_of_posterior import completed_images, posterior_mean
from posterior_inpainting.inference.verbs import infer
from posterior_inpainting.models import GaussianProcess, MixtureField, Observation
from posterior_inpainting.models.fields import Matern

SHAPE = (3, 40, 48)


def holes(*boxes) -> torch.Tensor:
    mask = torch.ones(SHAPE, dtype=torch.bool)
    for top, left, height, width in boxes:
        mask[:, top : top + height, left : left + width] = False
    return mask


def field(shape) -> GaussianProcess:
    """Short correlations, so that pixels beyond a margin say nothing."""
    return GaussianProcess(Matern(1.5), shape, mean=0.5, covariance=0.04, noise=0.02)


def any_field(part) -> MixtureField:
    """A model whose draws are images, for a method that draws without it."""
    images = torch.rand(20, *part.shape, generator=torch.Generator().manual_seed(0))
    return MixtureField.fit(images, components=1, noise=0.02)


@dataclass(frozen=True)
class DenseTogether(Method):
    """Exact draws of a Matern covariance, smooth once, from posteriors with one mask."""

    draws_are = "independent"
    runs_together = True

    def run(self, problem, plan) -> Draws:
        return self._drawn(problem.args[0][None], problem.args[1], plan, plan.draws * plan.chains)[0]

    def run_together(self, problem, groups, plan) -> list[Draws]:
        return self._drawn(problem.args[0], problem.args[1][0], plan, plan.draws * plan.chains)

    def _drawn(self, images, mask, plan, count) -> list[Draws]:
        flat, seen = images.flatten(1).double(), mask.flatten()
        places = torch.cartesian_prod(*(torch.arange(float(extent)) for extent in mask.shape[1:])).double()
        apart = torch.cdist(places, places) / 5
        covariance = 0.04 * (1 + apart) * (-apart).exp()
        known = covariance[seen][:, seen] + 0.02**2 * torch.eye(int(seen.sum()))
        gain = torch.linalg.solve(known, covariance[seen]).mT
        left = covariance - gain @ covariance[seen] + 1e-9 * torch.eye(len(seen))
        mean = 0.5 + (flat[:, seen] - 0.5) @ gain.mT
        noise = torch.randn(len(flat), count, len(seen), generator=plan.streams.generator("dense")).double()
        draws = mean[:, None] + noise @ torch.linalg.cholesky(left).mT
        shape = plan.chains, plan.draws
        return [
            Draws(
                {"completion": each.float().reshape(*shape, *mask.shape)},
                {"lp": torch.zeros(shape)},
                "independent",
            )
            for each in draws
        ]


class TestInferInWindows:
    @pytest.fixture
    def seen(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            image = field(SHAPE)().clamp(0, 1)
        return Observation(image, holes((4, 4, 5, 5), (25, 30, 6, 6)))

    def test_is_the_posterior_of_the_whole(self, seen):
        settings = {"draws": 2000, "chains": 1, "progress": False}
        ours = infer_in_windows(lambda part: field(part.shape), seen, Exact(), margin=8, **settings)
        whole = infer(field(SHAPE), seen, Exact(), **settings)
        assert ours.attrs["windows"] == 2
        hidden = ~seen.mask.numpy()
        mine, other = (each.posterior["completion"].to_numpy()[0][:, hidden] for each in (ours, whole))
        error = np.sqrt((mine.var(0) + other.var(0)) / 2000)
        assert (np.abs(mine.mean(0) - other.mean(0)) < 5 * error).all()
        assert np.abs(np.log(mine.std(0) / other.std(0))).max() < 5 * np.sqrt(1 / 2000)
        # Pixels of one hole go together, as they do in the whole.
        assert np.abs(np.corrcoef(mine.T) - np.corrcoef(other.T)).max() < 5 * np.sqrt(2 / 2000)

    def test_pieces_of_a_scratch_are_one_draw(self):
        """Drawn one after another they go together as in a draw of the whole, also across their seams."""
        shape = (1, 64, 64)
        mask = torch.ones(shape, dtype=torch.bool)
        rows, columns = np.arange(4, 60), np.arange(4, 60)
        for nearby in range(-3, 4):
            mask[:, rows, columns + nearby] = False
        scratched = Observation(torch.full(shape, 0.5), mask)
        settings = {"draws": 80, "chains": 2, "progress": False}
        ours = infer_in_windows(any_field, scratched, DenseTogether(), margin=4, side=14, **settings)
        assert ours.attrs["windows"] > 3
        whole = infer(any_field(scratched), scratched, DenseTogether(), **settings)
        mine, other = (
            each.posterior["completion"].to_numpy().reshape(160, *shape)[:, 0, rows, columns]
            for each in (ours, whole)
        )
        error = np.sqrt((mine.var(0) + other.var(0)) / 160)
        assert (np.abs(mine.mean(0) - other.mean(0)) < 5 * error).all()
        assert np.abs(np.log(mine.std(0) / other.std(0))).max() < 5 * np.sqrt(1 / 160)

        def roughness(draws):
            return np.diff(draws - draws.mean(0)).std(0)

        assert np.abs(np.log(roughness(mine) / roughness(other))).max() < 5 * np.sqrt(1 / 160)
        # Pieces of other draws are rougher at their seam.
        seamed = np.concatenate([mine[:, :20], mine[::-1, 20:]], 1)
        assert np.log(roughness(seamed) / roughness(other)).max() > 5 * np.sqrt(1 / 160)

    def test_far_from_holes_is_what_was_seen(self, seen):
        found = infer_in_windows(
            lambda part: field(part.shape), seen, Exact(), margin=4, draws=3, chains=2, progress=False
        )
        completion = found.posterior["completion"].to_numpy()
        assert completion.shape == (2, 3, *SHAPE)
        assert (completion[..., 15:20, :] == seen.image.numpy()[:, 15:20]).all()
        image = found.posterior_predictive["image"].to_numpy()
        assert (image[..., 15:20, :] == seen.image.numpy()[:, 15:20]).all()
        assert (completed_images(found)[..., seen.mask] == seen.image[seen.mask].numpy()).all()
        assert diagnostics.summary(found)["draws"] == 6

    def test_expectations_are_put_together_too(self, seen):
        """A diffusion keeps, beside each draw, the mean of what it could have become: of every window."""
        images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        two = Observation(seen.image, holes((10, 10, 3, 3), (30, 35, 3, 3)))

        def fitted(part):
            return MixtureField.fit(images.repeat_interleave(20, 0), components=1, noise=0.05)

        found = infer_in_windows(
            fitted, two, ConditionalDiffusion(20), margin=2, least=8, draws=6, chains=1, progress=False
        )
        assert found.attrs["windows"] == 2
        expected = found.sample_stats["expected_completion"].to_numpy()
        hidden = ~two.mask.numpy()
        assert (expected[..., 20:24, :] == seen.image.numpy()[:, 20:24]).all()
        assert (expected.std((0, 1))[hidden] > 0).all()
        assert np.allclose(posterior_mean(found), expected.mean((0, 1)), atol=1e-6)

    def test_pieces_of_a_diffusion(self):
        shape = (1, 48, 48)
        mask = torch.ones(shape, dtype=torch.bool)
        mask[:, range(4, 44), range(4, 44)] = False

        def drawn(side):
            return infer_in_windows(
                any_field,
                Observation(torch.full(shape, 0.5), mask),
                ConditionalDiffusion(10),
                margin=2,
                side=side,
                draws=3,
                chains=2,
                progress=False,
            )

        found = drawn(side=6)
        assert found.attrs["windows"] > 3
        completion = found.posterior["completion"].to_numpy()
        assert (completion.std((0, 1))[~mask.numpy()] > 0).all()
        assert found.sample_stats["expected_completion"].shape == (2, 3, *shape)
        assert found.sample_stats["log_likelihood_of_seen"].shape == (2, 3)
        assert found.attrs["gradient_evaluations"] > drawn(side=None).attrs["gradient_evaluations"]
        assert diagnostics.summary(found)["draws"] == 6

    def test_the_seed_is_the_whole_of_chance(self, seen):
        def drawn(seed):
            return infer_in_windows(
                lambda part: field(part.shape),
                seen,
                Exact(),
                margin=4,
                draws=3,
                chains=1,
                seed=seed,
                progress=False,
            ).posterior["completion"]

        assert drawn(1).equals(drawn(1))
        assert not drawn(1).equals(drawn(2))

    def test_a_window_that_is_the_image_is_infer(self, seen):
        wide = Observation(seen.image, holes((0, 0, 40, 40)))
        settings = {"draws": 3, "chains": 1, "seed": 4, "progress": False}
        ours = infer_in_windows(lambda part: field(part.shape), wide, Exact(), margin=8, **settings)
        assert ours.posterior["completion"].equals(
            infer(field(SHAPE), wide, Exact(), **settings).posterior["completion"]
        )
        assert "log_likelihood" in ours

    def test_pieces_by_a_method_that_draws_for_one_image(self, seen):
        with pytest.raises(ValueError, match="side=8: Exact draws from one posterior at a time"):
            infer_in_windows(any_field, seen, Exact(), margin=2, side=8, draws=2, chains=1, progress=False)
