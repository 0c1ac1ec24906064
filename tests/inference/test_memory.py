"""What does not fit into memory is refused before it begins, with what would help."""

import contextlib

import pyro
import pyro.distributions as dist
import pytest
import torch

from posterior_inpainting.inference import (
    MALA,
    NUTS,
    ChEES,
    Exact,
    diagnostics,
    infer,
    infer_many,
    posterior_mean,
    sample,
)
from posterior_inpainting.inference.methods.kernel import KernelProcess
from posterior_inpainting.inference.results.containers import group
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


class TestThin:
    def test_draws_are_those_of_a_longer_chain(self):
        every, third = (
            infer(MODEL, SEEN, ChEES(warmup=20), draws=draws, chains=4, thin=thin, progress=False)
            for draws, thin in ((60, 1), (20, 3))
        )
        assert third.posterior["z"].equals(every.posterior["z"][:, 2::3].assign_coords(draw=range(20)))
        assert third.attrs["gradient_evaluations"] == every.attrs["gradient_evaluations"]

    @pytest.mark.parametrize("method", [ChEES(warmup=20), NUTS(warmup=20), MALA(warmup=20)])
    def test_no_divergence_is_lost(self, method, monkeypatch):
        def runs(thin):
            return infer(MODEL, SEEN, method, draws=12 // thin, chains=2, thin=thin, progress=False)

        every, fourth = runs(1).sample_stats, runs(4).sample_stats
        for name, values in fourth.items():
            of_chain = every[name].to_numpy().reshape(2, 3, 4)
            expected = of_chain.any(-1) if name == "diverging" else of_chain[..., -1]
            assert (values.to_numpy() == expected).all() or name == "energy"

    def test_a_run_taken_up_again_is_the_same(self, tmp_path, monkeypatch):
        settings = {"draws": 120, "chains": 2, "thin": 3, "progress": False}
        whole = infer(MODEL, SEEN, ChEES(warmup=60), **settings)
        step, calls = KernelProcess.step, []

        def killed(self):
            calls.append(1)
            if len(calls) == 301:
                raise RuntimeError("killed")
            return step(self)

        monkeypatch.setattr(KernelProcess, "step", killed)
        for _ in range(2):
            with contextlib.suppress(RuntimeError):
                again = infer(MODEL, SEEN, ChEES(warmup=60), store=tmp_path / "run.zarr", **settings)
        assert 301 < len(calls) < 60 + 360 + 151
        assert again.posterior.equals(whole.posterior)

    @pytest.mark.parametrize("thin", [0, 1.5, True])
    def test_no_number(self, thin):
        with pytest.raises(ValueError, match="thin="):
            infer(MODEL, SEEN, ChEES(), draws=5, thin=thin, progress=False)

    def test_of_no_chain(self):
        with pytest.raises(ValueError, match="thin=2: Exact makes no Markov chain; take fewer draws"):
            infer(MODEL, SEEN, Exact(), draws=5, thin=2, progress=False)

    def test_of_any_model(self):
        found = sample(model, ChEES(warmup=10), draws=4, chains=2, thin=5, progress=False)
        assert found.posterior.sizes["draw"] == 4


class TestKeep:
    def test_less(self):
        for call in (infer, lambda model, seen, *rest, **more: infer_many(model, [seen], *rest, **more)[0]):
            found = call(MODEL, SEEN, ChEES(warmup=10), draws=4, chains=2, keep=(), progress=False)
            assert not {"posterior_predictive", "log_likelihood"} & set(found.groups())
            assert found.posterior["completion"].shape == (2, 4, *SHAPE)
            assert posterior_mean(found).shape == SHAPE
            assert len(diagnostics.summary(found))

    def test_what_is_kept_is_the_same(self):
        settings = {"draws": 4, "chains": 2, "progress": False}
        whole = infer(MODEL, SEEN, Exact(), **settings)
        for name in ("posterior_predictive", "log_likelihood"):
            found = infer(MODEL, SEEN, Exact(), keep=[name], **settings)
            assert group(found, name).equals(group(whole, name))
            assert set(whole.groups()) - set(found.groups()) == {"posterior_predictive", "log_likelihood"} - {
                name
            }

    def test_takes_less_memory(self):
        infer(MODEL, SEEN, Exact(), draws=10, chains=4, keep=(), max_memory=4e5, progress=False)
        with pytest.raises(ValueError, match="GB of memory"):
            infer(MODEL, SEEN, Exact(), draws=10, chains=4, max_memory=4e5, progress=False)

    @pytest.mark.parametrize("keep", [["posterior"], "log_likelihood", ["completion", "log_likelihood"]])
    def test_another_name(self, keep):
        with pytest.raises(
            ValueError, match="expected some of posterior_predictive, log_likelihood, in a list"
        ):
            infer(MODEL, SEEN, Exact(), draws=4, keep=keep, progress=False)
