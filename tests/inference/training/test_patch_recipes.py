"""Recipes that train on patches of a few photographs: what they cut, and that what they make is saved and measured."""

from types import SimpleNamespace

import pytest
import torch

from posterior_inpainting.inference.recipes.diffusion import DenoiserRecipe
from posterior_inpainting.inference.recipes.experts import ExpertRecipe
from posterior_inpainting.inference.recipes.patches import FreshPatches, attribution, varied_patches
from posterior_inpainting.inference.recipes.recipe import Data, Written
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.denoising_score_matching import DenoisingScoreMatching
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import DiffusionPrior
from posterior_inpainting.models.images.photographs import PHOTOGRAPHS
from posterior_inpainting.models.networks import Denoiser

SMALL = {"dataset": "photographs", "epochs": 1, "batch_size": 16}
RECIPES = {
    "denoiser": DenoiserRecipe(
        patches=(16, 32), features=(8, 16), pyramid=2, bits=8, limits="many", remark=attribution(), **SMALL
    ),
    "experts": ExpertRecipe(
        patches=(16, 32), filters=3, side=3, levels=1, components=3, chains=4, likelihood_epochs=1, **SMALL
    ),
}


@pytest.fixture
def photographs():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(
        torch.rand(3, 3, 6, 6, generator=generator), (40, 48), mode="bilinear"
    )
    return smooth.clamp(0, 1)


class TestVariedPatches:
    def test_half_are_patches_as_they_were_in_one_of_eight_positions(self, photographs):
        found = varied_patches(photographs, 8, 60, Streams(1))
        assert found.shape == (60, 3, 8, 8)
        assert found.min() >= 0
        assert found.max() <= 1
        windows = photographs.unfold(2, 8, 1).unfold(3, 8, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * 64)
        as_they_were = 0
        for patch in found:
            positions = [p for turned in range(4) for p in (patch.rot90(turned, (1, 2)),)]
            positions += [p.flip(2) for p in positions]
            least = min(float((windows - p.flatten()).abs().amax(1).min()) for p in positions)
            as_they_were += least < 1e-6
        assert 15 < as_they_were < 45

    def test_the_streams_are_the_whole_of_chance(self, photographs):
        one, again, other = (varied_patches(photographs, 8, 5, Streams(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)


class TestFreshPatches:
    def test_no_two_minibatches_are_the_same_and_the_seed_is_all_of_chance(self, photographs):
        patches = FreshPatches(photographs, side=8, count=100)
        which = torch.arange(7)
        with Streams(1).seeded("patches"):
            one, other = (patches.minibatch(which)[0] for _ in range(2))
        with Streams(1).seeded("patches"):
            again = patches.minibatch(which)[0]
        assert one.shape == (7, 3, 8, 8)
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        assert one.min() >= 0
        assert one.max() <= 1

    def test_half_of_the_minibatches_are_of_larger_squares(self):
        """Of a slope along a diagonal: neighbours in a reduced patch differ by more."""
        slope = torch.linspace(0, 0.7, 40)
        ramp = ((slope[:, None] + slope[None, :]) / 2).expand(1, 3, 40, 40)
        patches = FreshPatches(ramp, side=16, count=100)
        step = float(slope[1] - slope[0]) / 2
        found = []
        with Streams(0).seeded("patches"):
            for _ in range(200):
                inner = patches.minibatch(torch.arange(8))[0][:, :, 2:-2, 2:-2]
                # Light changes slopes: of patches as they were, the middle of the minibatch.
                found.append(float(inner.diff(dim=-1).abs().mean((1, 2, 3)).median()) / step)
        reduced = sum(ratio > 1.1 for ratio in found)
        assert 60 < reduced < 140
        assert max(found) < 2.3

    def test_masks_are_of_the_bank(self, photographs):
        bank = torch.rand(5, 3, 8, 8) < 0.5
        _, masks = FreshPatches(photographs, masks=bank, side=8).minibatch(torch.arange(20))
        assert all(any(torch.equal(mask, one) for one in bank) for mask in masks)

    @pytest.mark.parametrize(
        ("images", "side", "words"),
        [
            (torch.rand(2, 3, 12, 12), 16, "side=16; expected at most the 12"),
            (torch.full((2, 3, 12, 12), torch.nan), 8, "NaN or infinite"),
            (torch.rand(2, 3, 12, 12) * 255, 8, "255"),
        ],
    )
    def test_refused(self, images, side, words):
        model = DiffusionPrior(Denoiser(3, (8, 16)), (3, side, side))
        with pytest.raises(ValueError, match=words):
            train(
                model,
                model.guide,
                FreshPatches(images, side=side),
                loss=DenoisingScoreMatching(),
                progress=False,
            )

    def test_a_training_goes_on_where_it_was_ended(self, photographs, tmp_path):
        """The generators are in the checkpoint: the patches to come are the same."""
        ends = []
        for broken in (False, True):
            torch.manual_seed(3)
            model = DiffusionPrior(Denoiser(3, (8, 8)), (3, 8, 8))
            patches = FreshPatches(photographs, side=8, count=16)
            settings = {
                "epochs": 3,
                "batch_size": 8,
                "progress": False,
                "checkpoint": tmp_path / f"{broken}.pt",
            }
            if broken:
                with pytest.raises(KeyboardInterrupt):
                    train(model, model.guide, patches, loss=_Ends(after=4), **settings)
            train(model, model.guide, patches, loss=DenoisingScoreMatching(), **settings)
            ends.append([p.detach().clone() for p in model.parameters()])
        assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))

    def test_masks_beside_examples_are_refused(self, photographs):
        model = DiffusionPrior(Denoiser(3, (8, 16)), (3, 8, 8))
        masks = torch.ones(2, 3, 8, 8) > 0
        with pytest.raises(ValueError, match="masks are given beside Examples"):
            train(model, model.guide, FreshPatches(photographs, side=8), masks=masks)


