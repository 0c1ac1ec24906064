"""A run that is killed, interrupted, damaged or out of room loses nothing that was whole."""

import io
import os
import random
import shutil
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
import zarr

from posterior_inpainting.inference import (
    MALA,
    ULA,
    ChEES,
    Exact,
    GlobalLocal,
    ParallelTempering,
    infer,
    recover,
    sample,
)
from posterior_inpainting.inference.methods import loop
from posterior_inpainting.inference.results import state_files
from posterior_inpainting.inference.results.state_files import read_state, write_state
from posterior_inpainting.inference.results.store import FORMAT, Store
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import Observation, observations

METHODS = {
    "ChEES": ChEES(warmup=60),
    "MALA": MALA(warmup=60, thin=2),
    "ULA": ULA(step_size=0.1, warmup=60, thin=2),
    "GlobalLocal": GlobalLocal(warmup=60),
    "ParallelTempering": ParallelTempering(temperatures=3, warmup=60),
}
DRAWS = 130  # not a whole number of blocks


@pytest.fixture(
    params=[
        *(name for name in METHODS if name != "ParallelTempering"),
        pytest.param("ParallelTempering", marks=pytest.mark.long),
    ]
)
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


@pytest.mark.long
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
    for wait in (0.3, 0.6, 0.9, 2.0, 4.0, 8.0):
        if reached and wait > 1:  # longer waits are for a machine that has much else to do
            break
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if (store / "state.pt").is_file():
            reached.append(read_state(store / "state.pt")["draws"])
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


@pytest.mark.parametrize("trials", [40, pytest.param(500, marks=pytest.mark.long)])
@pytest.mark.parametrize("interrupted", [False, True], ids=["finished", "halfway"])
@pytest.mark.filterwarnings("ignore:.*restored from a copy")
def test_no_flipped_bit_changes_a_draw(tmp_path, monkeypatch, interrupted, trials):
    """Wherever it is, it is repaired or named: never are there other draws without a word."""
    store, copy = tmp_path / "run.zarr", tmp_path / "copy.zarr"
    expected = run(METHODS["ChEES"])
    if interrupted:
        with monkeypatch.context() as patch:
            stop_after(patch, 130)
            with pytest.raises(StopError):
                run(METHODS["ChEES"], store)
    else:
        run(METHODS["ChEES"], store)
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.name != "lock")
    chance, outcomes = random.Random(trials), {"same": 0, "named": 0}
    for _ in range(trials // (10 if interrupted else 1)):
        shutil.copytree(store, copy)
        file = copy / chance.choice(files).relative_to(store)
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        try:
            assert same(run(METHODS["ChEES"], copy), expected), file
            outcomes["same"] += 1
        except ValueError as error:
            outcomes["named"] += "damaged" in str(error) and "\n" not in str(error)
        shutil.rmtree(copy)
    assert min(outcomes.values()) > 0
    assert sum(outcomes.values()) == trials // (10 if interrupted else 1)


def test_damaged_metadata_are_restored_and_it_is_said(tmp_path):
    store = tmp_path / "run.zarr"
    expected = run(METHODS["ChEES"], store)
    for name in ("zarr.json", "latents/x/zarr.json", "stats/zarr.json"):
        (store / name).write_bytes((store / name).read_bytes()[:-5])
        with pytest.warns(UserWarning, match=f"{name} was damaged, and is restored"):
            assert same(run(METHODS["ChEES"], store), expected)
        (store / name).unlink()
        with pytest.warns(UserWarning, match=f"{name} was damaged, and is restored"):
            assert same(recover(store), expected)


class TestOneProcess:
    SCRIPT = """
        import sys
        from posterior_inpainting.inference.results.store import Store
        store = Store(sys.argv[1], {"seed": 0})
        print("has it", flush=True)
        sys.stdin.read()
        """

    def test_another_one_is_told(self, tmp_path):
        script = textwrap.dedent(self.SCRIPT)
        command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "run.zarr")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout.readline() == "has it\n"
            with pytest.raises(ValueError, match=rf"in use by another process \({first.pid}\)"):
                Store(tmp_path / "run.zarr", {"seed": 0})
            first.kill()
        Store(tmp_path / "run.zarr", {"seed": 0})  # the system took the lock back

    def test_this_one_may_open_it_twice(self, tmp_path):
        """As after an interrupt in a notebook, whose traceback holds the first."""
        first = Store(tmp_path / "run.zarr", {"seed": 0})
        second = Store(tmp_path / "run.zarr", {"seed": 0})
        assert first.path == second.path


