"""Bundled priors: their files, their digests, what their cards claim."""

import re
import shutil

import pytest
import torch

from posterior_inpainting.inference.training.bounds import bounds
from posterior_inpainting.inference.training.recipes import RECIPES
from posterior_inpainting.models import LatentCode, VariationalAutoencoder, datasets, pretrained
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder

FOLDER = pretrained._bundled()


@pytest.fixture(params=pretrained.NAMES)
def name(request):
    return request.param


def test_every_prior_has_a_recipe_and_a_card(name):
    assert set(pretrained.NAMES) == set(RECIPES)
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


def test_size(name):
    for part in ("decoder", "encoder"):
        assert (FOLDER / f"{name}.{part}.safetensors").stat().st_size <= 2_000_000


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
    }
    dataset = "digits" if name.startswith("digits") else "fashion-mnist-samples"
    images = datasets.load(dataset)[:64]
    claimed = float(
        re.search(r"root mean square reconstruction error \| ([\d.]+)", pretrained.card(name)).group(1)
    )
    with torch.no_grad():
        mean = decoder(decoder.encoder(images, torch.ones_like(images, dtype=torch.bool))[0])
    assert float((mean - images).square().mean().sqrt()) == pytest.approx(claimed, rel=0.15)
    bound = float(re.search(r"importance-weighted bound.*\| (-?[\d.]+)", pretrained.card(name)).group(1))
    found = bounds(LatentCode(decoder), images, samples=100).importance_weighted
    assert found == pytest.approx(bound, abs=0.15 * abs(bound) + 10)


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
        ValueError, match="unknown prior 'resnet'; there are digits-vae-2d, fashion-mnist-vae"
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
