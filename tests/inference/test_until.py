"""`until=Trusted()`: a run ends as soon as its draws have what is asked for, and is else the run that it would be."""

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from posterior_inpainting.inference import (
    MALA,
    MAP,
    NUTS,
    ChEES,
    Gibbs,
    ParallelTempering,
    Trusted,
    Variational,
    diagnostics,
    infer,
    infer_many,
    sample,
)
from posterior_inpainting.inference.results.chain_statistics import ess, rhat
from posterior_inpainting.inference.results.trusted import Watch, error_of_wide_ones
from posterior_inpainting.inference.results.watched_values import values_of_latents
from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations

DIGITS = datasets.load("digits", split="train")
MODEL = LinearGaussian.fit(DIGITS, latent=3)
SEEN = Observation(DIGITS[0], observations.half(MODEL.image_shape, hide="bottom"))
QUIET = {"progress": False, "seed": 3}


def bimodal():
    """Two modes that no chain leaves."""
    z = pyro.sample("z", dist.Normal(0.0, 4.0))
    pyro.factor("modes", torch.logaddexp(*(dist.Normal(mode, 0.5).log_prob(z) for mode in (-5.0, 5.0))))


def hidden(idata):
    return idata.posterior["completion"].to_numpy()[..., ~SEEN.mask.numpy()]


def worst(idata):
    """Largest R-hat and least effective sample sizes of latents and hidden pixels, by ArviZ' definitions."""
    values = [idata.posterior["z"].to_numpy(), hidden(idata)]
    return [
        max(np.nanmax(rhat(one)) for one in values),
        min(min(np.nanmin(ess(one, kind)) for one in values) for kind in ("bulk", "tail")),
    ]


@pytest.fixture(scope="module")
def ended():
    return infer(MODEL, SEEN, ChEES(warmup=100), draws=4000, chains=8, until=Trusted(), **QUIET)


class TestOneImage:
    def test_it_ends_when_the_draws_have_it(self, ended):
        assert ended.posterior.sizes["draw"] < 2000
        largest, least = worst(ended)
        assert largest < 1.01
        assert least > 400
        assert ended.attrs["until_missing"] == ""
        assert ended.attrs["until"] == "R-hat below 1.01, ESS above 400"
        assert "interrupted" not in ended.attrs

    def test_arviz_agrees(self, ended):
        assert float(arviz.rhat(ended, var_names="z")["z"].max()) < 1.01

    def test_the_draws_are_the_first_of_the_run_without_it(self, ended):
        count = ended.posterior.sizes["draw"]
        whole = infer(MODEL, SEEN, ChEES(warmup=100), draws=count, chains=8, **QUIET)
        assert np.array_equal(ended.posterior["z"], whole.posterior["z"])
        assert np.array_equal(ended.posterior_predictive["image"], whole.posterior_predictive["image"])

    def test_fewer_draws_than_it_takes_are_said_to_lack_something(self):
        short = infer(MODEL, SEEN, ChEES(warmup=100), draws=12, chains=8, until=Trusted(), **QUIET)
        assert short.posterior.sizes["draw"] == 12
        assert short.attrs["until_missing"].startswith("R-hat ")
        assert "less than 1.01 is asked for" in short.attrs["until_missing"]

    def test_more_is_asked_for_and_done(self, ended):
        longer = infer(
            MODEL, SEEN, ChEES(warmup=100), draws=4000, chains=8, until=Trusted(rhat=1.005, ess=4000), **QUIET
        )
        assert longer.posterior.sizes["draw"] > ended.posterior.sizes["draw"]
        assert worst(longer)[1] > 4000

    @pytest.mark.parametrize("method", [MALA(warmup=100), ParallelTempering(warmup=100), NUTS(warmup=100)])
    def test_every_method_of_chains(self, method):
        goal = Trusted(rhat=1.1, ess=50)
        found = infer(MODEL, SEEN, method, draws=2000, chains=4, until=goal, **QUIET)
        assert found.posterior.sizes["draw"] < 2000
        largest, least = worst(found)
        assert largest < 1.1
        assert least > 50

    def test_a_store_goes_on_and_knows_when_it_is_enough(self, tmp_path):
        method, count = ChEES(warmup=100), {"draws": 4000, "chains": 8}
        first, again = (
            infer(MODEL, SEEN, method, **count, until=Trusted(), store=tmp_path / "run.zarr", **QUIET)
            for _ in range(2)
        )
        assert np.array_equal(first.posterior["z"], again.posterior["z"])
        assert first.posterior.sizes["draw"] % 50 == 0  # a chunk of the store is a block
        longer = infer(
            MODEL, SEEN, method, **count, until=Trusted(ess=4000), store=tmp_path / "run.zarr", **QUIET
        )
        assert longer.posterior.sizes["draw"] > first.posterior.sizes["draw"]
        assert np.array_equal(longer.posterior["z"][:, : first.posterior.sizes["draw"]], first.posterior["z"])

    @pytest.mark.parametrize("method", [Variational(steps=10), MAP()])
    def test_methods_without_chains_refuse(self, method):
        with pytest.raises(ValueError, match="does not look at its draws as it goes"):
            infer(MODEL, SEEN, method, draws=10, chains=2, until=Trusted(), **QUIET)

    @pytest.mark.parametrize(
        ("until", "words"),
        [(1.01, "until is a float: 1.01; expected Trusted"), ("trusted", "expected Trusted")],
    )
    def test_what_is_no_goal(self, until, words):
        with pytest.raises(ValueError, match=words):
            infer(MODEL, SEEN, ChEES(), draws=10, chains=2, until=until, **QUIET)