@pytest.mark.parametrize(
    "left", ["an empty folder", "a lock", "half of the metadata", "half-written files", "arrays"]
)
def test_what_a_kill_leaves_is_no_obstacle(tmp_path, left):
    """In its first moments a run has committed nothing: the same call begins anew, and its draws are right."""
    store = tmp_path / "run.zarr"
    store.mkdir()
    if left != "an empty folder":
        (store / "lock").write_text("123\n")
    if left == "half of the metadata":
        (store / "zarr.json").write_text('{"zarr_fo')
    if left == "half-written files":
        (store / "zarr.0123.partial").write_text("{")
        (store / "state.pt.new").write_bytes(b"post")
    if left == "arrays":
        Store(store, {"seed": 1}).write(rows(0, 6), 0, 130, {"draws": 6})
        (store / "state.pt").unlink()
    assert same(run(METHODS["ChEES"], store), run(METHODS["ChEES"]))
    assert not [path for path in store.rglob("*") if path.suffix in (".partial", ".new")]


def test_arrays_that_were_never_committed_are_made_anew(tmp_path):
    store = Store(tmp_path / "run.zarr", {}, block=3)
    store.write(({}, {}), 0, 12, {"draws": 0})
    committed = state_files.read_state(store.path / "state.pt")
    store.write(rows(0, 3), 0, 12, {"draws": 3})
    write_state(store.path / "state.pt", committed)  # as if it had been killed before the commit
    file = store.path / "latents" / "z" / "zarr.json"
    file.write_text(file.read_text().replace("float32", "float64"))
    again = Store(store.path, {}, block=3)
    again.write(rows(0, 3), 0, 12, {"draws": 3})
    assert torch.equal(again.read(3)[0]["z"], rows(0, 3)[0]["z"])


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


class TestFormat:
    def test_a_store_without_a_version_is_refused(self, tmp_path):
        store = tmp_path / "run.zarr"
        zarr.open_group(store, mode="w").attrs["signature"] = {"seed": "0"}
        with pytest.raises(
            ValueError, match=r"written by an older version .*give a folder that does not exist"
        ):
            Store(store, {"seed": 0})
        with pytest.raises(ValueError, match="written by an older version"):
            recover(store)

    @pytest.mark.parametrize(("version", "age"), [(FORMAT - 1, "an older"), (FORMAT + 1, "a newer")])
    def test_a_store_of_another_version_is_refused(self, tmp_path, version, age):
        store = tmp_path / "run.zarr"
        run(METHODS["ChEES"], store, draws=20)
        group = zarr.open_group(store, mode="r+")
        group.attrs["signature"] = {**group.attrs["signature"], "format": str(version)}
        (store / "state.pt").write_bytes(b"of another version, too")
        with pytest.raises(ValueError, match=f"was written by {age} version") as refusal:
            run(METHODS["ChEES"], store, draws=20)
        assert "\n" not in str(refusal.value)

    def test_a_store_keeps_its_own_block(self, tmp_path):
        store = Store(tmp_path / "run.zarr", {}, block=3)
        store.write(rows(0, 6), 0, 12, {"draws": 6})
        again = Store(tmp_path / "run.zarr", {}, block=50)
        assert again.block == 3
        assert torch.equal(again.read(6)[0]["z"], rows(0, 6)[0]["z"])


def rows(first, last):
    """Draws ``first`` to ``last`` of a made-up run of 2 chains."""
    z = torch.arange(1.0, 101.0).reshape(1, 2, 50, 1)[:, :, first:last]
    return {"z": z}, {"lp": -z.squeeze(-1)}


