"""Decoder and completion network with random weights: densities, training, the bundled ones."""

import re

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from digit import HALF, SHAPE
from pyro import poutine
from pyro.infer import Predictive
from statistics_of_draws import assert_moments

from posterior_inpainting.inference import Exact, infer
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.tracing import batched_trace, plate_nesting
from posterior_inpainting.inference.recipes.random_weights import (
    RANDOM_WEIGHT_RECIPES,
    CompletionRecipe,
    DecoderRecipe,
)
from posterior_inpainting.inference.recipes.train_recipe import train_recipe
from posterior_inpainting.inference.results.images_of_posterior import completed_images
from posterior_inpainting.inference.training.bayes_by_backprop import BayesByBackprop
from posterior_inpainting.inference.training.train import train
from posterior_inpainting.models import Observation, datasets, observations, pretrained
from posterior_inpainting.models.bayesian_completion import BayesianCompletion, CompletionNetwork
from posterior_inpainting.models.bayesian_decoder import BayesianDecoder, posterior_scales_of
from posterior_inpainting.models.likelihoods import likelihood_of
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.random_weights.weight_priors import Gaussian

FOLDER = pretrained._bundled()


@pytest.fixture
def images():
    return datasets.load("digits")[:6]


def parts(latent=2):
    torch.manual_seed(0)
    return MultilayerDecoder(latent, SHAPE, (16,), scale_rank=4), MaskedEncoder(latent, SHAPE, (16,))


def decoder(**settings):
    return BayesianDecoder(*parts(), prior=Gaussian(0.5), posterior_scale=0.2, **settings).eval()


def completion(**settings):
    first, second = parts(4)
    return BayesianCompletion(CompletionNetwork(second, first), posterior_scale=0.1, **settings).eval()


class TestDecoder:
    def test_density_is_that_of_weights_codes_and_seen_pixels(self, images):
        model = decoder()
        trace = poutine.trace(model).get_trace(images, HALF)
        weights = {
            n.removeprefix("decoder."): trace.nodes[n]["value"] for n in trace.stochastic_nodes if n != "z"
        }
        weights.pop("images", None)
        z = trace.nodes["z"]["value"]
        network = parts()[0]
        network.load_state_dict(weights)
        law = dist.Normal(*network.mean_and_scale(z))
        by_hand = sum(dist.Normal(0.0, 0.5).log_prob(w).sum() for w in weights.values())
        by_hand = by_hand + dist.Normal(0.0, 1.0).log_prob(z).sum()
        by_hand = by_hand + law.log_prob(images)[HALF.expand(images.shape)].sum()
        torch.testing.assert_close(trace.log_prob_sum(), by_hand)
        assert z.shape == (6, 2)

    def test_all_images_see_one_network(self, images):
        model = decoder()
        trace = poutine.trace(model).get_trace(images)
        twice = poutine.condition(model, data={"z": torch.zeros(6, 2)})
        completions = poutine.trace(twice).get_trace(images).nodes["completion"]["value"]
        assert torch.equal(completions[0], completions[5])
        assert trace.nodes["decoder.mean_head.weight"]["value"].shape == (64, 16)

    @pytest.mark.parametrize("make", [decoder, completion])
    def test_many_draws_at_once_equal_each_alone(self, images, make):
        model = make()
        for image in (images[0], images):
            problem = Problem(model, (image, HALF))
            nesting = plate_nesting(problem)
            guided = batched_trace(model.guide, problem, 5, nesting)
            together = batched_trace(model, problem, 5, nesting, guided).nodes["completion"]["value"]
            for i in range(5):
                data = {
                    n: s["value"][i].reshape(s["fn"].event_shape if n != "z" else s["value"][i].shape)
                    for n, s in guided.nodes.items()
                    if s["type"] == "sample" and n not in ("images", "_draws")
                }
                alone = poutine.trace(poutine.condition(model, data=data)).get_trace(image, HALF)
                torch.testing.assert_close(
                    together[i].reshape(image.shape), alone.nodes["completion"]["value"], rtol=1e-4, atol=1e-5
                )

    @pytest.mark.parametrize("make", [decoder, completion])
    def test_hidden_pixels_change_no_number(self, images, make):
        model, found = make(), []
        for fill in (0.0, 0.7, torch.nan):
            torch.manual_seed(1)
            trace = poutine.trace(model).get_trace(torch.where(HALF, images[0], fill), HALF)
            guided = poutine.trace(model.guide).get_trace(torch.where(HALF, images[0], fill), HALF)
            found.append(tuple(t.log_prob_sum().item() for t in (trace, guided)))
        assert np.isfinite(found).all()
        assert len(set(found)) == 1

    @pytest.mark.parametrize("make", [decoder, completion])
    def test_guide_has_the_models_sites_and_predictive_runs(self, make):
        model = make()
        for image in (None, torch.rand(SHAPE)):
            sites = [
                {n for n, s in poutine.trace(f).get_trace(image).nodes.items() if s["type"] == "sample"}
                for f in (model, model.guide)
            ]
            assert sites[0] - sites[1] == {"image", "completion"}
        assert Predictive(model, num_samples=3)()["image"].isfinite().all()

    def test_local_noise_and_drawn_weights_have_one_bound(self, images):
        """The ELBO is the same, whichever way its noise is drawn."""
        loss, found = BayesByBackprop(), []
        for local in (False, True):
            model = decoder(local_reparametrisation=local).train()
            torch.manual_seed(2)
            found.append([loss.loss(model, model.guide, images) for _ in range(200)])
        assert_moments(
            np.array(found[0])[None, :, None],
            [np.mean(found[1])],
            [np.std(found[0])],
            independent=True,
            errors=6,
        )
        assert abs(np.mean(found[0]) - np.mean(found[1])) < 5 * np.std(found) / np.sqrt(200)

    def test_training_improves_the_bound_and_moves_scales(self):
        data = datasets.load("digits", split="train")
        model = decoder(local_reparametrisation=True).train()
        before = model.decoder.raw_scale["mean_head/weight"].detach().clone()
        training = train(
            model, model.guide, data, loss=BayesByBackprop(), epochs=8, learning_rate=5e-3, progress=False
        )
        assert training.losses[-1] < training.losses[0] - 20
        assert (model.decoder.raw_scale["mean_head/weight"] - before).abs().mean() > 0.01

    def test_given_scales_are_kept_and_checked(self):
        model = decoder()
        scales = {
            path: 0.3 * torch.rand_like(s) + 0.01 for path, s in posterior_scales_of(model.decoder).items()
        }
        again = BayesianDecoder(*parts(), posterior_scale=scales)
        for path, scale in posterior_scales_of(again.decoder).items():
            torch.testing.assert_close(scale, scales[path])
        scales.pop("mean_head.bias")
        with pytest.raises(ValueError, match="posterior scales are of"):
            BayesianDecoder(*parts(), posterior_scale=scales)


