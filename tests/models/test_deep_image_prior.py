"""The weights of a network as a posterior: exact where the network is linear, honest where it is not."""

import numpy as np
import pytest
import torch
from digit import SHAPE
from statistics_of_draws import assert_moments
from torch import nn

from posterior_inpainting.inference import MALA, MAP, ULA, ChEES, Variational, infer, sample, scores
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.evaluation.early_stopping import early_stopping, early_stopping_plot
from posterior_inpainting.models import DeepImagePrior, datasets
from posterior_inpainting.models.images import available_memory
from posterior_inpainting.models.networks import Hourglass, Layers


class Linear(nn.Module):
    """Output linear in 20 weights, so that their posterior is Gaussian."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.register_buffer("features", torch.randn(20, *SHAPE, generator=generator) / 20**0.5)
        self.weight = nn.Parameter(torch.zeros(20))

    def forward(self):
        return torch.tensordot(self.weight, self.features, 1)


def hourglass(**settings):
    torch.manual_seed(0)
    network = Hourglass(SHAPE, channels=4, scales=1, skip=2, input_channels=3)
    return DeepImagePrior(SHAPE, network, **settings)


def exact(model, seen):
    """Mean and covariance of all pixels' completions under the linear network."""
    features = model.network.features.flatten(1).double().T * 0.25
    known = seen.mask.flatten()
    precision = torch.eye(20).double() + features[known].T @ features[known] / model.noise**2
    mean = torch.linalg.solve(
        precision, features[known].T @ (seen.image.flatten()[known] - 0.5).double() / model.noise**2
    )
    return 0.5 + features @ mean, features @ torch.linalg.inv(precision) @ features.T


@pytest.mark.parametrize(
    "method",
    [
        MALA(warmup=100, thin=4, metric="identity"),
        MALA(warmup=200, thin=4, init="optimum"),
        ChEES(warmup=100, metric="identity", init="optimum"),
    ],
    ids=repr,
)
def test_linear_network_against_its_exact_posterior(seen, method):
    model = DeepImagePrior(SHAPE, Linear(), noise=0.2, output="linear")
    idata = infer(model, seen, method, draws=500, chains=4, progress=False)
    mean, covariance = exact(model, seen)
    pixels = idata.posterior["completion"].to_numpy().reshape(4, 500, 64)
    assert_moments(pixels, mean.numpy(), covariance.diagonal().sqrt().numpy())


def test_unadjusted_draws_miss_it(seen):
    model = DeepImagePrior(SHAPE, Linear(), noise=0.1, output="linear")
    idata = infer(model, seen, ULA(step_size=0.1, warmup=50, thin=2), draws=500, chains=4, progress=False)
    mean, covariance = exact(model, seen)
    pixels = idata.posterior["completion"].to_numpy().reshape(4, 500, 64)
    with pytest.raises(AssertionError):
        assert_moments(pixels, mean.numpy(), covariance.diagonal().sqrt().numpy())


class TestKept:
    def test_completions_and_not_weights(self, seen):
        idata = infer(hourglass(), seen, MALA(warmup=10, thin=1), draws=5, chains=2, progress=False)
        assert list(idata.posterior.data_vars) == ["completion"]
        assert idata.posterior_predictive["image"].shape == (2, 5, *SHAPE)
        assert np.isfinite(idata.log_likelihood["image"]).all()

    @pytest.mark.parametrize(
        "method",
        [
            MALA(warmup=10, thin=1),
            Variational(guide="normal", steps=20),
            MAP(restarts=2, steps=20),
        ],
        ids=lambda method: type(method).__name__,
    )
    def test_weights_on_request_give_the_completions(self, seen, method):
        model = hourglass(keep_weights=True)
        idata = infer(model, seen, method, draws=5, chains=2, progress=False)
        weights = torch.from_numpy(idata.posterior["weights"].to_numpy())
        assert weights.shape[-1] == model.latent
        np.testing.assert_allclose(model.complete(weights).numpy(), idata.posterior["completion"], atol=1e-6)

    def test_store(self, seen, tmp_path):
        options = {"draws": 8, "chains": 2, "progress": False}
        method = MALA(warmup=10, thin=1)
        kept = infer(hourglass(), seen, method, store=tmp_path / "run.zarr", **options)
        again = infer(hourglass(), seen, method, store=tmp_path / "run.zarr", **options)
        plain = infer(hourglass(), seen, method, **options)
        for one in (kept, again):
            np.testing.assert_array_equal(one.posterior["completion"], plain.posterior["completion"])


@pytest.mark.parametrize("batch", [False, True])
def test_gradient_chain_by_chain_equals_the_trace(image, batch):
    model = hourglass()
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.6
    args = (datasets.load("digits")[:2], torch.stack([mask, ~mask])) if batch else (image, mask)
    groups, beta = (2, 0.7) if batch else (None, torch.tensor([[1.0], [0.3]]))
    fast = Potential(Problem(model, args), groups=groups)
    general = Potential(Problem(model, args), groups=groups, closed_form=False)
    position = torch.randn(2, 3, fast.dim, generator=torch.Generator().manual_seed(2))
    assert (fast.route, general.route) == ("closed form", "vmap")
    which = torch.tensor([0, 1]) if batch else None
    pairs = zip(fast.gradient(position, beta, which), general.gradient(position, beta, which), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-2)


