"""Pixel Constrained CNN: a law of images that is one, and completions that honour what was seen."""

import math

import ising
import numpy as np
import pyro
import pytest
import torch
from digit import SHAPE
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO

from posterior_inpainting.inference import MAP, ChEES, Exact, TemperedSMC, diagnostics, infer, train
from posterior_inpainting.inference.recipes.pixels import PIXEL_RECIPES, PixelRecipe, bits
from posterior_inpainting.inference.training.pixel_cross_entropy import PixelCrossEntropy
from posterior_inpainting.models import Observation, datasets, observations, pretrained
from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage
from posterior_inpainting.models.autoregressive.pixel_laws import (
    CategoricalPixels,
    LogisticMixturePixels,
    law_from,
)
from posterior_inpainting.models.networks import MaskedEncoder
from posterior_inpainting.models.networks.constraint import ConstraintNetwork
from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN
from posterior_inpainting.models.pixel_constrained import PixelConstrained

LAWS = {
    "binary": (1, CategoricalPixels(2)),
    "16 levels": (1, CategoricalPixels(16)),
    "256 levels, colour": (3, LogisticMixturePixels(256, 3)),
    "4 levels, colour": (3, CategoricalPixels(4)),
}


def pair(channels=1, law=None, side=8, code=0, constraint=True, scale=0.4, **options):
    """Networks of random weights that say something: their logits differ from pixel to pixel."""
    torch.manual_seed(1)
    law = CategoricalPixels(4) if law is None else law
    shape, outputs = (channels, side, side), law.outputs(channels)
    prior = GatedPixelCNN(shape, outputs, features=6, layers=2, code=code)
    torch.nn.init.normal_(prior.head[3].weight, std=scale)
    second = ConstraintNetwork(shape, outputs, features=6) if constraint else None
    if second is not None:
        torch.nn.init.normal_(second.head.weight, std=scale)
    encoder = MaskedEncoder(code, shape, (8,)) if code else None
    model = PixelConstrained(prior, second, law=law, encoder=encoder, **options)
    return model.requires_grad_(False).eval()


