"""Recipes: one table, one writer, and settings that a card can be made again from."""

import contextlib
import dataclasses
import importlib

import pytest
import torch

from posterior_inpainting.inference.recipes import RECIPES
from posterior_inpainting.inference.recipes.model_card import Minutes, card, settings_table
from posterior_inpainting.inference.recipes.recipe import DatasetRecipe, Description
from posterior_inpainting.inference.recipes.train_recipe import train_recipe
from posterior_inpainting.inference.training.low_precision import low_precision
from posterior_inpainting.models import datasets


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_is_on_the_card_once(name):
    recipe = RECIPES[name]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in settings_table(recipe).splitlines()[2:]]
    assert sorted(rows) == sorted({f.name for f in dataclasses.fields(recipe)} - {*recipe.leave_out})
    assert rows[-1] == "seed"


@pytest.mark.parametrize("name", RECIPES)
def test_other_seeds_have_other_streams_throughout(name):
    one, other = (dataclasses.replace(RECIPES[name], seed=seed).streams for seed in (0, 1))
    names = ("networks", "masks", "training", "figures")
    numbers = [streams.number(part) for streams in (one, other) for part in names]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    ("count", "first", "held_out"), [(297, 0, 297), (8_999, 0, 4_000), (10_000, 5_000, 4_000)]
)
def test_measured_on_images_that_chose_nothing(monkeypatch, count, first, held_out):
    """Settings were once chosen among the first test images of Fashion-MNIST; figures are of others."""
    splits = {"train": torch.zeros(20, 1, 1, 1), "test": torch.arange(count).reshape(-1, 1, 1, 1)}
    monkeypatch.setattr(datasets, "load", lambda dataset, split, root: splits[split])
    recipe = dataclasses.replace(RECIPES["fashion-mnist-vae"], held_back=6)
    data = DatasetRecipe.data(recipe)
    assert (data.first, len(data.held_out), int(data.held_out[0])) == (first, held_out, first)
    assert (len(data.images), len(data.held_back)) == (14, 6)
    assert data.measured(1_000) == f"test images {first} to {first + min(1_000, held_out) - 1}"
    assert "chosen on its last 6" in recipe.chosen_on
    assert dataclasses.replace(recipe, held_back=0).chosen_on == ""


def test_card_from_fixed_numbers():
    said = Description("Some networks.", "two images", "three images", "Many.", remark="It was quick.")
    text = card("toy", RECIPES["digits-vae-2d"], said, Minutes(1.5, 3.25), "| figure | value |")
    assert text.startswith("# toy\n\nSome networks.\n\n")
    assert (
        "Trained on two images with\n\n    posterior-inpainting train toy --out DIR\n\nin 1.5 minutes (3.2 of"
        in text
    )
    assert "no GPU.\nIt was quick.\n\n| setting | value |" in text
    assert text.endswith("## Measured on three images\n\n| figure | value |\n\n## Limits\n\nMany.\n")


@pytest.mark.parametrize(
    ("name", "device", "words"),
    [
        ("channels-generator", "cuda", "is for others"),
        ("fashion-mnist-diffusion", "nowhere", "cannot be used: "),
    ],
)
def test_devices_are_refused_before_work(name, device, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        train_recipe(name, RECIPES[name], tmp_path / "out", device=device)
    assert not (tmp_path / "out").exists()


def test_two_sets_may_share_a_folder_of_checkpoints(tmp_path, monkeypatch):
    """Each in its own under its name, so that one training does not take up another's."""
    folders = []

    @contextlib.contextmanager
    def noted(folder):
        folders.append(folder)
        raise KeyboardInterrupt
        yield

    module = importlib.import_module(train_recipe.__module__)  # its package exports a function of its name
    monkeypatch.setattr(module, "checkpoints_in", noted)
    for name in ("one", "other"):
        with pytest.raises(KeyboardInterrupt):
            train_recipe(name, RECIPES["digits-vae-2d"], tmp_path, progress=False, checkpoints=tmp_path)
    assert folders == [tmp_path / "one", tmp_path / "other"]


@pytest.mark.parametrize("has", [True, False])
def test_low_precision_where_the_processor_has_it(has, monkeypatch):
    """Elsewhere it would be emulated, at many times the cost."""
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: has)
    for wanted in (True, False):
        with low_precision(torch.device("cpu"), wanted):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (torch.bfloat16 if has and wanted else torch.float32)