class TestParts:
    @pytest.fixture
    def whole(self, tmp_path):
        return Store(tmp_path / "run.zarr", {"seed": 3}, block=5)

    def test_resumes_on_its_own(self, whole):
        for name, last in (("network-0", 10), ("network-1", 5)):
            whole.part(name).write(rows(0, last), 0, 20, {"draws": last, "name": name})
        again = Store(whole.path, {"seed": 3})
        assert again.load_state() is None
        for name, last in (("network-0", 10), ("network-1", 5)):
            part = again.part(name)
            assert part.load_state() == {"draws": last, "name": name}
            for found, expected in zip(part.read(last), rows(0, last), strict=True):
                assert all(torch.equal(found[key], value) for key, value in expected.items())

    def test_is_made_when_it_is_written_to(self, whole):
        part = whole.part("network-0")
        assert part.load_state() is None
        assert part.read(0) == ({}, {})
        assert not part.path.exists()

    def test_a_part_killed_before_it_was_made_is_a_new_one(self, whole):
        part = whole.part("network-0")
        part.path.mkdir(parents=True)
        (part.path / "zarr.1f.partial").write_text("{")
        whole.part("network-0").write(rows(0, 5), 0, 5, {"draws": 5})
        assert whole.part("network-0").load_state() == {"draws": 5}

    def test_of_a_part(self, whole):
        inner = whole.part("outer").part("inner")
        inner.write(rows(0, 5), 0, 5, {"draws": 5})
        whole.part("outer").write(rows(0, 10), 0, 10, {"draws": 10})  # leaves what its part wrote
        assert whole.part("outer").part("inner").load_state() == {"draws": 5}
        assert recover(whole.path, part="outer/inner").posterior.sizes["draw"] == 5

    def test_of_another_run_is_refused(self, whole, tmp_path):
        whole.part("a").write(rows(0, 5), 0, 5, {"draws": 5})
        (whole.path / "parts" / "a").rename(whole.path / "parts" / "b")
        with pytest.raises(ValueError, match="made with other settings: part=a there, b here"):
            whole.part("b")

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", "a b", "-x", "x" * 101, "nö", "a\n", 3])
    def test_unsafe_names_are_refused(self, whole, name):
        with pytest.raises(ValueError, match="expected letters, digits"):
            whole.part(name)

    def test_recover_names_the_parts_that_have_draws(self, whole):
        whole.part("network-0").write(rows(0, 10), 0, 20, {"draws": 10})
        whole.part("network-1").write(({}, {}), 0, 20, {"draws": 0})
        with pytest.raises(
            ValueError, match=r"no whole draw; its parts hold draws: 'network-0' \(10\), read by"
        ):
            recover(whole.path)
        idata = recover(whole.path, part="network-0")
        assert np.array_equal(idata.posterior["z"], rows(0, 10)[0]["z"][0])
        assert idata.attrs["part"] == "network-0"
        with pytest.raises(ValueError, match="is not a store"):
            recover(whole.path, part="network-7")


def sealed(value, path):
    """Write what no state holds, as if it were one."""
    content = io.BytesIO()
    torch.save(value, content)
    path.write_bytes(state_files._sealed(content.getvalue()))


class TestState:
    STATES = {  # noqa: RUF012
        "nested": {"a": [1, (2.5, None, "word")], "b": {"c": {"d": True}}},
        "keys": {("image", "3"): {"x": 1}, ("image", "4"): {}, 7: "seven"},
        "dataclasses": {
            "points": [Streams(3, ("a", 1))],
            "s": {"t": (Streams(4),)},
        },
        "empty": {},
    }

    @pytest.mark.parametrize("name", STATES)
    def test_comes_back(self, tmp_path, name):
        write_state(tmp_path / "state.pt", self.STATES[name])
        assert read_state(tmp_path / "state.pt") == self.STATES[name]

    def test_tensors_come_back(self, tmp_path):
        state = {"a": [torch.arange(3)], "b": {"c": (torch.ones(2, dtype=torch.double, requires_grad=True),)}}
        write_state(tmp_path / "state.pt", state)
        found = read_state(tmp_path / "state.pt")
        assert torch.equal(found["a"][0], state["a"][0])
        assert torch.equal(found["b"]["c"][0], state["b"]["c"][0].detach())

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ({"a": [1, {2, 3}]}, r"the state\['a'\]\[1\] is a set, which a store cannot keep"),
            ({"f": len}, "is a builtin_function_or_method"),
            ({"x": np.zeros(2)}, "is a ndarray"),
            ({1.5: 0}, r"the state has the key 1.5"),
            ({"__class__": "os:system"}, "has the key '__class__'"),
            ({"outside": StopError()}, "is a StopError"),
        ],
    )
    def test_what_cannot_be_kept_is_named(self, tmp_path, state, message):
        with pytest.raises(ValueError, match=message):
            write_state(tmp_path / "state.pt", state)

    def test_classes_of_others_are_not_made(self, tmp_path):
        sealed({"__class__": "os:system", "command": "true"}, tmp_path / "state.pt")
        with pytest.raises(ValueError, match="names a class of os"):
            read_state(tmp_path / "state.pt")

    def test_a_class_that_is_gone_is_named(self, tmp_path):
        sealed({"__class__": "posterior_inpainting.inference.streams:Gone"}, tmp_path / "state.pt")
        with pytest.raises(ValueError, match="written by another version"):
            read_state(tmp_path / "state.pt")
