"""Real files, mutated at random: whoever reads one ends with a value or with one line, soon, and leaves nothing."""

import gzip
import hashlib
import io
import random
import shutil
import time
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image as Pillow

from posterior_inpainting.inference import ChEES, infer, load, recover, save
from posterior_inpainting.inference.comparison.cells import read_cell, write_cell
from posterior_inpainting.inference.results.state_files import read_state
from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations, pretrained
from posterior_inpainting.models.images.image_files import read_image, read_mask

RANDOM = np.random.default_rng(0)
SMOOTH = np.add.outer(np.arange(40), np.arange(50))[..., None].repeat(3, -1).astype(np.uint8)
PIXELS = torch.zeros(3, 40, 50)
#: Of one reader, in the quick run and in all.
TRIALS = [20, pytest.param(200, marks=pytest.mark.long)]
SECONDS = 5


def picture(kind, pixels, **options):
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def array():
    file = io.BytesIO()
    np.save(file, SMOOTH)
    return file.getvalue()


def idx():
    return b"\x00\x00\x08\x03" + np.array([2, 28, 28], ">u4").tobytes() + bytes(2 * 28 * 28)


def write(content):
    return lambda path: path.write_bytes(content)


def posterior():
    model = LinearGaussian(torch.ones(64, 2), torch.zeros(1, 8, 8), 0.1)
    seen = Observation(torch.zeros(1, 8, 8), observations.half((1, 8, 8), "top"))
    return model, seen


def run(store=None):
    model, seen = posterior()
    return infer(model, seen, ChEES(warmup=20), draws=60, chains=2, progress=False, store=store)


def weights(path):
    """A folder with one network, a list of digests that is right again after each mutation."""
    path.mkdir()
    for name in ("digits-vae-2d.decoder.safetensors", "SHA256SUMS"):
        shutil.copy(pretrained._bundled() / name, path / name)


def with_its_digest(path):
    name = "digits-vae-2d.decoder.safetensors"
    digest = hashlib.sha256((path / name).read_bytes()).hexdigest()
    (path / "SHA256SUMS").write_text(f"{digest}  {name}\n")
    return pretrained.load_part(path, "digits-vae-2d.", "decoder")


def cell(path):
    completion = run().posterior["completion"]
    parts = {
        "draws": completion,
        "mean": completion.mean(("chain", "draw")),
        "sd": completion.std(("chain", "draw")),
    }
    write_cell(path, xr.Dataset(parts), "mine")


READERS = {
    # name: how a whole one is written, how it is read, the suffix
    "PNG": (write(picture("PNG", SMOOTH)), read_image, ".png"),
    "PNG with a palette": (
        write(picture("PNG", np.asarray(Pillow.fromarray(SMOOTH).quantize(8)))),
        read_image,
        ".png",
    ),
    "JPEG": (write(picture("JPEG", SMOOTH)), read_image, ".jpg"),
    "NPY": (write(array()), read_image, ".npy"),
    "mask": (
        write(picture("PNG", SMOOTH[..., 0])),
        lambda path: read_mask(path, PIXELS, "seen"),
        ".png",
    ),
    "IDX": (write(idx()), datasets.read_idx, ""),
    "gzipped IDX": (write(gzip.compress(idx())), datasets.read_idx, ".gz"),
    "weights": (weights, lambda path: pretrained.load_part(path, "digits-vae-2d.", "decoder"), ""),
    "weights of another's": (weights, with_its_digest, ""),
    "a store": (lambda path: run(path), lambda path: run(path), ".zarr"),
    "a store, recovered": (lambda path: run(path), recover, ".zarr"),
    "the state of a store": (
        lambda path: (
            run(path.with_suffix(".run")),
            shutil.copy(path.with_suffix(".run") / "state.pt", path),
        ),
        read_state,
        ".pt",
    ),
    "a cell": (cell, lambda path: read_cell(path, "mine"), ".nc"),
    "a posterior": (lambda path: save(run(), path), load, ".nc"),
}


def mutated(content, chance):
    """One to three changes of the kinds that disks, networks and people make."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        if not content:
            break
        at, length = chance.randrange(len(content)), chance.randint(1, max(1, len(content) // 4))
        kind = chance.randrange(7)
        if kind == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del content[at:]
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at : at + length] = chance.randbytes(length)
        elif kind == 5:
            content[at:at] = content[at : at + length]
        else:
            content[at : at + 4] = chance.choice(
                [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"]
            )
    return bytes(content)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of h5netcdf, on damaged files
@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("name", READERS)
def test_ends_with_a_value_or_a_line(name, trials, tmp_path, capsys):
    make, read, suffix = READERS[name]
    whole, chance = tmp_path / f"whole{suffix}", random.Random(f"{name} {trials}")
    make(whole)
    read(whole)
    files = sorted(path for path in whole.rglob("*") if path.is_file() and path.name != "lock") or [whole]
    folder = tmp_path / "fuzzed"
    refused = 0
    for _ in range(trials):
        folder.mkdir()
        copy = folder / whole.name
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, copy)
        if (seal := whole.with_suffix(".sha256")).is_file():
            shutil.copy(seal, folder)
        file = copy / chance.choice(files).relative_to(whole)
        file.write_bytes(mutated(file.read_bytes(), chance))
        before = {path.relative_to(folder) for path in folder.rglob("*")}
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(copy)
            except (ValueError, OSError) as error:
                refused += 1
                lines = str(error)
        assert time.process_time() - start < SECONDS
        if refused:
            assert "\n" not in lines
        left = {path.relative_to(folder) for path in folder.rglob("*")} - before
        assert all(path.name == "lock" for path in left)
        shutil.rmtree(folder)
    assert refused or name in ("a cell",)  # which is computed anew
    assert "Traceback" not in capsys.readouterr().err
