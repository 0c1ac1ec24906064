"""Of a prior's own images one in twenty is called strange, behind any mask; of others nearly all are."""

import math
import re

import numpy as np
import pytest
import torch

from posterior_inpainting.inference import ChEES, Exact, Variational, diagnostics, infer, infer_many
from posterior_inpainting.inference.results.containers import load, save
from posterior_inpainting.inference.training.domain_judge import learn_domain_judge
from posterior_inpainting.models import (
    LatentCode,
    LinearGaussian,
    Observation,
    datasets,
    observations,
    pretrained,
)
from posterior_inpainting.models.fit_of_seen import Fit, fits_of_seen
from posterior_inpainting.models.images.made_up_images import made_up
from posterior_inpainting.models.networks.domain_judge import DomainJudge

SHAPE = (1, 8, 8)
MASKS = {
    "half:bottom": observations.half(SHAPE, "bottom"),
    "scatter:0.3": observations.scatter(SHAPE, 0.3, torch.Generator().manual_seed(2)),
    "box": observations.box(SHAPE, 2, 2, 4, 4),
}


@pytest.fixture(scope="module")
def images():
    """Digits in a random order: those of one writer follow each other."""
    digits = datasets.load("digits", split="train")
    return digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]


@pytest.fixture(scope="module")
def judge(images):
    return learn_domain_judge(images[400:], images[:300], widths=(64,), steps=250, progress=False)


@pytest.fixture(scope="module")
def model(judge):
    made = LatentCode(pretrained.load("digits-vae-2d"))
    made.decoder.domain = judge
    return made


@pytest.fixture(scope="module")
def known_and_unknown(model, images):
    """Posteriors of a digit and of one inverted."""
    seen = [Observation(image, MASKS["half:bottom"]) for image in (images[5], 1 - images[5])]
    return [infer(model, one, Variational(), draws=100, chains=2, progress=False) for one in seen]


def alarms(model, images, mask):
    return np.mean([fit.is_alarm for fit in fits_of_seen(model, images, mask)])


class TestItIsCalibrated:
    @pytest.mark.parametrize("name", MASKS)
    def test_whichever_image_is_the_observation(self, model, images, name):
        """The theorem itself: each of 40 images against the 39 others, the k smallest p are above k / 40."""
        made = LatentCode(pretrained.load("digits-vae-2d"))
        made.decoder.domain = DomainJudge(SHAPE, references=39, widths=(64,))
        made.decoder.domain.load_state_dict(
            {**model.decoder.domain.state_dict(), "references": torch.zeros(39, *SHAPE)}
        )
        some, found = images[300:340], []
        for index in range(40):
            made.decoder.domain.references.copy_(torch.cat([some[:index], some[index + 1 :]]))
            found += fits_of_seen(made, some[index : index + 1], MASKS[name])
        p = np.sort([fit.p for fit in found])
        assert (p >= np.arange(1, 41) / 40 - 1e-9).all()
        assert p.min() < 0.06

    @pytest.mark.parametrize("name", MASKS)
    def test_images_that_nobody_saw(self, model, name):
        """Of 297 test images; what is expected varies with the 300 references, too: four standard errors."""
        test = datasets.load("digits", split="test")
        error = math.sqrt(0.05 * 0.95 * (1 / len(test) + 1 / 300))
        assert alarms(model, test, MASKS[name]) < 0.05 + 4 * error

    def test_where_nothing_is_seen(self, model, images):
        (found,) = fits_of_seen(model, images[:1], torch.zeros(SHAPE, dtype=torch.bool))
        assert found.p == 1.0

    def test_hidden_pixels_are_not_read(self, model, images):
        mask = MASKS["scatter:0.3"]
        other = torch.where(mask, images[:3], torch.nan)
        assert fits_of_seen(model, images[:3], mask) == fits_of_seen(model, other, mask)

    def test_images_together_are_as_alone(self, model, images):
        together = fits_of_seen(model, images[:2], MASKS["box"])
        alone = [fits_of_seen(model, one[None], MASKS["box"])[0] for one in images[:2]]
        assert [fit.p for fit in together] == pytest.approx([fit.p for fit in alone], abs=2 / 301)


class TestItIsPowerful:
    @pytest.mark.parametrize("name", MASKS)
    def test_inverted_digits_and_noise(self, model, images, name):
        noise = torch.rand(100, *SHAPE, generator=torch.Generator().manual_seed(3))
        assert alarms(model, 1 - images[:100], MASKS[name]) > 0.95
        assert alarms(model, noise, MASKS[name]) > 0.95

    def test_a_smooth_image_that_the_evidence_takes_for_its_own(self, model, images):
        """Grey all over is nearer to what a decoder makes than a digit is; the other statistic knows better."""
        (found,) = fits_of_seen(model, torch.full((1, *SHAPE), 0.35), MASKS["half:bottom"])
        assert found.is_alarm

    def test_values_that_are_no_pixels(self, model):
        (found,) = fits_of_seen(model, torch.full((1, *SHAPE), 40.0), MASKS["box"])
        assert found.p == pytest.approx(1 / 301)

    def test_under_a_model_without_a_trained_guide(self, judge, images):
        made = LinearGaussian.fit(images[400:], latent=10)
        made.domain = judge
        found = fits_of_seen(made, 1 - images[:20], MASKS["box"])
        assert len(found[0].statistics) == 1
        assert np.mean([fit.is_alarm for fit in found]) > 0.9


