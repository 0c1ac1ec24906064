import math
import warnings

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from synthetic import posterior

from posterior_inpainting.inference import MAP, Exact, infer
from posterior_inpainting.inference.evaluation.scores import (
    LEVELS,
    coverage,
    crps,
    energy_score,
    pit,
    psnr,
    score,
    ssim,
)
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.models import Observation, observations

ERRORS = 5  # standard errors that an estimate may lie from its expectation


@pytest.fixture
def random():
    return np.random.default_rng(7)


def assert_mean(values, expected):
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - expected) < ERRORS * error


def normal_crps(mean, sd, y):
    """Closed form of the CRPS of a normal (Gneiting & Raftery 2007, equation 21)."""
    z = (y - mean) / sd
    density, distribution = (
        math.exp(-z * z / 2) / math.sqrt(2 * math.pi),
        (1 + math.erf(z / math.sqrt(2))) / 2,
    )
    return sd * (z * (2 * distribution - 1) + 2 * density - 1 / math.sqrt(math.pi))


class TestCrps:
    @pytest.mark.parametrize("n", [2, 3, 8])
    def test_double_loop(self, n, random):
        draws, target = random.normal(size=(n, 5)), random.normal(size=5)
        for pixel in range(5):
            x, y = draws[:, pixel], target[pixel]
            spread = sum(abs(a - b) for a in x for b in x) / (2 * n * (n - 1))
            assert crps(draws, target)[pixel] == pytest.approx(sum(abs(a - y) for a in x) / n - spread)

    @pytest.mark.parametrize("y", [-2.0, 0.3, 1.0])
    @pytest.mark.parametrize("n", [2, 10, 100])
    def test_unbiased_for_a_normal(self, n, y, random):
        """The same expectation with any number of draws; dividing by n squared would fail at n = 2."""
        mean, sd, pixels = 0.3, 0.8, 4000
        found = crps(random.normal(mean, sd, (n, pixels)), np.full(pixels, y))
        assert_mean(found, normal_crps(mean, sd, y))

    def test_the_right_spread_scores_best(self, random):
        target = random.normal(size=20_000)
        right, sharp, wide = (crps(sd * random.normal(size=(20, 20_000)), target) for sd in (1, 0.5, 2))
        for wrong in (sharp, wide):
            difference = wrong - right
            assert difference.mean() > ERRORS * difference.std() / math.sqrt(len(difference))

    def test_ties(self):
        assert crps(np.zeros((4, 1)), np.zeros(1)) == pytest.approx(0)
        assert crps(np.zeros((4, 1)), np.ones(1)) == pytest.approx(1)


class TestEnergyScore:
    @pytest.mark.parametrize("n", [2, 3, 8])
    def test_double_loop(self, n, random):
        draws, target = random.normal(size=(n, 5)), random.normal(size=5)
        distance = sum(np.linalg.norm(x - target) for x in draws) / n
        spread = sum(np.linalg.norm(a - b) for a in draws for b in draws) / (2 * n * (n - 1))
        assert energy_score(draws, target) == pytest.approx((distance - spread) / math.sqrt(5))

    def test_crps_in_one_dimension(self, random):
        draws, target = random.normal(size=(30, 1)), random.normal(size=1)
        assert energy_score(draws, target) == pytest.approx(crps(draws, target)[0])

    def test_unbiased(self, random):
        target = np.array([0.5, -0.2, 0.1])
        few, many = (
            np.array([energy_score(random.normal(size=(n, 3)), target) for _ in range(1500)]) for n in (2, 30)
        )
        error = math.sqrt(few.var() / len(few) + many.var() / len(many))
        assert abs(few.mean() - many.mean()) < ERRORS * error

    def test_sees_dependence_that_the_crps_does_not(self, random):
        """Pixels that vary together, forecast as if they did not: equal mean CRPS, worse energy score."""
        together, apart = (
            np.repeat(random.normal(size=(300, 20, 1)), 30, -1),
            random.normal(size=(300, 20, 30)),
        )
        targets = np.repeat(random.normal(size=(300, 1)), 30, -1)
        pairs = list(zip(together, apart, targets, strict=True))
        difference = np.array([energy_score(b, t) - energy_score(a, t) for a, b, t in pairs])
        assert difference.mean() > ERRORS * difference.std() / math.sqrt(300)
        blind = np.array([crps(b, t).mean() - crps(a, t).mean() for a, b, t in pairs])
        assert abs(blind.mean()) < ERRORS * blind.std() / math.sqrt(300)


