"""A model that made what was seen passes; one of half its noise, or of other images, does not."""

import numpy as np
import pytest
import torch

from posterior_inpainting.inference import Exact, diagnostics, infer
from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def model():
    return LinearGaussian.fit(datasets.load("digits", split="train"), latent=8)


def fit(model, image, noise=None):
    made = model if noise is None else LinearGaussian(model.loadings, model.mean, noise)
    seen = Observation(image, observations.scatter(SHAPE, 0.7), any_values=True)
    return diagnostics.check_of_fit(infer(made, seen, Exact(), draws=400, chains=1, progress=False))


def test_p_values_of_the_right_model_are_spread(model):
    """Each of its own images: none of the p-values is often near 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(40):
        z = torch.randn(8, generator=generator)
        image = (model.loadings @ z).reshape(SHAPE) + model.mean
        found.append(fit(model, image + model.noise * torch.randn(SHAPE, generator=generator)))
    for name in found[0]:
        values = np.array([one[name] for one in found])
        assert abs(values.mean() - 0.5) < 0.15
        assert ((values < 0.02) | (values > 0.98)).mean() < 0.2


def test_too_little_noise_is_seen(model):
    image = datasets.load("digits")[3]
    assert fit(model, image, noise=0.02)["distance"] < 0.01


def test_an_image_of_another_kind_is_seen(model):
    assert fit(model, torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)))["distance"] < 0.01


def test_of_a_model_without_noise_there_is_no_distance(model):
    posterior = infer(
        model, Observation(datasets.load("digits")[3], observations.half(SHAPE, "top")), Exact(), draws=9, chains=1,
        progress=False,
    )  # fmt: skip
    posterior.posterior_predictive["image"] = posterior.posterior["completion"]
    assert np.isnan(diagnostics.check_of_fit(posterior)["distance"])


def test_nothing_seen(model):
    nothing = Observation(torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=torch.bool))
    with pytest.raises(ValueError, match="no pixel is seen"):
        diagnostics.check_of_fit(infer(model, nothing, Exact(), draws=9, chains=1, progress=False))
