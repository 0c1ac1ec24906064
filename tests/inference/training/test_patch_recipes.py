"""Recipes that train on patches of a few photographs: what they cut, and that what they make is saved and measured."""

from types import SimpleNamespace

import pytest
import torch

from posterior_inpainting.inference.recipes.diffusion import DenoiserRecipe
from posterior_inpainting.inference.recipes.experts import ExpertRecipe
from posterior_inpainting.inference.recipes.patches import attribution, varied_patches
from posterior_inpainting.inference.recipes.recipe import Data, Written
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import pretrained
from posterior_inpainting.models.images.photographs import PHOTOGRAPHS

SMALL = {"dataset": "photographs", "epochs": 1, "batch_size": 16}
RECIPES = {
    "denoiser": DenoiserRecipe(
        patches=(16, 32), features=(8, 16), limits="many", remark=attribution(), **SMALL
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
    pretrained.save_parts(tmp_path, written.stem, recipe.parts(fitted))
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
