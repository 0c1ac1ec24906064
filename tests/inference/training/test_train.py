"""Training: it learns, it is reproducible, it says what is wrong; recipes end in files that load."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch

from posterior_inpainting.inference import ExpertLikelihood, recipes, train
from posterior_inpainting.inference.evaluation.bounds import bounds
from posterior_inpainting.inference.training.checkpoints import checkpoints_in
from posterior_inpainting.inference.training.descent import Descent
from posterior_inpainting.inference.training.examples import Examples
from posterior_inpainting.inference.training.loss import Loss, PyroLoss
from posterior_inpainting.inference.training.schedule import Schedule
from posterior_inpainting.models import (
    ExpertField,
    LatentCode,
    LinearGaussian,
    VariationalAutoencoder,
    observations,
    pretrained,
)
from posterior_inpainting.models.networks import Experts, MaskedEncoder, MultilayerDecoder

SHAPE = (1, 8, 8)


def fresh(seed=0, scale_rank=8):
    torch.manual_seed(seed)
    return VariationalAutoencoder(
        MultilayerDecoder(2, SHAPE, (32,), scale_rank=scale_rank), MaskedEncoder(2, SHAPE, (32,))
    )


def test_learns_and_is_reproducible(digits):
    weights = []
    for _ in range(2):
        vae = fresh()
        training = train(vae, vae.guide, digits, epochs=4, progress=False)
        weights.append(vae.state_dict())
        assert training.losses[-1] < training.losses[0] - 20
        assert training.seconds > 0
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_loss_is_the_negative_elbo(digits):
    """The reported loss of a further epoch at step size 0 is minus the ELBO, to its Monte-Carlo error."""
    vae = fresh()
    train(vae, vae.guide, digits, epochs=3, progress=False)
    loss = train(vae, vae.guide, digits, epochs=1, learning_rate=0.0, progress=False).losses[0]
    assert loss == pytest.approx(-bounds(vae, digits, samples=25).elbo, abs=1.0)


def test_warmup_weighs_the_divergence(digits):
    """At step size 0 the loss falls short of the negative ELBO by what is left out of the divergence."""
    asked = []

    class Half(PyroLoss):
        def divergence_weight(self, done):
            asked.append(done)
            return 0.25

    vae, mask = fresh(), torch.ones(SHAPE, dtype=torch.bool)
    settings = {"epochs": 4, "learning_rate": 0.0, "progress": False}
    less = np.mean(train(vae, vae.guide, digits, loss=Half(), **settings).losses)
    whole = np.mean(train(vae, vae.guide, digits, **settings).losses)
    with torch.no_grad():
        loc, scale = vae.encoder(digits, mask)
    divergence = 0.5 * (loc.square() + scale.square() - 1 - 2 * scale.log()).sum(1).mean().item()
    assert divergence > 0.1
    assert whole - less == pytest.approx(0.75 * divergence, abs=0.02)
    assert asked == sorted(asked)
    assert asked[0] == 0
    assert 0.9 < asked[-1] < 1
    with pytest.raises(ValueError, match=r"warmup=2; expected a part from 0 to 1"):
        PyroLoss(warmup=2)


def test_as_many_masks_as_images_are_their_own(digits):
    """Holes that are 0 in the data are not taken for black: each image comes with what is seen of it."""
    generator = torch.Generator().manual_seed(0)
    images = torch.full((200, *SHAPE), 0.8)
    own = torch.rand(images.shape, generator=generator) < 0.5
    examples = Examples(torch.where(own, images, 0.0), masks=own)
    data, masks = examples.minibatch(torch.tensor([7, 3, 150]))
    assert (data[masks] == 0.8).all()
    assert (data[~masks] == 0).all()
    vae = fresh()
    train(vae, vae.guide, examples.data, masks=own, epochs=60, learning_rate=1e-2, progress=False)
    with torch.no_grad():
        assert abs(float(vae.decoder(torch.zeros(1, 2)).mean()) - 0.8) < 0.1


def test_masked_training_leaves_a_frozen_decoder(digits):
    vae = fresh()
    train(vae, vae.guide, digits, epochs=2, progress=False)
    model = LatentCode(vae.decoder, encoder=vae.encoder)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    # Mostly hidden, unlike what the encoder was trained on, so that there is something to learn.
    masks = torch.stack([observations.scatter(SHAPE, 0.2, seed) for seed in range(50)])
    still = {"masks": masks, "epochs": 30, "learning_rate": 0.0, "progress": False}
    first = train(model, model.guide, digits, **still).losses
    train(model, model.guide, digits, masks=masks, epochs=20, progress=False)
    last = train(model, model.guide, digits, **still).losses
    error = math.sqrt((np.var(first) + np.var(last)) / len(first))
    assert np.mean(first) - np.mean(last) > 5 * error
    after = model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before if k.startswith("decoder"))
    assert not all(torch.equal(after[k], before[k]) for k in before if k.startswith("encoder"))


def test_any_optimiser(digits):
    vae = fresh()
    losses = train(vae, vae.guide, digits, epochs=3, optimiser=torch.optim.RMSprop, progress=False).losses
    assert losses[-1] < losses[0]


def test_bounds_are_ordered_and_tighten(digits):
    vae = fresh()
    train(vae, vae.guide, digits, epochs=3, progress=False)
    few, many = (bounds(vae, digits[:50], samples=n) for n in (25, 400))
    assert few.elbo < few.importance_weighted < many.importance_weighted + 0.1


def test_importance_weighted_bound_with_a_poor_proposal_is_below_the_evidence(digits):
    """A LinearGaussian scored with a widened guide: below the evidence, within the bound's own looseness."""
    model = LinearGaussian.fit(digits, latent=2)
    exact = float(model.log_evidence(digits[:100]).mean())

    class Widened(LinearGaussian):
        def exact_posterior(self, image=None, mask=None):
            law = super().exact_posterior(image, mask)
            return type(law)(law.loc, scale_tril=1.5 * law.scale_tril)

    poor = Widened(model.loadings, model.mean, model.noise)
    found = bounds(poor, digits[:100], samples=500)
    expected_elbo = exact - 2 * (1.5**2 / 2 - 0.5 - math.log(1.5))  # minus KL(q || p) of two dimensions
    assert found.elbo == pytest.approx(expected_elbo, abs=0.05)
    assert exact - 0.05 < found.importance_weighted < exact + 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": torch.zeros(5, 1, 8, 9)}, r"expected \(1, 8, 8\)"),
        ({"data": torch.zeros(1, 8, 8)}, r"expected \(n, channel, row, column\)"),
        ({"data": torch.full((3, 1, 8, 8), float("nan"))}, "data has 192 values that are NaN or infinite"),
        ({"epochs": 0}, "epochs=0, batch_size=256; expected at least 1"),
    ],
)
def test_bad_input(digits, change, message):
    vae = fresh()
    arguments = {"data": digits, "progress": False} | change
    with pytest.raises(ValueError, match=message):
        train(vae, vae.guide, **arguments)


