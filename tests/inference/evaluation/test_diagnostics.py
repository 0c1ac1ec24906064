import math
import sys
import time
from contextlib import contextmanager

import arviz
import numpy as np
import pytest
from synthetic import posterior

from posterior_inpainting.inference import MAP, NUTS, Exact, Variational, diagnostics, infer
from posterior_inpainting.inference.evaluation.diagnostics import (
    khat,
    latent_ess,
    latent_rhat,
    pixel_ess,
    pixel_rhat,
    summary,
)
from posterior_inpainting.inference.results.containers import group, to_arviz
from posterior_inpainting.models import Observation, observations

SHAPE = (3, 4, 5)
MASK = observations.half(SHAPE, hide="bottom").numpy()
MASK[0] = True  # one channel is wholly seen
NO_CHAIN = ("independent", "restarts", "particles")


GENERATIONS = ("arviz", "arviz_stats")


@contextmanager
def only(generation):
    """Leave one generation of ArviZ to be imported."""
    with pytest.MonkeyPatch.context() as patch:
        if generation == "arviz_stats":
            pytest.importorskip("arviz_stats")
            patch.setitem(sys.modules, "arviz", None)
        yield


@pytest.fixture(params=GENERATIONS)
def generation(request):
    with only(request.param):
        yield


def chains(shift=0.0, correlation=0.0, draws=1000, draws_are="markov"):
    """Four normal chains of images and of two latents; the last is shifted, all have an autoregression."""
    random = np.random.default_rng(1)
    count = int(np.prod(SHAPE)) + 2
    noise = random.normal(size=(4, draws, count))
    values = noise.copy()
    for t in range(1, draws):
        values[:, t] = correlation * values[:, t - 1] + math.sqrt(1 - correlation**2) * noise[:, t]
    values[3] += shift
    return posterior(
        values[..., 2:].reshape(4, draws, *SHAPE),
        MASK,
        z=values[..., :2],
        draws_are=draws_are,
        diverging=np.arange(4 * draws).reshape(4, draws) < 3,
    )


class TestPixels:
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (pixel_rhat, lambda x: arviz.rhat(x)),
            (pixel_ess, lambda x: arviz.ess(x, method="bulk")),
            (lambda i: pixel_ess(i, "tail"), lambda x: arviz.ess(x, method="tail", prob=(0.05, 0.95))),
        ],
        ids=["rhat", "bulk", "tail"],
    )
    @pytest.mark.parametrize("correlation", [0.0, 0.9])
    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_arviz_on_hidden_pixels_nan_on_seen_ones(self, generation, ours, theirs, correlation):
        made = chains(correlation=correlation, draws=200)
        with only(generation):
            found = ours(made)
        assert found.dims == ("channel", "row", "column")
        expected = theirs(group(made, "posterior")[["completion"]])["completion"].to_numpy()
        np.testing.assert_allclose(found.to_numpy()[~MASK], expected[~MASK], rtol=1e-6)
        assert np.isnan(found.to_numpy()[MASK]).all()

    def test_chains_that_agree(self):
        assert pixel_rhat(chains()).max() < 1.01
        assert latent_rhat(chains())["z"].max() < 1.01
        assert pixel_ess(chains()).min() > 2000

    def test_chains_that_do_not(self):
        assert pixel_rhat(chains(shift=2.0)).min() > 1.1
        assert latent_rhat(chains(shift=2.0))["z"].min() > 1.1

    def test_slow_chains_have_few_effective_draws(self):
        # An autoregression of 0.9 leaves (1 - 0.9) / (1 + 0.9) of the draws, 210 of 4000.
        ess = pixel_ess(chains(correlation=0.9)).to_numpy()[~MASK]
        assert 0.5 * 210 < np.median(ess) < 2 * 210

    @pytest.mark.parametrize("kind", NO_CHAIN)
    def test_not_reported_where_there_is_no_chain(self, kind):
        made = chains(draws_are=kind, draws=50)
        for found in (pixel_rhat(made), pixel_ess(made), pixel_ess(made, "tail")):
            assert found.shape == SHAPE
            assert found.isnull().all()
        assert not latent_rhat(made).data_vars
        assert not latent_ess(made).data_vars

    def test_nothing_hidden(self):
        values = np.random.default_rng(0).normal(size=(2, 20, *SHAPE))
        assert pixel_rhat(posterior(values, np.ones(SHAPE, bool), draws_are="markov")).isnull().all()

    def test_a_pixel_that_never_varies_is_no_warning(self, generation):
        values = np.random.default_rng(0).normal(size=(4, 500, *SHAPE))
        values[..., 1, 3, 3] = 0.25
        found = pixel_rhat(posterior(values, MASK, draws_are="markov")).to_numpy()
        assert np.isnan(found[1, 3, 3])
        assert np.isfinite(found[~MASK]).sum() == (~MASK).sum() - 1