class TestEarlyStopping:
    def test_the_way_of_an_optimiser(self, seen, image):
        idata = infer(hourglass(), seen, MAP(restarts=2, steps=200, snapshots=8), progress=False)
        curve = early_stopping(idata, image)
        assert idata.attrs["draws_are"] == "path"
        assert curve.index[-1] == 200
        assert curve["seen"].iloc[-1] > curve["seen"].iloc[0] + 3
        with pytest.raises(ValueError, match="path of an optimiser"):
            scores.score(idata, image)

    def test_the_end_is_what_one_snapshot_gives(self, seen):
        path = infer(hourglass(), seen, MAP(restarts=2, steps=50, snapshots=4), progress=False)
        end = infer(hourglass(), seen, MAP(restarts=2, steps=50), progress=False)
        np.testing.assert_array_equal(path.posterior["completion"][:, -1], end.posterior["completion"][:, 0])

    def test_the_mean_of_a_chain(self, seen, image):
        idata = infer(hourglass(), seen, MALA(warmup=10, thin=1), draws=6, chains=2, progress=False)
        curve = early_stopping(idata, image)
        mean = idata.posterior["completion"].to_numpy().mean(1).clip(0, 1)
        hidden = ~seen.mask.numpy()
        expected = np.mean([scores.psnr(one[hidden], image.numpy()[hidden]) for one in mean])
        assert curve["hidden, mean so far"].iloc[-1] == pytest.approx(expected, abs=1e-3)
        assert early_stopping_plot(idata, image).get_ylabel()


class TestLangevinOnOneDimension:
    """Stationary standard deviations at three scales (METHODS: s, or s / sqrt(1 - eps / 4 s^2))."""

    @staticmethod
    def deviation(method, scale):
        import pyro
        import pyro.distributions as dist

        def model():
            pyro.sample("x", dist.Normal(0.0, scale))

        x = sample(model, method, draws=500, chains=32, progress=False).posterior["x"].to_numpy()
        return x

    @pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
    @pytest.mark.parametrize("metric", ["identity", "diagonal", "dense"])
    def test_adjusted(self, scale, metric):
        x = self.deviation(MALA(warmup=100, thin=3, metric=metric), scale)
        assert_moments(x[..., None], np.zeros(1), np.full(1, scale))

    @pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
    def test_unadjusted(self, scale):
        x = self.deviation(ULA(step_size=scale**2, warmup=50, thin=5), scale)
        biased = scale / (1 - 0.25) ** 0.5
        assert_moments(x[..., None], np.zeros(1), np.full(1, biased))
        with pytest.raises(AssertionError):
            assert_moments(x[..., None], np.zeros(1), np.full(1, scale))


class TestDivergence:
    def test_before_a_draw(self, seen):
        with pytest.raises(ValueError, match=r"ULA \(unadjusted\) diverged .* step_size=1000"):
            infer(hourglass(), seen, ULA(step_size=1000.0, warmup=50), draws=5, chains=2, progress=False)

    def test_what_was_drawn_is_kept(self, seen):
        model = DeepImagePrior(SHAPE, Linear(), noise=0.01, output="linear")
        with pytest.warns(UserWarning, match="draws a chain before that are kept"):
            idata = infer(
                model, seen, ULA(step_size=0.01, warmup=1, thin=1), draws=500, chains=2, progress=False
            )
        assert 0 < idata.posterior.sizes["draw"] < 500
        assert idata.attrs["diverged"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": 5}, "scales=5 halve an image of 8 pixels too often; at most 2"),
        ({"channels": 0}, "channels=0"),
        ({"skip": -1}, "skip=-1; expected at least 0"),
    ],
)
def test_bad_networks(arguments, message):
    with pytest.raises(ValueError, match=message):
        Hourglass(SHAPE, **arguments)


def test_bad_layers():
    with pytest.raises(ValueError, match="padding='zeros'; expected 'reflect' or 'circular'"):
        Layers(padding="zeros")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": 0.0}, "noise=0.0"),
        ({"output": "tanh"}, "output='tanh'"),
        ({"network": Linear()}, "returns .1, 8, 8.; expected .3, 16, 16."),
    ],
)
def test_bad_models(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeepImagePrior((3, 16, 16), **arguments)


def test_colour_and_odd_sizes():
    model = DeepImagePrior((3, 17, 23), Hourglass((3, 17, 23), channels=4, scales=2))
    assert model.complete(torch.randn(2, model.latent)).shape == (2, 3, 17, 23)


def test_an_image_too_large_for_memory(monkeypatch):
    monkeypatch.setattr(available_memory, "memory", lambda: 1e7)
    with pytest.raises(
        ValueError, match=r"a network for 1 x 200 x 200 needs .* at most 62 pixels a side fit"
    ):
        DeepImagePrior((1, 200, 200))