def test_nothing_to_train(digits, linear):
    with pytest.raises(ValueError, match="nor the guide has a trainable parameter"):
        train(linear, linear.guide, digits, progress=False)


def test_divergence_is_named(digits):
    vae = fresh(scale_rank=None)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) in epoch 1; try a learning rate below"):
        train(vae, vae.guide, digits, epochs=1, learning_rate=1e20, progress=False)


def test_recipe_end_to_end(tmp_path, monkeypatch):
    """A short recipe writes what a bundled set consists of, and what it writes loads and completes."""
    from dataclasses import replace

    short = replace(recipes.RECIPES["digits-vae-2d"], epochs=2, encoder_epochs=2)
    monkeypatch.setitem(recipes.RECIPES, "digits-vae-2d", short)
    text = recipes.train_bundled("digits-vae-2d", tmp_path, progress=False)
    assert (tmp_path / "digits-vae-2d.md").read_text() == text
    assert "| epochs | 2 |" in text
    decoder = pretrained.load_from(tmp_path, "digits-vae-2d.")
    assert LatentCode(decoder).guide(torch.rand(SHAPE)).shape == (2,)


def test_unknown_recipe(tmp_path):
    with pytest.raises(ValueError, match="unknown bundled set 'x'; there are recipes for"):
        recipes.train_bundled("x", tmp_path)