class TestImageLaw:
    @pytest.mark.parametrize("kind", LAWS)
    def test_log_prob_is_the_sum_of_conditionals_of_each_sample(self, kind):
        """The published code scores every sample with the first one's pixels; here a batch scores as one by one."""
        channels, law = LAWS[kind]
        model = pair(channels, law)
        image, mask = law.quantise(torch.rand(channels, 8, 8)), torch.rand(channels, 8, 8) < 0.5
        image_law = model.constrained_law(image, mask)
        draws = image_law.sample((5,))
        together = image_law.log_prob(draws)
        assert together.unique().numel() == 5
        with torch.no_grad():
            constraint = model.constraint(image[None], mask[None])
            for i in range(5):
                raw = model.prior(draws[i : i + 1]) + constraint
                table = law.log_probabilities(raw, draws[i : i + 1])[0]
                index = (draws[i] * (law.levels - 1)).round().long()
                terms = [table[c, r, k, index[c, r, k]] for c, r, k in (~mask).nonzero().tolist()]
                torch.testing.assert_close(together[i], torch.stack(terms).sum(), rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("kind", LAWS)
    def test_pixel_laws_are_normalised(self, kind):
        channels, law = LAWS[kind]
        raw, image = 3 * torch.randn(2, law.outputs(channels), 3, 3), torch.rand(2, channels, 3, 3)
        total = law.log_probabilities(raw, image).exp().sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), atol=2e-5, rtol=0)

    @pytest.mark.parametrize("kind", LAWS)
    def test_log_prob_agrees_with_the_table(self, kind):
        channels, law = LAWS[kind]
        raw, image = torch.randn(2, law.outputs(channels), 3, 3), law.quantise(torch.rand(2, channels, 3, 3))
        table = law.log_probabilities(raw, image)
        torch.testing.assert_close(
            law.log_prob(raw, image),
            table.gather(-1, law.index(image)[..., None])[..., 0],
            atol=1e-4,
            rtol=1e-4,
        )

    def test_mixture_is_finite_far_out(self):
        law = LogisticMixturePixels(256, 2)
        raw = torch.tensor([-60.0, 0.0, 60.0])[:, None].expand(3, law.outputs(1))[..., None, None]
        raw = raw.clone().requires_grad_()
        for value in (0.0, 0.5, 1.0):
            log_prob = law.log_prob(raw, torch.full((3, 1, 1, 1), value))
            log_prob.sum().backward()
            assert log_prob.isfinite().all()
        assert raw.grad.isfinite().all()

    def test_whole_law_is_normalised(self):
        """All 2^9 binary images of 3 x 3 pixels, and the law of the hidden ones given the others."""
        model = pair(law=CategoricalPixels(2), side=3)
        every = (torch.arange(2**9)[:, None] >> torch.arange(9) & 1).float().reshape(-1, 1, 3, 3)
        whole = AutoregressiveImage(model.prior, model.law)
        assert whole.log_prob(every).exp().sum().item() == pytest.approx(1, abs=1e-4)
        mask = torch.tensor([1, 0, 1, 0, 0, 1, 1, 0, 0]).bool().reshape(1, 3, 3)
        law = model.constrained_law(every[77], mask)
        matching = every[((every == every[77]) | ~mask).flatten(1).all(1)]
        assert len(matching) == 2**5
        assert law.log_prob(matching).exp().sum().item() == pytest.approx(1, abs=1e-4)

    def test_draws_have_the_probabilities_that_are_scored(self):
        model = pair(law=CategoricalPixels(2), side=3)
        every = (torch.arange(2**9)[:, None] >> torch.arange(9) & 1).float().reshape(-1, 1, 3, 3)
        mask = torch.tensor([1, 0, 1, 0, 0, 1, 1, 0, 1]).bool().reshape(1, 3, 3)
        law = model.constrained_law(every[77], mask)
        draws = law.sample((20_000,))
        counts = torch.bincount((draws.flatten(1) * 2 ** torch.arange(9)).sum(1).long(), minlength=2**9)
        matching = ((every == every[77]) | ~mask).flatten(1).all(1)
        assert counts[~matching].sum() == 0
        expected = 20_000 * law.log_prob(every[matching]).exp()
        chi_squared = ((counts[matching] - expected) ** 2 / expected).sum().item()
        degrees = int(matching.sum()) - 1
        assert chi_squared < degrees + 4 * math.sqrt(2 * degrees)
        # A wrong law is found out: the prior network alone, overwritten, has other probabilities.
        other = 20_000 * model.overwritten().constrained_law(every[77], mask).log_prob(every[matching]).exp()
        assert ((counts[matching] - other) ** 2 / other).sum().item() > 10 * degrees

    def test_temperature(self):
        """Cold draws are likelier; a law of another temperature is still one."""
        image, nothing = torch.rand(SHAPE), torch.zeros(SHAPE).bool()
        law, cold = (pair(temperature=t).constrained_law(image, nothing) for t in (1, 0.3))
        assert law.log_prob(cold.sample((50,))).mean() > law.log_prob(law.sample((50,))).mean()
        conditionals = cold.log_conditionals(cold.sample((2,)))
        assert (conditionals <= 0).all()

    def test_batches_of_laws(self, image, mask):
        """One law for several images and masks equals each alone, and so do its draws in distribution."""
        model = pair()
        images = datasets.load("digits")[:3]
        masks = torch.stack([mask, ~mask, observations.scatter(SHAPE, 0.4)])
        law = model.constrained_law(images, masks)
        draws = law.sample((4,))
        assert draws.shape == (4, 3, *SHAPE)
        for i in range(3):
            alone = model.constrained_law(images[i], masks[i]).log_prob(draws[:, i])
            torch.testing.assert_close(law.log_prob(draws)[:, i], alone, rtol=1e-5, atol=1e-4)
            assert torch.equal(
                draws[:, i][:, masks[i]], model.law.quantise(images[i])[masks[i]].expand(4, -1)
            )

    def test_many_draws_are_made_in_pieces(self, image, mask):
        law = pair().constrained_law(image, mask)
        draws = law.sample((300,))
        assert draws.shape == (300, *SHAPE)
        assert law.log_prob(draws).shape == (300,)


