"""A run that is killed, interrupted, damaged or out of room loses nothing that was whole."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from posterior_inpainting.inference import (
    MALA,
    ULA,
    ChEES,
    Exact,
    ParallelTempering,
    infer,
    recover,
    sample,
)
from posterior_inpainting.inference.methods import loop
from posterior_inpainting.inference.results.fingerprint import fingerprint
from posterior_inpainting.inference.results.store import Store
from posterior_inpainting.models import LatentCode, Observation, datasets, likelihoods, observations

METHODS = {
    "ChEES": ChEES(warmup=60),
    "MALA": MALA(warmup=60, thin=2),
    "ULA": ULA(step_size=0.1, warmup=60, thin=2),
    "ParallelTempering": ParallelTempering(temperatures=3, warmup=60),
}
DRAWS = 130  # not a whole number of blocks


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def model():
    scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
    x = pyro.sample("x", dist.Normal(torch.zeros(3), scale).to_event(1))
    pyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=torch.tensor([1.0, -0.5, 2.0]))


def run(method, store=None, **options):
    return sample(
        model, method, **({"draws": DRAWS, "chains": 4, "progress": False, "store": store} | options)
    )


def same(one, other):
    return all(
        np.array_equal(one[group][name], other[group][name])
        for group in ("posterior", "sample_stats")
        for name in one[group]
    )


class StopError(Exception):
    pass


def stop_after(monkeypatch, iterations, error=StopError):
    """Make the loop raise after so many steps."""
    take, count = loop._Recorder.take, [0]

    def counted(self, row):
        count[0] += 1
        if count[0] > iterations:
            raise error
        return take(self, row)

    monkeypatch.setattr(loop._Recorder, "take", counted)


def test_store_changes_no_draw(method, tmp_path):
    assert same(run(method), run(method, tmp_path / "run.zarr"))


@pytest.mark.parametrize("iterations", [10, 57, 95, 115, 180])
def test_resumed_run_is_bit_identical(method, tmp_path, monkeypatch, iterations):
    store = tmp_path / "run.zarr"
    expected = run(method)
    with monkeypatch.context() as patch:
        stop_after(patch, iterations)
        with pytest.raises(StopError):
            run(method, store)
    resumed = run(method, store)
    assert same(resumed, expected)
    assert resumed.attrs["gradient_evaluations"] == expected.attrs["gradient_evaluations"]
    assert same(run(method, store), expected)  # a finished store gives its draws back


def test_killed_at_any_moment(tmp_path):
    """`kill -9` of another process, several times over, until it comes to its end."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time, torch
            from posterior_inpainting.inference import ChEES, infer
            from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
            torch.set_num_threads(1)
            images = datasets.load("digits", split="train")
            model = LinearGaussian.fit(images, latent=5)
            seen = Observation(images[3], observations.half((1, 8, 8), hide="bottom"))
            print("ready", flush=True)
            idata = infer(model, seen, ChEES(warmup=200), draws=1000, chains=4, progress=False, store=sys.argv[1])
            print(float(idata.posterior["z"].sum()), float(idata.posterior_predictive["image"].sum()))
            """
        )
    )
    store = tmp_path / "run.zarr"
    command = [sys.executable, "-W", "ignore", str(script), str(store)]
    reached = []
    for wait in (0.3, 0.6, 0.9):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if (store / "state.pt").is_file():
            reached.append(torch.load(store / "state.pt", weights_only=True)["draws"])
    assert reached  # at least one kill came after a commit
    resumed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    whole = subprocess.run(
        [*command[:-1], str(tmp_path / "other.zarr")], capture_output=True, text=True, check=True
    )
    assert resumed == whole.stdout


def test_interrupt_returns_what_is_there(method, tmp_path, monkeypatch):
    """Ctrl-C: a valid result, its draws those of the whole run, and the store can still go on."""
    store = tmp_path / "run.zarr"
    expected = run(method)
    with monkeypatch.context() as patch:
        stop_after(patch, 150, KeyboardInterrupt)
        partial = run(method, store)
    count = partial.posterior.sizes["draw"]
    assert partial.attrs["interrupted"] == 1
    assert 0 < count < DRAWS
    for name in partial.posterior:
        assert np.array_equal(partial.posterior[name], expected.posterior[name][:, :count])
    assert same(run(method, store), expected)


def test_interrupt_while_warming_up_is_an_interrupt(monkeypatch):
    stop_after(monkeypatch, 20, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(METHODS["ChEES"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed=0 there, 1 here"),
        ({"draws": 50}, "draws=130 there, 50 here"),
        ({"chains": 8}, "chains=4 there, 8 here"),
    ],
)
def test_other_numbers_are_refused(tmp_path, change, message):
    store = tmp_path / "run.zarr"
    run(METHODS["ChEES"], store)
    with pytest.raises(ValueError, match=f"made with other settings: {message}"):
        run(METHODS["ChEES"], store, **change)


def test_other_settings_data_and_models_are_refused(tmp_path, linear, digits, digits_model):
    store, mask = tmp_path / "run.zarr", observations.half((1, 8, 8), hide="bottom")
    options = {"draws": 20, "chains": 2, "progress": False, "store": store}
    infer(linear, Observation(digits[3], mask), ChEES(warmup=20), **options)
    with pytest.raises(ValueError, match="warmup=20 there, 30 here"):
        infer(linear, Observation(digits[3], mask), ChEES(warmup=30), **options)
    with pytest.raises(ValueError, match="method=ChEES there, MALA here"):
        infer(linear, Observation(digits[3], mask), MALA(warmup=20), **options)
    with pytest.raises(ValueError, match="data="):
        infer(linear, Observation(digits[4], mask), ChEES(warmup=20), **options)
    with pytest.raises(ValueError, match="model="):
        infer(digits_model, Observation(digits[3], mask), ChEES(warmup=20), **options)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not a store"):
        run(METHODS["ChEES"], tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_methods_without_a_loop_are_refused(tmp_path, linear, digits):
    seen = Observation(digits[3], observations.half((1, 8, 8), hide="bottom"))
    with pytest.raises(ValueError, match="Exact cannot use a store"):
        infer(linear, seen, Exact(), store=tmp_path / "run.zarr", progress=False)


def chunk(store, name, index):
    files = sorted((store / name / "c" / "0" / "0" / str(index)).rglob("*"))
    path = store / name / "c" / "0" / "0" / str(index)
    return path if path.is_file() else next(f for f in files if f.is_file())


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("name", ["latents/x", "stats/lp"])
def test_a_damaged_chunk_is_named_and_the_rest_readable(tmp_path, damage, name):
    store = tmp_path / "run.zarr"
    expected = run(METHODS["ChEES"], store)
    path = chunk(store, name, 1)  # draws 50 to 99
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-7])
    else:
        path.unlink()
    with pytest.raises(ValueError, match="draws 50 and following are damaged"):
        run(METHODS["ChEES"], store)
    whole = recover(store)
    assert whole.posterior.sizes["draw"] == 50
    for site in ("x", "scale"):
        assert np.array_equal(whole.posterior[site], expected.posterior[site][:, :50])


def test_a_damaged_state_is_named_and_costs_no_draw(tmp_path):
    store = tmp_path / "run.zarr"
    expected = run(METHODS["ChEES"], store)
    (store / "state.pt").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"state\.pt is damaged"):
        run(METHODS["ChEES"], store)
    assert same(recover(store), expected)


def test_a_full_disk_is_a_clear_error_and_costs_no_draw(tmp_path, monkeypatch):
    store = tmp_path / "run.zarr"
    expected = run(METHODS["ChEES"])
    real, calls = os.replace, [0]

    def full(source, target):
        if str(target).endswith("state.pt"):
            calls[0] += 1
            if calls[0] > 3:  # warm-up, then two blocks
                raise OSError(28, "No space left on device")
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(
            OSError, match=r"cannot be written \(No space left on device\); its first \d+ draws"
        ):
            run(METHODS["ChEES"], store)
    assert recover(store).posterior.sizes["draw"] >= 50
    assert same(run(METHODS["ChEES"], store), expected)


def test_recover_refuses_what_is_no_store(tmp_path):
    with pytest.raises(ValueError, match="is not a store"):
        recover(tmp_path / "nothing.zarr")
    Store(tmp_path / "empty.zarr", {"seed": 0})
    with pytest.raises(ValueError, match="holds no whole draw"):
        recover(tmp_path / "empty.zarr")


def test_fingerprints_tell_models_apart(linear, digits_model):
    assert fingerprint(linear) == fingerprint(linear)
    assert fingerprint(linear) != fingerprint(digits_model)
    changed = type(linear)(linear.loadings + 1e-6, linear.mean, linear.noise)
    assert fingerprint(changed) != fingerprint(linear)
    assert fingerprint(datasets.load("digits")) != fingerprint(datasets.load("digits") + 1e-6)


def test_fingerprints_tell_settings_laws_and_closures_apart(digits_model):
    decoder, standard = digits_model.decoder, torch.zeros(2)
    wide = dist.Normal(standard, 3.0).to_event(1)
    kinds = [
        LatentCode(decoder),
        LatentCode(decoder, likelihood=likelihoods.laplace),
        LatentCode(decoder, prior=wide),
        LatentCode(decoder, noise=0.2),
        *(lambda seen, latent=latent: latent for latent in (5, 30)),
        functools.partial(max, 1),
        functools.partial(max, 2),
        (lambda seen: 1),
        (lambda seen: 2),
    ]
    assert len({fingerprint(kind) for kind in kinds}) == len(kinds)
    again = LatentCode(decoder, prior=dist.Normal(standard, 3.0).to_event(1))
    assert fingerprint(again) == fingerprint(kinds[2])


def test_a_fit_leaves_the_fingerprint_as_it_is(digits_model):
    before = fingerprint(digits_model)
    seen = Observation(datasets.load("digits")[0], observations.half((1, 8, 8), hide="bottom"))
    infer(digits_model, seen, ChEES(warmup=10), draws=4, chains=4, progress=False)
    assert fingerprint(digits_model) == before
