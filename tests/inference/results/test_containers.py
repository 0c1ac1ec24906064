"""What holds the groups: ArviZ's ``InferenceData`` or a ``DataTree``, on disk and back."""

import math
import sys

import arviz
import numpy as np
import pytest
import torch
import xarray as xr
from synthetic import GROUPS, names, posterior

from posterior_inpainting.inference import (
    NUTS,
    Exact,
    Variational,
    diagnostics,
    infer,
    load,
    plots,
    save,
    scores,
)
from posterior_inpainting.inference.results import containers
from posterior_inpainting.inference.results.containers import group, to_arviz
from posterior_inpainting.models import Observation, observations

SHAPE = (1, 8, 8)
CHAINS, DRAWS = 2, 30


@pytest.fixture(scope="module")
def image(digits):
    return digits[11]


@pytest.fixture(scope="module")
def mask():
    return observations.scatter(SHAPE, 0.6, seed=1)


@pytest.fixture(scope="module")
def seen(image, mask):
    return Observation(image, mask)


@pytest.fixture(scope="module")
def ran(linear, seen):
    """Groups and attributes of one run of NUTS."""
    idata = infer(linear, seen, NUTS(warmup=20), draws=DRAWS, chains=CHAINS, progress=False)
    return {name: group(idata, name) for name in GROUPS}, dict(idata.attrs)


@pytest.fixture
def arviz_1(monkeypatch):
    """No ``arviz.InferenceData``: results are trees, as with ArviZ 1."""
    monkeypatch.setattr(containers, "_inference_data", lambda: None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, 1), (2, 2), (0.5, 0.5), ("a", "a"), (np.float32(0.5), 0.5), (np.int64(3), 3)],
)
def test_attributes(value, expected):
    made = to_arviz({"posterior": xr.Dataset({"a": ("x", np.arange(3))})}, {"name": value})
    assert made.attrs["name"] == expected
    assert type(made.attrs["name"]) in (int, float, str)


@pytest.mark.parametrize("value", [None, [1, 2], {"a": 1}, torch.zeros(2)])
def test_other_attributes_are_refused(value):
    with pytest.raises(
        ValueError, match=r"attribute 'name' is .*; expected a number, a string, True or False"
    ):
        to_arviz({}, {"name": value})


@pytest.mark.parametrize("container", ["InferenceData", "DataTree"])
class TestBothContainers:
    @pytest.fixture(autouse=True)
    def _installed(self, container, request):
        if container == "DataTree":
            request.getfixturevalue("arviz_1")
        elif not arviz.__version__.startswith("0."):
            pytest.skip("ArviZ 1 is installed")

    @pytest.fixture
    def found(self, ran):
        return to_arviz(*ran)

    def test_type(self, container, linear, seen):
        found = infer(linear, seen, Exact(), draws=5, chains=2, progress=False)
        assert type(found).__name__ == container
        assert names(found) == GROUPS

    def test_group(self, container, found):
        for name in GROUPS:
            assert type(group(found, name)) is xr.Dataset
        with pytest.raises(ValueError, match=r"no group 'prior'; there are .*posterior_predictive"):
            group(found, "prior")

    def test_save_and_load(self, container, found, tmp_path):
        save(found, tmp_path / "a.nc", bits=None)
        again = load(tmp_path / "a.nc")
        assert type(again) is type(found)
        assert names(again) == GROUPS
        for name in GROUPS:
            before, after = group(found, name), group(again, name)
            xr.testing.assert_equal(before, after)
            assert {n: v.dtype for n, v in before.items()} == {n: v.dtype for n, v in after.items()}
        assert {k: v for k, v in again.attrs.items() if k in found.attrs} == dict(found.attrs)
        (tmp_path / "a.nc").unlink()  # nothing holds it open, and everything is in memory
        assert float(group(again, "posterior")["z"].sum()) == float(group(found, "posterior")["z"].sum())

    def test_a_loaded_posterior_is_read_as_the_first(self, container, found, image, tmp_path):
        save(found, str(tmp_path / "a.nc"), bits=None)
        again = load(str(tmp_path / "a.nc"))
        assert diagnostics.summary(again) == diagnostics.summary(found)
        assert scores.score(again, image) == scores.score(found, image)

    def test_no_such_file(self, container, tmp_path):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "absent.nc")

    def test_reads_what_the_other_wrote(self, container, found, tmp_path, monkeypatch):
        save(found, tmp_path / "a.nc", bits=None)
        if container == "DataTree":
            monkeypatch.undo()
        else:
            monkeypatch.setattr(containers, "_inference_data", lambda: None)
        again = load(tmp_path / "a.nc")
        for name in GROUPS:
            xr.testing.assert_equal(group(again, name), group(found, name))

    def test_scores_diagnostics_and_plots(self, container, found, image):
        assert diagnostics.summary(found)["draws"] == CHAINS * DRAWS
        assert 0 < scores.score(found, image)["CRPS"] < 1
        assert len(plots.completions(found, truth=image)) > 5
        assert plots.pixel_rhat(found).images
        assert plots.coverage_curve(found, image).lines

    def test_booleans_in_attrs_survive_netcdf(self, container, tmp_path):
        data = xr.Dataset({"a": ("x", np.arange(3))})
        made = to_arviz({"posterior": data}, {"yes": True, "word": "w", "number": 0.5})
        save(made, tmp_path / "a.nc")
        attrs = load(tmp_path / "a.nc").attrs
        assert (attrs["yes"], attrs["word"], attrs["number"]) == (1, "w", 0.5)


