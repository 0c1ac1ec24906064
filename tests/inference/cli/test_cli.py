import csv
import resource
import shutil
import struct
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
from own_priors import written
from PIL import Image as Pillow

from posterior_inpainting.inference import catalogue, cli, load
from posterior_inpainting.inference.cli.pixels import image_named
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.images_of_posterior import completed_images
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import LinearGaussian, datasets, observations, pretrained

DIGIT = "sample:digits/3"
FAST = ("--model", "digits-vae-2d", "--method", "amortised", "--draws", "20", "--chains", "2")
COMPARE = (
    "compare",
    "--dataset",
    "digits",
    "--mask",
    "half:bottom",
    "--approach",
    "gaussian-process",
    "--jobs",
    "1",
)
FILES = {"completions.png", "mean.png", "sd.png", "posterior.nc", "summary.csv"}
DRAWN = {f"draw-0{number}.png" for number in range(1, 9)}
RANDOM = np.random.default_rng(0)


def table(folder):
    with (folder / "summary.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["quantity", "value"]
    return {name: float(value) for name, value in rows[1:]}


def test_help_in_a_process_of_its_own():
    command = [sys.executable, "-m", "posterior_inpainting.inference.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0
    assert done.stderr == ""
    assert all(word in done.stdout for word in ("complete", "train", "missing pixels"))


def test_help_does_not_wait_for_what_it_does_not_need():
    """In CPU time, of a process of its own, with room for a busy machine."""
    command = [sys.executable, "-m", "posterior_inpainting.inference.cli", "complete", "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_version(run):
    assert run("--version") == (0, f"posterior-inpainting {version('posterior-inpainting')}\n", "")


class TestComplete:
    def test_says_how_much_is_hidden_and_how_far_to_trust_it(self, run):
        code, out, _ = run("complete", DIGIT, "--mask", "box:0,0,8,7", *FAST, "--out", "out")
        lines = out.splitlines()
        assert code == 0
        assert (
            lines[0]
            == "87.5% of the image is hidden; if that is the wrong way round, exchange --seen and --missing"
        )
        assert lines[-1].startswith("Not to be trusted as they are: ")
        code, out, _ = run(
            "complete",
            DIGIT,
            "--mask",
            "half:top",
            "--model",
            "digits-linear",
            "--draws",
            "50",
            "--out",
            "out",
        )
        assert out.splitlines()[0] == "50.0% of the image is hidden"
        assert out.splitlines()[-1].startswith("trusted: ")

    @pytest.mark.parametrize(
        ("words", "code"), [(("--model", "digits-linear", "--draws", "9"), 0), ((*FAST, "--draws", "9"), 3)]
    )
    def test_strict_and_quiet(self, run, tmp_path, words, code):
        words = ("complete", DIGIT, "--mask", "half:top", *words, "--quiet", "--strict", "--out", "out")
        assert run(*words) == (code, "", "")
        assert {file.name for file in (tmp_path / "out").iterdir()} == FILES | DRAWN

    def test_a_sample(self, run, tmp_path):
        code, out, _ = run("complete", DIGIT, "--mask", "half:bottom", *FAST, "--out", "deep/out")
        assert code == 0
        said = "Wrote completions.png, mean.png, sd.png, draw-01.png ..., posterior.nc and summary.csv to deep/out/"
        assert said in out
        folder = tmp_path / "deep/out"
        assert {file.name for file in folder.iterdir()} == FILES | DRAWN
        assert {file.name for file in tmp_path.iterdir()} == {"deep"}
        with Pillow.open(folder / "completions.png") as picture:
            assert min(picture.size) > 100
        posterior = load(folder / "posterior.nc")
        image = datasets.load("digits")[3]
        mask = observations.half(image.shape, hide="bottom")
        drawn = completed_images(posterior)
        assert drawn.shape == (2, 20, 1, 8, 8)
        assert (drawn[..., mask.numpy()] == image[mask].numpy()).all()
        figures = table(folder)
        assert figures["draws"] == 40
        assert {"Pareto k-hat", "CRPS", "coverage 90%"} <= set(figures)
        assert f"{figures['CRPS']:.4g}" in out

    @pytest.mark.parametrize(
        ("model", "words", "method"),
        [
            ("gaussian-process", ("--draws", 10, "--chains", 2), "Exact"),
            ("deep-image-prior", ("--draws", 3, "--chains", 2), "MALA"),
        ],
    )
    def test_models_that_need_no_training(self, model, words, method, run, tmp_path):
        code, out, _ = run(
            "complete", DIGIT, "--mask", "scatter:0.5", "--model", model, *words, "--out", "out"
        )
        assert code == 0
        assert f"by {method}:" in out
        completion = group(load(tmp_path / "out/posterior.nc"), "posterior")["completion"]
        assert completion.shape == (2, words[1], 1, 8, 8)
        assert table(tmp_path / "out")["CRPS"] < 0.5

    def test_the_same_seed_gives_the_same_draws(self, run, tmp_path):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            assert run("complete", DIGIT, "--mask", "half:top", *FAST, "--seed", seed, "--out", name)[0] == 0
        first, again, other = (
            group(load(tmp_path / n / "posterior.nc"), "posterior")["z"].to_numpy() for n in "abc"
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize("kind", ["seen", "missing", "transparent", "mask"])
    def test_ways_to_say_what_is_missing(self, kind, run, tmp_path):
        pixels = RANDOM.integers(0, 256, (8, 8), np.uint8)
        known = RANDOM.random((8, 8)) < 0.5
        Pillow.fromarray(pixels).save("a.png")
        np.save("known.npy", known)
        Pillow.fromarray(np.stack([pixels, np.where(known, 255, 0).astype(np.uint8)], -1)).save("rgba.png")
        words = {
            "seen": ("a.png", "--seen", "known.npy"),
            "missing": ("a.png", "--missing", "known.npy"),
            "transparent": ("rgba.png",),
            "mask": ("a.png", "--mask", "grid:2"),
        }
        expected = {"missing": ~known, "mask": observations.grid((1, 8, 8), 2)[0].numpy()}.get(kind, known)
        assert run("complete", *words[kind], *FAST, "--out", "out")[0] == 0
        posterior = load(tmp_path / "out" / "posterior.nc")
        np.testing.assert_array_equal(group(posterior, "constant_data")["mask"][0], expected)
        # Only a mask of ours hides what is known, so that there is something to score against.
        assert ("CRPS" in table(tmp_path / "out")) == (kind == "mask")

    def test_truth(self, run, tmp_path):
        image = datasets.load("digits")[3][0].numpy()
        np.save("truth.npy", image)
        np.save("holes.npy", np.where(np.arange(8)[:, None] < 4, image, np.nan))
        common = ("--mask", "half:bottom", *FAST, "--out")
        assert run("complete", "truth.npy", *common, "a")[0] == 0
        assert run("complete", "holes.npy", "--truth", "truth.npy", *common, "b")[0] == 0
        figures, again = table(tmp_path / "a"), table(tmp_path / "b")
        assert {k: v for k, v in figures.items() if k != "wall_time_s"} == pytest.approx(
            {k: v for k, v in again.items() if k != "wall_time_s"}
        )

    @pytest.mark.parametrize("hidden", [np.nan, np.inf, 7.0])
    def test_hidden_values_may_be_anything_and_are_no_truth_then(self, hidden, run, tmp_path):
        image = datasets.load("digits")[3][0].numpy().copy()
        image[4:] = hidden
        np.save("holes.npy", image)
        assert run("complete", "holes.npy", "--mask", "half:bottom", *FAST, "--out", "out")[0] == 0
        assert "CRPS" not in table(tmp_path / "out")

    def test_restarts(self, run, tmp_path):
        words = ("--model", "digits-linear", "--method", "map", "--out", "out")
        code, out, _ = run("complete", DIGIT, "--mask", "box:2,2,3,3", *words)
        assert code == 0
        assert "LinearGaussian by MAP: optima and no draws, scored as if they were" in out
        assert {"PSNR of the best restart (oracle, dB)", "coverage 90%"} <= set(table(tmp_path / "out"))

    def test_one_draw_is_shown_and_not_scored(self, run, tmp_path):
        words = (*FAST[:4], "--draws", 1, "--chains", 1, "--out", "out")
        assert run("complete", DIGIT, "--mask", "half:top", *words)[0] == 0
        assert "CRPS" not in table(tmp_path / "out")

    def test_an_older_result_is_replaced_and_other_files_stay(self, run, tmp_path):
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "summary.csv").write_text("old")
        (folder / "notes.txt").write_text("mine")
        (folder / "draw-09.png").write_text("old")
        assert run("complete", DIGIT, "--mask", "half:top", *FAST, "--out", "out")[0] == 0
        assert table(folder)["draws"] == 40
        assert (folder / "notes.txt").read_text() == "mine"
        assert not (folder / "draw-09.png").exists()

    def test_pictures_are_as_large_as_the_image(self, run, tmp_path):
        assert run("complete", DIGIT, "--mask", "half:bottom", *FAST, "--out", "out")[0] == 0
        folder = tmp_path / "out"
        posterior = load(folder / "posterior.nc")
        completion = group(posterior, "posterior")["completion"].to_numpy().reshape(40, 8, 8)
        image = datasets.load("digits")[3, 0].numpy()
        for name, expected in (
            ("mean.png", completion.mean(0)),
            ("draw-01.png", completion[0]),
            ("draw-08.png", completion[-1]),
        ):
            with Pillow.open(folder / name) as picture:
                found = np.asarray(picture) / 255
            assert found.shape == (8, 8)
            np.testing.assert_allclose(found[4:], expected[4:].clip(0, 1), atol=0.6 / 255)
            np.testing.assert_allclose(found[:4], image[:4], atol=0.6 / 255)
        with Pillow.open(folder / "sd.png") as picture:
            deviation = np.asarray(picture)
        assert deviation.max() == 255
        assert not deviation[:4].any()

    @pytest.mark.parametrize("channels", [1, 3])
    def test_a_photograph_without_a_model(self, channels, run, tmp_path):
        """The image chooses the prior; holes are completed in windows, and grey as colour, which is said."""
        picture = np.tile(np.linspace(40, 200, 160).astype(np.uint8)[:, None, None], (1, 150, channels))
        missing = np.zeros((160, 150), np.uint8)
        missing[10:14, 20:30] = missing[140:150, 130:134] = 255
        Pillow.fromarray(picture.squeeze()).save(tmp_path / "a.png")
        Pillow.fromarray(missing).save(tmp_path / "m.png")
        code, out, _ = run("complete", "a.png", "--missing", "m.png", "--draws", "2", "--out", "out")
        assert code == 0
        assert f"photographs-diffusion: a prior of photographs, as the image is {channels} x 160 x 150" in out
        assert ("as one of three channels" in out) == (channels == 1)
        idata = load(tmp_path / "out/posterior.nc")
        assert idata.attrs["windows"] == 2
        completion = group(idata, "posterior")["completion"].to_numpy()
        assert completion.shape == (1, 2, 3, 160, 150)
        whole = np.broadcast_to(picture.transpose(2, 0, 1) / 255, completion.shape)
        np.testing.assert_allclose(completion[..., 60:90, :], whole[..., 60:90, :], atol=1e-5)
        assert np.abs(completion - whole)[..., missing == 0].max() < 0.15
        hidden = completion[..., missing > 0]
        assert np.abs(hidden[0, 0] - hidden[0, 1]).max() > 0
        assert np.abs(hidden - picture[missing > 0][:, :1].T / 255).max() < 0.3


def weights(change):
    """A copy of the bundled weights of which one file was changed, in place of the bundled ones."""

    def prepare(monkeypatch, folder):
        shutil.copytree(pretrained._bundled(), folder / "weights")
        path = folder / "weights" / "digits-vae-2d.decoder.safetensors"
        path.write_bytes(change(path.read_bytes()))
        monkeypatch.setattr(pretrained, "_bundled", lambda: folder / "weights")

    return prepare


def array(pixels, name="a.npy"):
    return lambda monkeypatch, folder: np.save(folder / name, pixels)


def content(data, name):
    return lambda monkeypatch, folder: (folder / name).write_bytes(data)


def idx_without_labels(monkeypatch, folder):
    (folder / "idx").mkdir()
    for prefix in ("train", "t10k"):
        header = b"\x00\x00\x08\x03" + struct.pack(">3I", 2, 28, 28)
        (folder / "idx" / f"{prefix}-images-idx3-ubyte").write_bytes(header + bytes(2 * 28 * 28))


def idx_of_garbage(monkeypatch, folder):
    (folder / "idx").mkdir()
    (folder / "idx" / "train-images-idx3-ubyte").write_bytes(b"<html>no such page</html>")


def own_prior(file=None, old=b"", new=b""):
    """A prior in the folder ``mine``, of which one file was changed."""

    def prepare(monkeypatch, folder):
        written(folder / "mine")
        if file is not None:
            content = (folder / "mine" / file).read_bytes()
            assert old in content
            (folder / "mine" / file).write_bytes(content.replace(old, new))

    return prepare


def no_network(monkeypatch, folder):
    def fetch(*args, **kwargs):
        raise OSError("Name or service not known\nat all")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)


def nothing(monkeypatch, folder):
    pass


HALF = np.where(np.arange(8)[:, None] < 4, 0.5, np.nan) * np.ones((8, 8))
SEEN = ("--mask", "half:bottom")
PHOTOGRAPH = ("--model", "photographs-diffusion")
OWN = ("--model", "./mine")
SMALL = np.zeros((12, 20, 3), np.uint8)
TRAIN = ("train", "fashion-mnist-vae", "--root", "idx")
BAD = {
    # name: what is prepared, words of the command line, words of the message
    "shape": (nothing, (DIGIT, *SEEN, "--model", "vae"), "vae takes 1 x 28 x 28. Models that take it: "),
    "channels": (array(np.zeros((8, 8, 3), np.uint8)), ("a.npy", *SEEN, *FAST), "digits-vae-2d takes 1 x 8 x 8"),
    "mask of another size": (array(np.ones((8, 9))), (DIGIT, "--seen", "a.npy", *FAST), "8 x 9 pixels; the image"),
    "NaN": (array(HALF), ("a.npy", "--mask", "half:top", *FAST), "32 seen pixels are NaN"),
    "infinite": (array(np.full((8, 8), np.inf)), ("a.npy", *SEEN, *FAST), "NaN or infinite"),
    "above 1": (array(np.full((8, 8), 200.0)), ("a.npy", *SEEN, *FAST), "run from 200 to 200"),
    "below 0": (array(np.full((8, 8), -0.5)), ("a.npy", *SEEN, *FAST), "run from -0.5 to -0.5"),
    "nothing seen": (nothing, (DIGIT, "--mask", "box:0,0,8,8", *FAST), "hides every pixel"),
    "nothing hidden": (nothing, (DIGIT, "--mask", "scatter:1", *FAST), "hides nothing"),
    "no image": (content(b"hello\nthere\n", "a.png"), ("a.png", *SEEN, *FAST), "a.png cannot be read"),
    "no mask": (content(b"hello\n", "m.png"), (DIGIT, "--missing", "m.png", *FAST), "m.png cannot be read"),
    "truncated NPY": (content(b"\x93NUMPY\x01\x00", "a.npy"), ("a.npy", *SEEN, *FAST), "a.npy cannot be read"),
    "absent": (nothing, ("absent.png", *SEEN, *FAST), "no file absent.png"),
    "absent mask": (nothing, (DIGIT, "--seen", "absent.png", *FAST), "no file absent.png"),
    "NPY of another shape": (array(np.zeros(64)), ("a.npy", *SEEN, *FAST), "has shape (64,)"),
    "truth of another shape": (array(np.zeros((9, 8))), (DIGIT, *SEEN, "--truth", "a.npy", *FAST), "(1, 9, 8)"),
    "truth outside": (array(np.full((8, 8), 2.0)), (DIGIT, *SEEN, "--truth", "a.npy", *FAST), "of the truth run"),
    "tampered weights": (
        weights(lambda data: data[:-1] + bytes([data[-1] ^ 1])), (DIGIT, *SEEN, *FAST), "damaged or was changed",
    ),
    "truncated weights": (weights(lambda data: data[:1000]), (DIGIT, *SEEN, *FAST), "damaged or was changed"),
    "empty weights": (weights(lambda data: b""), (DIGIT, *SEEN, *FAST), "damaged or was changed"),
    "model": (nothing, (DIGIT, *SEEN, "--model", "dcgan"), "unknown model 'dcgan'; there are linear-gaussian"),
    "no folder of a prior": (
        nothing, (DIGIT, *SEEN, "--model", "./mine"), "mine is no prior: there is no such folder",
    ),
    "folder of no prior": (idx_of_garbage, (DIGIT, *SEEN, "--model", "idx"), "idx is no prior: it has no config.json"),
    "prior from the future": (
        own_prior("config.json", b'"format": 1', b'"format": 2'), (DIGIT, *SEEN, *OWN),
        "written by a later version (0.1.0, format 2); expected format <= 1: update",
    ),
    "damaged prior": (own_prior("model.safetensors", b"encoder", b"Encoder"), (DIGIT, *SEEN, *OWN), "was changed"),
    "no hole at the prior's size": (
        own_prior(), ("sample:fashion-mnist/0", "--mask", "box:3,3,1,1", *OWN), "no hole is as large as a pixel at 8 x",
    ),
    "prior for a model": (
        nothing, (DIGIT, *SEEN, "--model", "fashion-mnist-vae"), "the models of it are vae-amortised, vae",
    ),
    "no warm-up": (nothing, (DIGIT, *SEEN, *FAST, "--warmup", "9"), "Variational does not warm up"),
    "method": (nothing, (DIGIT, *SEEN, *FAST[:2], "--method", "metropolis"), "unknown method 'metropolis'; there are "),
    "no exact posterior": (nothing, (DIGIT, *SEEN, *FAST[:2], "--method", "exact"), "has no exact posterior"),
    "mask": (nothing, (DIGIT, "--mask", "star:3", *FAST), "unknown mask 'star:3'; there are box:TOP"),
    "mask without numbers": (nothing, (DIGIT, "--mask", "box", *FAST), "expected box:TOP,LEFT"),
    "mask with too few": (nothing, (DIGIT, "--mask", "box:1,2", *FAST), "expected box:TOP,LEFT,HEIGHT,WIDTH"),
    "mask with too many": (nothing, (DIGIT, "--mask", "grid:1,2", *FAST), "expected grid:FACTOR"),
    "mask with words": (nothing, (DIGIT, "--mask", "scatter:lots", *FAST), "expected scatter:SHARE"),
    "mask outside": (nothing, (DIGIT, "--mask", "box:5,5,9,9", *FAST), "reaches outside"),
    "dataset": (nothing, ("sample:cifar/1", *SEEN, *FAST), "unknown data set 'cifar'"),
    "sample without number": (nothing, ("sample:digits", *SEEN, *FAST), "expected sample:DATASET/NUMBER"),
    "sample beyond the last": (nothing, ("sample:digits/297", *SEEN, *FAST), "digits has images 0..296"),
    "no network": (no_network, ("sample:mnist/1", *SEEN, *FAST), "mnist is not on this machine"),
    "chains": (nothing, (DIGIT, *SEEN, *FAST, "--chains", "0"), "chains=0"),
    "draws": (nothing, (DIGIT, *SEEN, *FAST, "--draws", "0"), "draws=0"),
    "negative draws": (nothing, (DIGIT, *SEEN, *FAST, "--draws", "-5"), "draws=-5"),
    "two masks": (array(np.ones((8, 8))), (DIGIT, *SEEN, "--seen", "a.npy", *FAST), "--mask and --seen are given"),
    "three masks": (
        array(np.ones((8, 8))), (DIGIT, *SEEN, "--seen", "a.npy", "--missing", "a.npy", *FAST), "--seen and --missing",
    ),
    "no mask given": (nothing, (DIGIT, *FAST), "no transparent pixel; give --mask, --seen or --missing"),
    "patches too large": (nothing, ("sample:natural/0", *SEEN, "--model", "natural-linear"), "3 x n x n, n <= 32"),
    "patches of grey": (nothing, (DIGIT, *SEEN, "--model", "natural-linear"), "natural-linear takes 3 x n x n"),
    "photograph too small": (array(SMALL), ("a.npy", *SEEN, *PHOTOGRAPH), "12 x 20 pixels; photographs-diffusion"),
    "photograph too large": (
        array(SMALL.repeat(4, 0)), ("a.npy", *SEEN, "--max-memory", "0.001"), "of memory, of which there are 0.001",
    ),
    "no memory": (nothing, (DIGIT, *SEEN, *FAST, "--max-memory", "0"), "--max-memory 0; expected a positive"),
    "prior": (nothing, ("train", "imagenet-vae"), "unknown bundled set 'imagenet-vae'; there are recipes for digits"),
    "approach": (nothing, (*COMPARE, "--approach", "dcgan"), "unknown model 'dcgan'; there are linear-gaussian"),
    "images beyond the last": (nothing, (*COMPARE, "--images", "0-297"), "digits has images 0-296"),
    "images in words": (nothing, (*COMPARE, "--images", "some"), "expected FIRST-LAST or a number"),
    "jobs": (nothing, (*COMPARE, "--jobs", "0"), "jobs=0; expected a whole number"),
    "mask of a comparison": (nothing, (*COMPARE, "--mask", "box:5,5,9,9"), "reaches outside"),
    "budget": (nothing, (*COMPARE, "--budget", "0"), "budget=0; expected a whole number of gradients"),
    "IDX folder without labels": (idx_without_labels, TRAIN, "idx has neither train-labels-idx1-ubyte nor"),
    "IDX folder that is not there": (nothing, TRAIN, "idx has neither train-images-idx3-ubyte nor"),
    "IDX file of garbage": (idx_of_garbage, TRAIN, "is not an IDX file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_line_and_leave_nothing(name, run, monkeypatch, tmp_path):
    prepare, words, message = BAD[name]
    prepare(monkeypatch, tmp_path)
    before = {file.name for file in tmp_path.iterdir()}
    code, out, error = run(
        *(words if words[0] in ("train", "compare") else ("complete", *words)), "--out", "out"
    )
    assert code == 2
    assert error.startswith("posterior-inpainting: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert message in error
    assert not out or out.endswith("% of the image is hidden\n")
    assert {file.name for file in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_nothing_half_written(run, monkeypatch, tmp_path):
    def full(idata, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("posterior_inpainting.inference.results.containers.save", full)
    code, _, error = run("complete", DIGIT, *SEEN, *FAST, "--out", "out")
    assert code == 2
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_real_full_disk_leaves_nothing(run, small_disk):
    """Two megabytes: a picture and half of the posterior would fit."""
    before = sorted(small_disk.rglob("*"))
    code, _, error = run(
        "complete", DIGIT, *SEEN, *FAST, "--draws", "20000", "--out", str(small_disk / "a" / "b")
    )
    assert code == 2
    assert error.count("\n") == 1
    assert sorted(small_disk.rglob("*")) == before


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes privileges")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    "words", [("complete", DIGIT, *SEEN, *FAST), ("train", "digits-vae-2d"), COMPARE], ids=str
)
def test_where_nothing_can_be_written_no_work_is_done(run, words, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("it began to work")

    monkeypatch.setattr("posterior_inpainting.inference.recipes.train_bundled", never)
    monkeypatch.setattr("posterior_inpainting.inference.catalogue.approach", never)
    monkeypatch.setattr("posterior_inpainting.inference.cli.options.Drawing.of", never)
    code, _, error = run(*words, "--out", "/proc/nothing/here")
    assert code == 2
    assert error.startswith("posterior-inpainting: --out /proc/nothing/here cannot be written")


def test_out_is_a_file(run, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, _, error = run("complete", DIGIT, *SEEN, *FAST, "--out", "out")
    assert code == 2
    assert error == "posterior-inpainting: --out out is a file; expected a folder\n"
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ("complete", DIGIT, "--maks", "half:bottom"),
        ("complete", DIGIT, "--draws", "many"),
        ("complete",),
        ("train", "digits-vae-2d"),
        ("paint",),
        (),
    ],
    ids=" ".join,
)
def test_usage_errors(words, run, tmp_path):
    code, _, error = run(*words)
    assert code == 2
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_an_error_of_ours_is_not_hidden(monkeypatch, tmp_path):
    """Only mistakes of the caller become one line; a bug keeps its traceback."""

    def broken(name):
        raise TypeError("a bug")

    monkeypatch.setattr(catalogue, "entry", broken)
    monkeypatch.setattr(
        sys, "argv", ["posterior-inpainting", "complete", DIGIT, *SEEN, "--out", str(tmp_path / "out")]
    )
    with pytest.raises(TypeError, match="a bug"):
        cli.main()


def test_compare(run, tmp_path):
    """Tables, sheets and the data set; cells stay, so that the second call computes nothing."""
    words = (*COMPARE, "--mask", "scatter:0.3", "--images", "5-6", "--out", "out")
    code, out, _ = run(*words)
    assert code == 0
    assert "gaussian-process" in out
    files = {"comparison.nc", "table.md", "scores.csv", "comparison-1.png", "comparison-2.png", "cells"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.nc")}
    assert len(cells) == 4
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.count("| gaussian-process |") == 3
    code, again, _ = run(*words)
    assert (code, again) == (0, out)
    assert all(path.stat().st_mtime_ns == before for path, before in cells.items())


def test_train_writes_the_card(monkeypatch, run):
    asked = []
    monkeypatch.setattr(
        "posterior_inpainting.inference.recipes.train_bundled",
        lambda *given, **named: asked.append((*given, named["checkpoints"])) or "# card",
    )
    code, out, _ = run("train", "digits-vae-2d", "--out", "here", "--checkpoints", "there")
    assert (code, out) == (0, "# card\n")
    assert [tuple(map(str, given)) for given in asked] == [("digits-vae-2d", "here", "None", "there")]


class TestOwnPriors:
    """``--model ./mine`` wherever a name goes."""

    @pytest.fixture
    def mine(self, tmp_path, digits):
        """Principal components of digits, whose posterior is exact."""
        return written(tmp_path / "mine", "linear", {"linear": LinearGaussian.fit(digits, latent=20)})

    def test_an_image_of_the_priors_size(self, run, mine, tmp_path):
        code, out, _ = run("complete", DIGIT, *SEEN, *OWN, "--draws", "40", "--out", "out")
        assert code == 0
        assert out.startswith(
            "50.0% of the image is hidden\n./mine: LinearGaussian by Exact: independent draws"
        )
        assert {file.name for file in (tmp_path / "out").iterdir()} == FILES | DRAWN

    def test_an_image_of_another_size_and_in_colour(self, run, mine, tmp_path):
        """Completed at the prior's size, in grey; pictures are as large as the image, seen pixels to the bit."""
        pixels = RANDOM.integers(0, 256, (40, 60, 4), dtype=np.uint8)
        pixels[..., 3] = 255
        pixels[20:, :30, 3] = 0
        Pillow.fromarray(pixels).save(tmp_path / "a.png")
        code, out, _ = run("complete", "a.png", *OWN, "--draws", "40", "--out", "out")
        assert code == 0
        assert out.splitlines()[:2] == [
            "the image is 40 x 60 in colour; completed at 8 x 8 in grey, as are all figures, and pictures enlarged",
            "25.0% of the image is hidden",
        ]
        seen = pixels[..., 3] > 0
        for name in ("mean.png", "draw-01.png", "draw-08.png", "sd.png"):
            with Pillow.open(tmp_path / "out" / name) as picture:
                found = np.asarray(picture)
            assert found.shape == ((40, 60) if name == "sd.png" else (40, 60, 3))
            assert (found[seen] == (0 if name == "sd.png" else pixels[seen][:, :3])).all()
            assert name == "sd.png" or np.ptp(found[~seen].astype(int), -1).max() == 0
            assert found[~seen].std() > 1
        posterior = load(tmp_path / "out/posterior.nc")
        assert completed_images(posterior).shape == (1, 40, 1, 8, 8)

    def test_a_flat_image_comes_back_flat(self, run, tmp_path):
        """Of a prior that knows nothing but one grey, whatever the sizes: nothing is shifted or darkened."""
        model = LinearGaussian(1e-3 * torch.ones(64, 1), torch.full((1, 8, 8), 0.4), 1e-3)
        written(tmp_path / "mine", "linear", {"linear": model})
        np.save(tmp_path / "a.npy", np.full((13, 21), 0.4))
        run("complete", "a.npy", "--mask", "half:right", *OWN, "--draws", "4", "--out", "out")
        with Pillow.open(tmp_path / "out/mean.png") as picture:
            found = np.asarray(picture)
        assert found.shape == (13, 21)
        assert abs(found.astype(int) - 102).max() <= 1

    def test_the_truth_is_brought_along(self, run, mine, tmp_path):
        """Two pixels for each of the prior's are the same image, and the same score, as one for each."""
        image = datasets.load("digits")[3, 0].numpy()
        found = []
        for times in (1, 2):
            np.save(tmp_path / "a.npy", image.repeat(times, 0).repeat(times, 1))
            words = ("a.npy", *SEEN, "--truth", "a.npy", *OWN, "--draws", "40")
            code, out, _ = run("complete", *words, "--out", f"out{times}")
            assert code == 0
            assert out.startswith("the image is 16 x 16; completed at 8 x 8, ") == (times == 2)
            found.append(table(tmp_path / f"out{times}"))
        assert found[0]["CRPS"] == pytest.approx(found[1]["CRPS"], rel=1e-6)

    def test_score_calibrate_and_compare(self, run, mine, tmp_path):
        for words, message in (
            (("score", "--dataset", "digits", "--images", "0-1", "--draws", "40"), "./mine by Exact"),
            (("calibrate", "--datasets", "20", "--draws", "20"), "LinearGaussian by Exact: 20 data sets"),
        ):
            code, out, error = run(*words, *OWN, "--out", "out")
            assert (code, error) == (0, "")
            assert out.startswith(message)
        compare = ("compare", "--dataset", "digits", "--images", "0", "--mask", "half:bottom", "--jobs", "1")
        code, out, _ = run(*compare, "--approach", "./mine", "--approach", "digits-linear", "--out", "out")
        assert code == 0
        assert {"./mine", "digits-linear"} <= set(out.split())

    def test_its_card(self, run, mine):
        assert run("card", "./mine") == (0, "# Mine\n\nOf noise.\n", "")
        assert run("card", "digits-vae-2d")[1].startswith("# digits-vae-2d\n")
        code, _, error = run("card", "nothing")
        assert (code, error.count("\n")) == (2, 1)
        assert "unknown prior 'nothing'; there are channels-generator, " in error


def test_samples():
    assert torch.equal(image_named("sample:fashion-mnist/63")[0], datasets.load("fashion-mnist-samples")[63])
    assert torch.equal(image_named("sample:digits/5")[0], datasets.load("digits")[5])
    assert torch.equal(image_named("sample:natural/1")[0], datasets.load("natural")[1])


class TestList:
    @pytest.mark.parametrize("kind", ["models", "methods", "masks", "priors"])
    @pytest.mark.parametrize("width", [80, 120])
    def test_every_name_stands_in_lines_of_the_terminal(self, kind, width, run, monkeypatch):
        monkeypatch.setenv("COLUMNS", str(width))
        code, out, error = run("list", kind)
        assert (code, error) == (0, "")
        assert max(map(len, out.splitlines())) <= width
        names = vars(catalogue)[kind.upper()]
        first = [line.split()[0].partition(":")[0] for line in out.splitlines() if line[:1].strip()]
        assert [word for word in first if word in names] == list(names)

    def test_a_model_is_explained(self, run):
        out = " ".join(run("list", "models")[1].split())
        assert (
            "gan 1 x 28 x 28 8 90,000 code z of a GAN, with the generator's fitted noise (Yeh et al. 2017, its "
            "posterior) by default Auto(), at most 2000 draws x 16; needs fashion-mnist-generator"
        ) in out

    def test_another_kind(self, run):
        code, out, error = run("list", "networks")
        assert (code, out) == (2, "")
        assert "networks" in error


@pytest.mark.long
def test_complete_gives_the_numbers_of_compare(run, tmp_path):
    """Each of these rows of a comparison is made again for one image, its seed given."""
    names = ("gaussian-process", "vae-amortised", "yeh", "pluralistic-conditional")
    chosen = [word for name in names for word in ("--approach", name)]
    words = ("--images", "7", "--mask", "half:bottom", "--seed", "3", "--jobs", "1", *chosen, "--out", "all")
    found = catalogue_comparison(run, tmp_path, words)
    for name in names:
        words = (
            "sample:fashion-mnist/7",
            "--mask",
            "half:bottom",
            "--model",
            name,
            "--seed",
            "3",
            "--out",
            name,
        )
        assert run("complete", *words)[0] == 0
        row, one = found[name], table(tmp_path / name)
        shared = (set(row) & set(one)) - {"wall_time_s"}
        assert {"CRPS", "coverage 95%", "diversity (RMSE)", "PSNR of the mean (dB)"} <= shared
        assert {key: row[key] for key in shared} == pytest.approx({key: one[key] for key in shared}, rel=1e-6)


def catalogue_comparison(run, folder, words):
    """Run `compare` on bundled samples, because the whole data set is not on every machine."""
    import xarray as xr

    with pytest.MonkeyPatch.context() as patch:
        samples = datasets.load("fashion-mnist-samples")
        patch.setattr(datasets, "load", lambda name, split="test", root=None: samples)
        assert run("compare", *words)[0] == 0
    found = xr.load_dataset(folder / "all" / "comparison.nc", engine="h5netcdf")
    scalars = [name for name, values in found.items() if values.dims == ("approach", "mask", "image")]
    return {
        str(name): {
            key: float(found[key].sel(approach=name).item())
            for key in scalars
            if key != "error" and not found[key].sel(approach=name).isnull().any()
        }
        for name in found["approach"].to_numpy()
    }


class TestCalibrate:
    WORDS = ("calibrate", "--mask", "half:bottom", "--datasets", "30", "--chains", "2")

    def test_a_guide_and_its_verdicts(self, run, tmp_path):
        code, out, _ = run(*self.WORDS, "--model", "digits-linear", "--draws", "60", "--out", "out")
        assert code == 0
        assert "LinearGaussian by Exact: 30 data sets, ranks among 120 draws" in out
        assert "SBC  inside the 95% band" in out
        assert "TARP inside the 95% band" in out
        folder = tmp_path / "out"
        assert {file.name for file in folder.iterdir()} == {"ranks.png", "tarp.png", "calibration.csv"}
        with (folder / "calibration.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 30
        assert {row["draws"] for row in rows} == {"120"}
        assert all(0 <= int(row["rank of z[0]"]) <= 120 for row in rows)
        with Pillow.open(folder / "ranks.png") as picture:
            assert min(picture.size) > 100

    @pytest.mark.long
    def test_a_wrong_posterior_is_called_so(self, run):
        words = ("--model", "digits-vae-2d", "--method", "amortised", "--datasets", "150", "--out", "out")
        code, out, _ = run(*self.WORDS, *words)
        assert code == 0
        assert "SBC  OUTSIDE the 95% band" in out
        assert "z[0]" in out

    def test_a_short_warmup(self, run):
        words = (
            "--method",
            "chees",
            "--warmup",
            "20",
            "--draws",
            "5",
            "--datasets",
            "10",
            "--seed",
            "4",
            "--out",
            "out",
        )
        assert run(*self.WORDS, *words)[0] == 0


class TestScore:
    WORDS = ("score", "--dataset", "digits", *FAST[:4], "--out", "out")

    def test_a_row_an_image_and_mask(self, run, tmp_path):
        masks = ("--mask", "half:bottom", "--mask", "scatter:0.3")
        code, out, _ = run(*self.WORDS, "--images", "5-7", *masks)
        assert code == 0
        assert "digits 5-7, mean and standard error over images" in out
        folder = tmp_path / "out"
        assert {file.name for file in folder.iterdir()} == {"scores.csv", "summary.csv"}
        with (folder / "scores.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["mask"], row["image"]) for row in rows] == [
            (mask, str(image)) for mask in ("half:bottom", "scatter:0.3") for image in (5, 6, 7)
        ]
        mean = np.mean([float(row["CRPS"]) for row in rows[:3]])
        assert f"{mean:.4g}" in out

    def test_one_image_equals_complete(self, run, tmp_path):
        draws = ("--draws", "200", "--chains", "2")
        assert run(*self.WORDS, "--images", "3", "--mask", "half:bottom", *draws)[0] == 0
        seed = str(Streams(0).number("mask", "half:bottom", "image", 0))
        words = (
            "complete",
            DIGIT,
            "--mask",
            "half:bottom",
            *FAST[:4],
            *draws,
            "--seed",
            seed,
            "--out",
            "one",
        )
        assert run(*words)[0] == 0
        with (tmp_path / "out" / "scores.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert float(row["CRPS"]) == pytest.approx(table(tmp_path / "one")["CRPS"])


WRONG = {
    "calibrate, model": (("calibrate", "--model", "dcgan"), "unknown model 'dcgan'"),
    "calibrate, method": (("calibrate", "--method", "metropolis"), "unknown method 'metropolis'"),
    "calibrate, mask": (("calibrate", "--mask", "star:3"), "unknown mask 'star:3'"),
    "calibrate, nothing hidden": (("calibrate", "--mask", "scatter:1"), "the mask hides nothing"),
    "calibrate, data sets": (("calibrate", "--datasets", "3"), "datasets=3; expected"),
    "calibrate, draws": (("calibrate", "--draws", "0"), "draws=0; expected"),
    "calibrate, restarts": (("calibrate", "--method", "map", "--datasets", "10"), "the draws are restarts"),
    "calibrate, no exact posterior": (("calibrate", "--method", "exact"), "has no exact posterior"),
    "calibrate, no warm-up": (
        ("calibrate", "--method", "smc", "--warmup", "5"),
        "TemperedSMC does not warm up",
    ),
    "calibrate, warm-up": (("calibrate", "--method", "chees", "--warmup", "0"), "warmup=0; expected"),
    "calibrate, warm-up of what is chosen": (
        ("calibrate", "--warmup", "9"),
        "Auto chooses the method; name one",
    ),
    "score, data set": (("score", "--dataset", "cifar"), "unknown data set 'cifar'"),
    "score, words": (("score", "--dataset", "digits", "--images", "a-b"), "expected FIRST-LAST"),
    "score, half a range": (("score", "--dataset", "digits", "--images", "3-"), "expected FIRST-LAST"),
    "score, backwards": (("score", "--dataset", "digits", "--images", "7-3"), "digits has images 0-296"),
    "score, beyond": (("score", "--dataset", "digits", "--images", "290-297"), "digits has images 0-296"),
    "score, shape": (("score", "--dataset", "digits", "--images", "0"), "1, 8, 8); expected (1, 28, 28)"),
    "score, too few draws": (
        ("score", "--dataset", "digits", "--images", "0", "--model", "digits-vae-2d", "--draws", "2"),
        "are 32 draws; expected at least 40",
    ),
    "score, made for each image": (
        ("score", "--dataset", "digits", "--images", "0", "--model", "gaussian-process"),
        "use `compare --approach gaussian-process`",
    ),
    "calibrate, made for each image": (
        ("calibrate", "--model", "deep-image-prior"),
        "is made for each image",
    ),
    "score, folder": (("score", "--root", "idx"), "idx has neither t10k-images-idx3-ubyte nor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_of_calibrate_and_score(name, run, tmp_path):
    words, message = WRONG[name]
    code, out, error = run(*words, "--out", "out")
    assert code == 2
    assert error.startswith("posterior-inpainting: ")
    assert error.count("\n") == 1
    assert message in error
    assert out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["calibrate", "score"])
def test_out_of_calibrate_and_score_is_a_file(command, run, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, _, error = run(command, "--out", "out")
    assert code == 2
    assert error == "posterior-inpainting: --out out is a file; expected a folder\n"
    assert (tmp_path / "out").read_text() == "mine"
