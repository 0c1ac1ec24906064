import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from synthetic import posterior

from posterior_inpainting.inference import diagnostics, plots, scores
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.models import observations

SHAPES = {"grey": (1, 6, 9), "colour": (3, 6, 9), "two channels": (2, 6, 9)}
MASKS = {
    "hole": lambda shape: observations.box(shape, 1, 2, 3, 4),
    "half": lambda shape: observations.half(shape, hide="bottom"),
    "nothing seen": lambda shape: torch.zeros(shape, dtype=torch.bool),
    "one channel seen": lambda shape: observations.channels(shape, keep=0),
}
CASES = [
    ("grey", "hole"),
    ("grey", "nothing seen"),
    ("colour", "half"),
    ("colour", "one channel seen"),
    ("two channels", "one channel seen"),
]


def make(shape, mask, draws_are="markov", chains=2, draws=6):
    random = np.random.default_rng(0)
    truth = random.random(shape).astype(np.float32)
    completion = truth + 0.1 * random.normal(size=(chains, draws, *shape))
    noisy = completion + 0.2 * random.normal(size=completion.shape)
    return posterior(
        noisy, mask.numpy(), image=truth, completion=completion, draws_are=draws_are
    ), torch.from_numpy(truth)


@pytest.fixture(params=CASES, ids="-".join)
def made(request):
    shape, mask = request.param
    return make(SHAPES[shape], MASKS[mask](SHAPES[shape]))


def pictures(axes):
    """Title -> what is drawn on that axis."""
    return {axis.get_title(): np.asarray(axis.images[0].get_array()) for axis in axes if axis.images}


class TestHoles:
    @pytest.mark.parametrize("colour", plots._COLOURS, ids=str)
    def test_show_on_an_image_of_any_colour(self, colour):
        image = np.clip(
            np.array(colour)[:, None, None] + 0.1 * np.random.default_rng(0).normal(size=(3, 9, 9)), 0, 1
        )
        mask = np.ones((3, 9, 9), bool)
        mask[:, 4, 4] = False
        picture = plots.with_holes(image, mask)
        hole, rest = picture[4, 4], picture[mask[0]]
        assert np.linalg.norm(rest - hole, axis=1).min() > 0.2

    def test_are_as_before_on_grey(self):
        mask = np.arange(9).reshape(1, 3, 3) % 2 == 0
        for grey in (0.0, 0.5, 1.0):
            picture = plots.with_holes(np.full((1, 3, 3), grey), mask)
            assert (picture[~mask[0]] == plots._COLOURS[0]).all()


class TestCompletions:
    @pytest.mark.parametrize("draws", [1, 10])
    def test_panels(self, made, draws):
        idata, truth = made
        axes = plots.completions(idata, truth=truth, draws=draws)
        assert isinstance(axes, np.ndarray)
        assert all(isinstance(axis, Axes) for axis in axes)
        drawn = pictures(axes)
        assert list(drawn) == ["observed", "mean", "sd", *[f"draw {i + 1}" for i in range(draws)], "truth"]
        rows, columns = truth.shape[1:]
        for title, picture in drawn.items():
            colour = title == "observed" or (truth.shape[0] == 3 and title != "sd")
            assert picture.shape == ((rows, columns, 3) if colour else (rows, columns))
            assert np.isfinite(picture).all()
            assert picture.min() >= 0
            assert title == "sd" or picture.max() <= 1
        axes[0].figure.canvas.draw()  # nothing fails as late as this

    def test_what_is_shown(self, made):
        idata, truth = made
        drawn = pictures(plots.completions(idata, truth=truth, draws=12))
        mask = group(idata, "constant_data")["mask"].to_numpy()
        completion = group(idata, "posterior")["completion"].to_numpy().reshape(12, *truth.shape)
        noisy = group(idata, "posterior_predictive")["image"].to_numpy().reshape(12, *truth.shape)

        def shown(image):
            image = np.clip(np.where(mask, truth.numpy(), image), 0, 1)
            return np.moveaxis(image, 0, -1) if len(image) == 3 else image.mean(0)

        np.testing.assert_allclose(drawn["mean"], shown(completion.mean(0)), atol=1e-6)
        for i in range(12):
            np.testing.assert_allclose(drawn[f"draw {i + 1}"], shown(completion[i]), atol=1e-6)
        np.testing.assert_allclose(drawn["sd"], np.where(mask, 0, noisy.std(0)).mean(0), atol=1e-6)
        np.testing.assert_allclose(drawn["truth"], shown(truth.numpy()), atol=1e-6)

    def test_holes_are_marked_and_seen_pixels_are_not(self, made):
        idata, truth = made
        observed = pictures(plots.completions(idata))["observed"]
        mask = group(idata, "constant_data")["mask"].to_numpy()
        marked = observed[~mask.any(0)]
        assert not len(marked) or any(np.allclose(marked, colour) for colour in plots._COLOURS)
        whole = mask.all(0)
        expected = truth.numpy() if len(truth) == 3 else truth.mean(0, keepdim=True).numpy().repeat(3, 0)
        np.testing.assert_allclose(observed[whole], np.moveaxis(expected, 0, -1)[whole], atol=1e-6)

    def test_channels_seen_alone_are_grey(self):
        idata, truth = make((3, 6, 9), observations.channels((3, 6, 9), keep=1))
        observed = pictures(plots.completions(idata))["observed"]
        np.testing.assert_allclose(observed, truth[1].numpy()[..., None].repeat(3, -1), atol=1e-6)

    def test_without_the_truth(self, made):
        assert "truth" not in pictures(plots.completions(made[0]))

    def test_restarts_are_named_and_shown_once(self):
        idata, _ = make((1, 6, 9), MASKS["half"]((1, 6, 9)), "restarts", chains=3, draws=1)
        drawn = pictures(plots.completions(idata, draws=6))
        assert list(drawn) == ["observed", "mean", "sd", "restart 1", "restart 2", "restart 3"]
        assert not np.array_equal(drawn["restart 1"], drawn["restart 2"])
        assert "restarts optima" in plt.gcf().get_suptitle()

    def test_title(self, made):
        plots.completions(made[0])
        assert plt.gcf().get_suptitle() == "Made, Up: markov draws"
        plots.completions(made[0], title="Mine")
        assert plt.gcf().get_suptitle() == "Mine"

    def test_a_pseudo_posterior_says_so(self, made):
        idata, _ = made
        idata.attrs["density"] = "pseudo-posterior"
        plots.completions(idata)
        assert "pseudo-posterior" in plt.gcf().get_suptitle()

    def test_an_incomplete_run_says_so(self, made):
        idata, _ = made
        idata.attrs["interrupted"] = 1
        assert plots.describe(idata) == "Made, Up: markov draws, incomplete run (interrupted)"
        plots.completions(idata)
        assert "incomplete run (interrupted)" in plt.gcf().get_suptitle()

    @pytest.mark.parametrize("draws", [0, -1])
    def test_number_of_draws(self, made, draws):
        with pytest.raises(ValueError, match=f"draws={draws}; expected at least 1"):
            plots.completions(made[0], draws=draws)

    def test_truth_of_another_shape(self, made):
        with pytest.raises(ValueError, match=r"shape \(1, 9, 6\); expected"):
            plots.completions(made[0], truth=torch.zeros(1, 9, 6))
        assert not plt.get_fignums()


