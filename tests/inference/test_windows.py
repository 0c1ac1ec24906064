"""Holes completed window by window: the right windows, and the posterior of the whole where windows may be."""

import numpy as np
import pytest
import torch

from posterior_inpainting.inference import ConditionalDiffusion, Exact, diagnostics
from posterior_inpainting.inference.results.images_of_posterior import completed_images, posterior_mean
from posterior_inpainting.inference.verbs import infer
from posterior_inpainting.inference.windows import infer_in_windows, windows
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


class TestWindows:
    def test_holes_far_apart_have_their_own(self):
        found = windows(holes((2, 3, 4, 4), (30, 40, 5, 6)), margin=3)
        assert [(w.rows.start, w.rows.stop, w.columns.start, w.columns.stop) for w in found] == [
            (0, 9, 0, 10),
            (27, 38, 37, 48),
        ]

    def test_holes_whose_margins_touch_share_one(self):
        assert len(windows(holes((10, 10, 4, 4), (10, 18, 4, 4)), margin=2)) == 1
        assert len(windows(holes((10, 10, 4, 4), (10, 20, 4, 4)), margin=2)) == 2

    def test_a_wide_hole_takes_the_whole_image(self):
        (found,) = windows(holes((0, 0, 40, 40)), margin=8)
        assert found.own.shape == (40, 48)

    def test_windows_are_as_large_as_a_model_needs(self):
        for found in windows(holes((0, 0, 1, 1), (39, 47, 1, 1), (20, 20, 2, 2)), margin=2, least=16):
            assert found.own.shape == (16, 16)

    def test_a_hidden_channel_is_a_hole(self):
        mask = holes()
        mask[1, 5, 5] = False
        assert windows(mask, margin=1)[0].rows == slice(4, 7)

    def test_a_negative_margin(self):
        with pytest.raises(ValueError, match="margin=-1"):
            windows(holes((2, 3, 4, 4)), margin=-1)

    @pytest.mark.parametrize("seed", range(40))
    def test_every_hidden_pixel_has_one_window_with_its_margin(self, seed):
        random = np.random.default_rng(seed)
        margin, least, share = random.integers(7), random.integers(1, 13), random.uniform(0.001, 0.1)
        mask = torch.from_numpy(random.random(SHAPE[1:]) > share).expand(SHAPE)
        owners = np.zeros(SHAPE[1:], int)
        for window in windows(mask, margin, least):
            owners[window.rows, window.columns] += window.own
            assert window.own.any()
            for row, column in np.argwhere(window.own & ~mask[0, window.rows, window.columns].numpy()):
                for place, part, extent in (
                    (row, window.rows, SHAPE[1]),
                    (column, window.columns, SHAPE[2]),
                ):
                    assert place >= min(margin, place + part.start)
                    assert part.stop - part.start - 1 - place >= min(margin, extent - 1 - part.start - place)
        assert owners.max(initial=0) <= 1
        assert (owners[~mask[0].numpy()] == 1).all()


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
