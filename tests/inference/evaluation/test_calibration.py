"""Calibration finds the right posteriors right and the wrong ones wrong, at the rate that it says."""

import dataclasses
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from digit import HALF

from posterior_inpainting.inference import (
    MALA,
    MAP,
    ULA,
    ChEES,
    DiffPIR,
    Exact,
    Gibbs,
    NoiseMatchedGibbs,
    ParallelTempering,
    TemperedSMC,
    Variational,
    infer_many,
    scores,
)
from posterior_inpainting.inference.contract import Draws, DrawsAre, Method
from posterior_inpainting.inference.density.budget import BudgetSpentError
from posterior_inpainting.inference.evaluation.calibration import Calibration, calibrate, coverage, sbc, tarp
from posterior_inpainting.inference.evaluation.calibration_plots import rank_ecdf, tarp_curve
from posterior_inpainting.inference.evaluation.held_out import score_real, summary
from posterior_inpainting.inference.evaluation.uniformity import uniformity
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import ExpertField, MixtureField, Observation, datasets, observations
from posterior_inpainting.models.networks import Experts

QUIET = {"mask": HALF, "progress": False}


@dataclasses.dataclass(frozen=True)
class Made(Method):
    """Draws of the exact posterior of a `LinearGaussian`, spoilt in one way."""

    scale: float = 1.0
    shift: float = 0.0
    memory: float = 0.0
    draws_are: DrawsAre = "independent"
    blind: bool = False
    ended: str = ""

    def run(self, problem, plan):
        generator = plan.streams.generator("made")
        law = problem.model.exact_posterior(*(() if self.blind else problem.args))
        noise = torch.randn(plan.chains, plan.draws, problem.model.latent, generator=generator)
        for t in range(1, plan.draws):
            noise[:, t] = self.memory * noise[:, t - 1] + (1 - self.memory**2) ** 0.5 * noise[:, t]
        z = law.mean + self.shift * law.stddev + self.scale * noise @ law.scale_tril.mT
        attrs = {"gradient_evaluations": 0} | ({self.ended: 1} if self.ended else {})
        return Draws({"z": z}, {"lp": noise.square().sum(-1)}, self.draws_are, attrs)


class TestUniformity:
    @pytest.mark.parametrize(("count", "quantities"), [(60, 1), (200, 4)])
    @pytest.mark.parametrize("level", [0.5, 0.9])
    def test_the_band_holds_as_often_as_it_says(self, count, quantities, level):
        """Whole curves stay inside together; several quantities share the level by Bonferroni, nearly exactly."""
        random = np.random.default_rng(1)
        repeats = 2000
        inside = [
            uniformity({str(q): random.random(count) for q in range(quantities)}, level).inside_band
            for _ in range(repeats)
        ]
        # Independent quantities at 1 - alpha / Q each hold together with this; and counts are discrete.
        expected = (1 - (1 - level) / quantities) ** quantities
        assert np.mean(inside) == pytest.approx(
            expected, abs=4 * np.sqrt(level * (1 - level) / repeats) + 0.01
        )

    def test_p_values_are_uniform(self):
        random = np.random.default_rng(2)
        values = [uniformity({"u": random.random(100)}).pvalue for _ in range(1000)]
        for level in (0.05, 0.2, 0.5, 0.8):
            assert np.mean(np.array(values) <= level) == pytest.approx(
                level, abs=4 * np.sqrt(level * (1 - level) / 1000) + 0.01
            )

    def test_the_verdict_is_the_curve_in_the_band(self):
        random = np.random.default_rng(3)
        verdicts = []
        for _ in range(300):
            found = uniformity({"a": random.random(100), "b": random.random(100) ** 1.2})
            drawn = (found.difference >= found.low - 1e-9) & (found.difference <= found.high + 1e-9)
            assert drawn.all() == found.inside_band
            assert found.outside == tuple(n for n, d in zip("ab", drawn, strict=True) if not d.all())
            verdicts.append(found.inside_band)
        assert 0 < np.mean(verdicts) < 1

    @pytest.mark.parametrize(
        ("values", "level", "message"),
        [
            ({}, 0.95, "at least one quantity"),
            ({"a": np.ones(20), "b": np.ones(21)}, 0.95, "as many numbers"),
            ({"a": np.ones(9)}, 0.95, "there are 9 numbers"),
            ({"a": np.full(20, 1.1)}, 0.95, "outside"),
            ({"a": np.full(20, np.nan)}, 0.95, "outside"),
            ({"a": np.ones(20)}, 1.0, "level=1.0"),
        ],
    )
    def test_bad_input(self, values, level, message):
        with pytest.raises(ValueError, match=message):
            uniformity(values, level)