class TestCompletion:
    def test_exact_draws_are_networks_and_their_pixels(self, images):
        model = completion()
        seen = Observation(images[0], HALF)
        posterior = infer(model, seen, Exact(), draws=500, chains=4, progress=False)
        assert posterior.attrs["draws_are"] == "independent"
        with torch.no_grad():
            torch.manual_seed(9)
            law = model.network.forward_with(model.network.draw_weights(20_000), seen.image, HALF)
        mean, scale = (v[:, ~HALF].double() for v in law)
        drawn = posterior.posterior_predictive["image"].to_numpy()[..., ~HALF.numpy()]
        total = (mean.var(0) + scale.square().mean(0)).sqrt()
        assert_moments(drawn, mean.mean(0), total, independent=True, errors=6)
        kept = completed_images(posterior)[..., HALF.numpy()]
        np.testing.assert_array_equal(kept, np.broadcast_to(images[0][HALF].numpy(), kept.shape))

    def test_without_the_weights_spread_the_draws_are_too_narrow(self, images):
        model = completion()
        with torch.no_grad():
            mean, scale = model.network.forward_with(model.network.draw_weights(2000), images[0], HALF)
            total = (mean.var(0) + scale.square().mean(0)).sqrt()[~HALF]
            narrow = model.network.mean(images[0], HALF)[1][~HALF] * torch.randn(1, 2000, int((~HALF).sum()))
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(narrow, np.zeros(len(total)), total, independent=True)

    def test_seen_pixels_choose_no_network(self, images):
        model = completion()
        torch.manual_seed(0)
        first = model.guide(images[0], HALF)["decoder.mean_head.bias"]
        torch.manual_seed(0)
        assert torch.equal(first, model.guide(images[1], ~HALF)["decoder.mean_head.bias"])

    def test_training_scores_hidden_pixels_alone(self, images):
        model = completion()
        data = {f"network.{path}": w for path, w in model.network.guide().items()}
        with torch.no_grad():
            mean, scale = model._complete(
                {k.removeprefix("network."): v for k, v in data.items()}, images, HALF.expand(images.shape)
            )
        scored = poutine.trace(poutine.condition(model.training_model, data=data)).get_trace(
            images, HALF.expand(images.shape)
        )
        scored.compute_log_prob()
        by_hand = dist.Normal(mean, scale).log_prob(images)[~HALF.expand(images.shape)].sum()
        torch.testing.assert_close(scored.nodes["image"]["log_prob_sum"], by_hand)

    def test_learns_to_complete(self):
        data, test = datasets.load("digits", split="train"), datasets.load("digits")[:100]
        torch.manual_seed(0)
        net = CompletionNetwork(
            MaskedEncoder(16, SHAPE, (64,)), MultilayerDecoder(16, SHAPE, (64,), scale_rank=8, floor=0.05)
        )
        model = BayesianCompletion(net, local_reparametrisation=True).train()
        masks = observations.random_masks(SHAPE, 500, 0)
        settings = {"epochs": 40, "learning_rate": 5e-3, "batch_size": 100, "progress": False}
        train(model.training_model, model.guide, data, masks=masks, loss=BayesByBackprop(), **settings)
        model.eval()
        with torch.no_grad():
            mean, _ = model.network.forward_with(
                model.network.draw_weights(10), torch.where(HALF, test, 0.0), HALF.expand(test.shape)
            )
        error = (mean.mean(0) - test)[:, ~HALF].square().mean().sqrt()
        trivial = (data.mean(0) - test)[:, ~HALF].square().mean().sqrt()
        assert error < 0.9 * trivial