class TestPixelRhat:
    def test_map(self, made):
        idata, truth = made
        axis = plots.pixel_rhat(idata)
        assert isinstance(axis, Axes)
        drawn = np.ma.filled(np.ma.asarray(axis.images[0].get_array()), np.nan)
        values = diagnostics.pixel_rhat(idata).to_numpy()
        mask = group(idata, "constant_data")["mask"].to_numpy()
        assert drawn.shape == truth.shape[1:]
        np.testing.assert_array_equal(np.isnan(drawn), mask.all(0))
        np.testing.assert_allclose(drawn[~mask.all(0)], np.nanmax(values[:, ~mask.all(0)], 0))
        assert axis.get_title().endswith(f"at most {np.nanmax(values):.3f}")
        axis.figure.canvas.draw()

    def test_on_given_axes(self, made):
        _, ax = plt.subplots()
        assert plots.pixel_rhat(made[0], ax=ax) is ax
        assert ax.images

    @pytest.mark.parametrize("draws_are", ["independent", "restarts", "particles"])
    def test_no_chain(self, draws_are):
        idata, _ = make((1, 6, 9), MASKS["half"]((1, 6, 9)), draws_are)
        with pytest.raises(ValueError, match=f"the draws are {draws_are}; R-hat is for markov draws"):
            plots.pixel_rhat(idata)


class TestCoverageCurve:
    def test_curve(self, made):
        idata, truth = made
        axis = plots.coverage_curve(idata, truth)
        diagonal, curve = axis.lines
        np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
        levels, shares = curve.get_data()
        assert (np.diff(levels) > 0).all()
        assert (np.diff(shares) >= 0).all()
        assert 0 < shares[-1] <= 1
        hidden = ~group(idata, "constant_data")["mask"].to_numpy()
        draws = np.clip(
            group(idata, "posterior_predictive")["image"].to_numpy().reshape(12, *truth.shape), 0, 1
        )
        expected = [
            scores.coverage(draws[:, hidden], truth.numpy()[hidden], level).mean() for level in levels
        ]
        np.testing.assert_allclose(shares, expected)
        axis.figure.canvas.draw()

    def test_several_on_the_same_axes(self, made):
        idata, truth = made
        axis = plots.coverage_curve(idata, truth, label="first")
        assert plots.coverage_curve(idata, truth, ax=axis) is axis
        assert [text.get_text() for text in axis.get_legend().get_texts()] == ["calibrated", "first", "Up"]
        assert len(axis.lines) == 3

    def test_restarts(self):
        idata, truth = make((1, 6, 9), MASKS["half"]((1, 6, 9)), "restarts", chains=3, draws=1)
        with pytest.raises(ValueError, match="the draws are optima"):
            plots.coverage_curve(idata, truth)

    def test_wrong_truth(self, made):
        with pytest.raises(ValueError, match=r"shape \(1, 9, 6\); expected"):
            plots.coverage_curve(made[0], torch.zeros(1, 9, 6))
