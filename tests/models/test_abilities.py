"""What a model offers is declared: a name that nobody asks for is refused, or is the model's own API."""

import pyro.distributions as dist
import pytest
import torch
from digit import HALF
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from registry import MODELS, OWN, SHAPE

from posterior_inpainting.models import ImageModel, LatentCode, datasets, pretrained
from posterior_inpainting.models.abilities import Abilities, JointDensity
from posterior_inpainting.models.networks.decoder import Decoder, PlainDecoder, as_decoder

DECLARED = {name for name in dir(ImageModel) if not name.startswith("_")}
PARAMETERS = [pytest.param(kind, id=kind.__name__) for kind in MODELS]


def unknown_names(kind):
    """Public names of a class that are neither abilities nor listed as its own."""
    public = {name for name in vars(kind) if not name.startswith("_")}
    return public - DECLARED - OWN.get(kind, set())


def complaint(kind):
    return (
        f"{kind.__name__} defines {sorted(unknown_names(kind))}: give them the name of an ability of "
        "models/abilities.py, declare a new ability there, or list them in OWN of tests/registry.py"
    )


class TestNames:
    @pytest.mark.parametrize(
        "wrong", ["log_density", "log_evidences", "kept_", "law_of_draw", "draw_completion", "guide_is_exakt"]
    )
    def test_a_misspelt_hook_is_refused(self, wrong):
        with pytest.raises(TypeError, match=rf"Wrong defines '{wrong}'; is '\w+' meant"):
            type("Wrong", (ImageModel,), {wrong: lambda self, latents: latents})

    @pytest.mark.parametrize("kind", PARAMETERS)
    def test_every_public_name_is_an_ability_or_the_models_own(self, kind):
        assert not unknown_names(kind), complaint(kind)

    @pytest.mark.parametrize("kind", PARAMETERS)
    def test_the_table_lists_nothing_else(self, kind):
        unused = OWN.get(kind, set()) - (set(vars(kind)) - DECLARED)
        assert not unused, (
            f"OWN of tests/registry.py lists {sorted(unused)}, which {kind.__name__} does not define"
        )

    def test_an_unknown_hook_is_found_and_the_way_out_is_named(self):
        new = type("New", (ImageModel,), {"posterior_of_everything": lambda self: None})
        assert unknown_names(new) == {"posterior_of_everything"}
        assert "['posterior_of_everything']: give them the name of an ability" in complaint(new)

    def test_the_defaults_say_that_there_is_nothing(self):
        bare, image = Abilities(), torch.zeros(SHAPE)
        assert bare.guide_is_exact is bare.is_pseudo_posterior is bare.guide_is_trained is False
        assert bare.law_of_draws == ""
        assert bare.log_densities(image) is bare.log_evidence(image) is None
        assert bare.draw_completions(image, draws=2) is None
        assert bare.kept({"z": image}) == {"z": image}


@pytest.mark.parametrize("kind", PARAMETERS)
class TestTypes:
    IMAGE, MASK = datasets.load("digits")[0], HALF

    def shapes(self, model):
        """Event shape of each latent site."""
        nodes = poutine.trace(model).get_trace(self.IMAGE, self.MASK).nodes
        return [
            (name, site["value"].shape)
            for name, site in nodes.items()
            if site["type"] == "sample" and not site["is_observed"]
        ]

    def test_words(self, kind):
        model = MODELS[kind]()
        for name in ("guide_is_exact", "is_pseudo_posterior", "guide_is_trained"):
            assert isinstance(getattr(model, name), bool), name
        assert isinstance(model.law_of_draws, str)
        assert model.guide_is_trained or not model.guide_is_exact

    def test_log_densities(self, kind):
        density = MODELS[kind]().log_densities(self.IMAGE, self.MASK)
        assert density is None or isinstance(density, JointDensity)
        if density is not None:
            assert density.has_gradient == (type(density).gradient is not JointDensity.gradient)

    def test_log_evidence(self, kind):
        evidence = MODELS[kind]().log_evidence(self.IMAGE, self.MASK)
        assert evidence is None or (isinstance(evidence, torch.Tensor) and evidence.shape == ())

    def test_what_is_kept(self, kind):
        model = MODELS[kind]()
        with torch.no_grad():
            whole = model.draw_completions(self.IMAGE, self.MASK, draws=3)
            kept = whole or model.kept({site: torch.randn(3, *shape) for site, shape in self.shapes(model)})
        if "completion" not in kept:
            with pytest.raises(NotImplementedError, match=f"{kind.__name__} keeps its latents"):
                model.law_of_kept(kept)
            return
        assert kept["completion"].shape == (3, *SHAPE)
        law = model.law_of_kept(kept)
        assert isinstance(law, TorchDistributionMixin)
        assert law.batch_shape == (3, *SHAPE)
        torch.testing.assert_close(law.mean, kept["completion"])


class Plain(torch.nn.Module):
    """A pretrained network of someone's, whose noise is added by the tests."""

    latent, image_shape = 2, SHAPE

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 64)

    def forward(self, z):
        return self.linear(z).unflatten(-1, SHAPE)


def with_function_of_z(module):
    module.scale = lambda z: torch.full((*z.shape[:-1], *SHAPE), 0.2)


def with_both(module):
    module.mean_and_scale = lambda z: (module(z), torch.tensor(0.2))


def with_number(module):
    module.noise = 0.2


def with_one_for_each_pixel(module):
    module.noise = torch.full(SHAPE, 0.2)


class TestDecoders:
    @pytest.mark.parametrize(
        "give_noise", [with_function_of_z, with_both, with_number, with_one_for_each_pixel]
    )
    def test_a_plain_module_that_carries_its_noise_is_a_decoder(self, give_noise):
        module = Plain()
        give_noise(module)
        z = torch.randn(5, 2)
        law = LatentCode(module).pixel_law(z)
        torch.testing.assert_close(law.mean, module(z))
        torch.testing.assert_close(law.stddev, torch.full((5, *SHAPE), 0.2))
        assert LatentCode(module).decoder is module
        assert not LatentCode(module).guide_is_trained

    def test_noise_that_is_given_wins(self):
        module = Plain()
        module.noise = 0.2
        law = LatentCode(module, noise=0.4).pixel_law(torch.zeros(2))
        torch.testing.assert_close(law.stddev, torch.full(SHAPE, 0.4))

    def test_an_encoder_of_a_plain_module_is_taken_over(self):
        module = Plain()
        module.noise = 0.2
        module.encoder = pretrained.load("digits-vae-2d").encoder
        assert LatentCode(module).guide_is_trained

    def test_ours_are_as_they_are(self):
        decoder = pretrained.load("digits-vae-2d")
        assert as_decoder(decoder) is decoder
        assert isinstance(decoder, Decoder)
        assert decoder.has_restriction

    def test_what_is_missing_is_named(self):
        with pytest.raises(ValueError, match="Linear has no latent and no image_shape; expected"):
            LatentCode(torch.nn.Linear(2, 2))
        with pytest.raises(ValueError, match="Plain carries no noise; give it"):
            PlainDecoder(Plain())

    def test_a_decoder_without_restriction_goes_through_pyro(self):
        module = Plain()
        module.noise = 0.2
        model = LatentCode(module)
        assert model.log_densities(torch.zeros(SHAPE)) is None
        assert isinstance(model.pixel_law(torch.zeros(2)), dist.Normal)
        with pytest.raises(NotImplementedError, match="PlainDecoder decodes whole images only"):
            as_decoder(module).restrict(torch.tensor([0]))