class TestModel:
    def test_the_trace_is_the_prior_networks_density(self, image, mask):
        """Hidden and seen sites split log p(x), the same whatever the mask."""
        model = pair()
        whole = AutoregressiveImage(model.prior, model.law)
        trace = poutine.trace(model).get_trace(image, mask)
        completed = model.law.quantise(trace.nodes["completion"]["value"])
        torch.testing.assert_close(trace.log_prob_sum(), whole.log_prob(completed), rtol=1e-5, atol=1e-4)
        for other in (~mask, torch.ones_like(mask), torch.zeros_like(mask)):
            conditioned = poutine.condition(model, data={"hidden": completed})
            again = poutine.trace(conditioned).get_trace(completed, other).log_prob_sum()
            torch.testing.assert_close(again, trace.log_prob_sum(), rtol=1e-5, atol=1e-4)

    def test_seen_pixels_are_exact_and_hidden_ones_on_the_lattice(self, mask):
        """Also values between levels: the networks see the nearest level, the completion keeps the value."""
        model, image = pair(), torch.rand(SHAPE)
        posterior = infer(model, Observation(image, mask), Exact(), draws=6, chains=2, progress=False)
        hole = ~mask.numpy()
        for group, name in (("posterior", "completion"), ("posterior_predictive", "image")):
            values = posterior[group][name].to_numpy()
            np.testing.assert_array_equal(
                values[..., mask.numpy()], np.broadcast_to(image[mask].numpy(), (2, 6, int(mask.sum())))
            )
            levels = values[..., hole] * 3
            np.testing.assert_allclose(levels, levels.round(), atol=1e-6)
            np.testing.assert_array_equal(values, posterior["posterior"]["completion"].to_numpy())

    def test_infer(self, image, mask):
        model = pair()
        posterior = infer(
            model, Observation(image, mask), Exact(), draws=60, chains=2, seed=3, progress=False
        )
        assert posterior.attrs["draws_are"] == "independent"
        assert posterior.attrs["law"] == "constrained law; the posterior is that of its importance weights"
        hidden = torch.as_tensor(posterior["posterior"]["hidden"].to_numpy()).flatten(0, 1)
        log_p = AutoregressiveImage(model.prior, model.law).log_prob(hidden)
        log_q = model.constrained_law(image, mask).log_prob(hidden)
        statistics = posterior["sample_stats"]
        for name, expected in (("lp", log_p), ("log_weight", log_p - log_q)):
            np.testing.assert_allclose(
                statistics[name].to_numpy().ravel(), expected.numpy(), rtol=1e-4, atol=1e-3
            )
        assert math.isfinite(diagnostics.khat(posterior)) or diagnostics.khat(posterior) == math.inf
        seen = posterior["log_likelihood"]["image"]
        assert seen.sizes["pixel"] == int(mask.sum())
        again = infer(model, Observation(image, mask), Exact(), draws=60, chains=2, seed=3, progress=False)
        np.testing.assert_array_equal(again["posterior"]["hidden"], posterior["posterior"]["hidden"])

    def test_weights_are_equal_where_the_guide_is_the_posterior(self, image):
        """All hidden, and nothing to constrain: the overwritten prior is its own posterior."""
        model = pair(constraint=False)
        seen = Observation(image, torch.zeros(SHAPE).bool())
        posterior = infer(model, seen, Exact(), draws=40, chains=1, progress=False)
        assert diagnostics.khat(posterior) == -math.inf

    def test_importance_weights_lead_to_the_exact_conditional(self):
        """Draws of the guide, weighted, have the moments of p(hidden | seen) by enumeration."""
        model = pair(law=CategoricalPixels(2), side=3, scale=2.0)
        every = (torch.arange(2**9)[:, None] >> torch.arange(9) & 1).float().reshape(-1, 1, 3, 3)
        mask = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1]).bool().reshape(1, 3, 3)
        matching = every[((every == every[77]) | ~mask).flatten(1).all(1)]
        exact = torch.softmax(AutoregressiveImage(model.prior, model.law).log_prob(matching), 0)
        mean = (exact[:, None] * matching.flatten(1)).sum(0)
        posterior = infer(model, Observation(every[77], mask), Exact(), draws=4000, chains=1, progress=False)
        drawn = torch.as_tensor(posterior["posterior"]["hidden"].to_numpy()).reshape(4000, 9)
        weight = torch.softmax(torch.as_tensor(posterior["sample_stats"]["log_weight"].to_numpy()).ravel(), 0)
        error = ((weight[:, None] * (drawn - mean)) ** 2).sum(0).sqrt()
        assert (((weight[:, None] * drawn).sum(0) - mean).abs() <= 4 * error + 1e-5).all()
        plain = drawn.mean(0)
        assert ((plain - mean).abs() > 4 * drawn.std(0) / math.sqrt(4000)).any()

    def test_hidden_pixels_change_no_number(self, image, mask):
        model = pair()
        found = []
        for fill in (0.0, 0.7, float("nan"), float("inf")):
            torch.manual_seed(0)
            changed = torch.where(mask, image, fill)
            drawn = model.guide(changed, mask)
            found.append((drawn, poutine.trace(model).get_trace(changed, mask).log_prob_sum()))
        for drawn, log_prob in found[1:]:
            assert torch.equal(drawn, found[0][0])
            assert torch.equal(log_prob, found[0][1])

    def test_batch_equals_each_alone(self, mask):
        model = pair()
        images = datasets.load("digits")[:3]
        masks = torch.stack([mask, ~mask, observations.scatter(SHAPE, 0.5)])
        values = model.guide(images, masks)
        batch = poutine.trace(poutine.condition(model, {"hidden": values})).get_trace(images, masks)
        batch.compute_log_prob()
        for i in range(3):
            alone = poutine.trace(poutine.condition(model, {"hidden": values[i]})).get_trace(
                images[i], masks[i]
            )
            alone.compute_log_prob()
            for site in ("hidden", "image"):
                torch.testing.assert_close(
                    batch.nodes[site]["log_prob"][i], alone.nodes[site]["log_prob"], rtol=1e-4, atol=1e-4
                )

    @pytest.mark.parametrize("kind", LAWS)
    def test_predictive(self, kind):
        channels, law = LAWS[kind]
        drawn = Predictive(pair(channels, law), num_samples=3)()
        assert drawn["image"].shape[-3:] == (channels, 8, 8)
        assert torch.equal(drawn["image"].flatten(), drawn["completion"].flatten())

    def test_masks_of_channels(self):
        """Colourisation: one channel is seen, the others are drawn given it."""
        model = pair(*LAWS["256 levels, colour"])
        image, mask = torch.rand(3, 8, 8), observations.channels((3, 8, 8), keep=1)
        completed = model.guide(image, mask)
        assert torch.equal(completed[1], model.law.quantise(image)[1])

    def test_svi_step(self, image, mask):
        model = pair().requires_grad_(True)
        svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
        before = [p.detach().clone() for p in model.parameters()]
        assert all(math.isfinite(svi.step(image, mask)) for _ in range(2))
        assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))

    def test_temperature_is_of_the_guide_alone(self, image, mask):
        """Weights refer to the model, which is the same at every temperature, with a constraint or without."""
        for constraint in (True, False):
            plain, cold = (pair(constraint=constraint, temperature=t) for t in (1.0, 0.4))
            draws = plain.constrained_law(image, mask).sample()
            traces = [
                poutine.trace(poutine.condition(model, {"hidden": draws})).get_trace(image, mask)
                for model in (plain, cold)
            ]
            torch.testing.assert_close(traces[0].log_prob_sum(), traces[1].log_prob_sum())
            assert cold.constrained_law(image, mask).log_prob(draws) != plain.constrained_law(
                image, mask
            ).log_prob(draws)
        assert pair(temperature=0.4).overwritten().temperature == 0.4

    def test_pixels_changed_in_place_are_scored_anew(self, image, mask):
        law = pair().constrained_law(image, mask)
        values = law.sample((3,))
        before = law.log_prob(values)
        values.copy_(1 - values)
        after = law.log_prob(values)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, law.log_prob(values.clone()))

    @pytest.mark.parametrize("parts", ["whole", "prior alone", "code"])
    def test_what_is_saved_loads(self, tmp_path, image, mask, parts):
        law = LogisticMixturePixels(16, 2)
        model = pair(law=law, code=3 if parts == "code" else 0, constraint=parts != "prior alone")
        pretrained.save_parts(tmp_path, "", {name: p for name, p in model._modules.items() if p is not None})
        again = PixelConstrained.load(tmp_path, law=law)
        assert pretrained.words(tmp_path, "prior") == {}
        code = torch.randn(3) if parts == "code" else None
        draws = model.constrained_law(image, mask, code).sample((2,))
        two = [m.constrained_law(image, mask, code).log_prob(draws) for m in (model, again)]
        torch.testing.assert_close(*two, rtol=5e-3, atol=0.2)

    @pytest.mark.parametrize("law", [LogisticMixturePixels(16, 2), CategoricalPixels(4)], ids=str)
    def test_the_law_comes_back_unnamed(self, tmp_path, image, mask, law):
        model = pair(law=law, code=3)
        model.save(tmp_path)
        again = PixelConstrained.load(tmp_path, temperature=0.9)
        assert (type(again.law), again.law.configuration()) == (type(law), law.configuration())
        draws = model.constrained_law(image, mask, torch.zeros(3)).sample((2,))
        assert again.constrained_law(image, mask, torch.zeros(3)).log_prob(draws).isfinite().all()

    def test_words_that_are_no_law_are_refused(self):
        for words in ("{", "[]", '{"name": "Gaussian"}', '{"name": "CategoricalPixels", "colours": 3}'):
            with pytest.raises(ValueError, match="is no law of pixels; expected one of CategoricalPixels, "):
                law_from(words)

    @pytest.mark.parametrize(
        "method", [ChEES(), MAP(), TemperedSMC()], ids=lambda method: type(method).__name__
    )
    def test_methods_that_need_gradients_refuse_levels(self, image, mask, method):
        with pytest.raises(ValueError, match="site 'hidden' is discrete"):
            infer(pair(), Observation(image, mask), method, progress=False)

    @pytest.mark.parametrize("seen", ["nothing", "everything"])
    def test_all_hidden_and_all_seen_are_legal(self, image, seen):
        mask = torch.full(SHAPE, seen == "everything")
        posterior = infer(pair(), Observation(image, mask), Exact(), draws=4, chains=1, progress=False)
        completion = posterior["posterior"]["completion"].to_numpy()
        if seen == "everything":
            assert (completion == image.numpy()).all()
        else:
            assert len(np.unique(completion.reshape(4, -1), axis=0)) == 4


