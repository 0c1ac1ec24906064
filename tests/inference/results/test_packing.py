"""Results on disk: how small, how near, and what readers get back."""

import warnings

import arviz
import numpy as np
import pytest
import xarray as xr

from posterior_inpainting.inference import Exact, diagnostics, infer, load, save
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.models import Observation, observations

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def seen(digits):
    return Observation(digits[11], observations.half(SHAPE, hide="bottom"))


@pytest.fixture(scope="module")
def posterior(linear, seen):
    return infer(linear, seen, Exact(), draws=500, chains=4, progress=False)


@pytest.mark.parametrize(("bits", "most"), [(16, 1 / 4096), (8, 1 / 64)])
def test_error_is_what_the_attributes_say(posterior, seen, tmp_path, bits, most):
    save(posterior, tmp_path / "p.nc", bits=bits)
    again, hidden = load(tmp_path / "p.nc"), ~seen.mask.numpy()
    for name, variable in (("posterior", "completion"), ("posterior_predictive", "image")):
        before, after = (group(one, name)[variable] for one in (posterior, again))
        apart = np.abs(before.to_numpy() - after.to_numpy())[..., hidden].max()
        assert 0 < apart <= after.attrs["packing_error"] * 1.01 + 1e-7
        assert after.attrs["packing_error"] < most
        assert after.dtype == np.float32
        known = after.to_numpy()[..., ~hidden]
        np.testing.assert_allclose(
            known, np.broadcast_to(seen.image.numpy()[~hidden], known.shape), atol=most
        )
    before, after = (one.log_likelihood["image"] for one in (posterior, again))
    assert float(abs(before - after).max()) <= after.attrs["packing_error"] * 1.01 < most
    np.testing.assert_array_equal(again.posterior["z"], posterior.posterior["z"])
    np.testing.assert_array_equal(again.observed_data["image"], posterior.observed_data["image"])
    assert dict(again.attrs) == dict(posterior.attrs)


def test_as_it_is(posterior, tmp_path):
    save(posterior, tmp_path / "p.nc", bits=None)
    again = load(tmp_path / "p.nc")
    for name in ("posterior", "posterior_predictive", "log_likelihood", "sample_stats"):
        xr.testing.assert_identical(group(posterior, name), group(again, name))


def test_it_is_smaller(posterior, tmp_path):
    sizes = {}
    for bits in (None, 16, 8):
        save(posterior, tmp_path / "p.nc", bits=bits)
        sizes[bits] = (tmp_path / "p.nc").stat().st_size
    assert sizes[16] < 0.55 * sizes[None], sizes
    assert sizes[8] < 0.85 * sizes[16], sizes


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
def test_arviz_reads_it(posterior, tmp_path):
    save(posterior, tmp_path / "p.nc")
    again = arviz.from_netcdf(str(tmp_path / "p.nc"))
    assert float(arviz.summary(again, var_names=["z"])["r_hat"].max()) < 1.05
    found = [arviz.loo(one, var_name="image") for one in (posterior, again)]
    before, after = (getattr(one, "elpd", None) or one.elpd_loo for one in found)  # of ArviZ 1, or of 0.23
    assert abs(before - after) < 0.02
    with warnings.catch_warnings():  # of matplotlib, to ArviZ
        warnings.simplefilter("ignore")
        arviz.plot_trace(again, var_names=["z"])
    again.close()


def test_verdict_and_summary_are_the_same(posterior, tmp_path):
    save(posterior, tmp_path / "p.nc")
    again = load(tmp_path / "p.nc")
    assert str(diagnostics.verdict(again)) == str(diagnostics.verdict(posterior))
    assert diagnostics.summary(again) == pytest.approx(diagnostics.summary(posterior), rel=0.02)


def test_an_open_file_is_replaced(posterior, tmp_path):
    save(posterior, tmp_path / "p.nc")
    opened = xr.open_dataset(tmp_path / "p.nc", group="posterior", engine="h5netcdf")
    save(posterior, tmp_path / "p.nc", bits=8)
    assert [path.name for path in tmp_path.iterdir()] == ["p.nc"]
    opened.close()


def test_values_that_are_not_finite_are_kept(posterior, tmp_path):
    broken = posterior.copy()
    values = broken.log_likelihood["image"].copy()
    values[0, 0, 0] = -np.inf
    broken.log_likelihood["image"] = values
    save(broken, tmp_path / "p.nc")
    again = load(tmp_path / "p.nc").log_likelihood["image"]
    np.testing.assert_allclose(again, values, atol=again.attrs["packing_error"] * 1.01)
    pixels = broken.posterior["completion"].copy()
    pixels[0, 0, 0, 7, 0] = np.inf
    broken.posterior["completion"] = pixels
    save(broken, tmp_path / "q.nc")
    np.testing.assert_array_equal(load(tmp_path / "q.nc").posterior["completion"][0, 0, 0, 7, 0], np.inf)


def test_other_bits_are_refused(posterior, tmp_path):
    with pytest.raises(ValueError, match="bits=12; expected 8, 16, or None"):
        save(posterior, tmp_path / "p.nc", bits=12)
    assert not list(tmp_path.iterdir())
