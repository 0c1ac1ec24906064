"""An approach to one image: its seconds are those that a person waits."""

import time

import pytest
import torch

from posterior_inpainting.inference import Approach, ChEES, Exact
from posterior_inpainting.models import GaussianProcess, LinearGaussian, Observation, observations
from posterior_inpainting.models.fields import Matern

SHAPE = (1, 24, 24)


def fitted(observation):
    time.sleep(0.5)
    return GaussianProcess(Matern(2.0), observation.shape, noise=0.05)


@pytest.mark.parametrize("margin", [None, 2], ids=["whole", "in windows"])
def test_seconds_count_the_fit(margin):
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[:, 3:5, 3:5] = mask[:, 20:22, 20:22] = False
    approach = Approach(fitted, Exact(), draws=3, chains=1, margin=margin)
    posterior = approach.complete(Observation(torch.rand(SHAPE), mask), progress=False)
    assert posterior.attrs["wall_time_s"] > (0.5 if margin is None else 1.0)


def test_what_is_told_a_second_counts_it_too():
    def slow(observation):
        time.sleep(1.0)
        return LinearGaussian(torch.rand(576, 2), torch.rand(SHAPE), 0.1)

    seen = Observation(torch.rand(SHAPE), observations.half(SHAPE, hide="top"))
    attrs = Approach(slow, ChEES(warmup=20), draws=100, chains=4).complete(seen, progress=False).attrs
    told = attrs["ess_per_second"] * attrs["wall_time_s"]
    assert told == pytest.approx(attrs["ess_per_1000_gradients"] * attrs["gradient_evaluations"] / 1000)
    assert attrs["wall_time_s"] > 1.0