#: Of right posteriors a p-value below this is one of a thousand; there are a score of them here.
RARE = 0.001


class TestRightPosteriorsPass:
    RIGHT: ClassVar = {
        "Exact": (Exact(), 200, 127, 1),
        "made": (Made(), 200, 127, 1),
        "autocorrelated": (Made(memory=0.97, draws_are="markov"), 200, 400, 4),
        "ChEES": (ChEES(warmup=100), 100, 40, 16),
        "MALA": (MALA(warmup=100, thin=3), 100, 40, 16),
    }

    @pytest.mark.parametrize("name", RIGHT)
    def test_linear_gaussian(self, linear, name):
        method, count, draws, chains = self.RIGHT[name]
        found = calibrate(linear, method, datasets=count, draws=draws, chains=chains, **QUIET)
        assert found.sbc().pvalue > RARE, found.sbc().outside
        assert found.tarp().pvalue > RARE
        assert (found.coverage()["p"] > RARE).all()
        assert found.counts.min() >= chains

    @pytest.mark.parametrize(
        ("method", "count", "draws", "chains"),
        [
            (ChEES(warmup=100), 60, 40, 16),
            (TemperedSMC(), 25, 400, 1),
            pytest.param(TemperedSMC(), 12, 200, 4, marks=pytest.mark.long),
            pytest.param(ParallelTempering(temperatures=5, warmup=60), 20, 50, 8, marks=pytest.mark.long),
        ],
        ids=["ChEES", "TemperedSMC", "TemperedSMC in replicates", "ParallelTempering"],
    )
    def test_latent_code(self, digits_model, method, count, draws, chains):
        found = calibrate(digits_model, method, datasets=count, draws=draws, chains=chains, **QUIET)
        assert found.sbc().pvalue > RARE, found.sbc().outside
        assert found.tarp().pvalue > RARE


class TestWrongPosteriorsFail:
    WRONG: ClassVar = {
        # name: the method, whether the hidden pixels' coverage sees it too
        "too wide": (Made(scale=1.3), False),
        "too narrow": (Made(scale=1 / 1.3), False),
        "shifted": (Made(shift=0.8), False),
        "far too narrow": (Made(scale=0.4), True),
        "taken for independent": (Made(memory=0.97), True),
    }

    @pytest.mark.parametrize("name", WRONG)
    def test_made(self, linear, name):
        method, seen_in_pixels = self.WRONG[name]
        found = calibrate(linear, method, datasets=200, draws=127, chains=1, **QUIET)
        assert found.sbc().pvalue < 0.001
        assert found.tarp().pvalue < 0.01
        assert not found.sbc().inside_band
        if seen_in_pixels:
            assert found.coverage()["p"].min() < 0.001

    def test_a_posterior_that_ignores_the_data(self, linear):
        """The prior's own draws have uniform ranks in z: only what reads the data tells them from the posterior."""
        found = calibrate(linear, Made(blind=True), datasets=200, draws=127, chains=1, **QUIET)
        assert set(found.sbc().outside) == {"log likelihood", "log joint"}
        assert not found.tarp().inside_band

    def test_unadjusted_langevin_at_a_large_step(self, linear):
        method = ULA(step_size=0.3, warmup=20, thin=3)
        found = calibrate(linear, method, datasets=200, draws=30, chains=16, **QUIET)
        assert found.sbc().pvalue < 0.001
        assert found.tarp().pvalue < 0.01
        assert found.method == "ULA (unadjusted)"

    def test_unadjusted_langevin_that_diverges(self, digits_model):
        method = ULA(step_size=50.0, warmup=5, thin=1)
        found = calibrate(digits_model, method, datasets=20, draws=10, chains=4, **QUIET)
        assert not found.sbc().inside_band
        assert not found.tarp().inside_band

    def test_the_amortised_guide(self, digits_model):
        """Not the posterior, and no reason why it should be: what MCMC over z is for."""
        found = calibrate(digits_model, Variational(), datasets=150, draws=127, chains=1, **QUIET)
        assert not found.sbc().inside_band
        assert not found.tarp().inside_band


