"""Bundled priors: their files, their digests, what their cards claim."""

import math
import re
import shutil

import pyro.distributions as dist
import pytest
import torch

from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.recipes import RECIPES
from posterior_inpainting.inference.recipes.variational_autoencoders import AUTOENCODER_RECIPES
from posterior_inpainting.models import (
    LatentCode,
    PixelConstrained,
    PluralisticConditional,
    PluralisticJoint,
    PluralisticTwoPath,
    VariationalAutoencoder,
    datasets,
    pretrained,
)
from posterior_inpainting.models.bayesian_decoder import bare
from posterior_inpainting.models.networks import CodeMixture, MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.networks.weight_files import read_digests, read_tensors, write_tensors

FOLDER = pretrained._bundled()


@pytest.fixture(params=AUTOENCODER_RECIPES)
def name(request):
    return request.param


def test_every_prior_has_a_recipe_and_a_card(name):
    text = pretrained.card(name)
    for word in (
        "Trained on",
        "ELBO",
        "importance-weighted bound",
        "reconstruction error",
        f"train {name}",
        "seed",
    ):
        assert word in text


def test_everything_bundled_has_a_recipe_a_card_and_its_files():
    """Recipes, cards and the list of digests say the same, and name what is missing."""
    names = {*pretrained.names(), *RECIPES}
    unmade = names - set(RECIPES)
    assert not unmade, f"{', '.join(sorted(unmade))} has no recipe: add one to a table of inference/recipes"
    train = "run `posterior-inpainting train NAME --out models/networks/weights`"
    unlisted = names - set(pretrained.names())
    assert not unlisted, f"{', '.join(sorted(unlisted))} has no files: {train}"
    cards = {path.stem for path in FOLDER.glob("*.md")} - {"fashion-mnist-vae.architectures"}
    assert not names - cards, f"{', '.join(sorted(names - cards))} has no card: {train}"
    assert not cards - names, f"{', '.join(sorted(cards - names))} has a card and neither files nor recipe"
    listed = set(read_digests(FOLDER))
    assert listed == {path.name for path in FOLDER.glob("*.safetensors")}
    assert {file.split(".")[0] for file in listed} == names
    for name in names:
        assert f"train {name}" in pretrained.card(name)
        assert all(part.state_dict() for part in pretrained.load_parts(name).values())


def test_logarithms_in_8_bits_are_near(tmp_path):
    """Positive values over six orders of magnitude come back within half a step; others are refused."""
    torch.manual_seed(0)
    scales = {"a": torch.logspace(-5, 1, 1000), "b": torch.full((3, 4), 0.2)}
    write_tensors(tmp_path / "x.safetensors", scales, {"of": "x"}, logarithmic=True)
    found, description = read_tensors(tmp_path / "x.safetensors", read_digests(tmp_path))
    half_step = 6 * math.log(10) / 255 / 2
    assert float((found["a"] / scales["a"]).log().abs().max()) <= half_step + 1e-6
    torch.testing.assert_close(found["b"], scales["b"])
    assert description["of"] == "x"
    with pytest.raises(ValueError, match="a has values that are not positive"):
        write_tensors(tmp_path / "y.safetensors", {"a": torch.zeros(2)}, {}, logarithmic=True)


def test_weights_in_8_bits_are_near(tmp_path):
    """A row comes back within half of its own step, a small one beside a large one too; vectors in half precision."""
    torch.manual_seed(0)
    kernel = torch.randn(6, 5, 3, 3) * torch.logspace(-3, 2, 6)[:, None, None, None]
    weights = {"kernel": kernel, "bias": torch.randn(6), "zeros": torch.zeros(2, 3)}
    write_tensors(tmp_path / "x.safetensors", weights, {"of": "x"}, bits=8)
    found, description = read_tensors(tmp_path / "x.safetensors", read_digests(tmp_path))
    assert set(found) == set(weights)
    half_steps = kernel.flatten(1).abs().amax(1) / 254
    assert ((found["kernel"] - kernel).flatten(1).abs().amax(1) <= 1.001 * half_steps).all()
    assert not torch.equal(found["kernel"], kernel)
    torch.testing.assert_close(found["bias"], weights["bias"].half().float())
    assert torch.equal(found["zeros"], weights["zeros"])
    assert description == {"of": "x"}
    with pytest.raises(ValueError, match="bits=4; expected 8 or 16"):
        write_tensors(tmp_path / "y.safetensors", weights, {}, bits=4)


def test_size(name):
    for part in ("decoder", "encoder"):
        assert (FOLDER / f"{name}.{part}.safetensors").stat().st_size <= 4_000_000