class _Ends(DenoisingScoreMatching):
    """A loss that is interrupted after some minibatches."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def differentiable_loss(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().differentiable_loss(*arguments)


def test_attribution_names_all_that_is_trained_on():
    """The last photograph is held back."""
    said = attribution()
    assert all(one.author in said and one.licence in said for one in PHOTOGRAPHS[:-1])
    assert "picosdeeuropa" not in said
    assert all(one.licence.startswith(("CC0", "CC-BY-4")) for one in PHOTOGRAPHS)


@pytest.mark.parametrize("name", RECIPES)
def test_trained_saved_and_measured(name, photographs, tmp_path):
    recipe = RECIPES[name]
    fitted = recipe.fit(photographs, progress=False)
    written = Written(tmp_path, "toy")
    recipe.save(fitted, written)
    data = Data(photographs, photographs)
    table = recipe.measure(fitted, data, written)
    assert "nan" not in table
    said = recipe.describe("toy", fitted, data)
    assert "32 patches" in said.trained_on
    assert "Aitzol Berasategi" in said.remark
    whole = torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        if name == "denoiser":
            assert fitted.size is None
            assert fitted(whole, torch.tensor(0.5))[0].shape == whole.shape
        else:
            assert fitted.log_density(whole).isfinite()


def test_marginals_of_draws_of_known_experts():
    """Of a Gaussian field: responses of draws have its standard deviation, and no heavy tails."""
    from posterior_inpainting.inference.recipes.experts import marginals
    from posterior_inpainting.models.networks import Experts

    torch.manual_seed(0)
    experts = Experts(1, 2, 2, 1, 1, ridge=4.0)
    field = torch.distributions.MultivariateNormal(torch.zeros(64), precision_matrix=_precision(experts))
    found = marginals(experts, 0.5 + field.sample((500,)).reshape(-1, 1, 8, 8), Streams(0), warmup=20)
    numbers = {name: [float(part) for part in text.split(",")] for name, text in found.items()}
    (true, drawn) = (SimpleNamespace(sd=sd, kurtosis=kurtosis) for sd, kurtosis in numbers.values())
    assert drawn.sd == pytest.approx(true.sd, rel=0.03)
    assert drawn.kurtosis == pytest.approx(3, abs=0.3)


def test_experts_begin_with_filters_of_one_spread(photographs):
    """Responses of the first filters to images under noise; a colour that is everywhere moves none."""
    recipe = RECIPES["experts"]
    experts = recipe.experts(photographs)
    noisy = photographs + recipe.level * torch.randn(photographs.shape)
    with torch.no_grad():
        (responses,) = experts.responses(noisy)
    spread = responses.transpose(0, 1).flatten(1).std(1)
    torch.testing.assert_close(spread, torch.full_like(spread, float(spread[0])), rtol=0.3, atol=0)
    assert experts.filters.mean((-2, -1)).abs().max() < 1e-3 * experts.filters.abs().max()


def _precision(experts):
    """The precision of an 8 x 8 field whose only component has standard deviation 1."""
    basis = torch.eye(64).reshape(64, 1, 8, 8)
    with torch.no_grad():
        ones = [torch.ones_like(part) for part in experts.responses(basis)]
        return experts.precision_times(basis, ones).flatten(1)