class TestCoverage:
    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("n", [5, 40])
    def test_calibrated(self, level, n, random):
        """Exact for any law and any number of draws."""
        pixels = 40_000
        inside = coverage(random.random((n, pixels)), random.random(pixels), level)
        assert inside.dtype == bool
        assert abs(inside.mean() - level) < ERRORS * math.sqrt(level * (1 - level) / pixels)

    @pytest.mark.parametrize("level", LEVELS)
    def test_calibrated_where_most_pixels_are_black(self, level, random):
        pixels, clipped = 40_000, lambda *size: np.clip(random.normal(-0.5, 1, size=size), 0, 1)
        inside = coverage(clipped(20, pixels), clipped(pixels), level)
        assert abs(inside.mean() - level) < ERRORS * math.sqrt(level * (1 - level) / pixels)

    @pytest.mark.parametrize(("sd", "sign"), [(0.5, -1), (2.0, 1)])
    def test_miscalibrated(self, sd, sign, random):
        pixels, level = 20_000, 0.8
        inside = coverage(sd * random.normal(size=(40, pixels)), random.normal(size=pixels), level)
        assert sign * (inside.mean() - level) > ERRORS * math.sqrt(level * (1 - level) / pixels)

    def test_beyond_all_draws(self):
        """Of 39 draws the outermost are the ends of the 95 % interval: what lies beyond is outside."""
        draws = np.linspace(0, 1, 39)[:, None]
        assert [bool(coverage(draws, np.array([x]), 0.95)[0]) for x in (-0.1, 0.5, 1.1)] == [
            False,
            True,
            False,
        ]


def bins(ranks, count=10):
    """Standard errors by which each bin's count is off that of a uniform law."""
    found, _ = np.histogram(ranks, count, (0, 1))
    share = 1 / count
    return (found - len(ranks) * share) / math.sqrt(len(ranks) * share * (1 - share))


class TestPit:
    pixels = 40_000

    @pytest.mark.parametrize("law", [lambda x: x, np.exp, lambda x: np.maximum(x, 0), np.sign, np.zeros_like])
    @pytest.mark.parametrize("n", [1, 4, 50])
    def test_uniform_if_calibrated_also_with_ties(self, n, law, random):
        ranks = pit(law(random.normal(size=(n, self.pixels))), law(random.normal(size=self.pixels)))
        assert ranks.min() >= 0
        assert ranks.max() <= 1
        assert np.abs(bins(ranks)).max() < ERRORS

    @pytest.mark.parametrize(("sd", "sign"), [(0.7, 1), (1.5, -1)])
    def test_ends_tell_of_a_wrong_spread(self, sd, sign, random):
        off = bins(pit(sd * random.normal(size=(50, self.pixels)), random.normal(size=self.pixels)))
        assert sign * off[0] > ERRORS
        assert sign * off[-1] > ERRORS

    def test_seed(self, random):
        draws, target = np.zeros((5, 20)), np.zeros(20)
        np.testing.assert_array_equal(pit(draws, target, seed=1), pit(draws, target, seed=1))
        assert (pit(draws, target, seed=1) != pit(draws, target, seed=2)).any()


@pytest.mark.parametrize(("error", "expected"), [(1.0, 0.0), (0.1, 20.0), (0.01, 40.0), (0.0, math.inf)])
def test_psnr(error, expected):
    target = np.linspace(0, 1, 50)
    assert psnr(target + error, target) == pytest.approx(expected, abs=1e-9)