@dataclasses.dataclass(frozen=True)
class Widened(Method):
    """Completions of a `MixtureField` of one Gaussian, their exact posterior widened."""

    scale: float
    draws_are: DrawsAre = "independent"

    def run(self, problem, plan):
        with plan.streams.seeded("made"):
            law = problem.model.exact_posterior(*problem.args)
            pixels = law.mean + self.scale * (law.sample((plan.chains, plan.draws)) - law.mean)
        kept = problem.model.kept({"pixels": pixels})
        return Draws(kept, {"lp": torch.zeros(pixels.shape[:2])}, self.draws_are, {"gradient_evaluations": 0})


class TestCompletionsAreRanked:
    """Where a model keeps completions in place of latents."""

    SETTINGS: ClassVar = {"datasets": 100, "draws": 63, "chains": 1, **QUIET}

    @pytest.fixture
    def field(self):
        return MixtureField.fit(datasets.load("digits", split="train"), components=1)

    @pytest.mark.parametrize(
        ("method", "chains"),
        [(Exact(), 1), (NoiseMatchedGibbs(steps=None, warmup=10), 7)],
        ids=["Exact", "NoiseMatchedGibbs"],
    )
    def test_right_ones_pass(self, field, method, chains):
        settings = self.SETTINGS | {"chains": chains, "draws": 63 // chains}
        found = calibrate(field, method, **settings)
        assert found.names[:2] == ("mean of hidden pixels", "log likelihood")
        assert found.sbc().pvalue > RARE, found.sbc().outside
        assert found.tarp().pvalue > RARE
        assert (found.coverage()["p"] > RARE).all()

    @pytest.mark.parametrize("scale", [0.6, 1.6])
    def test_wrong_ones_fail(self, field, scale):
        found = calibrate(field, Widened(scale), **self.SETTINGS)
        assert found.sbc().pvalue < RARE
        assert found.tarp().pvalue < 0.01

    def test_the_exact_ones_by_the_same_code_pass(self, field):
        assert calibrate(field, Widened(1.0), **self.SETTINGS).sbc().pvalue > RARE

    def test_an_approximate_method_fails(self, field):
        found = calibrate(field, DiffPIR(), **self.SETTINGS)
        assert found.sbc().pvalue < RARE


class TestCalibration:
    @pytest.fixture
    def found(self, linear):
        return calibrate(linear, Exact(), datasets=30, draws=20, chains=2, pixels=2, **QUIET)

    def test_what_it_holds(self, found, linear):
        assert found.names[:7] == (*(f"z[{i}]" for i in range(5)), "log likelihood", "log joint")
        assert [name.split("(")[0] for name in found.names[7:]] == ["pixel ", "pixel "]
        assert found.ranks.shape == (30, 9)
        assert found.ranks.min() >= 0
        assert found.ranks.max() <= 40
        assert (found.counts == 40).all()
        assert np.isnan(found.draws).any(-1).sum(1).tolist() == [87] * 30
        assert found.truth.shape == found.reference.shape == (30, 5)
        assert np.isnan(found.rhat).all()
        below = (found.draws[:, :40] < found.truth[:, None]).sum(1)
        assert (below == found.ranks[:, :5]).all()
        assert list(found.frame()["draws"]) == [40] * 30
        assert list(found.coverage().index) == [0.5, 0.8, 0.9, 0.95]

    def test_the_same_seed_gives_the_same_numbers(self, linear, found):
        before = torch.random.get_rng_state()
        again = calibrate(linear, Exact(), datasets=30, draws=20, chains=2, pixels=2, **QUIET)
        assert torch.equal(before, torch.random.get_rng_state())
        other = calibrate(linear, Exact(), datasets=30, draws=20, chains=2, pixels=2, seed=1, **QUIET)
        assert isinstance(again, Calibration)
        pd.testing.assert_frame_equal(found.frame(), again.frame())
        assert (found.truth != other.truth).all()
        assert (found.sbc().difference == again.sbc().difference).all()

    @pytest.mark.parametrize("mask", [HALF, torch.zeros_like(HALF)], ids=["half", "nothing seen"])
    @pytest.mark.parametrize(
        "method", [ULA(step_size=1e-12, warmup=1, thin=1), Exact()], ids=["starts", "exact"]
    )
    def test_truths_and_draws_have_streams_of_their_own(self, linear, method, mask):
        """From one stream starts would be the truths, and a sampler that does not move would pass."""
        settings = {"datasets": 60, "draws": 4, "chains": 8, "batch": 20, "progress": False}
        found = calibrate(linear, method, mask=mask, **settings)
        drawn = found.draws[:, :8].reshape(-1, 5)
        for made in (found.truth, found.reference):
            assert np.abs(drawn[:, None] - made).min() > 1e-8
        assert np.abs(found.truth[:, None] - found.reference).min() > 1e-8
        assert len(np.unique(drawn, axis=0)) == len(drawn)  # no batch repeats another's
        if mask.any() and isinstance(method, ULA):
            assert not found.tarp().inside_band

    def test_the_batch_changes_no_truth(self, linear):
        settings = {"datasets": 20, "draws": 5, "chains": 1, **QUIET}
        one, other = (calibrate(linear, Exact(), batch=batch, **settings) for batch in (20, 7))
        assert (one.truth == other.truth).all()
        assert one.names == other.names

    @pytest.mark.parametrize(
        ("ended", "error"),
        [
            ("interrupted", KeyboardInterrupt),
            ("budget_spent", BudgetSpentError),
            ("diverged", ValueError),
        ],
    )
    def test_what_ends_a_run_ends_the_calibration(self, linear, ended, error):
        """A method keeps what it drew until then, but half of a simulation is no simulation."""
        with pytest.raises(error):
            calibrate(linear, Made(ended=ended), datasets=10, draws=5, chains=1, **QUIET)

    def test_verbs(self, linear):
        settings = {"datasets": 20, "draws": 20, "chains": 1, **QUIET}
        assert sbc(linear, Exact(), level=0.8, **settings).level == 0.8
        assert tarp(linear, Exact(), **settings).names == ("TARP",)
        assert len(coverage(linear, Exact(), **settings)) == 4

    def test_pictures(self, found):
        axis = rank_ecdf(found)
        assert len(axis.lines) == 1 + len(found.names)
        assert "30 data sets, inside the 95% band" in axis.get_title()
        axis = tarp_curve(found, level=0.5)
        assert "the 50% band" in axis.get_title()
        grid = found.tarp().grid
        np.testing.assert_allclose(axis.lines[-1].get_ydata() - grid, found.tarp().difference[0])

    def test_quantities_outside_are_named(self, linear):
        found = calibrate(linear, Made(scale=0.3), datasets=100, draws=50, chains=1, **QUIET)
        axis = rank_ecdf(found)
        assert "OUTSIDE" in axis.get_title()
        assert tuple(text.get_text() for text in axis.get_legend().get_texts()) == found.sbc().outside

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"datasets": 9}, "datasets=9"),
            ({"batch": 0}, "batch=0"),
            ({"pixels": -1}, "pixels=-1"),
            ({"draws": 0}, "draws=0"),
            ({"mask": torch.ones(1, 8, 8, dtype=torch.bool)}, "the mask hides nothing"),
            ({"mask": torch.ones(1, 9, 8, dtype=torch.bool)}, "expected one that broadcasts"),
            ({"method": MAP(restarts=2)}, "the draws are restarts"),
            ({"method": Exact}, "expected one such as"),
            ({"model": "linear"}, "expected an ImageModel"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_bad_input(self, linear, change, message):
        settings = {"model": linear, "method": Exact(), "datasets": 10, "draws": 10, "chains": 1, **QUIET}
        with pytest.raises(ValueError, match=message):
            calibrate(**settings | change)


def test_a_model_that_weighs_its_draws_is_refused():
    """Called, it draws data of another law than its own: every posterior would look wrong."""
    model = ExpertField(Experts(channels=1, count=2, side=2, levels=1), (1, 8, 8))
    with pytest.raises(ValueError, match=r"ExpertField weighs its draws \(factor experts\)"):
        calibrate(model, Gibbs(warmup=1), datasets=10, draws=10, chains=1, **QUIET)


@pytest.mark.parametrize("verb", [calibrate, sbc, tarp, coverage])
def test_an_unknown_setting_is_refused(linear, verb):
    with pytest.raises(TypeError, match="unexpected keyword argument 'drwas'"):
        verb(linear, Exact(), drwas=10, **QUIET)


class TestHeldOut:
    MASKS: ClassVar = {"half:bottom": HALF, "scatter:0.3": observations.scatter((1, 8, 8), 0.3)}

    def test_equals_scores_of_each_posterior(self, digits_model):
        images = datasets.load("digits")[:2]
        method, settings = ChEES(warmup=50), {"draws": 30, "chains": 16, "seed": 3, "progress": False}
        table = score_real(digits_model, method, images, self.MASKS, **settings)
        assert list(table.index) == [(name, i) for name in self.MASKS for i in (0, 1)]
        for name, mask in self.MASKS.items():
            seen = [Observation(image, mask) for image in images]
            seed = Streams(3).number("mask", name, "image", 0)
            posteriors = infer_many(digits_model, seen, method, **settings | {"seed": seed})
            for i, (posterior, image) in enumerate(zip(posteriors, images, strict=True)):
                expected = scores.score(posterior, truth=image)
                found = table.loc[(name, i)].to_dict()
                assert 1 <= found.pop("R-hat (max)") < 3
                assert found == pytest.approx(expected, nan_ok=True)

    def test_no_two_images_share_random_numbers(self, linear, digits):
        """One image given four times, behind a mask given twice: eight posteriors of one law, none drawn twice."""
        masks = {"a": HALF, "b": HALF}
        table = score_real(linear, Exact(), digits[:1].expand(4, 1, 8, 8), masks, progress=False)
        assert table["CRPS"].nunique() == 8

    @pytest.mark.parametrize(
        ("ended", "error"), [("interrupted", KeyboardInterrupt), ("budget_spent", BudgetSpentError)]
    )
    def test_what_ends_a_run_ends_them_all(self, linear, digits, ended, error):
        with pytest.raises(error):
            score_real(linear, Made(ended=ended), digits[:2], self.MASKS, progress=False)

    def test_batches_and_methods_for_one_image(self, digits_model):
        images = datasets.load("digits")[:3]
        settings = {"draws": 100, "chains": 4, "progress": False}
        one = score_real(digits_model, Variational(), images, self.MASKS, **settings)
        assert "R-hat (max)" not in one
        many = score_real(digits_model, ChEES(warmup=50), images, self.MASKS, batch=2, **settings)
        assert len(one) == len(many) == 6
        assert abs(many["CRPS"].mean() - one["CRPS"].mean()) < 0.03

    def test_summary(self):
        index = pd.MultiIndex.from_product([["a", "b"], [0, 1, 2, 3]], names=["mask", "image"])
        table = pd.DataFrame(
            {"CRPS": [1.0, 2, 3, 4, 1, 1, 1, 1], "R-hat (max)": [1, 1.1, 1.2, 2.0] * 2}, index=index
        )
        table.loc[("b", 0), "CRPS"] = np.nan
        found = summary(table)
        assert found["a", "mean"].to_dict() == pytest.approx(
            {"CRPS": 2.5, "R-hat (median image)": 1.15, "R-hat (worst image)": 2.0}
        )
        assert found["a", "se"]["CRPS"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
        assert found["b", "mean"]["CRPS"] == 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"draws": 2}, "are 32 draws; expected at least 40"),
            ({"masks": {}}, "masks is empty"),
            ({"masks": {"all": torch.ones(1, 8, 8, dtype=torch.bool)}}, "'all' hides nothing"),
            ({"images": torch.rand(2, 1, 9, 8)}, "expected \\(1, 8, 8\\)"),
            ({"images": torch.rand(1, 8, 8)}, "expected \\(n, channel"),
            ({"images": torch.rand(0, 1, 8, 8)}, "expected \\(n, channel"),
            ({"images": torch.full((1, 1, 8, 8), 1.5)}, "leave \\[0, 1\\]"),
            ({"batch": 0}, "batch=0"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_bad_input(self, digits_model, change, message):
        settings = {"images": torch.rand(1, 1, 8, 8), "masks": self.MASKS, "draws": 50, "chains": 16}
        with pytest.raises(ValueError, match=message):
            score_real(digits_model, ChEES(), **settings | change)
