"""`more`: chains go on from where they were, and what was drawn before stays unless chains disagreed."""

import numpy as np
import pytest
import torch
from digit import HALF, SHAPE
from statistics_of_draws import assert_moments
from targets import Grid

from posterior_inpainting.inference import (
    MALA,
    MAP,
    ChEES,
    Exact,
    TemperedSMC,
    Trusted,
    diagnostics,
    infer,
    load,
    more,
    save,
)
from posterior_inpainting.models import (
    LatentCode,
    LinearGaussian,
    Observation,
    datasets,
    observations,
    pretrained,
)

TRAIN = datasets.load("digits", split="train")
LINEAR = LinearGaussian.fit(TRAIN, latent=3)
CODE = LatentCode(pretrained.load("digits-vae-2d"))
SEEN = Observation(datasets.load("digits")[0], HALF)
#: Several modes, between which chains without jumps do not move.
SCATTERED = Observation(datasets.load("digits")[0], observations.scatter(SHAPE, 0.2, seed=0))
QUIET = {"progress": False}


def codes(idata):
    return idata.posterior["z"].to_numpy()


def moments():
    """Means and standard deviations of the linear model's codes."""
    law = LINEAR.exact_posterior(SEEN.image, SEEN.mask)
    return law.mean.numpy(), law.stddev.numpy()


@pytest.fixture(scope="module")
def short():
    return infer(LINEAR, SEEN, ChEES(warmup=100), draws=400, chains=8, **QUIET)


@pytest.fixture(scope="module")
def joined(short):
    return more(short, LINEAR, SEEN, ChEES(warmup=100), draws=600, **QUIET)


class TestChains:
    def test_the_draws_that_were_there_come_first(self, short, joined):
        assert joined.posterior.sizes["draw"] == joined.sample_stats.sizes["draw"] == 1000
        assert np.array_equal(codes(joined)[:, :400], codes(short))
        assert np.array_equal(joined.posterior["draw"], np.arange(1000))
        for name in ("posterior_predictive", "log_likelihood"):
            assert joined[name]["image"].sizes["draw"] == 1000

    def test_all_of_them_are_of_the_posterior(self, joined):
        assert_moments(codes(joined), *moments())
        assert diagnostics.verdict(joined).may_be_used

    def test_costs_add_up(self, short, joined):
        assert joined.attrs["gradient_evaluations"] > short.attrs["gradient_evaluations"]
        assert joined.attrs["wall_time_s"] > short.attrs["wall_time_s"]
        assert joined.attrs["seed"] == 0
        assert joined.attrs["went_on_after"] == 400

    def test_whatever_init_says(self, short, monkeypatch):
        def elsewhere(*_):
            """Start somewhere else."""
            raise AssertionError("chains begin at particles")

        monkeypatch.setattr(TemperedSMC, "starts", elsewhere)
        method = ChEES(warmup=100, init="tempered")
        assert more(short, LINEAR, SEEN, method, draws=10, **QUIET).posterior.sizes["draw"] == 410
        with pytest.raises(AssertionError, match="at particles"):
            infer(LINEAR, SEEN, method, draws=10, chains=8, **QUIET)

    def test_again_and_again(self, joined):
        third = more(joined, LINEAR, SEEN, ChEES(warmup=100), draws=50, **QUIET)
        assert third.posterior.sizes["draw"] == 1050
        assert not np.array_equal(codes(third)[:, 1000:1050], codes(joined)[:, 400:450])

    def test_from_a_file(self, short, joined, tmp_path):
        save(short, tmp_path / "short.nc")
        found = more(load(tmp_path / "short.nc"), LINEAR, SEEN, ChEES(warmup=100), draws=600, **QUIET)
        assert np.array_equal(codes(found), codes(joined))

    def test_groups_that_were_left_out_stay_out(self):
        bare = infer(LINEAR, SEEN, ChEES(warmup=50), draws=20, chains=4, keep=(), **QUIET)
        found = more(bare, LINEAR, SEEN, ChEES(warmup=50), draws=20, **QUIET)
        assert {"posterior_predictive", "log_likelihood"}.isdisjoint(found.groups())

    def test_until(self, short):
        found = more(short, LINEAR, SEEN, ChEES(warmup=100), until=Trusted(ess=2000), **QUIET)
        assert found.attrs["until_missing"] == ""
        assert 400 < found.posterior.sizes["draw"] < 1400