class TestSsim:
    @pytest.mark.parametrize("shape", [(1, 20, 16), (3, 12, 12), (1, 4, 9)], ids=str)
    def test_mean_of_the_map_of_scikit_image(self, shape, random):
        truth, hidden = random.random(shape), random.random(shape) < 0.4
        estimate = np.clip(truth + 0.2 * random.normal(size=shape), 0, 1)
        side = 7 if min(shape[1:]) >= 7 else 3
        maps = [
            structural_similarity(t, e, data_range=1.0, win_size=side, full=True)[1]
            for t, e in zip(truth, estimate, strict=True)
        ]
        found = ssim(estimate, torch.from_numpy(truth), hidden)
        assert found == pytest.approx(np.stack(maps)[hidden].mean())
        assert found < ssim(truth, torch.from_numpy(truth), hidden) == pytest.approx(1)

    def test_too_small(self):
        assert math.isnan(ssim(np.zeros((1, 2, 9)), torch.zeros(1, 2, 9), np.ones((1, 2, 9), bool)))


SHAPE = (1, 9, 10)


class TestScore:
    mask = observations.half(SHAPE, hide="right").numpy()

    @pytest.fixture
    def truth(self):
        generator = torch.Generator().manual_seed(2)
        return (torch.randn(SHAPE, generator=generator) / 4 + 0.2).clamp(0, 1)

    @pytest.fixture
    def made(self, truth, random):
        """A posterior with values outside [0, 1], whose seen pixels of ``completion`` are off the truth."""
        completion = truth.numpy() + 0.1 * random.normal(size=(2, 25, *SHAPE))
        predictive = completion + 0.2 * random.normal(size=completion.shape)
        return posterior(predictive, self.mask, image=truth.numpy(), completion=completion)

    def test_each_figure(self, made, truth):
        figures = score(made, truth, seed=3)
        hidden, target = ~self.mask, truth.numpy()[~self.mask].astype(float)
        draws = np.clip(
            group(made, "posterior_predictive")["image"].to_numpy().reshape(50, *SHAPE)[:, hidden], 0, 1
        )
        mean = np.clip(group(made, "posterior")["completion"].to_numpy().reshape(50, *SHAPE), 0, 1).mean(0)
        expected = {
            "PSNR of the mean (dB)": psnr(mean[hidden], target),
            "SSIM of the mean": ssim(mean, truth, hidden),
            "CRPS": crps(draws, target).mean(),
            "energy score": energy_score(draws, target),
            "PIT mean": pit(draws, target, 3).mean(),
            "PIT sd": pit(draws, target, 3).std(),
        }
        assert 0 < (target > 0).sum() < target.size
        for level in LEVELS:
            inside = coverage(draws, target, level, 3)
            expected |= {
                f"coverage {level:.0%}": inside.mean(),
                f"coverage {level:.0%}, positive": inside[target > 0].mean(),
            }
        assert figures == pytest.approx(expected)

    def test_seen_pixels_of_the_truth_do_not_count(self, made, truth):
        changed = torch.where(torch.from_numpy(self.mask), 1 - truth, truth)
        before, after = score(made, truth), score(made, changed)
        assert before.pop("SSIM of the mean") != after.pop(
            "SSIM of the mean"
        )  # its window reaches beyond the hole
        assert before == after

    def test_hidden_pixels_of_the_truth_do(self, made, truth):
        changed = torch.where(torch.from_numpy(self.mask), truth, (truth + 0.3).clamp(max=1))
        before, after = score(made, truth), score(made, changed)
        assert before["CRPS"] < after["CRPS"]
        assert before["PSNR of the mean (dB)"] > after["PSNR of the mean (dB)"]

    @pytest.mark.parametrize("hidden", [0.9, math.nan])
    def test_hidden_values_of_the_observation_do_not_count(self, digits_model, digits, hidden):
        image = digits[5]
        mask = observations.half(image.shape, hide="bottom")
        figures = [
            score(
                infer(
                    digits_model,
                    Observation(torch.where(mask, image, fill), mask),
                    MAP(restarts=2, steps=3),
                    progress=False,
                ),
                image,
            )
            for fill in (0.0, hidden)
        ]
        assert figures[0] == figures[1]

    def test_a_black_truth_has_no_positive_pixels(self, made):
        figures = score(made, torch.zeros(SHAPE))
        for level in LEVELS:
            assert math.isnan(figures[f"coverage {level:.0%}, positive"])
            assert figures[f"coverage {level:.0%}"] >= 0

    def test_calibrated_on_images_of_the_model_itself(self, linear):
        """Truths drawn from the model, exact posteriors: coverage and PIT as they should be on average."""
        torch.manual_seed(4)
        count, n, level = 60, 40, 0.8
        mask = observations.half(linear.image_shape, hide="bottom")
        covered, ranks = [], []
        for _ in range(count):
            truth = linear()
            seen = Observation(truth, mask, any_values=True)
            idata = infer(linear, seen, Exact(), draws=n, chains=1, progress=False)
            draws = group(idata, "posterior_predictive")["image"].to_numpy()[0][:, ~mask.numpy()]
            target = truth.numpy()[~mask.numpy()]
            covered.append(coverage(draws, target, level).mean())
            ranks.append(pit(draws, target).mean())
        # Pixels of one image vary together, so that the image is the unit.
        assert_mean(np.array(covered), level)
        assert_mean(np.array(ranks), 0.5)

    def test_restarts_are_no_draws(self, truth, random):
        optima = truth.numpy() + 0.1 * random.normal(size=(4, 1, *SHAPE))
        figures = score(posterior(optima, self.mask, image=truth.numpy(), draws_are="restarts"), truth)
        hidden = ~self.mask
        errors = [np.mean((np.clip(one[0], 0, 1) - truth.numpy())[hidden] ** 2) for one in optima]
        assert figures["PSNR of the best restart (oracle, dB)"] == pytest.approx(
            -10 * math.log10(min(errors))
        )
        assert set(figures) == {
            "PSNR of the mean (dB)",
            "SSIM of the mean",
            "PSNR of the best restart (oracle, dB)",
        }

    def test_restarts_of_an_optimiser(self, digits_model, digits):
        seen = Observation(digits[0], observations.half(digits[0].shape, hide="bottom"))
        figures = score(infer(digits_model, seen, MAP(restarts=2, steps=5), progress=False), digits[0])
        assert "PSNR of the best restart (oracle, dB)" in figures
        assert not any(name.startswith(("coverage", "CRPS", "PIT", "energy")) for name in figures)

    def test_nothing_hidden(self, truth):
        whole = posterior(np.zeros((1, 5, *SHAPE)), np.ones(SHAPE, bool), image=truth.numpy())
        with pytest.raises(ValueError, match="no pixel is hidden"):
            score(whole, truth)

    def test_one_draw(self, truth):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match="there is 1 draw"):
                score(posterior(np.zeros((1, 1, *SHAPE)), self.mask, image=truth.numpy()), truth)

    @pytest.mark.parametrize("wrong", [torch.zeros(1, 10, 9), torch.zeros(3, 9, 10), torch.zeros(9, 10)])
    def test_wrong_shape(self, made, wrong):
        with pytest.raises(ValueError, match=r"expected.*channel, row, column"):
            score(made, wrong)

    @pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
    def test_truth_outside(self, made, truth, value):
        truth[0, 0, -1] = value
        with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
            score(made, truth)

    def test_seen_pixels_of_the_truth_may_be_anything(self, made, truth):
        truth[0, 0, 0] = -5
        assert score(made, truth)["CRPS"] > 0