def test_card_matches_the_weights(name):
    """What the card says of architecture and quality is what the shipped files give."""
    decoder = pretrained.load(name)
    recipe = RECIPES[name]
    assert decoder.configuration() == {
        "latent": recipe.latent,
        "image_shape": decoder.image_shape,
        "widths": recipe.widths,
        "scale_rank": recipe.scale_rank,
        "floor": recipe.floor,
        "likelihood": recipe.likelihood,
        "scale_factor": recipe.scale_factor,
    }
    dataset = "digits" if name.startswith("digits") else "fashion-mnist-samples"
    images = datasets.load(dataset)[:64]
    claimed = float(
        re.search(r"root mean square reconstruction error \| ([\d.]+)", pretrained.card(name)).group(1)
    )
    with torch.no_grad():
        z = decoder.encoder(images, torch.ones_like(images, dtype=torch.bool))[0]
        mean = LatentCode(decoder).pixel_law(z).mean
    assert float((mean - images).square().mean().sqrt()) == pytest.approx(claimed, rel=0.15)
    bound = float(re.search(r"importance-weighted bound.*\| (-?[\d.]+)", pretrained.card(name)).group(1))
    found = bounds(LatentCode(decoder), images, samples=100).importance_weighted
    assert found == pytest.approx(bound, abs=0.15 * abs(bound) + 10)


def test_the_law_of_codes_travels_with_the_decoder(tmp_path):
    """It is saved as a part of its own, scored by ``LatentCode``, and no part of a decoder's random weights."""
    torch.manual_seed(0)
    decoder, encoder = MultilayerDecoder(2, (1, 8, 8), (4,)), MaskedEncoder(2, (1, 8, 8), (4,))
    law = CodeMixture(3, 2).set(
        torch.tensor([0.5, 0.3, 0.2]), 2 * torch.randn(3, 2), torch.eye(2).repeat(3, 1, 1)
    )
    decoder.encoder, decoder.law_of_codes = encoder, law
    pretrained.save_parts(tmp_path, "", {"decoder": decoder, "encoder": encoder, "prior": law})
    found = pretrained.load(tmp_path)
    z = torch.randn(5, 2)
    torch.testing.assert_close(LatentCode(found).prior().log_prob(z), law.log_prob(z), atol=1e-2, rtol=1e-3)
    other = dist.Normal(torch.zeros(2), 3.0).to_event(1)
    assert LatentCode(found, prior=other).prior() is other
    assert bare(found).law_of_codes is None
    assert not any(key.startswith(("encoder", "law_of_codes")) for key in bare(found).state_dict())


def test_frozen_and_with_its_encoder(name):
    decoder = pretrained.load(name)
    assert not any(p.requires_grad for n, p in decoder.named_parameters() if not n.startswith("encoder."))
    assert all(p.requires_grad for p in decoder.encoder.parameters())  # SVI may refine the guide
    assert isinstance(decoder.encoder, MaskedEncoder)
    assert not decoder.training


def test_round_trip(tmp_path):
    torch.manual_seed(0)
    vae = VariationalAutoencoder(
        MultilayerDecoder(3, (2, 4, 6), (8,), scale_rank=None), MaskedEncoder(3, (2, 4, 6), (8,))
    )
    pretrained.save(tmp_path, vae.decoder, vae.encoder)
    loaded = pretrained.load(tmp_path)
    for key, value in vae.decoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float())
    z = torch.randn(5, 3)
    torch.testing.assert_close(loaded(z), vae.decoder(z), atol=1e-3, rtol=1e-2)


def test_unknown_name():
    with pytest.raises(
        ValueError, match="unknown prior 'resnet'; there are channels-generator, digits-vae-2d, "
    ):
        pretrained.load("resnet")
    with pytest.raises(ValueError, match="unknown prior"):
        pretrained.card("resnet")


@pytest.fixture
def copied(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    shutil.copytree(FOLDER, folder)
    monkeypatch.setattr(pretrained, "_bundled", lambda: folder)
    return folder


def test_tampered_weights_are_refused(copied):
    path = copied / "digits-vae-2d.decoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or was changed: its SHA-256 is"):
        pretrained.load("digits-vae-2d")


def test_truncated_weights_are_refused(copied):
    path = copied / "digits-vae-2d.encoder.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged or was changed"):
        pretrained.load("digits-vae-2d")


def test_garbage_with_a_right_digest_is_refused(copied):
    import hashlib

    path = copied / "digits-vae-2d.decoder.safetensors"
    path.write_bytes(b"not safetensors")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        pretrained._load_part(path, digests)


def test_missing_files_are_named(copied):
    (copied / "digits-vae-2d.decoder.safetensors").unlink()
    with pytest.raises(ValueError, match=r"digits-vae-2d.decoder.safetensors is missing"):
        pretrained.load("digits-vae-2d")
    (copied / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="has no SHA256SUMS"):
        pretrained.load("digits-vae-2d")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (PixelConstrained, "fashion-mnist-generator"),
        (PluralisticConditional, "fashion-mnist-generator"),
        (PluralisticJoint, "fashion-mnist-pluralistic-conditional"),
        (PluralisticTwoPath, "fashion-mnist-pixels-16"),
    ],
)
def test_a_set_of_another_kind_is_refused_in_one_line(kind, name):
    with pytest.raises(ValueError, match=rf"^'{name}' holds [^\n]*; expected [^\n]* too$"):
        kind.load(name)
