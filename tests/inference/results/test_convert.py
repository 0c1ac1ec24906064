import importlib
import json
import math
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from synthetic import posterior

from posterior_inpainting.inference import (
    MAP,
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
from posterior_inpainting.inference.contract import Draws
from posterior_inpainting.inference.results import convert
from posterior_inpainting.inference.results.convert import group, settings, to_arviz
from posterior_inpainting.models import LatentCode, LinearGaussian, Observation, observations, pretrained

SHAPE = (1, 8, 8)
CHAINS, DRAWS = 2, 30
GROUPS = {
    "posterior",
    "posterior_predictive",
    "sample_stats",
    "log_likelihood",
    "observed_data",
    "constant_data",
}
IMAGE = ("channel", "row", "column")


@pytest.fixture(scope="module")
def image(digits):
    return digits[11]


@pytest.fixture(scope="module")
def mask():
    return observations.scatter(SHAPE, 0.6, seed=1)


@pytest.fixture(scope="module")
def seen(image, mask):
    return Observation(image, mask)


@pytest.fixture(scope="module", params=["linear exact", "linear nuts", "digits amortised", "digits map"])
def idata(request, linear, seen):
    model = linear if request.param.startswith("linear") else LatentCode(pretrained.load("digits-vae-2d"))
    method = {
        "exact": Exact(),
        "nuts": NUTS(warmup=20),
        "amortised": Variational(),
        "map": MAP(restarts=3, steps=5),
    }
    return infer(model, seen, method[request.param.split()[1]], draws=DRAWS, chains=CHAINS, progress=False)


@pytest.fixture(scope="module")
def ran(linear, seen):
    """Groups and attributes of one run of NUTS."""
    idata = infer(linear, seen, NUTS(warmup=20), draws=DRAWS, chains=CHAINS, progress=False)
    return {name: group(idata, name) for name in GROUPS}, dict(idata.attrs)


@pytest.fixture
def arviz_1(monkeypatch):
    """No ``arviz.InferenceData``: results are trees, as with ArviZ 1."""
    monkeypatch.setattr(convert, "_inference_data", lambda: None)


def names(idata):
    found = idata.groups
    return {name.strip("/") for name in (found() if callable(found) else found)} - {""}


def chains_and_draws(idata):
    return (3, 1) if idata.attrs["draws_are"] == "restarts" else (CHAINS, DRAWS)


class TestGroups:
    def test_names(self, idata):
        assert names(idata) == GROUPS

    @pytest.mark.parametrize(
        ("name", "variable", "dims", "kind"),
        [
            ("posterior", "z", ("chain", "draw", "latent"), "f"),
            ("posterior", "completion", ("chain", "draw", *IMAGE), "f"),
            ("posterior_predictive", "image", ("chain", "draw", *IMAGE), "f"),
            ("log_likelihood", "image", ("chain", "draw", "pixel"), "f"),
            ("sample_stats", "lp", ("chain", "draw"), "f"),
            ("observed_data", "image", IMAGE, "f"),
            ("constant_data", "mask", IMAGE, "b"),
        ],
    )
    def test_dims_and_types(self, idata, name, variable, dims, kind, mask):
        found = group(idata, name)[variable]
        assert found.dims == dims
        assert found.dtype.kind == kind
        latent = group(idata, "posterior").sizes["latent"]
        sizes = dict(zip(("chain", "draw"), chains_and_draws(idata), strict=True))
        sizes |= dict(zip(IMAGE, SHAPE, strict=True)) | {"latent": latent, "pixel": int(mask.sum())}
        assert dict(found.sizes) == {dim: sizes[dim] for dim in dims}
        assert all(dim in found.coords for dim in dims)
        for dim in set(dims) - {"pixel"}:
            np.testing.assert_array_equal(found.coords[dim], np.arange(sizes[dim]))

    def test_nothing_else(self, idata):
        assert set(group(idata, "posterior").data_vars) == {"z", "completion"}
        assert set(group(idata, "posterior_predictive").data_vars) == {"image"}
        assert all(value.dims == ("chain", "draw") for value in group(idata, "sample_stats").values())

    def test_seen_pixels_exactly_as_seen(self, idata, image, mask):
        drawn = group(idata, "posterior_predictive")["image"].to_numpy()
        assert (drawn[..., mask.numpy()] == image[mask].numpy()).all()
        completion = group(idata, "posterior")["completion"].to_numpy()
        assert (drawn != completion)[..., ~mask.numpy()].all()  # hidden ones carry their noise

    def test_observed_data(self, idata, image, mask):
        observed = group(idata, "observed_data")["image"].to_numpy()
        np.testing.assert_array_equal(observed, np.where(mask, image, np.nan))
        np.testing.assert_array_equal(group(idata, "constant_data")["mask"], mask)

    def test_log_likelihood_names_its_pixels(self, idata, mask):
        pixels = group(idata, "log_likelihood").coords["pixel"].to_numpy()
        np.testing.assert_array_equal(pixels, np.flatnonzero(mask.numpy()))

    def test_attrs(self, idata):
        assert {
            "model", "method", "settings", "draws_are", "density", "seed", "wall_time_s", "versions",
            "gradient_evaluations",
        } <= set(idata.attrs)  # fmt: skip
        assert all(isinstance(value, str | int | float) for value in idata.attrs.values())
        assert isinstance(json.loads(idata.attrs["settings"]), dict)
        assert idata.attrs["draws_are"] in ("markov", "independent", "restarts")


def normal_log_density(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * math.log(2 * math.pi)


class TestValues:
    def test_linear(self, linear, seen, image, mask):
        idata = infer(linear, seen, Exact(), draws=DRAWS, chains=CHAINS, progress=False)
        z = group(idata, "posterior")["z"].to_numpy().astype(float)
        completion = (z @ linear.loadings.double().numpy().T).reshape(
            CHAINS, DRAWS, *SHAPE
        ) + linear.mean.numpy()
        np.testing.assert_allclose(group(idata, "posterior")["completion"], completion, atol=1e-5)
        expected = normal_log_density(image.numpy(), completion, float(linear.noise))[..., mask.numpy()]
        np.testing.assert_allclose(group(idata, "log_likelihood")["image"], expected, rtol=1e-4, atol=1e-4)
        prior = normal_log_density(z, 0, 1).sum(-1)
        np.testing.assert_allclose(group(idata, "sample_stats")["lp"], prior + expected.sum(-1), rtol=1e-4)

    def test_decoder(self, digits_model, seen, image, mask):
        idata = infer(digits_model, seen, Variational(), draws=DRAWS, chains=CHAINS, progress=False)
        z = torch.from_numpy(group(idata, "posterior")["z"].to_numpy())
        with torch.no_grad():
            mean, sd = (value.double().numpy() for value in digits_model.decoder.mean_and_scale(z))
        np.testing.assert_allclose(group(idata, "posterior")["completion"], mean, atol=1e-6)
        expected = normal_log_density(image.numpy(), mean, sd)[..., mask.numpy()]
        np.testing.assert_allclose(group(idata, "log_likelihood")["image"], expected, rtol=1e-4, atol=1e-4)

    def test_noise_of_hidden_pixels(self, linear, seen, mask):
        """Predictive minus completion is the model's noise: mean 0, variance s^2, as standard errors allow."""
        idata = infer(linear, seen, Exact(), draws=500, chains=2, progress=False)
        noise = group(idata, "posterior_predictive")["image"] - group(idata, "posterior")["completion"]
        noise = noise.to_numpy()[..., ~mask.numpy()].ravel().astype(float) / float(linear.noise)
        assert abs(noise.mean()) < 5 / math.sqrt(noise.size)
        assert abs((noise**2).mean() - 1) < 5 * math.sqrt(2 / noise.size)

    def test_in_pieces(self, linear, seen, monkeypatch):
        """A posterior of more draws than one forward pass takes is the same, noise aside."""
        whole, pieces = [], []
        for chunk, found in ((10_000, whole), (7, pieces)):
            monkeypatch.setattr(convert, "_CHUNK", chunk)
            idata = infer(linear, seen, Exact(), draws=DRAWS, chains=CHAINS, progress=False)
            found += [group(idata, "posterior")[["z", "completion"]], group(idata, "log_likelihood")]
        for one, other in zip(whole, pieces, strict=True):
            xr.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)

    def test_image_of_many_channels(self):
        """Colour: channels, rows and columns are not mixed up."""
        shape = (3, 4, 5)
        torch.manual_seed(0)
        model = LinearGaussian(torch.randn(60, 2), torch.rand(shape), noise=0.1)
        seen = Observation(torch.rand(shape), observations.channels(shape, keep=1))
        idata = infer(model, seen, Exact(), draws=4, chains=1, progress=False)
        z = group(idata, "posterior")["z"].to_numpy()
        expected = (z @ model.loadings.numpy().T).reshape(1, 4, *shape) + model.mean.numpy()
        np.testing.assert_allclose(group(idata, "posterior")["completion"], expected, atol=1e-5)
        pixels = group(idata, "log_likelihood").coords["pixel"].to_numpy()
        np.testing.assert_array_equal(pixels, np.arange(20, 40))


def test_large_latents_are_left_out():
    drawn = Draws({"z": torch.zeros(2, 3, 4), "weights": torch.zeros(2, 3, 5, 6)}, {}, "markov")
    assert set(convert.latent_groups(drawn, small=20)["posterior"].data_vars) == {"z"}
    found = convert.latent_groups(drawn)["posterior"]
    assert found["z"].dims == ("chain", "draw", "latent")
    assert found["weights"].dims == ("chain", "draw", "weights_dim_0", "weights_dim_1")


@pytest.mark.parametrize("container", ["InferenceData", "DataTree"])
class TestBothContainers:
    @pytest.fixture(autouse=True)
    def _installed(self, container, request):
        if container == "DataTree":
            request.getfixturevalue("arviz_1")
        elif not hasattr(importlib.import_module("arviz"), "InferenceData"):
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
        save(found, tmp_path / "a.nc")
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
        save(found, str(tmp_path / "a.nc"))
        again = load(str(tmp_path / "a.nc"))
        assert diagnostics.summary(again) == diagnostics.summary(found)
        assert scores.score(again, image) == scores.score(found, image)

    def test_no_such_file(self, container, tmp_path):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "absent.nc")

    def test_reads_what_the_other_wrote(self, container, found, tmp_path, monkeypatch):
        save(found, tmp_path / "a.nc")
        if container == "DataTree":
            monkeypatch.undo()
        else:
            monkeypatch.setattr(convert, "_inference_data", lambda: None)
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


@dataclass(frozen=True)
class Settings:
    steps: int = 3
    rate: float | None = None
    guide: object = "normal"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Settings(), {"steps": 3, "rate": None, "guide": "normal"}),
        (Settings(guide=math.sqrt), {"steps": 3, "rate": None, "guide": "sqrt"}),
        (NUTS(warmup=7), {"warmup": 7, "target_acceptance": 0.8, "max_tree_depth": 10, "full_mass": False}),
    ],
)
def test_settings(method, expected):
    assert json.loads(settings(method)) == expected
