"""`complete --measure`: images that are no pixels with holes, and what is answered where they do not fit."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from posterior_inpainting.inference import Variational, catalogue, load
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.models import datasets, operators

DIGIT = ("complete", "sample:digits/3", "--model", "digits-linear", "--draws", "20")


def test_a_sample_is_measured_and_scored(run, tmp_path):
    code, out, _ = run(*DIGIT, "--measure", "average:2", "--measurement-noise", "0.02")
    assert code == 0
    assert "average:2: 16 values were measured of an image of 1 x 8 x 8, 64 values" in out
    assert "CRPS" in out
    posterior = load(tmp_path / "out" / "posterior.nc")
    small = operators.average((1, 8, 8), 2)
    measured = group(posterior, "observed_data")["measurement"].to_numpy()
    truth = datasets.load("digits")[3]
    assert np.abs(measured - small(truth).numpy()).max() < 0.1
    images = torch.as_tensor(group(posterior, "posterior_predictive")["image"].to_numpy())
    assert float((small(images) - torch.as_tensor(measured)).std()) < 0.04
    assert {"completions.png", "mean.png", "sd.png"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_file_is_what_was_measured(run, tmp_path):
    truth = datasets.load("digits")[3]
    small = operators.average((1, 8, 8), 2)(truth)
    Pillow.fromarray((255 * small[0].numpy()).round().astype(np.uint8)).save(tmp_path / "small.png")
    Pillow.fromarray((255 * truth[0].numpy()).round().astype(np.uint8)).save(tmp_path / "whole.png")
    words = ("complete", "small.png", "--model", "digits-linear", "--draws", "20", "--measure", "average:2")
    code, out, _ = run(*words, "--truth", "whole.png")
    assert code == 0
    assert "CRPS" in out
    with Pillow.open(tmp_path / "out" / "mean.png") as mean:
        assert mean.size == (8, 8)
    code, out, _ = run(*words, "--out", "again")
    assert code == 0
    assert "CRPS" not in out


def test_what_can_be_listed(run):
    code, out, _ = run("list", "instruments")
    assert code == 0
    assert all(one.usage in out for one in catalogue.INSTRUMENTS.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--measure", "zoom:2"),
            "unknown instrument 'zoom:2'; there are average:FACTOR; luminance; blur:WIDTH",
        ),
        (("--measure", "average"), "expected average:FACTOR"),
        (("--measure", "average:two"), "expected average:FACTOR"),
        (("--measure", "average:-2"), "expected average:FACTOR"),
        (("--measure", "luminance:1"), "expected luminance"),
        (("--measure", "average:3"), "factor=3 for 8 x 8 pixels"),
        (("--measure", "luminance"), "expected 3 channels"),
        (("--measure", "blur:5"), "kernel of 31 x 31 pixels"),
        (("--measure", "average:2", "--mask", "half:top"), "--measure and a mask are given"),
        (("--measure", "average:2", "--measurement-noise", "-1"), "noise=-1.0; expected"),
    ],
)
def test_mistakes_are_answered_in_a_line(run, words, message):
    code, _, error = run(*DIGIT, *words)
    assert code == 2
    assert message in " ".join(error.split())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "gaussian-process",
            "gaussian-process takes any behind masks, and no measurement. Models that take it:",
        ),
        ("pixel-constrained", "pixel-constrained takes 1 x 28 x 28 behind masks, and no measurement"),
        ("vae", "the image is 1 x 14 x 14; vae takes 1 x 28 x 28"),
    ],
)
def test_models_that_do_not_fit(run, tmp_path, model, message):
    side = 7 if model == "vae" else 14
    pixels = np.zeros((side, side), np.uint8)
    Pillow.fromarray(pixels).save(tmp_path / "small.png")
    code, _, error = run("complete", "small.png", "--measure", "average:2", "--model", model)
    assert code == 2
    assert message in " ".join(error.split())


def test_an_instrument_by_name():
    assert catalogue.instrument("blur:1", (1, 4, 4), measured=True).image_shape == (1, 10, 10)
    assert catalogue.instrument("luminance", (1, 4, 4), measured=True).image_shape == (3, 4, 4)
    with pytest.raises(ValueError, match="3 channels were measured; expected 1"):
        catalogue.instrument("luminance", (3, 4, 4), measured=True)


@pytest.mark.parametrize(
    "name", [one for one in catalogue.MODELS if catalogue.MODELS[one].shape == (1, 28, 28)]
)
def test_the_catalogue_says_of_a_model_what_it_says_of_itself(name):
    entry = catalogue.MODELS[name]
    if entry.made_from == "data":
        assert entry.measured  # principal components, and the nearest images
        return
    model = entry.make(catalogue.Given((1, 28, 28)))
    published = entry.finish is not None or model.is_pseudo_posterior
    by_its_encoder = isinstance(entry.method, Variational)
    assert entry.measured == (model.takes_measurements and not published and not by_its_encoder)