class TestCode:
    """With a latent code: z from its prior, or from q(z | x~)."""

    def test_sites_and_density(self, image, mask):
        model = pair(code=3)
        traced = poutine.trace(model).get_trace(image, mask)
        guided = poutine.trace(model.guide).get_trace(image, mask)
        for trace in (traced, guided):
            assert trace.nodes["z"]["value"].shape == (3,)
        code, hidden = (guided.nodes[name]["value"] for name in ("z", "hidden"))
        law = model.constrained_law(image, mask, code)
        torch.testing.assert_close(law.log_prob(hidden), guided.nodes["hidden"]["fn"].log_prob(hidden))
        assert law.log_prob(hidden) != model.constrained_law(image, mask, code + 1).log_prob(hidden)

    def test_infer_draws_codes_too(self, image, mask):
        posterior = infer(pair(code=3), Observation(image, mask), Exact(), draws=5, chains=2, progress=False)
        assert posterior["posterior"]["z"].shape == (2, 5, 3)

    def test_training_is_a_bound(self, digits):
        model = pair(code=2).requires_grad_(True).train()
        masks = observations.random_masks(SHAPE, 50)
        options = {"epochs": 2, "batch_size": 50, "learning_rate": 3e-3, "progress": False}
        training = train(model, model.guide, digits[:500], masks=masks, loss=PixelCrossEntropy(), **options)
        assert training.losses[1] < training.losses[0]


