"""What does not fit into memory is refused before it begins, with what would help."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from posterior_inpainting.inference import ChEES, Exact, infer, infer_many, sample
from posterior_inpainting.models import LinearGaussian, Observation, observations
from posterior_inpainting.models.images import available_memory

SHAPE = (1, 28, 28)
MODEL = LinearGaussian(torch.rand(784, 2), torch.rand(SHAPE), 0.1)
SEEN = Observation(torch.rand(SHAPE), observations.half(SHAPE, "top"))


def never(*args, **kwargs):
    raise AssertionError("it began to draw")


def model():
    pyro.sample("x", dist.Normal(torch.zeros(1000), 1.0).to_event(1))


CALLS = {
    "infer": lambda draws, **more: infer(MODEL, SEEN, Exact(), draws=draws, chains=2, progress=False, **more),
    "infer_many": lambda draws, **more: infer_many(
        MODEL, [SEEN] * 3, ChEES(warmup=10), draws=draws, chains=2, progress=False, **more
    ),
    "sample": lambda draws, **more: sample(
        model, ChEES(warmup=10), draws=draws, chains=2, progress=False, **more
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("draws", [10**8, 10**30])
def test_more_than_there_is(call, draws, monkeypatch):
    monkeypatch.setattr(Exact, "run", never)
    monkeypatch.setattr(ChEES, "run", never)
    monkeypatch.setattr(ChEES, "run_together", never)
    with pytest.raises(ValueError, match=r"draws x 2 chains.* GB of memory, .*take fewer draws") as error:
        CALLS[call](draws)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("call", CALLS)
def test_more_than_is_allowed(call):
    with pytest.raises(ValueError, match=r"of which there are 1e-05; take fewer draws"):
        CALLS[call](100, max_memory=1e4)
    CALLS[call](10, max_memory=1e7)


@pytest.mark.parametrize("wrong", [0, -1.0])
def test_no_memory_at_all(wrong):
    with pytest.raises(ValueError, match="max_memory="):
        CALLS["infer"](10, max_memory=wrong)


class TestWhatIsFree:
    def test_is_what_the_system_says(self, monkeypatch, tmp_path):
        (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemFree: 5 kB\nMemAvailable:      300 kB\n")
        monkeypatch.setattr(available_memory, "_MACHINE", tmp_path / "meminfo")
        monkeypatch.setattr(available_memory, "_CONTAINER", tmp_path)
        assert available_memory.memory() == 300 * 1024
        (tmp_path / "memory.max").write_text("200000\n")
        (tmp_path / "memory.current").write_text("50000\n")
        assert available_memory.memory() == 150_000
        (tmp_path / "memory.max").write_text("max\n")
        assert available_memory.memory() == 300 * 1024

    def test_without_linux_it_is_all_there_is(self, monkeypatch, tmp_path):
        monkeypatch.setattr(available_memory, "_MACHINE", tmp_path / "absent")
        monkeypatch.setattr(available_memory, "_CONTAINER", tmp_path)
        assert available_memory.memory() > 2**28
