"""A prior as a folder: what is written is what is read, whole or not at all, and what is not is refused in one line."""

import errno
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from own_priors import LAW, PARTS, SHAPE, written

from posterior_inpainting.models import PixelConstrained, pretrained
from posterior_inpainting.models.networks import Denoiser, MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.networks.weight_files import read_file
from posterior_inpainting.models.saved import folders
from posterior_inpainting.models.saved.configs import FORMAT, KINDS, read_config
from posterior_inpainting.models.saved.folders import CARD, CONFIG, WEIGHTS, read_prior, write_prior
from posterior_inpainting.models.saved.models_of_kinds import model_of

TESTS = Path(__file__).parents[1]
FILES = {CARD, CONFIG, WEIGHTS}
MODELS = {
    "vae": "LatentCode",
    "gan": "LatentCode",
    "pluralistic": "PluralisticJoint",
    "pixels": "PixelConstrained",
    "linear": "LinearGaussian",
    "diffusion": "DiffusionPrior",
    "experts": "ExpertField",
}
#: Writes over four priors, and dies before the rename of as many files as the prior's number.
DYING = """
import os, pathlib, sys
from own_priors import written
real = pathlib.Path.replace
for moment in range(4):
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (9 if moment < 3 else 0)
        continue
    calls = []
    def replace(self, target):
        calls.append(target)
        if len(calls) == moment + 1:
            os._exit(9)
        return real(self, target)
    pathlib.Path.replace = replace
    written(pathlib.Path(sys.argv[1], str(moment)), "experts")
    os._exit(0)
"""


def names(folder):
    return {file.name for file in folder.iterdir()}


