"""Random numbers by name: streams are independent of each other, of order and of how much others drew."""

import numpy as np
import pytest
import torch
from statistics_of_draws import assert_moments

from posterior_inpainting.inference import ChEES, Exact, infer, infer_many
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import LinearGaussian, Observation

SHAPE = (1, 4, 4)
NOTHING = torch.zeros(SHAPE, dtype=torch.bool)


@pytest.fixture
def pixelwise():
    """Each pixel is its own latent of sd 1, seen with noise of sd 1: the predictive sd is the root of 2."""
    return LinearGaussian(torch.eye(16), torch.zeros(SHAPE), noise=1.0)


def test_same_name_same_numbers_other_name_others():
    streams = Streams(3)
    names = [("a",), ("b",), ("a", 1), (1, "a"), ("1",), (1,), ("ab",), ("a", "b")]
    numbers = [streams.number(*name) for name in names]
    assert len(set(numbers)) == len(names)
    assert numbers == [streams.number(*name) for name in names]
    assert Streams(4).number("a") != streams.number("a")
    assert streams.child("a").number("b") == streams.number("a", "b")


def test_pinned():
    """Stored draws are taken up again by name: these numbers must not change without a new format version."""
    assert Streams(0).number("starts", 0) == 5026799764075865158


def test_neighbouring_seeds_and_names_are_uncorrelated():
    drawn = torch.stack(
        [
            torch.randn(10_000, generator=Streams(seed).generator("image", index))
            for seed in range(4)
            for index in range(4)
        ]
    )
    correlation = np.corrcoef(drawn.numpy()) - np.eye(16)
    assert np.abs(correlation).max() < 5 / np.sqrt(10_000)


def test_the_global_generator_is_put_back():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with Streams(0).seeded("anything"):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with Streams(0).seeded("anything"):
        assert torch.equal(torch.rand(3), first)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, None])
def test_bad_seeds_are_named(seed):
    with pytest.raises(ValueError, match="expected a whole number of at least 0"):
        Streams(seed)


def test_pixel_noise_is_not_the_latents_stream(pixelwise):
    """With nothing seen and a latent for each pixel the two streams once were equal: sd 2 where 1.41 is right."""
    seen = Observation(torch.zeros(SHAPE), NOTHING)
    idata = infer(pixelwise, seen, Exact(), draws=1000, chains=4, progress=False)
    predictive = idata.posterior_predictive["image"].to_numpy().reshape(4, 1000, 16)
    completion = idata.posterior["completion"].to_numpy().reshape(4, 1000, 16)
    assert_moments(predictive, np.zeros(16), np.full(16, np.sqrt(2)), independent=True)
    noise = predictive - completion
    correlation = np.corrcoef(noise.ravel(), completion.ravel())[0, 1]
    assert abs(correlation) < 5 / np.sqrt(noise.size)


def test_every_image_has_pixel_noise_of_its_own(pixelwise):
    seen = [Observation(torch.zeros(SHAPE), NOTHING)] * 2
    both = infer_many(pixelwise, seen, ChEES(warmup=30), draws=100, chains=8, progress=False)
    first, second = (
        (one.posterior_predictive["image"] - one.posterior["completion"].to_numpy()).to_numpy().ravel()
        for one in both
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)