def test_a_mode_that_no_chain_leaves_never_is_enough():
    found = sample(bimodal, ChEES(warmup=50, max_steps=16), draws=100, chains=8, until=Trusted(), **QUIET)
    assert found.posterior.sizes["draw"] == 100
    assert abs(found.posterior["z"].mean("draw")).min() > 4
    assert "R-hat" in found.attrs["until_missing"]


def test_one_chain_never_is_enough():
    found = infer(MODEL, SEEN, ChEES(warmup=50), draws=60, chains=1, until=Trusted(), **QUIET)
    assert found.attrs["until_missing"].startswith("a second chain")


def test_a_few_draws_never_are_enough():
    found = infer(MODEL, SEEN, ChEES(warmup=50), draws=3, chains=4, until=Trusted(), **QUIET)
    assert found.attrs["until_missing"] == "draws: fewer than 4 a chain"


def test_many_images_end_together_when_all_have_it():
    seen = [Observation(image, SEEN.mask) for image in DIGITS[:3]]
    found = infer_many(MODEL, seen, ChEES(warmup=100), draws=4000, chains=8, until=Trusted(), **QUIET)
    assert len({one.posterior.sizes["draw"] for one in found}) == 1
    assert found[0].posterior.sizes["draw"] < 2000
    for one in found:
        assert np.nanmax(rhat(one.posterior["z"].to_numpy())) < 1.01
        assert one.attrs["until_missing"] == ""


def test_gibbs_of_completions_without_latents():
    """What a model keeps in place of its latents is judged at hidden pixels alone."""
    from posterior_inpainting.models import ExpertField

    image = datasets.load("photographs", "test")[1, :, 100:116, 100:116]
    seen = Observation(image, observations.box((3, 16, 16), 6, 6, 3, 3))
    model = ExpertField.load("photographs-experts", (3, 16, 16))
    found = infer(
        model, seen, Gibbs(warmup=10), draws=400, chains=4, until=Trusted(rhat=1.2, ess=30), **QUIET
    )
    assert found.attrs["until_missing"] == ""
    assert found.posterior.sizes["draw"] < 400
    values = found.posterior["completion"].to_numpy()[..., ~seen.mask.numpy()]
    assert np.nanmax(rhat(values)) < 1.2


@pytest.mark.parametrize("settings", [{"rhat": 1.0}, {"rhat": float("nan")}, {"ess": 0}])
def test_goals_out_of_range(settings):
    with pytest.raises(ValueError, match="expected an R-hat above 1"):
        Trusted(**settings)


class TestWhatLatentsDoNotSay:
    """The log density and rare excursions are judged, and halves of the chains that began apart."""

    NORMAL = np.random.default_rng(0).normal(size=(16, 256, 4))

    def watched(self, lp):
        """What a watch misses of draws that are as they should be, with these log densities."""
        watch = Watch(Trusted(), values_of_latents)
        watch.is_enough({"z": torch.from_numpy(self.NORMAL)[None]}, {"lp": torch.as_tensor(lp)[None]})
        return watch.look()

    def test_the_log_density_is_judged(self):
        lp = np.random.default_rng(1).normal(size=(16, 256))
        assert self.watched(lp) == ""
        assert "of log density" in self.watched(lp + np.repeat([0.0, 1.0], 8)[:, None])

    def test_one_that_is_not_finite_is_not(self):
        assert self.watched(np.full((16, 256), -np.inf)) == ""

    def test_one_that_is_not_finite_in_one_block_is_not(self):
        watch, draws = Watch(Trusted(), values_of_latents), torch.from_numpy(self.NORMAL)[None]
        for lp in (torch.zeros(1, 16, 256), torch.full((1, 16, 256), torch.nan)):
            watch.is_enough({"z": draws}, {"lp": lp})
        assert watch.look() == ""

    def test_the_verdict_reads_it_too(self):
        run = sample(bimodal, ChEES(warmup=50), draws=400, chains=8, **QUIET)
        run.posterior["z"][...] = np.random.default_rng(2).normal(size=(8, 400))
        run.sample_stats["lp"][...] = np.random.default_rng(3).normal(size=(8, 400))
        assert diagnostics.verdict(run).may_be_used
        run.sample_stats["lp"][:4] += 1.0
        assert not diagnostics.verdict(run).may_be_used

    @pytest.mark.parametrize(("far", "counts"), [(2.0, False), (12.0, True)])
    def test_what_few_draws_make_wide_counts_where_it_may_be_wide(self, far, counts):
        """A quantity of a twentieth of the widest's width, but for two draws in four thousand."""
        values = self.NORMAL[..., :2] * [1.0, 0.05]
        values[0, 7, 1], values[9, 100, 1] = far, far
        errors = error_of_wide_ones(values)
        assert errors[0] < 0.02
        assert (not np.isnan(errors[1])) == counts
        assert bool(Trusted().missing({"z": values})) == counts

    def test_halves_that_began_apart_and_stay_so(self):
        """Starts at the prior and at a pilot's particles: chains of the two that differ are told, by little too."""
        apart = np.repeat([0.0, 0.4], 8)[:, None, None]
        assert Trusted().missing({"z": self.NORMAL}) == ""
        assert Trusted().missing({"z": self.NORMAL + apart}).startswith("R-hat")
