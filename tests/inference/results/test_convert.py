import functools
import json
import math
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from synthetic import GROUPS, names

from posterior_inpainting.inference import (
    MAP,
    NUTS,
    Exact,
    Variational,
    infer,
)
from posterior_inpainting.inference.contract import Draws, Plan, Problem
from posterior_inpainting.inference.results import convert
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.images_of_posterior import completed_images
from posterior_inpainting.inference.results.settings_of_methods import settings
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import (
    LatentCode,
    LinearGaussian,
    MixtureField,
    Observation,
    observations,
    pretrained,
)

SHAPE = (1, 8, 8)
CHAINS, DRAWS = 2, 30
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

    def test_seen_pixels_of_completed_images_are_exactly_as_seen(self, idata, image, mask):
        drawn = completed_images(idata)
        assert (drawn[..., mask.numpy()] == image[mask].numpy()).all()
        completion = group(idata, "posterior")["completion"].to_numpy()
        assert (drawn != completion)[..., ~mask.numpy()].all()  # hidden ones carry their noise

    def test_replicates_are_of_all_pixels(self, idata, image, mask):
        """As posterior predictive checks want them: seen pixels drawn anew, and not repeated."""
        replicates = group(idata, "posterior_predictive")["image"].to_numpy()
        assert (replicates[..., mask.numpy()] != image[mask].numpy()).all()

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

    def test_noise_of_pixels(self, linear, seen, mask):
        """Predictive minus completion is the model's noise: mean 0, variance s^2, as standard errors allow."""
        idata = infer(linear, seen, Exact(), draws=500, chains=2, progress=False)
        noise = group(idata, "posterior_predictive")["image"] - group(idata, "posterior")["completion"]
        for which in (mask.numpy(), ~mask.numpy()):
            some = noise.to_numpy()[..., which].ravel().astype(float) / float(linear.noise)
            assert abs(some.mean()) < 5 / math.sqrt(some.size)
            assert abs((some**2).mean() - 1) < 5 * math.sqrt(2 / some.size)

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
    latents = {"z": torch.zeros(2, 3, 4), "weights": torch.zeros(2, 3, 5, 6)}
    drawn = Draws(latents, {"lp": torch.zeros(2, 3)}, "markov")
    assert set(convert.latent_groups(drawn, small=20)["posterior"].data_vars) == {"z"}
    found = convert.latent_groups(drawn)["posterior"]
    assert found["z"].dims == ("chain", "draw", "latent")
    assert found["weights"].dims == ("chain", "draw", "weights_dim_0", "weights_dim_1")


@pytest.mark.parametrize(
    ("latents", "stats", "message"),
    [
        ({}, {"lp": torch.zeros(2, 3)}, "the draws have no latents; expected at least one"),
        ({"z": torch.zeros(2, 3, 4)}, {}, "the draws have no stats; expected at least one"),
        (
            {"z": torch.zeros(2, 3, 4)},
            {"lp": torch.zeros(2, 4)},
            r"lp has chains and draws \(2, 4\); expected \(2, 3\)",
        ),
        ({"z": torch.zeros(2, 0, 4)}, {"lp": torch.zeros(2, 0)}, r"z has chains and draws \(2, 0\)"),
        ({"z": torch.zeros(2)}, {"lp": torch.zeros(2)}, r"z has chains and draws \(2,\)"),
    ],
)
def test_draws_that_say_nothing_are_refused(linear, seen, latents, stats, message):
    drawn = Draws(latents, stats, "markov")
    with pytest.raises(ValueError, match=message):
        convert.latent_groups(drawn)
    with pytest.raises(ValueError, match=message):
        convert.image_groups(drawn, Problem(linear, (seen.image, seen.mask)), seen, Streams(0))


class TestPixelNoise:
    """The noise of hidden pixels has a stream of its own."""

    def noise(self, linear, seen, streams, latents):
        drawn = Draws({"z": latents}, {"lp": torch.zeros(latents.shape[:2])}, "independent")
        groups = convert.image_groups(drawn, Problem(linear, (seen.image, seen.mask)), seen, streams)
        noise = groups["posterior_predictive"]["image"] - groups["posterior"]["completion"]
        return noise.to_numpy()[..., ~seen.mask.numpy()]

    def test_depends_on_the_streams_alone(self, linear, seen):
        z = torch.randn(2, 5, 5)
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = self.noise(linear, seen, Streams(3), z)
        assert torch.equal(torch.get_rng_state(), state)  # the caller's generator is as it was
        torch.manual_seed(2)
        np.testing.assert_array_equal(self.noise(linear, seen, Streams(3), z), first)
        for other in (Streams(4), Streams(3).child("image", 1)):
            assert (self.noise(linear, seen, other, z) != first).all()

    def test_is_not_what_drew_the_latents(self):
        """Nothing seen, a latent a pixel: the variances of latent and noise add up, as of two independent draws."""
        model = LinearGaussian(torch.eye(16), torch.zeros(1, 4, 4), noise=1.0)
        nothing = Observation(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool))
        idata = infer(model, nothing, Exact(), draws=1000, chains=2, progress=False)
        values = group(idata, "posterior_predictive")["image"].to_numpy().ravel().astype(float)
        # Variance 2; its estimate has standard error 2 sqrt(2 / n).
        assert abs(values.var() - 2) < 5 * 2 * math.sqrt(2 / values.size)