class TestTraining:
    def test_the_elbo_is_refused_in_one_line(self, digits):
        model = pair().requires_grad_(True)
        with pytest.raises(
            ValueError, match=r"the guide's site 'hidden' has no reparametrised draws.*PixelCross"
        ):
            train(model, model.guide, digits, epochs=1, progress=False)

    def test_the_loss_is_what_it_says(self, digits, mask):
        model, images = pair(), digits[:5]
        found = PixelCrossEntropy(prior=0.5, constraint=2.0).differentiable_loss(
            model, model.guide, images, mask.expand(5, *SHAPE)
        )
        pixels = model.law.quantise(images)
        whole = AutoregressiveImage(model.prior, model.law).log_prob(images).sum()
        law = model.constrained_law(images, mask)
        alone = model.law.log_prob(model.constraint(pixels, mask.expand(5, *SHAPE)), pixels)
        expected = -0.5 * whole - law.log_prob(images).sum() - 2.0 * alone[:, ~mask].sum()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)

    def test_over_all_counts_seen_pixels_too(self, digits, mask):
        model, images = pair(), digits[:5]
        hidden, everything = (
            PixelCrossEntropy(over=over).differentiable_loss(model, None, images, mask.expand(5, *SHAPE))
            for over in ("hidden", "all")
        )
        assert everything > hidden

    def test_bad_settings(self):
        with pytest.raises(ValueError, match="over='seen'; expected 'hidden' or 'all'"):
            PixelCrossEntropy(over="seen")
        with pytest.raises(ValueError, match="expected weights of at least 0"):
            PixelCrossEntropy(prior=-1)