def test_a_schedule_and_its_fields_are_the_same(digits):
    """Fields given by name change the schedule's; a misspelt one is refused."""
    losses = []
    for given in (
        {"epochs": 2, "seed": 3},
        {"schedule": Schedule(epochs=2)},
        {"schedule": Schedule(epochs=9, seed=3), "epochs": 2},
    ):
        vae = fresh()
        losses.append(train(vae, vae.guide, digits[:100], progress=False, **given).losses)
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)
    with pytest.raises(TypeError, match="epoch"):
        train(vae, vae.guide, digits, epoch=2)


def test_order_does_not_repeat_the_draws_that_made_the_networks(digits):
    """A seed used for networks and for training gives them streams of their own."""
    seen = []

    class Watched(Loss):
        def differentiable_loss(self, model, guide, images, masks=None):
            seen.append(torch.rand(4))
            return model.decoder.mean_head.weight.square().sum()

    vae = fresh(seed=7)
    train(vae, vae.guide, digits[:1], loss=Watched(), epochs=1, seed=7, progress=False)
    torch.manual_seed(7)
    torch.randperm(1)
    assert not torch.equal(seen[0], torch.rand(4))


def field(seed=0):
    """A small field of experts, untrained."""
    torch.manual_seed(seed)
    return ExpertField(Experts(1, 2, 3, 1, 3), (1, 8, 8))


class TestCheckpoints:
    """A training that is killed goes on, and ends with the same weights."""

    SETTINGS: ClassVar = {"epochs": 4, "batch_size": 300, "averaging": 0.9, "progress": False}

    @pytest.mark.parametrize(
        ("fresh", "loss"),
        [(fresh, lambda: None), (field, lambda: ExpertLikelihood(chains=5))],
        ids=["an ELBO", "a loss that carries chains"],
    )
    def test_goes_on_bit_for_bit(self, fresh, loss, digits, tmp_path, monkeypatch):
        whole, broken = fresh(), fresh()
        expected = train(whole, whole.guide, digits, loss=loss(), **self.SETTINGS)
        settings = self.SETTINGS | {"checkpoint": tmp_path / "folder" / "training.pt"}
        commit, count = Descent._commit, [0]

        def killed(self, processor):
            commit(self, processor)
            count[0] += 1
            if count[0] == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Descent, "_commit", killed)
            with pytest.raises(KeyboardInterrupt):
                train(broken, broken.guide, digits, loss=loss(), **settings)
        for _ in range(2):  # what had ended is read
            again = fresh(seed=5)
            found = train(again, again.guide, digits, loss=loss(), **settings)
            assert found.losses == expected.losses
            assert all(
                torch.equal(*pair) for pair in zip(again.parameters(), whole.parameters(), strict=True)
            )

    def test_of_another_training_is_refused(self, digits, tmp_path):
        settings = self.SETTINGS | {"checkpoint": tmp_path / "training.pt", "epochs": 1}
        model = fresh()
        train(model, model.guide, digits, **settings)
        with pytest.raises(ValueError, match="is of another training: epochs, seed differ"):
            train(model, model.guide, digits, **settings | {"epochs": 2, "seed": 1})

    def test_a_block_of_trainings(self, digits, tmp_path):
        def both():
            with checkpoints_in(tmp_path) as kept:
                for _ in range(2):
                    model = fresh()
                    train(model, model.guide, digits, epochs=1, progress=False)
            return kept

        assert both().wall == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["training-0.pt", "training-1.pt"]
        assert both().wall > 0

    def test_averaging_is_named(self, digits):
        model = fresh()
        with pytest.raises(ValueError, match=r"averaging=1.0; expected a number in"):
            train(model, model.guide, digits, averaging=1.0)