def changed(folder, **fields):
    """Change what ``config.json`` says; ``None`` removes a field."""
    config = json.loads((folder / CONFIG).read_text())
    config.update(fields)
    (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_every_kind_is_tried():
    assert set(PARTS) == set(KINDS) == set(MODELS)


@pytest.mark.parametrize("kind", KINDS)
class TestKinds:
    def test_round_trip(self, kind, tmp_path):
        """Every tensor comes back in half precision, and the network that holds it is made as it was."""
        parts = PARTS[kind]()
        found = read_prior(written(tmp_path / "p", kind, parts))
        assert names(tmp_path / "p") == FILES
        assert (found.kind, found.image_shape, set(found.parts)) == (kind, SHAPE, set(parts))
        for part, module in parts.items():
            for name, value in module.state_dict().items():
                assert torch.equal(found.parts[part].state_dict()[name], value.half().float()), name
            assert type(found.parts[part]) is type(module)
            assert not found.parts[part].training

    def test_its_model(self, kind, tmp_path):
        model = model_of(read_prior(written(tmp_path / "p", kind)))
        assert type(model).__name__ == MODELS[kind]
        assert model.image_shape == SHAPE
        assert model().isfinite().all()
        with pytest.raises(ValueError, match=r"image_shape=\(1, 9, 9\); the prior takes 1 x 8 x 8$"):
            model_of(read_prior(tmp_path / "p"), (1, 9, 9))

    def test_pretrained_takes_it(self, kind, tmp_path):
        folder = written(tmp_path / "p", kind)
        assert set(pretrained.load_parts(folder)) == set(PARTS[kind]())
        assert pretrained.card(folder) == "# Mine\n\nOf noise.\n"
        if "decoder" in KINDS[kind]:
            decoder = pretrained.load(str(folder))
            assert decoder.encoder.latent == decoder.latent == 2
            assert (decoder.law_of_codes is not None) == (kind == "vae")
        else:
            with pytest.raises(ValueError, match=r"^[^\n]* holds [^\n]*; expected decoder, encoder too$"):
                pretrained.load(folder)


def test_the_law_of_pixels_travels(tmp_path):
    assert PixelConstrained.load(written(tmp_path, "pixels")).law.to_json() == LAW.to_json()


def test_bits(tmp_path):
    """8 bits take less room, and are as near as 1 part in 254 of the largest weight of a row."""
    parts = {"decoder": MultilayerDecoder(8, SHAPE, (768, 768)), "encoder": MaskedEncoder(8, SHAPE, (8,))}
    sizes = {}
    for bits in (8, 16):
        written(tmp_path / str(bits), parts=parts, bits=bits)
        sizes[bits] = (tmp_path / str(bits) / WEIGHTS).stat().st_size
    assert sizes[8] < 0.6 * sizes[16]
    found = read_prior(tmp_path / "8").parts["decoder"].state_dict()
    for name, value in parts["decoder"].state_dict().items():
        if value.dim() == 2:
            assert ((found[name] - value).abs() <= 1.001 * value.abs().amax(1, True) / 254).all()


@pytest.mark.parametrize("kind", ["diffusion", "experts"])
def test_images_of_any_size(kind, tmp_path):
    prior = read_prior(written(tmp_path, kind, patches=16))
    assert prior.image_shape == (1, 0, 0)
    assert model_of(prior, (1, 20, 24))().shape == (1, 20, 24)
    with pytest.raises(ValueError, match=r"takes 1 channel\(s\) of any size; expected image_shape"):
        model_of(prior)
    with pytest.raises(ValueError, match=r"image_shape=\(3, 20, 24\); the prior takes 1 x any x any"):
        model_of(prior, (3, 20, 24))


def test_a_denoiser_that_sees_whole_images_has_their_size(tmp_path):
    parts = {"denoiser": Denoiser(features=(4,), size=(8, 12), global_units=4, global_blocks=1)}
    assert read_prior(written(tmp_path, "diffusion", parts, patches=8)).image_shape == (1, 8, 12)


def test_figures_that_json_has_not(tmp_path):
    written(tmp_path, figures={"a": float("nan"), "b": torch.tensor(0.5), "c": (1, float("inf"))})
    assert read_config(tmp_path)["figures"] == {"a": None, "b": 0.5, "c": [1, None]}
    json.loads((tmp_path / CONFIG).read_text(), parse_constant=lambda name: pytest.fail(name))


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes privileges")
    yield folder
    subprocess.run(["umount", folder], check=True)


class TestWriting:
    def test_a_prior_is_replaced_and_other_files_stay(self, tmp_path):
        written(tmp_path, "linear")
        (tmp_path / "notes.txt").write_text("mine")
        written(tmp_path, "experts", card="# Other")
        assert read_prior(tmp_path).kind == "experts"
        assert names(tmp_path) == FILES | {"notes.txt"}
        assert pretrained.card(tmp_path) == "# Other"

    @pytest.mark.parametrize("call", range(3))
    def test_a_full_disk_in_the_middle_leaves_the_old_one(self, call, tmp_path, monkeypatch):
        """Of three files the first, the second or the third finds no room."""
        old = written(tmp_path / "old")
        before = {file.name: file.read_bytes() for file in old.iterdir()}
        real, calls = folders.write_durably, []

        def full(path, content):
            calls.append(path)
            if len(calls) == call + 1:
                path.write_bytes(content[: len(content) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            real(path, content)

        monkeypatch.setattr(folders, "write_durably", full)
        monkeypatch.setattr("posterior_inpainting.models.networks.weight_files.write_durably", full)
        message = "^the prior cannot be written to [^\n]*: No space left on device$"
        with pytest.raises(OSError, match=message):
            written(old, "experts")
        assert {file.name: file.read_bytes() for file in old.iterdir()} == before
        calls.clear()
        with pytest.raises(OSError, match=message):
            written(tmp_path / "deep" / "new")
        assert names(tmp_path) == {"old"}
        assert len(calls) == call + 1

    def test_a_real_full_disk(self, small_disk):
        """A fifth of a megabyte of weights, twice: the second finds no room beside the first."""
        parts = {"decoder": MultilayerDecoder(8, SHAPE, (300,)), "encoder": MaskedEncoder(8, SHAPE, (300,))}
        folder = written(small_disk / "p", parts=parts)
        digest = read_config(folder)["sha256"]
        with pytest.raises(
            OSError, match=r"^the prior cannot be written to [^\n]*: No space left on device$"
        ):
            written(folder, parts=PARTS["vae"]() | {"decoder": MultilayerDecoder(8, SHAPE, (900,))})
        assert names(folder) == FILES
        assert read_prior(folder).config["sha256"] == digest

    def test_killed_at_any_moment_it_is_old_or_new_or_no_prior(self, tmp_path):
        """Processes that die without a word before the first, the second, the third rename, and after all."""
        folders = [written(tmp_path / str(moment), "linear") for moment in range(4)]
        subprocess.run([sys.executable, "-c", DYING, tmp_path], cwd=TESTS, check=True, timeout=120)
        for folder, kind in zip(folders, ("linear", "linear", None, "experts"), strict=True):
            if kind is None:  # the new weights are there, and the old ``config.json``
                with pytest.raises(ValueError, match=r"^[^\n]* is damaged or was changed: [^\n]*$"):
                    read_prior(folder)
            else:
                assert read_prior(folder).kind == kind

    def test_a_file_in_its_place(self, tmp_path):
        (tmp_path / "p").write_text("")
        with pytest.raises(OSError, match=r"^the prior cannot be written to [^\n]*: File exists$"):
            written(tmp_path / "p")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kind": "flow"}, "kind='flow'; expected one of vae, gan, "),
            ({"kind": "gan", "parts": {}}, "holds nothing; a gan prior has decoder, encoder too"),
            ({"parts": {"decoder": MultilayerDecoder(2, SHAPE, (4,))}}, "a vae prior has encoder too"),
            ({"parts": PARTS["vae"]() | {"prior": torch.nn.Linear(1, 1)}}, "prior is a Linear; expected a LinearGau"),
            ({"bits": 4}, "bits=4; expected 8 or 16"),
            ({"kind": "diffusion", "preprocessing": {"size": 8}}, r"size=8 of the preprocessing; expected \(rows, "),
        ],
        ids=str,
    )  # fmt: skip
    def test_mistakes(self, change, message, tmp_path):
        said = {"kind": "vae", "preprocessing": {}, "data": {}, "figures": {}, "card": ""} | change
        said.setdefault("parts", PARTS.get(said["kind"], PARTS["vae"])())
        with pytest.raises(ValueError, match=message) as error:
            write_prior(tmp_path / "p", **said)
        assert "\n" not in str(error.value)
        assert not names(tmp_path)

    @pytest.mark.parametrize("value", [float("nan"), 1e6])
    def test_weights_that_diverged(self, value, tmp_path):
        """A million is infinite in half precision."""
        parts = PARTS["experts"]()
        parts["experts"].filters.data[0, 0, 0, 0, 0] = value
        with pytest.raises(
            ValueError, match=r"^experts/filters is not finite in half precision; expected finite"
        ):
            written(tmp_path, "experts", parts)


class TestReading:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"format": FORMAT + 1, "library": "9.0"}, "later version (9.0, format 2); expected format <= 1: update"),
            ({"format": None}, "it has no format; expected format 1"),
            ({"format": "1"}, "it has no format"),
            ({"kind": "flow"}, "has kind='flow'; expected one of vae"),
            ({"kind": "gan", "parts": None}, "has parts=None; expected a dict"),
            ({"image_shape": [1, 8]}, "has image_shape=[1, 8]; expected [1 or 3, rows, columns]"),
            ({"image_shape": [1, 9, 9]}, "holds networks for images [1, 8, 8]; config.json says [1, 9, 9]"),
            ({"image_shape": [2, 8, 8]}, "has image_shape=[2, 8, 8]; expected"),
            ({"sha256": "0" * 64}, "is damaged or was changed: its SHA-256 is"),
            ({"kind": "pixels"}, "prior is a CodeMixture; expected a GatedPixelCNN of a pixels prior"),
            ({"kind": "linear"}, "holds decoder, encoder, prior; a linear prior has linear too"),
            ({"parts": {}}, "holds 'decoder/"),
            ({"parts": {"decoder": 3, "encoder": 4, "prior": 5}}, "says that decoder is a None, which this version"),
        ],
        ids=str,
    )  # fmt: skip
    def test_configs_that_are_refused(self, fields, message, tmp_path):
        changed(written(tmp_path), **fields)
        with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
            read_prior(tmp_path)
        assert message in str(error.value)

    @pytest.mark.parametrize(
        ("network", "configuration", "message"),
        [
            ("Module", {}, "says that decoder is a 'Module', which this version does not know"),
            ("__all__", {}, "which this version does not know"),
            ("LinearGaussian", {}, "the weights of decoder do not fit its config.json"),
            (
                "MultilayerDecoder",
                {"latent": 3, "image_shape": [1, 8, 8], "widths": [8]},
                "size mismatch for",
            ),
            (
                "MultilayerDecoder",
                {"latent": 2, "image_shape": [1, 8, 8], "widths": [8, 8]},
                "do not fit its config",
            ),
            ("MultilayerDecoder", {"depth": 3}, "unexpected keyword argument 'depth'"),
            ("MultilayerDecoder", {"latent": "2", "image_shape": None}, "the weights of decoder do not fit"),
            ("MultilayerDecoder", 7, "the weights of decoder do not fit"),
        ],
    )
    def test_weights_that_do_not_fit(self, network, configuration, message, tmp_path):
        parts = json.loads((written(tmp_path) / CONFIG).read_text())["parts"]
        parts["decoder"] = {"network": network, "configuration": configuration}
        changed(tmp_path, parts=parts)
        with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
            read_prior(tmp_path)
        assert message in str(error.value)

    @pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
    def test_a_missing_file(self, name, tmp_path):
        (written(tmp_path) / name).unlink()
        with pytest.raises(ValueError, match=f"^[^\n]*({name} is missing|is no prior: it has no {name})$"):
            read_prior(tmp_path)

    def test_no_card_is_no_harm_but_to_who_asks_for_it(self, tmp_path):
        (written(tmp_path) / CARD).unlink()
        assert read_prior(tmp_path).kind == "vae"
        with pytest.raises(ValueError, match=r"README.md is missing"):
            pretrained.card(tmp_path)

    @pytest.mark.parametrize(
        "content", [b"", b"\xff\xfe", b"[1]", b"7", b"[" * 100_000, b'{"format": 1'], ids=len
    )
    def test_a_config_that_is_none(self, content, tmp_path):
        (written(tmp_path) / CONFIG).write_bytes(content)
        with pytest.raises(ValueError, match=r"^[^\n]*config.json (cannot be read|is of no prior): [^\n]*$"):
            read_prior(tmp_path)

    def test_mutated_at_random(self, tmp_path):
        """A character of ``config.json`` becomes another one: a prior, or one line."""
        folder, draw = written(tmp_path), random.Random(0)
        text = (folder / CONFIG).read_text()
        refused = []
        for _ in range(150):
            place = draw.randrange(len(text))
            (folder / CONFIG).write_text(
                text[:place] + draw.choice('0123456789"{}[],:ax ') + text[place + 1 :]
            )
            try:
                read_prior(folder)
            except ValueError as error:
                refused.append(str(error))
        assert len(refused) > 20
        assert not [message for message in refused if "\n" in message]

    def test_settings_that_do_not_fit(self, tmp_path):
        prior = read_prior(written(tmp_path, "experts", settings={"sharpness": 3}))
        with pytest.raises(
            ValueError, match=r"^parts or settings={[^\n]* do not fit a experts prior: [^\n]*'sharpness'"
        ):
            model_of(prior)

    def test_tensors_are_named_after_their_parts(self, tmp_path):
        written(tmp_path, "linear")
        tensors, _ = read_file(tmp_path / WEIGHTS, read_config(tmp_path)["sha256"])
        assert sorted(tensors) == ["linear/loadings", "linear/mean", "linear/noise"]