class TestBadInput:
    def test_levels(self):
        with pytest.raises(ValueError, match="levels=1; expected a whole number of at least 2"):
            CategoricalPixels(1)
        with pytest.raises(
            ValueError, match="has 4 outputs; 3 levels and 1 channels of CategoricalPixels need 3"
        ):
            PixelConstrained(GatedPixelCNN(SHAPE, 4), law=CategoricalPixels(3))

    def test_networks_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"constraint network has shape \(1, 8, 8\) and 3 outputs"):
            PixelConstrained(GatedPixelCNN(SHAPE, 2), ConstraintNetwork(SHAPE, 3))
        with pytest.raises(ValueError, match="takes a code of length 2; there is no encoder"):
            PixelConstrained(GatedPixelCNN(SHAPE, 2, code=2))

    @pytest.mark.parametrize("value", [-0.1, 1.5])
    def test_values_outside_the_lattice(self, image, mask, value):
        image = image.clone()
        image[0, 1, 1] = value
        for program in (pair(), pair().guide):
            with pytest.raises(ValueError, match=r"1 seen pixels are outside \[0, 1\]"):
                program(image, mask)

    def test_shapes(self, mask):
        for program in (pair(), pair().guide):
            with pytest.raises(ValueError, match=r"shape \(1, 4, 4\); expected \(1, 8, 8\)"):
                program(torch.zeros(1, 4, 4), torch.ones(1, 4, 4).bool())
            with pytest.raises(ValueError, match="mask is a bool tensor"):
                program(torch.zeros(SHAPE), torch.ones(1, 8, 9).bool())

    def test_temperature(self):
        with pytest.raises(ValueError, match="temperature=0; expected a positive number"):
            pair(temperature=0)


