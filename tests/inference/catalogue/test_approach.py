"""An approach to one image: its seconds are those that a person waits."""

import time

import pytest
import torch

from posterior_inpainting.inference import MAP, Approach, ChEES, Exact, blend
from posterior_inpainting.models import (
    GaussianProcess,
    LatentCode,
    LinearGaussian,
    Measurement,
    Observation,
    datasets,
    observations,
    operators,
    pretrained,
)
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


class TestWhatIsDoneAfterwards:
    shape = (1, 8, 8)
    method = MAP(restarts=3, steps=20)

    @pytest.fixture
    def seen(self):
        return Observation(datasets.load("digits")[0], observations.box(self.shape, 2, 2, 4, 4))

    @pytest.fixture
    def model(self):
        return LatentCode(pretrained.load("digits-vae-2d"))

    def test_completions_are_finished_one_by_one(self, model, seen):
        plain, finished = (
            Approach(model, self.method, finish=one).complete(seen, progress=False) for one in (None, blend)
        )
        before, after = (
            torch.from_numpy(one.posterior["completion"].to_numpy()) for one in (plain, finished)
        )
        for restart in range(3):
            expected = blend(before[restart, 0], seen.image, seen.mask)
            assert torch.equal(after[restart, 0], expected)
        assert not torch.equal(before, after)
        assert finished.attrs["finish"] == "blend"
        assert "finish" not in plain.attrs

    def test_draws_are_not_to_be_changed(self, model):
        with pytest.raises(
            ValueError, match="finish changes the completions of ChEES, which are draws; expected an"
        ):
            Approach(model, ChEES(), finish=blend)

    def test_a_measurement_shows_no_pixel_to_blend_into(self, model, seen):
        measured = Measurement(small := operators.average(self.shape, 2), small(seen.image), noise=0.1)
        plain, finished = (
            Approach(model, self.method, finish=one).complete(measured, progress=False)
            for one in (None, blend)
        )
        assert plain.posterior["completion"].equals(finished.posterior["completion"])