def test_large_images_take_no_loop_over_pixels():
    """ArviZ goes pixel by pixel: 90 s for 3 x 64 x 64. As many quantities as an image of 3 x 32 x 32 has."""
    random = np.random.default_rng(0)
    made = posterior(random.normal(size=(4, 100, 3, 32, 32)), np.zeros((3, 32, 32), bool), draws_are="markov")
    one = posterior(random.normal(size=(4, 100, 1, 5, 6)), np.zeros((1, 5, 6), bool), draws_are="markov")
    completion = group(one, "posterior")[["completion"]]
    start = time.process_time()
    arviz.rhat(completion), arviz.ess(completion), arviz.ess(completion, method="tail")
    arvizs = time.process_time() - start
    start = time.process_time()
    pixel_rhat(made), pixel_ess(made), pixel_ess(made, "tail")
    # A hundred times as many pixels as ArviZ is given here, in far less than a hundred times its time.
    assert time.process_time() - start < 20 * arvizs


@pytest.mark.parametrize("kind", ["bulk", "tail"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_latents(generation, kind):
    made = chains(correlation=0.5, draws=200)
    with only(generation):
        rhat, ess = latent_rhat(made), latent_ess(made, kind)
    assert set(rhat.data_vars) == set(ess.data_vars) == {"z"}
    latents = group(made, "posterior")[["z"]]
    np.testing.assert_allclose(rhat["z"], arviz.rhat(latents)["z"], rtol=1e-6)
    quantiles = {"prob": (0.05, 0.95)} if kind == "tail" else {}
    np.testing.assert_allclose(ess["z"], arviz.ess(latents, method=kind, **quantiles)["z"], rtol=1e-6)


def weighted(log_weight):
    values = np.zeros((*np.shape(log_weight), *SHAPE))
    return posterior(values, MASK, log_weight=np.asarray(log_weight))


class TestKhat:
    def importance(self, mean, sd, dimensions=3, draws=2000):
        """Log weights of a standard normal target under a normal guide."""
        eps = np.random.default_rng(3).normal(size=(2, draws // 2, dimensions))
        x = mean + sd * eps
        return (-0.5 * x**2 + 0.5 * eps**2 + math.log(sd)).sum(-1)

    def test_good_guide(self, generation):
        found = khat(weighted(self.importance(0.1, 1.1)))
        assert math.isfinite(found)
        assert found < 0.5

    @pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.4), (4.0, 1.0)])
    def test_bad_guide(self, mean, sd, generation):
        assert khat(weighted(self.importance(mean, sd, dimensions=10))) > 0.7

    def test_tail_index_of_pareto_weights(self, generation):
        """Weights u**-k have a generalised Pareto tail of index k."""
        u = np.random.default_rng(5).random((4, 5000))
        for k in (0.2, 0.5, 0.9):
            tail = 3 * math.sqrt(u.size)
            # The asymptotic standard error of an index estimated from m values of the tail is (1 + k) / sqrt(m).
            assert khat(weighted(-k * np.log(u))) == pytest.approx(k, abs=4 * (1 + k) / math.sqrt(tail))

    def test_exact_guide(self, generation):
        rounding = np.random.default_rng(0).normal(size=(2, 500)) * 1e-5
        assert khat(weighted(np.full((2, 500), -321.0))) == -math.inf
        assert khat(weighted(-321.0 + rounding)) == -math.inf

    @pytest.mark.parametrize("scale", [10, 50, 400])
    def test_few_weights_carry_all(self, scale, generation):
        assert khat(weighted(np.random.default_rng(0).normal(size=(2, 500)) * scale)) > 2

    def test_scale_of_the_weights_does_not_count(self, generation):
        log_weight = self.importance(0.3, 0.8)
        assert khat(weighted(log_weight - 5000)) == pytest.approx(khat(weighted(log_weight)))

    def test_no_weights(self):
        assert math.isnan(khat(chains(draws=10)))

    def test_too_few_draws(self, generation):
        assert math.isnan(khat(weighted(np.random.default_rng(0).normal(size=(2, 12)))))


class TestSummary:
    def test_markov(self):
        made = chains(correlation=0.5)
        table = summary(made)
        assert table == {
            "draws": 4000,
            "R-hat, pixels (max)": pytest.approx(float(pixel_rhat(made).max())),
            "ESS bulk, pixels (min)": pytest.approx(float(pixel_ess(made).min())),
            "ESS bulk, pixels (median)": pytest.approx(float(pixel_ess(made).median())),
            "ESS tail, pixels (min)": pytest.approx(float(pixel_ess(made, "tail").min())),
            "R-hat, z (max)": pytest.approx(float(latent_rhat(made)["z"].max())),
            "ESS bulk, z (min)": pytest.approx(float(latent_ess(made)["z"].min())),
            "divergences": 3,
            "wall_time_s": 1.5,
        }

    @pytest.mark.parametrize("kind", NO_CHAIN)
    def test_no_chain(self, kind):
        assert summary(chains(draws_are=kind, draws=50)) == {"draws": 200, "wall_time_s": 1.5}

    def test_guide(self):
        made = weighted(np.random.default_rng(0).normal(size=(2, 100)) * 0.3)
        assert summary(made) == {"draws": 200, "Pareto k-hat": khat(made), "wall_time_s": 1.5}

    def test_equal_weights_are_no_infinity(self):
        table = summary(weighted(np.random.default_rng(0).normal(size=(2, 100)) * 1e-5))
        assert "Pareto k-hat" not in table
        assert table["log weights, sd"] == pytest.approx(1e-5, rel=0.3)

    @pytest.mark.parametrize(("scale", "shown"), [(0.3, True), (1e-6, False), (300.0, False)])
    def test_exact_draws_of_another_law(self, scale, shown):
        made = weighted(np.random.default_rng(0).normal(size=(2, 100)) * scale)
        made.attrs |= {"approximate": 0, "law": "constrained law"}
        assert ("Pareto k-hat" in summary(made)) == shown

    @pytest.mark.parametrize("kind", ["markov", *NO_CHAIN])
    def test_an_incomplete_run_is_labelled(self, kind):
        made = chains(draws_are=kind, draws=50)
        made.attrs["budget_spent"] = 1
        assert summary(made)["incomplete run: budget spent"] == 1

    def test_particles(self):
        made = chains(draws_are="particles", draws=50)
        made.attrs |= {"replicates": 4, "effective_replicates": 3.2, "log_evidence_se": 0.1}
        assert {name: summary(made)[name] for name in ("replicates", "effective_replicates")} == {
            "replicates": 4,
            "effective_replicates": 3.2,
        }

    @pytest.mark.parametrize(
        ("method", "names"),
        [
            (NUTS(warmup=20), {"R-hat, pixels (max)", "R-hat, z (max)", "ESS bulk, z (min)", "divergences"}),
            (Exact(), {"log_evidence"}),
            (Variational(guide="normal", steps=30), {"Pareto k-hat"}),
            (MAP(restarts=3, steps=20), set()),
        ],
        ids=lambda value: type(value).__name__ if not isinstance(value, set) else "",
    )
    def test_of_infer(self, method, names, linear, digits):
        seen = Observation(digits[0], observations.half(digits[0].shape, hide="bottom"))
        idata = infer(linear, seen, method, draws=30, chains=2, progress=False)
        table = summary(idata)
        assert names | {"draws", "gradient_evaluations", "wall_time_s"} <= set(table)
        assert table["draws"] == (3 if isinstance(method, MAP) else 60)
        assert ("R-hat, pixels (max)" in table) == (idata.attrs["draws_are"] == "markov")
        if isinstance(method, Exact):
            assert not {"Pareto k-hat", "log weights, sd"} & set(table)
            assert table["log_evidence"] == pytest.approx(float(linear.log_evidence(seen.image, seen.mask)))


def test_large_latents_are_not_in_the_posterior_and_do_no_harm():
    made = chains(draws=50)
    groups = {name: group(made, name) for name in ("posterior", "sample_stats", "constant_data")}
    groups["posterior"] = groups["posterior"].drop_vars("z")
    table = summary(to_arviz(groups, made.attrs))
    assert table["R-hat, pixels (max)"] > 0.99
    assert not any(name.endswith("z (max)") for name in table)


def test_every_function_is_exported():
    assert {khat, latent_ess, latent_rhat, pixel_ess, pixel_rhat, summary} <= {
        getattr(diagnostics, name) for name in diagnostics.__all__
    }