@pytest.fixture(scope="module")
def field():
    return ising.states()


@pytest.fixture(scope="module")
def ising_model(field):
    return ising.trained(*field, steps=250, learning_rate=1.5e-2)


class TestIsing:
    """Exact conditionals by enumeration of all 65,536 states of a 4 x 4 field."""

    def test_conditionals(self, ising_model, field):
        """Total variation below .03: all hidden pixels under the prior network, one pixel under the constrained law."""
        for found in ising.distances(ising_model, *field, seen=10).values():
            assert found["prior"] < 0.03
            assert found["pixel"] < 0.03

    def test_overwriting_is_not_enough(self, ising_model, field):
        """The same networks without the constraint miss what is seen below: this is what it is for."""
        constrained, overwritten = (
            ising.distances(m, *field, seen=10, names=["top half"])["top half"]["pixel"]
            for m in (ising_model, ising_model.overwritten())
        )
        assert overwritten > 2 * constrained


@pytest.mark.parametrize("name", ["fashion-mnist-pixels-binary", "fashion-mnist-pixels-16"])
class TestBundled:
    def test_looking_ahead_helps(self, name):
        """Bits a hidden pixel: the constrained law needs fewer than the overwritten prior, beyond doubt."""
        model = PixelConstrained.load(name)
        images = datasets.load("fashion-mnist-samples")
        shape = tuple(images.shape[1:])
        for mask in (observations.half(shape, hide="top"), observations.scatter(shape, 0.3)):
            with torch.no_grad():
                found = model.cross_entropies(images, mask.expand(images.shape))
            gain = (found["prior"] - found["constrained"])[:, ~mask].mean(1)
            assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5

    def test_completes(self, name):
        model = PixelConstrained.load(name)
        image = datasets.load("fashion-mnist-samples")[0]
        mask = observations.half(tuple(image.shape), hide="bottom")
        posterior = infer(model, Observation(image, mask), Exact(), draws=8, chains=1, progress=False)
        completion = torch.as_tensor(posterior["posterior"]["completion"].to_numpy())[0]
        assert (completion[:, mask] == image[mask]).all()
        assert completion[:, ~mask].std(0).max() > 0
        assert len(torch.unique(completion[:, ~mask])) <= model.law.levels
        assert completion[:, ~mask].mean() == pytest.approx(float(image[~mask].mean()), abs=0.2)

    def test_the_prior_is_a_model_of_images(self, name):
        """Test images are far likelier under it than the same images upside down."""
        model = PixelConstrained.load(name)
        images = datasets.load("fashion-mnist-samples")
        law = AutoregressiveImage(model.prior, model.law)
        with torch.no_grad():
            gap = law.log_prob(images) - law.log_prob(images.flip(-2))
        assert gap.mean() > 4 * gap.std() / len(gap) ** 0.5


def test_a_recipe_of_its_own(digits):
    """The recipe's own code, small: both networks learn, and what is returned is as it is stored."""
    recipe = PixelRecipe(
        levels=2, images=640, features=6, layers=2, constraint_features=6, masks=60, epochs=2
    )
    model = recipe.fit(digits, progress=False)
    found = bits(model, digits[:200])
    assert found["nothing seen"][0] < 0.9
    assert found["70 % of pixels hidden"][1] < found["nothing seen"][0]
    assert all(torch.equal(p, p.half().float()) for p in model.parameters())
    assert not any(p.requires_grad for p in model.parameters())


def test_every_recipe_has_its_card_and_the_cards_their_recipe():
    for name, recipe in PIXEL_RECIPES.items():
        text = pretrained.card(name)
        assert f"| levels | {recipe.levels} |" in text
        assert f"| images | {recipe.images} |" in text