def test_a_model_says_what_is_kept_and_the_law_of_it(seen):
    """Declared, and asked for by its declared names: nothing is looked for in the model."""

    class Kept(LinearGaussian):
        def kept(self, latents):
            return {"completion": self.mean + 0 * latents["z"][..., :1, None, None], "extra": latents["z"]}

        def law_of_kept(self, kept):
            return torch.distributions.Normal(kept["completion"], 1e-6)

    model = Kept(torch.eye(64)[:, :5], torch.rand(SHAPE), noise=0.5)
    drawn = Draws({"z": torch.randn(2, 3, 5)}, {"lp": torch.zeros(2, 3)}, "independent")
    groups = convert.image_groups(drawn, Problem(model, (seen.image, seen.mask)), seen, Streams(0))
    assert set(groups["posterior"].data_vars) == {"extra", "completion"}
    hidden = groups["posterior_predictive"]["image"].to_numpy()[..., ~seen.mask.numpy()]
    np.testing.assert_allclose(hidden, np.broadcast_to(model.mean[~seen.mask], hidden.shape), atol=1e-4)


def test_a_model_whose_draws_are_completions_is_not_run_for_them(seen, monkeypatch):
    """Of a reverse diffusion a run takes as long as a draw."""
    images = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    model = MixtureField.fit(images, components=1)
    drawn = Exact().run(Problem(model, (seen.image, seen.mask)), Plan(5, 2))
    monkeypatch.setattr(MixtureField, "forward", lambda *_: pytest.fail("it was run"))
    groups = convert.image_groups(drawn, Problem(model, (seen.image, seen.mask)), seen, Streams(0))
    assert groups["posterior"]["completion"].shape == (2, 5, *SHAPE)


def test_groups_are_made_in_little_more_memory_than_they_take():
    """A subprocess builds the groups of 200 MB and measures its peak: no second copy of them."""
    script = textwrap.dedent(
        """
        import resource, torch
        from posterior_inpainting.inference.contract import Draws, Plan, Problem
        from posterior_inpainting.inference.results import convert
        from posterior_inpainting.inference.streams import Streams
        from posterior_inpainting.models import LinearGaussian, Observation, observations
        torch.set_num_threads(1)
        shape, draws = (3, 32, 32), 6000
        model = LinearGaussian(torch.randn(3072, 2), torch.rand(shape), noise=0.1)
        seen = Observation(torch.rand(shape), observations.half(shape, hide="bottom"))
        problem = Problem(model, (seen.image, seen.mask))
        def made(count):
            drawn = Draws({"z": torch.randn(4, count // 4, 2)}, {"lp": torch.zeros(4, count // 4)}, "independent")
            return convert.image_groups(drawn, problem, seen, Streams(0))
        made(2000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        groups = made(draws)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(1024 * (peak - before) / sum(group.nbytes for group in groups.values()))
        """
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(found) < 1.2


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
        (
            Settings(guide=Settings(steps=4)),
            {
                "steps": 3,
                "rate": None,
                "guide": {"method": "Settings", "steps": 4, "rate": None, "guide": "normal"},
            },
        ),
        (
            Settings(guide=[(1, None), {"a": Settings}]),
            {"steps": 3, "rate": None, "guide": [[1, None], {"a": "Settings"}]},
        ),
        (
            Settings(guide=functools.partial(math.pow, 2.0)),
            {"steps": 3, "rate": None, "guide": {"function": "pow", "args": [2.0]}},
        ),
        (Settings(guide=torch.ones(2)), {"steps": 3, "rate": None, "guide": [1.0, 1.0]}),
        (Settings(guide=object()), {"steps": 3, "rate": None, "guide": "object"}),
        (NUTS(warmup=7), {"warmup": 7, "target_acceptance": 0.8, "max_tree_depth": 10, "full_mass": False}),
    ],
)
def test_settings(method, expected):
    assert json.loads(settings(method)) == expected
