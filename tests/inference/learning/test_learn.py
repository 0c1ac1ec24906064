"""`learn`: images in, a prior out that is used like a bundled one, and every mistake answered in a line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.io import imsave
from typer.testing import CliRunner

from posterior_inpainting.inference import Variational, catalogue, diagnostics, infer, learn
from posterior_inpainting.inference.cli.app import app
from posterior_inpainting.inference.learning import course
from posterior_inpainting.inference.learning.learn import KINDS
from posterior_inpainting.inference.learning.lessons import Lessons
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import Observation, datasets, observations, pretrained
from posterior_inpainting.models.images.collection import collected
from posterior_inpainting.models.saved.configs import KINDS as SAVED


@pytest.fixture
def short(monkeypatch):
    """A few epochs are enough to be seen to work."""
    monkeypatch.setattr(course, "_EPOCHS", 3)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")[:200]


def test_every_kind_that_can_be_saved_can_be_learnt():
    assert set(KINDS) == set(SAVED)


def test_a_prior_goes_wherever_a_name_goes(short, digits, tmp_path):
    folder = tmp_path / "prior"
    learnt = learn(digits, out=folder, progress=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "samples.png",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["data"]["train"] + config["data"]["test"] < 200
    assert config["figures"] == pytest.approx(learnt.figures)
    assert pretrained.load(folder).image_shape == (1, 8, 8)
    seen = Observation(digits[0], observations.half((1, 8, 8), hide="bottom"))
    posterior = infer(catalogue.build(str(folder), seen).model, seen, draws=20, budget="5 s", progress=False)
    assert np.isfinite(posterior.posterior["completion"].to_numpy()).all()


def test_the_same_seed_gives_the_same_prior(short, digits, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        learn(digits, out=tmp_path / name, seed=seed, progress=False)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("fill", [0.0, 1.0, float("nan"), -7.0])
def test_nothing_is_read_of_what_is_missing(short, digits, tmp_path, fill):
    masks = torch.rand(digits.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    learn(digits, out=tmp_path / "zero", masks=masks, progress=False)
    learn(torch.where(masks, digits, torch.tensor(fill)), out=tmp_path / "fill", masks=masks, progress=False)
    zero, filled = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("zero", "fill"))
    assert zero == filled


@pytest.mark.parametrize("private", [False, True])
def test_what_it_does_not_know_is_told(short, tmp_path, private):
    """By validation images that are kept in the folder, unless it is to be private."""
    digits = datasets.load("digits")[:400]
    learn(digits, out=tmp_path / "prior", private=private, progress=False)
    noise = torch.rand((1, 8, 8), generator=torch.Generator().manual_seed(0))
    seen = Observation(noise, observations.half((1, 8, 8), hide="bottom"))
    model = catalogue.build(str(tmp_path / "prior"), seen).model
    found = diagnostics.fit(infer(model, seen, Variational(), progress=False))
    assert (found is None) == private
    assert private or found.p < 0.05


def test_training_is_not_validated_nor_tested_on(digits):
    lessons = Lessons.of(collected(torch.cat([digits, digits[:50]])), Streams(0), "cpu")
    parts = [
        {image.numpy().tobytes() for image in part.images}
        for part in (lessons.train, lessons.validation, lessons.test)
    ]
    assert not (parts[0] & parts[1])
    assert not (parts[0] & parts[2])
    assert not (parts[1] & parts[2])


def test_further_pixels_of_validation_images_are_hidden(digits):
    lessons = Lessons.of(collected(digits), Streams(0), "cpu")
    hidden = ~lessons.further.seen()
    assert bool(hidden.flatten(1).any(1).all())
    assert bool((lessons.further.images[hidden] == 0).all())
    assert torch.equal(lessons.further.images[~hidden], lessons.validation.images[~hidden])


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path, digits):
        (tmp_path / "own").mkdir()
        for number, digit in enumerate(digits[:60]):
            picture = (255 * digit[0]).round().to(torch.uint8).numpy()
            imsave(tmp_path / "own" / f"{number:03d}.png", picture, check_contrast=False)
        return tmp_path / "own"

    def run(self, *words):
        return CliRunner().invoke(app, ["learn", *map(str, words)])

    def test_says_what_it_did(self, short, folder, tmp_path):
        (folder / "notes.txt").write_text("no image")
        done = self.run(folder, "--out", tmp_path / "prior")
        assert done.exit_code == 0, done.output
        assert "60 images of 1 x 8 x 8" in done.output
        assert "skipped notes.txt" in done.output
        assert re.search(r"CRPS, bottom half hidden +0\.\d+", done.output)
        assert f"--model {tmp_path / 'prior'}" in done.output

    def test_quiet_is(self, short, folder, tmp_path):
        assert self.run(folder, "--out", tmp_path / "prior", "--quiet").output == ""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--kind", "vea"), r"kind='vea'; expected one of vae"),
            (("--minutes", "0"), r"minutes=0\.0; expected a positive number"),
            (("--device", "tpu"), r"device='tpu'; expected auto, cpu, cuda or mps"),
            (("--size", "0"), r"size=0"),
            (("--size", "8", "--patches", "4"), "both given"),
            (("--channels", "2"), "channels=2; expected 1 or 3"),
            (("--patches", "100"), "no image that can be used"),
            (("--missing", "nowhere"), "nowhere"),
        ],
    )
    def test_mistakes(self, folder, tmp_path, words, said):
        done = self.run(folder, "--out", tmp_path / "prior", *words)
        assert done.exit_code != 0
        assert re.search(said, str(done.exception)), done.exception
        assert "\n" not in str(done.exception)
        assert not (tmp_path / "prior" / "config.json").exists()

    def test_a_prior_is_not_overwritten(self, short, folder, tmp_path):
        assert self.run(folder, "--out", tmp_path / "prior").exit_code == 0
        again = self.run(folder, "--out", tmp_path / "prior")
        assert "holds a prior already" in str(again.exception)

    def test_too_few_images(self, folder, tmp_path):
        for path in sorted(folder.iterdir())[19:]:
            path.unlink()
        assert "19 images; expected at least 20" in str(
            self.run(folder, "--out", tmp_path / "prior").exception
        )

    def test_a_checkpoint_of_other_images(self, short, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(course, "_SECONDS", 0.0)
        monkeypatch.setattr(Path, "unlink", lambda *a, **k: None)  # as if it had been killed at the very end
        assert self.run(folder, "--out", tmp_path / "prior").exit_code == 0
        monkeypatch.undo()
        sorted(folder.iterdir())[0].unlink()
        assert "data differ" in str(self.run(folder, "--out", tmp_path / "prior").exception)
