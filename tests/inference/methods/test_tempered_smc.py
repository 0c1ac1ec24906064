"""`TemperedSMC` returns one posterior: its replicates are weighed by their evidence, not each alike."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from digit import HALF

from posterior_inpainting.inference import TemperedSMC, diagnostics, infer, sample
from posterior_inpainting.models import LatentCode, Observation, pretrained

SHARE = 0.1
CHAINS, DRAWS = 16, 4000  # all chains' draws together


def two_modes():
    """Normal modes at -5 and 5 with shares .9 and .1, the large one thirty times narrower.

    On the way from a wide prior the small mode seems the larger for long, so that a replicate keeps more or less of the
    large one by chance: the replicates' mean share of the small mode is .2 to .4.
    """
    prior = dist.Normal(0.0, 5.0)
    x = pyro.sample("x", prior)
    large, small = dist.Normal(-5.0, 0.01).log_prob(x), dist.Normal(5.0, 0.3).log_prob(x)
    mixture = torch.logaddexp(large + math.log(1 - SHARE), small + math.log(SHARE))
    pyro.factor("likelihood", mixture - prior.log_prob(x))


@pytest.fixture(scope="module", params=[2, pytest.param(6, marks=pytest.mark.long)], ids="{} seeds".format)
def runs(request):
    return [
        sample(two_modes, TemperedSMC(), draws=DRAWS // CHAINS, chains=CHAINS, seed=s, progress=False)
        for s in range(request.param)
    ]


def small(idata):
    return float((idata.posterior["x"].to_numpy() > 0).mean())


def error(idata):
    """The error of the share of the small mode: of the replicates' weights, and of the number of draws."""
    count, effective = idata.attrs["replicates"], idata.attrs["effective_replicates"]
    return SHARE * math.hypot(math.sqrt((count / effective - 1) / (count - 1)), 1 / math.sqrt(SHARE * DRAWS))


def test_a_mode_has_its_share(runs):
    """Draws of the small mode are its share of all, each run's and all runs' together, by the runs' own errors."""
    found, errors = np.array([small(run) for run in runs]), np.array([error(run) for run in runs])
    assert np.abs((found - SHARE) / errors).max() < 4
    assert abs(found.mean() - SHARE) < 4 * math.sqrt((errors**2).sum()) / len(runs)


def test_replicates_weighed_alike_would_be_wrong(runs):
    """The test above can fail: by as much as the mean of the replicates' own shares is off."""
    errors = [error(run) for run in runs]
    alike = []
    for run in runs:
        near, replicate = run.posterior["x"].to_numpy() > 0, run.sample_stats["replicate"].to_numpy()
        alike.append(np.mean([near[replicate == one].mean() for one in np.unique(replicate)]))
    assert abs(np.mean(alike) - SHARE) > 8 * math.sqrt(np.square(errors).sum()) / len(runs)


def test_the_evidence(runs):
    """The likelihood integrates to 1 against the prior."""
    for run in runs:
        assert abs(run.attrs["log_evidence"]) < 5 * run.attrs["log_evidence_se"]


def test_what_remains_of_the_replicates(runs):
    for run in runs:
        assert run.attrs["replicates"] == CHAINS
        assert 1 <= run.attrs["effective_replicates"] <= CHAINS
        stats = run.sample_stats
        replicate, evidence = stats["replicate"].to_numpy(), stats["log_replicate_evidence"].to_numpy()
        one_each = {int(r): float(e) for r, e in zip(replicate.ravel(), evidence.ravel(), strict=True)}
        counts = np.bincount(replicate.ravel(), minlength=CHAINS) / replicate.size
        weights = np.exp([one_each.get(r, -np.inf) for r in range(CHAINS)])
        np.testing.assert_allclose(counts, weights / weights.sum(), atol=1.5 / replicate.size)


def test_chains_of_the_result_are_alike(runs):
    """Draws of every replicate are in every chain, so that no chain need be weighed again."""
    for run in runs:
        shares = (run.posterior["x"].to_numpy() > 0).mean(1)
        share = shares.mean()
        assert np.abs(shares - share).max() < 5 * math.sqrt(share * (1 - share) * CHAINS / DRAWS)


def test_the_verdict_agrees_with_the_error(runs):
    for run in runs:
        found = diagnostics.verdict(run)
        assert found.kind == "particles"
        if run.attrs["log_evidence_se"] >= 0.1:
            assert "Use the draws" not in str(found)


def test_a_single_replicate_knows_no_error():
    idata = sample(two_modes, TemperedSMC(), draws=200, chains=1, progress=False)
    assert math.isnan(idata.attrs["log_evidence_se"])
    assert "not known" in diagnostics.verdict(idata).reason


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_a_weighted_density_has_no_evidence(digits, weight):
    model = LatentCode(pretrained.load("digits-vae-2d"), prior_weight=weight)
    seen = Observation(digits[0], HALF)
    attrs = infer(model, seen, TemperedSMC(), draws=100, chains=2, progress=False).attrs
    assert ("log_evidence" in attrs) == ("log_evidence_se" in attrs) == (weight == 1)
    assert attrs["density"] == ("posterior" if weight == 1 else "pseudo-posterior")
