"""What people call of ArviZ on our results, with the ArviZ that is installed; `make test-arviz1` installs the other."""

import arviz
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from posterior_inpainting.inference import Exact, infer, seen_pixels
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.models import LinearGaussian, Observation, observations

matplotlib.use("Agg")
IS_OLD = arviz.__version__.startswith("0.")
PLOTS = {
    "plot_ppc" if IS_OLD else "plot_ppc_dist": {},
    "plot_bpv" if IS_OLD else "plot_ppc_tstat": {},
    "plot_trace": {"var_names": ["z"]},
    "plot_forest": {"var_names": ["z"]},
    "plot_rank": {"var_names": ["z"]},
    "plot_autocorr": {"var_names": ["z"]},
    "plot_posterior" if IS_OLD else "plot_dist": {"var_names": ["z"]},
}


@pytest.fixture(scope="module")
def posteriors(digits):
    """Of two models, whose latents say nothing of the pixels that are black in all images."""
    seen = Observation(digits[3], observations.half((1, 8, 8), hide="bottom"))
    return {
        f"{latent} latents": infer(
            LinearGaussian.fit(digits, latent=latent),
            seen,
            Exact(),
            draws=250,
            chains=4,
            progress=False,
        )
        for latent in (5, 2)
    }


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.mark.filterwarnings("ignore")
def test_compare(posteriors):
    table = arviz.compare(posteriors)
    assert list(table.index) == ["5 latents", "2 latents"]
    assert arviz.plot_compare(table) is not None


@pytest.mark.filterwarnings("ignore")
def test_loo_is_that_of_each_pixel(posteriors):
    """What never varies counts with its own likelihood."""
    one = posteriors["2 latents"]
    likelihood = group(one, "log_likelihood")["image"].to_numpy().astype(float)
    black = np.ptp(likelihood, (0, 1)) < 1e-3
    assert 0 < black.sum() < 16
    assert (np.ptp(likelihood, (0, 1)) > 0).all()
    pointwise = arviz.loo(one, pointwise=True)
    values = np.asarray(pointwise.loo_i if IS_OLD else pointwise.elpd_i)
    np.testing.assert_allclose(values[black], likelihood.mean((0, 1))[black], atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_loo_pit_of_seen_pixels(posteriors):
    one = seen_pixels(posteriors["5 latents"])
    if IS_OLD:
        values = arviz.loo_pit(one, y="image")
        arviz.plot_loo_pit(one, y="image")
    else:
        values = arviz.loo_pit(one)["image"].to_numpy()
        arviz.plot_loo_pit(one)
        arviz.plot_ppc_pit(one)
    assert values.shape == (32,)
    assert 0 <= values.min() < values.max() <= 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PLOTS)
def test_plots(posteriors, name):
    assert getattr(arviz, name)(posteriors["5 latents"], **PLOTS[name]) is not None


def test_seen_pixels_are_the_seen_ones(posteriors):
    whole = posteriors["5 latents"]
    ours = seen_pixels(whole)
    mask = group(whole, "constant_data")["mask"].to_numpy()
    for name in ("posterior_predictive", "observed_data"):
        one, all_pixels = group(ours, name)["image"], group(whole, name)["image"]
        np.testing.assert_array_equal(one.to_numpy(), all_pixels.to_numpy()[..., mask])
        np.testing.assert_array_equal(one.coords["pixel"], group(whole, "log_likelihood").coords["pixel"])
    assert group(ours, "posterior").equals(group(whole, "posterior"))


def test_seen_pixels_of_what_was_not_kept(digits):
    seen = Observation(digits[3], observations.half((1, 8, 8), hide="bottom"))
    model = LinearGaussian.fit(digits, latent=2)
    with pytest.raises(ValueError, match="no group 'posterior_predictive'"):
        seen_pixels(infer(model, seen, Exact(), draws=5, chains=1, keep=(), progress=False))