class TestDefault:
    def test_a_budget_that_was_too_small(self):
        """What a run had learnt when its budget ended is a start; the whole is then trusted."""
        grid = Grid.of(CODE, SCATTERED.image, SCATTERED.mask)
        short = infer(CODE, SCATTERED, budget="12000 gradients", **QUIET)
        assert not diagnostics.verdict(short).may_be_used
        found = more(short, CODE, SCATTERED, **QUIET)
        assert found.attrs["until_missing"] == ""
        assert diagnostics.verdict(found).may_be_used
        assert_moments(codes(found), *grid.moments())
        # No second warm-up of that length, and nothing that was spent is forgotten.
        assert found.attrs["gradient_evaluations"] > short.attrs["gradient_evaluations"]

    def test_of_what_is_trusted_there_can_be_more(self):
        trusted = infer(CODE, SEEN, **QUIET)
        count = trusted.posterior.sizes["draw"]
        found = more(trusted, CODE, SEEN, draws=300, **QUIET)
        assert found.posterior.sizes["draw"] == count + 300
        assert np.array_equal(codes(found)[:, :count], codes(trusted))
        assert_moments(codes(found), *Grid.of(CODE, SEEN.image, SEEN.mask).moments())

    def test_chains_that_disagreed_say_only_where_to_begin(self):
        """Draws of chains that stay in their modes are not added to; each goes on in its own."""
        method = ChEES(warmup=60)
        apart = infer(CODE, SCATTERED, method, draws=200, chains=16, seed=1, progress=False)
        assert not diagnostics.verdict(apart).may_be_used
        found = more(apart, CODE, SCATTERED, method, draws=100, **QUIET)
        assert found.posterior.sizes["draw"] == 100
        grid = Grid.of(CODE, SCATTERED.image, SCATTERED.mask)
        labels, _ = grid.modes()
        then, now = (grid.label(codes(one), labels) for one in (apart, found))
        assert len(np.unique(then[:, -1])) > 1
        assert (np.median(now, 1) == then[:, -1]).mean() > 0.9


class TestIndependentDraws:
    def test_they_are_added(self):
        few = infer(LINEAR, SEEN, Exact(), draws=300, chains=1, **QUIET)
        found = more(few, LINEAR, SEEN, draws=2000, **QUIET)
        assert found.posterior.sizes["draw"] == 2300
        assert np.array_equal(codes(found)[:, :300], codes(few))
        assert_moments(codes(found), *moments(), independent=True)
        assert len(np.unique(codes(found)[0, :, 0])) == 2300


class TestMistakes:
    def test_another_observation(self, short):
        other = Observation(datasets.load("digits")[1], HALF)
        with pytest.raises(ValueError, match="the posterior is of another observation"):
            more(short, LINEAR, other, ChEES(warmup=100), **QUIET)

    def test_another_mask(self, short):
        other = Observation(SEEN.image, torch.ones_like(HALF))
        with pytest.raises(ValueError, match="the posterior is of another observation"):
            more(short, LINEAR, other, ChEES(warmup=100), **QUIET)

    def test_another_method(self, short):
        with pytest.raises(
            ValueError, match="is of ChEES, and method is MALA; give the method that it is of"
        ):
            more(short, LINEAR, SEEN, MALA(), **QUIET)

    @pytest.mark.parametrize("method", [TemperedSMC(max_moves=2), MAP(restarts=2, steps=3)])
    def test_what_is_begun_anew(self, method):
        found = infer(
            CODE, SEEN, method, draws=20 if method.draws_are == "particles" else 1, chains=2, **QUIET
        )
        with pytest.raises(ValueError, match="are not added to; infer anew"):
            more(found, CODE, SEEN, method, **QUIET)

    def test_latents_that_were_not_kept(self):
        found = infer(LINEAR, SEEN, ChEES(warmup=20), draws=10, chains=2, **QUIET)
        found.posterior = found.posterior[["completion"]]
        with pytest.raises(ValueError, match="too many to be kept"):
            more(found, LINEAR, SEEN, ChEES(warmup=20), **QUIET)
