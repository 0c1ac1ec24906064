"""What `infer` promises whatever the method: reproducible, blind to hidden pixels, polite to the caller."""

import json

import numpy as np
import pytest
import torch

from posterior_inpainting.inference import HMC, MAP, NUTS, Variational, infer
from posterior_inpainting.models import Observation, datasets, observations

METHODS = {
    "NUTS": NUTS(warmup=20),
    "HMC": HMC(warmup=20),
    "amortised": Variational(),
    "refined": Variational(steps=10),
    "normal": Variational(guide="normal", steps=20),
    "multivariate_normal": Variational(guide="multivariate_normal", steps=20),
    "iaf": Variational(guide="iaf", steps=20),
    "MAP": MAP(restarts=2, steps=20),
}
MASK = observations.half((1, 8, 8), hide="bottom")


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


@pytest.fixture(scope="module")
def image():
    return datasets.load("digits")[5]


def run(model, image, method, seed=0):
    return infer(model, Observation(image, MASK), method, draws=10, chains=2, seed=seed, progress=False)


def same(one, other):
    return all(
        np.array_equal(one[group][name], other[group][name], equal_nan=True)
        for group in ("posterior", "posterior_predictive", "sample_stats", "log_likelihood")
        for name in one[group]
    )


def test_same_seed_same_draws(digits_model, image, method):
    torch.rand(3)  # the state of the global generator must not matter
    first = run(digits_model, image, method)
    torch.rand(5)
    assert same(first, run(digits_model, image, method))
    assert not same(first, run(digits_model, image, method, seed=1))


def test_hidden_pixels_are_never_read(digits_model, image, method):
    reference = run(digits_model, image, method)
    for fill in (torch.rand(image.shape), torch.full(image.shape, float("nan"))):
        assert same(reference, run(digits_model, torch.where(MASK, image, fill), method))


def test_callers_generator_is_left_alone(digits_model, image, method):
    torch.manual_seed(5)
    numpy_state = np.random.get_state()[1].copy()
    expected = torch.random.get_rng_state()
    run(digits_model, image, method)
    assert torch.equal(torch.random.get_rng_state(), expected)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_attributes(digits_model, image, method):
    attrs = run(digits_model, image, method).attrs
    assert attrs["model"] == "LatentCode"
    assert attrs["method"] == type(method).__name__
    assert set(json.loads(attrs["settings"])) == set(vars(method))
    assert attrs["draws_are"] in ("markov", "independent", "restarts")
    assert attrs["seed"] == 0
    assert attrs["wall_time_s"] > 0
    assert attrs["gradient_evaluations"] >= 0
    assert "pyro-ppl=" in attrs["versions"]


@pytest.mark.parametrize("kind", [NUTS, HMC])
def test_sample_stats_of_hmc(digits_model, image, kind):
    seen = Observation(image, MASK)
    idata = infer(digits_model, seen, kind(warmup=100), draws=200, chains=2, progress=False)
    stats = idata.sample_stats
    assert set(stats) == {"lp", "energy", "acceptance_rate", "step_size", "n_steps", "diverging"}
    assert float(stats["acceptance_rate"].min()) >= 0
    assert float(stats["acceptance_rate"].max()) <= 1
    assert 0.6 < float(stats["acceptance_rate"].mean()) < 0.99
    assert (stats["n_steps"] >= 1).all()
    assert stats["diverging"].dtype == bool
    for chain in stats["step_size"].to_numpy():
        assert len(np.unique(chain)) == 1  # adaptation is over
    # the energy of a draw is its potential energy plus half a chi-square of two degrees of freedom
    kinetic = stats["energy"].to_numpy()[:, 1:] + stats["lp"].to_numpy()[:, :-1]
    assert (kinetic > 0).all()
    assert kinetic.mean() == pytest.approx(1.0, abs=5 / np.sqrt(kinetic.size))
    assert idata.attrs["gradient_evaluations"] > int(stats["n_steps"].sum())


def test_log_density_is_the_models(digits_model, image):
    from pyro import poutine

    idata = run(digits_model, image, NUTS(warmup=20))
    for chain, draw in ((0, 0), (1, 9)):
        z = torch.from_numpy(idata.posterior["z"].to_numpy()[chain, draw])
        traced = poutine.trace(poutine.condition(digits_model, {"z": z})).get_trace(image, MASK)
        assert float(idata.sample_stats["lp"][chain, draw]) == pytest.approx(
            float(traced.log_prob_sum()), abs=1e-3
        )


def test_progress_bar(digits_model, image, capfd):
    infer(digits_model, Observation(image, MASK), NUTS(warmup=5), draws=5, chains=1, progress=True)
    assert "NUTS" in capfd.readouterr().err
    infer(digits_model, Observation(image, MASK), NUTS(warmup=5), draws=5, chains=1, progress=False)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": 0}, "draws=0; expected a whole number of at least 1"),
        ({"chains": 0}, "chains=0; expected a whole number of at least 1"),
        ({"chains": 2.5}, "chains=2.5; expected a whole number"),
        ({"method": "nuts"}, "method is a str: 'nuts'; expected one such as NUTS"),
        ({"method": NUTS}, "method is a .*NUTS.*; expected one such as NUTS"),
        ({"model": "vae"}, "model is a str: 'vae'; expected an ImageModel"),
        (
            {"observation": torch.zeros(1, 8, 8)},
            r"observation is a float32 tensor of shape \(1, 8, 8\); expected",
        ),
        (
            {"observation": Observation(torch.zeros(1, 4, 4), torch.ones(1, 4, 4) > 0)},
            r"expected \(1, 8, 8\)",
        ),
    ],
)
def test_bad_input_is_named(digits_model, image, change, message):
    arguments = {"model": digits_model, "observation": Observation(image, MASK), "method": NUTS()} | change
    with pytest.raises(ValueError, match=message) as caught:
        infer(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda: Variational(guide="flow"), lambda: MAP(restarts=0)])
def test_bad_settings_are_named(make):
    with pytest.raises(ValueError, match="expected"):
        make()
