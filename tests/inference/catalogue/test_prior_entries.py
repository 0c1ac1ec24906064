"""The folder of a prior goes wherever a model's name goes, as the bundled model of its kind."""

import pickle
from pathlib import Path

import pytest
import torch
from own_priors import PARTS, SHAPE, written

from posterior_inpainting.inference import Exact, catalogue, infer
from posterior_inpainting.inference.catalogue import MODELS
from posterior_inpainting.inference.catalogue.own_priors import entry_of
from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.images_of_posterior import completed_images
from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations, pretrained
from posterior_inpainting.models.saved.configs import KINDS
from posterior_inpainting.models.saved.folders import CONFIG

#: Kind -> the bundled model that it is like, for images of one size.
LIKE = {
    "vae": "vae",
    "gan": "gan",
    "pluralistic": "pluralistic-joint",
    "pixels": "pixel-constrained",
    "linear": "linear-gaussian",
    "diffusion": "fashion-mnist-diffusion",
    "experts": "photographs-experts",
}


@pytest.fixture
def seen():
    image = datasets.load("digits")[3]
    return Observation(image, observations.half(image.shape, hide="bottom"))


@pytest.mark.parametrize("kind", KINDS)
class TestKinds:
    def test_method_and_numbers_are_those_of_the_bundled_one(self, kind, tmp_path):
        found = catalogue.entry(str(written(tmp_path / "p", kind)))
        like = MODELS[LIKE[kind]]
        assert (found.settings, found.draws, found.chains) == (like.settings, like.draws, like.chains)
        assert (found.shape, found.shapes, found.margin) == (SHAPE, "1 x 8 x 8", None)
        assert found.name == str(tmp_path / "p")
        assert not found.priors
        assert found.fits
        assert not like.fits

    def test_it_completes(self, kind, tmp_path, seen):
        """By its own method; where that draws until it can be trusted, which takes its time, by a short one."""
        approach = catalogue.build(written(tmp_path, kind), seen)
        has_goal = approach.method.goal is not None
        method = catalogue.method("mala").warmed(20) if has_goal else approach.method
        posterior = infer(approach.model, seen, method, draws=2, chains=2, progress=False)
        image = completed_images(posterior)
        assert image.shape[2:] == SHAPE
        assert (image[..., seen.mask.numpy()] == seen.image[seen.mask].numpy()).all()

    def test_it_is_sent_to_a_process_that_stands_elsewhere(self, kind, tmp_path, seen, monkeypatch):
        monkeypatch.chdir(tmp_path)
        written(Path("p"), kind)
        approach = pickle.loads(pickle.dumps(catalogue.approach("p")))
        monkeypatch.chdir("/")
        assert approach.made_for(seen).model.image_shape == SHAPE


def test_a_bundled_prior_in_a_folder_gives_the_same_numbers(tmp_path, seen):
    """Its weights have half precision already, so that nothing is lost."""
    written(tmp_path, parts=pretrained.load_parts("digits-vae-2d"))
    drawn = [
        infer(
            catalogue.build(name, seen).model,
            seen,
            catalogue.method("amortised"),
            draws=20,
            chains=1,
            seed=1,
            progress=False,
        )
        for name in ("digits-vae-2d", tmp_path)
    ]
    first, second = (group(one, "posterior")["completion"].to_numpy() for one in drawn)
    assert (first == second).all()


def test_principal_components_lose_nothing_that_matters(tmp_path, digits, seen):
    """Half precision moves the mean of the exact posterior by less than a hundredth of its standard deviation."""
    model = LinearGaussian.fit(digits, latent=20)
    written(tmp_path, "linear", {"linear": model})
    found = catalogue.entry(str(tmp_path)).model()
    own, stored = (one.exact_posterior(seen.image, seen.mask) for one in (model, found))
    assert float(((own.mean - stored.mean) / own.stddev).abs().max()) < 0.01
    torch.testing.assert_close(own.stddev, stored.stddev, rtol=2e-3, atol=0)
    assert catalogue.entry(str(tmp_path)).method == Exact()


@pytest.mark.parametrize("kind", ["diffusion", "experts"])
def test_images_of_any_size(kind, tmp_path):
    found = entry_of(written(tmp_path, kind, patches=16))
    like = MODELS[f"photographs-{kind}"]
    assert (found.settings, found.margin, found.least) == (like.settings, like.margin, like.least)
    assert (found.shape, found.channels, found.shapes, found.made_from) == (None, 1, "1 x any", "image")
    image = torch.rand(1, 20, 30)
    observation = Observation(image, observations.box(image.shape, 4, 4, 6, 6))
    approach = catalogue.build(tmp_path, observation)
    assert approach.model.image_shape == (1, 20, 30)
    if kind == "diffusion":
        assert (approach.model.highest, approach.model.noise, approach.model.steps) == (30.0, 0.01, 4)
    with pytest.raises(ValueError, match="is made for each image"):
        found.model()


class TestMistakes:
    def test_a_folder_of_a_models_name_is_not_asked(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "vae").mkdir()
        assert catalogue.entry("vae") is MODELS["vae"]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("./nothing", "nothing is no prior: there is no such folder"),
            ("a/b", "a/b is no prior: there is no such folder"),
            ("empty", "empty is no prior: it has no config.json"),
            ("later", "written by a later version (0.1.0, format 2); expected format <= 1: update"),
            ("nothing", "unknown model 'nothing'; there are linear-gaussian, "),
        ],
    )
    def test_names_and_folders(self, name, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty").mkdir()
        config = written(tmp_path / "later") / CONFIG
        config.write_text(config.read_text().replace('"format": 1', '"format": 2'))
        for ask in (catalogue.entry, catalogue.approach):
            with pytest.raises(ValueError, match="^[^\n]*$") as error:  # noqa: RUF043
                ask(name)
            assert message in str(error.value)

    def test_weights_are_checked_when_a_model_is_made(self, tmp_path, seen):
        weights = written(tmp_path) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        assert catalogue.entry(str(tmp_path)).shape == SHAPE
        with pytest.raises(ValueError, match="is damaged or was changed"):
            catalogue.build(tmp_path, seen)

    def test_an_image_of_another_shape(self, tmp_path):
        written(tmp_path)
        seen = Observation(torch.rand(1, 9, 9), torch.rand(1, 9, 9) < 0.5)
        with pytest.raises(
            ValueError, match=r"^the image is 1 x 9 x 9; [^\n]* takes 1 x 8 x 8\. Models that take it"
        ):
            catalogue.build(tmp_path, seen)


def test_every_kind_is_tried():
    assert set(LIKE) == set(KINDS) == set(PARTS)