class TestBundled:
    @pytest.mark.parametrize("name", RANDOM_WEIGHT_RECIPES)
    def test_files_and_card(self, name):
        for part in ("decoder", "encoder", "posterior_scales"):
            assert (FOLDER / f"{name}.{part}.safetensors").stat().st_size < 4_000_000
        text = pretrained.card(name)
        for word in ("Trained on", f"train {name}", "divergence", "signal-to-noise", "seed", "Limits"):
            assert word in text

    def test_decoder_is_what_its_card_says(self):
        model = BayesianDecoder.load()
        images = datasets.load("fashion-mnist-samples")[:64]
        text = pretrained.card("fashion-mnist-bayesian-decoder")

        def claimed(figure):
            return float(re.search(rf"{figure} \| ([\d.]+)", text).group(1))

        with torch.no_grad():
            z = model.encoder(images, torch.ones_like(images, dtype=torch.bool))[0]
            pixels = likelihood_of(model.decoder.mean)
            weights = model.decoder.draw_weights(4)
            means = pixels(*model.decoder.forward_with(weights, z, method="mean_and_scale")).mean
            centre = pixels(*model.decoder.mean.mean_and_scale(z)).mean
        spread = float((means - means.mean(0)).square().mean().sqrt())
        assert float((centre - images).square().mean().sqrt()) == pytest.approx(
            claimed("reconstruction error, mean weights"), rel=0.15
        )
        assert spread == pytest.approx(claimed("draws of the weights, root mean square"), rel=0.25)

    def test_completion_is_better_than_the_mean_image(self):
        model = BayesianCompletion.load()
        images = datasets.load("fashion-mnist-samples")[:64]
        mask = observations.half(model.image_shape, hide="bottom")
        law = model.predict(images, mask, draws=4, chunk=2)
        assert law.batch_shape == (4, *images.shape)
        error = (law.mean.mean(0) - images)[:, ~mask].square().mean().sqrt()
        assert error < 0.7 * (images.mean(0) - images)[:, ~mask].square().mean().sqrt()


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        (DecoderRecipe(dataset="digits", start="digits-vae-2d", epochs=1, encoder_epochs=1), BayesianDecoder),
        (
            CompletionRecipe(
                dataset="digits", latent=4, widths=(8,), encoder_widths=(8,), scale_rank=4, epochs=1
            ),
            BayesianCompletion,
        ),
    ],
    ids=["decoder", "completion"],
)
def test_recipe_writes_what_loads(tmp_path, recipe, kind):
    text = train_recipe("small", recipe, tmp_path, progress=False)
    assert text == (tmp_path / "small.md").read_text()
    for path in tmp_path.glob("small.*.safetensors"):
        path.rename(tmp_path / path.name.removeprefix("small."))
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("small.", ""))
    model = kind.load(tmp_path)
    network = model.decoder if kind is BayesianDecoder else model.network
    scales = pretrained.posterior_scales(tmp_path)
    for path, law in network.posterior().items():
        torch.testing.assert_close(law.scale, scales[path], rtol=1e-3, atol=1e-6)
    sums.write_text(sums.read_text().replace("  posterior", "0  posterior"))
    with pytest.raises(ValueError, match="damaged"):
        pretrained.posterior_scales(tmp_path)