class TestArvizOne:
    """What the packages behind ArviZ 1 make of our tree."""

    @pytest.fixture
    def tree(self, arviz_1, ran):
        return to_arviz(*ran)

    def test_extract(self, tree):
        base = pytest.importorskip("arviz_base")
        drawn = base.extract(tree, group="posterior_predictive", var_names="image")
        assert drawn.sizes["sample"] == CHAINS * DRAWS
        assert base.extract(tree)["z"].shape == (5, CHAINS * DRAWS)

    @pytest.mark.parametrize("name", ["rhat", "ess"])
    def test_diagnostics(self, tree, name):
        stats = pytest.importorskip("arviz_stats")
        theirs = getattr(stats, name)(tree, var_names=["z"])["z"].to_numpy()
        ours = getattr(diagnostics, f"latent_{name}")(tree)["z"].to_numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)

    def test_summary(self, tree):
        stats = pytest.importorskip("arviz_stats")
        table = stats.summary(tree, var_names=["z"])
        assert len(table) == 5
        assert {"mean", "sd", "r_hat"} <= set(table.columns)

    def test_energy(self, tree):
        stats = pytest.importorskip("arviz_stats")
        assert (stats.bfmi(tree).to_dataset()["energy"] > 0).all()

    def test_no_arviz_at_all(self, monkeypatch, linear, seen, image, tmp_path):
        pytest.importorskip("arviz_stats")
        monkeypatch.setitem(sys.modules, "arviz", None)
        idata = infer(linear, seen, NUTS(warmup=10), draws=DRAWS, chains=CHAINS, progress=False)
        assert isinstance(idata, xr.DataTree)
        save(idata, tmp_path / "a.nc")
        again = load(tmp_path / "a.nc")
        table = diagnostics.summary(again)
        assert table["R-hat, pixels (max)"] > 0.9
        assert table["ESS bulk, z (min)"] > 1
        assert 0 < scores.score(again, image)["CRPS"] < 1
        guided = infer(linear, seen, Variational(guide="normal", steps=5), draws=50, chains=2, progress=False)
        assert math.isfinite(diagnostics.summary(guided)["Pareto k-hat"])


def test_synthetic_posteriors_have_the_groups_of_real_ones(linear, seen):
    """The tests' own posteriors are shaped as those of ``infer``."""
    real = infer(linear, seen, Exact(), draws=4, chains=2, progress=False)
    made = posterior(np.zeros((2, 4, *SHAPE)), seen.mask.numpy(), z=np.zeros((2, 4, 5)))
    assert names(made) == GROUPS - {"log_likelihood"}
    for name in names(made):
        theirs = group(real, name)
        for variable, value in group(made, name).items():
            assert (value.dims, value.shape) == (theirs[variable].dims, theirs[variable].shape)
    assert set(made.attrs) <= set(real.attrs)


def test_the_name_that_arviz_1_keeps_is_not_asked(monkeypatch, linear, seen):
    """``arviz.InferenceData`` of ArviZ 1 warns, and is a ``DataTree``, which is not made of keyword arguments."""
    monkeypatch.setattr(arviz, "__version__", "1.3.0")
    made = infer(linear, seen, Exact(), draws=3, chains=1, progress=False)
    assert isinstance(made, xr.DataTree)
    assert made["posterior"]["z"].shape == (1, 3, 5)