class TestInAResult:
    def test_the_verdict_says_it(self, known_and_unknown):
        known, unknown = (str(diagnostics.verdict(one)) for one in known_and_unknown)
        sentence = "the seen pixels are unlike anything this prior was trained on (p = .003): widen"
        assert sentence in unknown
        assert "unlike" not in known
        assert "\n" not in unknown

    def test_the_draws_are_judged_as_before(self, known_and_unknown):
        verdict = diagnostics.verdict(known_and_unknown[1])
        assert verdict.fit
        assert verdict.fit not in verdict.advice

    def test_the_summary_has_a_line(self, known_and_unknown):
        known, unknown = (diagnostics.summary(one)["fit p"] for one in known_and_unknown)
        assert unknown == pytest.approx(1 / 301)
        assert known > 0.05

    def test_it_survives_a_file(self, known_and_unknown, tmp_path):
        for one in known_and_unknown:
            save(one, tmp_path / "posterior.nc")
            assert diagnostics.fit(load(tmp_path / "posterior.nc")) == diagnostics.fit(one)

    def test_a_model_can_be_given_later(self, known_and_unknown, model):
        for one in known_and_unknown:
            assert diagnostics.fit(one, model) == diagnostics.fit(one)

    def test_many_at_once(self, model, images):
        """Two behind one mask and one behind another."""
        seen = [Observation(images[i], MASKS[name]) for i, name in enumerate(("box", "half:bottom", "box"))]
        found = infer_many(model, seen, ChEES(warmup=20), draws=5, chains=4, progress=False)
        for one, posterior in zip(seen, found, strict=True):
            (alone,) = fits_of_seen(model, one.image[None], one.mask)
            assert diagnostics.fit(posterior).p == pytest.approx(alone.p, abs=2 / 301)

    def test_a_prior_that_has_none_held_back(self, images):
        made = LinearGaussian.fit(images, latent=3)
        posterior = infer(
            made, Observation(images[0], MASKS["box"]), Exact(), draws=20, chains=1, progress=False
        )
        assert diagnostics.fit(posterior) is None
        assert diagnostics.fit(posterior, made) is None
        assert "fit p" not in diagnostics.summary(posterior)
        assert diagnostics.verdict(posterior).fit == ""

    def test_the_callers_random_numbers_are_left_alone(self, model, images):
        torch.manual_seed(7)
        before = torch.get_rng_state()
        fits_of_seen(model, images[:1], MASKS["box"])
        assert torch.equal(before, torch.get_rng_state())


class TestWhatIsLearnt:
    def test_the_same_seed_gives_the_same_network(self, images):
        first, again, other = (
            learn_domain_judge(images[:100], images[100:130], steps=3, seed=seed, progress=False).head.weight
            for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_holes_of_training_images_are_not_read(self, images):
        masks = observations.random_masks(SHAPE, 100, seed=1)
        first, second = (
            learn_domain_judge(
                torch.where(masks, images[:100], filling),
                images[100:130],
                masks=masks,
                steps=3,
                progress=False,
            ).head.weight
            for filling in (0.5, torch.nan)
        )
        assert torch.equal(first, second)

    def test_it_is_made_again_from_its_configuration(self, judge):
        again = DomainJudge(**judge.configuration())
        again.load_state_dict(judge.state_dict())
        image = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
        assert torch.equal(again(image, MASKS["box"]), judge(image, MASKS["box"]))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"held_back": 18}, "18 images are held back; expected at least 19"),
            ({"shape": (1, 8, 9)}, "images have shape (30, 1, 8, 9), those held back (20, 1, 8, 8)"),
            ({"masks": 29}, "masks have shape (29, 1, 8, 8); expected (30, 1, 8, 8)"),
        ],
    )
    def test_what_it_refuses(self, settings, message):
        masks = torch.ones(settings["masks"], *SHAPE) > 0 if "masks" in settings else None
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            learn_domain_judge(
                torch.rand(30, *settings.get("shape", SHAPE)),
                torch.rand(settings.get("held_back", 20), *SHAPE),
                masks=masks,
                progress=False,
            )
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("shape", [(1, 4, 4), (3, 9, 16), (1, 28, 28)])
    def test_made_up_images_are_images_and_not_the_given_ones(self, shape):
        given = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
        found, again = (made_up(given, torch.Generator().manual_seed(1)) for _ in range(2))
        assert found.shape == given.shape
        assert torch.equal(found, again)
        assert found.isfinite().all()
        assert found.min() >= 0
        assert found.max() <= 1
        assert not any(torch.equal(a, b) for a, b in zip(found, given, strict=True))


def test_words():
    assert str(Fit(0.0011, {}, 999)) == "p = .001"
    assert diagnostics.Fit is Fit
