"""Generators: their gradient, their training against known laws, their noise, and Yeh's GAN term."""

import copy
import math

import numpy as np
import pytest
import torch
from pyro import poutine
from torch import nn

from posterior_inpainting.inference import MALA, MAP, blend, infer
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.evaluation.quality_of_samples import (
    class_shares,
    coverage_of_real,
    frechet_distance,
)
from posterior_inpainting.inference.recipes.generators import GeneratorRecipe
from posterior_inpainting.inference.recipes.train_recipe import train_recipe
from posterior_inpainting.inference.training.adversarial_losses import (
    R1,
    WassersteinGP,
    gradient_penalty,
    r1_penalty,
)
from posterior_inpainting.inference.training.noise_of_projections import fit_noise, project
from posterior_inpainting.inference.training.train_gan import train_gan
from posterior_inpainting.models import (
    LatentCode,
    Observation,
    PriorLoss,
    datasets,
    likelihoods,
    observations,
    pretrained,
)
from posterior_inpainting.models.networks.discriminator import Discriminator
from posterior_inpainting.models.networks.generator import Generator

SHAPE = (1, 8, 8)
MASK = observations.box(SHAPE, top=2, left=2, height=4, width=4)


def uneven_noise(shape=SHAPE):
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 0.3 + 0.05


@pytest.fixture
def generator():
    made = Generator(3, SHAPE, (16, 12))
    made.set_noise(uneven_noise())
    return made


@pytest.fixture
def discriminator():
    return Discriminator(SHAPE, channels=(4,), widths=(8,))


class TestNetworks:
    @pytest.mark.parametrize("batch", [(), (5,), (2, 3)], ids=str)
    def test_shapes(self, batch):
        shape = (2, 5, 9)
        generator, judge = Generator(4, shape, (8,)), Discriminator(shape, (3, 4), (6,))
        mean, scale = LatentCode(generator).decoder.mean_and_scale(torch.randn(*batch, 4))
        assert mean.shape == scale.shape == (*batch, *shape)
        assert 0 < float(mean.min()) < float(mean.max()) < 1
        assert judge(mean).shape == judge.prior_loss(mean).shape == batch

    @pytest.mark.parametrize("channels", [(), (4,)], ids=str)
    def test_judgement_does_not_depend_on_the_batch(self, channels):
        judge, images = Discriminator(SHAPE, channels, (8,)), torch.rand(6, *SHAPE)
        for training in (True, False):
            judge.train(training)
            torch.testing.assert_close(judge(images)[2:3], judge(images[2:3]))

    def test_prior_loss_is_yehs(self, discriminator):
        images = torch.rand(6, *SHAPE)
        probability = torch.sigmoid(discriminator(images))
        torch.testing.assert_close(discriminator.prior_loss(images), torch.log(1 - probability))
        critic = Discriminator(SHAPE, output="critic")
        assert torch.equal(critic.prior_loss(images), -critic(images))

    def test_made_again_from_configuration_and_state(self, generator, discriminator):
        for network, given in ((generator, torch.randn(2, 3)), (discriminator, torch.rand(2, *SHAPE))):
            again = type(network)(**network.configuration())
            again.load_state_dict(network.state_dict())
            assert torch.equal(again(given), network(given))
        again = Generator(**generator.configuration())
        again.load_state_dict(generator.state_dict())
        assert torch.equal(again.scale(torch.zeros(3)), uneven_noise())

    @pytest.mark.parametrize(
        ("noise", "message"),
        [
            (torch.ones(1, 8, 9), r"has shape \(1, 8, 9\); expected one that broadcasts to \(1, 8, 8\)"),
            (-0.1, r"values from -0.1 to -0.1; expected positive"),
            (math.nan, "expected positive, finite ones"),
        ],
        ids=["shape", "negative", "nan"],
    )
    def test_bad_noise(self, generator, noise, message):
        with pytest.raises(ValueError, match=message):
            generator.set_noise(noise)

    def test_unknown_output(self):
        with pytest.raises(ValueError, match="output='odds'; expected one of logit, critic"):
            Discriminator(SHAPE, output="odds")


class TestGradient:
    """The gradient by hand of the density under a generator, against autograd through Pyro's trace."""

    @staticmethod
    def differences(generator):
        images = datasets.load("digits")[:3]
        masks = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1)) < 0.6
        problem = Problem(LatentCode(generator), (images, masks))
        fast, general = Potential(problem, groups=3), Potential(problem, groups=3, closed_form=False)
        assert (fast.route, general.route) == ("closed form", "vmap")
        position = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(2))
        pairs = zip(fast.gradient(position, 0.7), general.gradient(position, 0.7), strict=True)
        return [float((mine - theirs).abs().max()) for mine, theirs in pairs]

    def test_by_hand_is_autograds(self, generator):
        assert max(self.differences(generator)) < 2e-3

    def test_a_wrong_one_is_noticed(self, generator, monkeypatch):
        right = Generator.restrict

        def wrong(self, pixels):
            decode = right(self, pixels)

            def broken(z):
                mean, scale, pull_back = decode(z)
                return mean, scale, lambda slope, of_scale: pull_back(slope, of_scale) * 0.99

            return broken

        monkeypatch.setattr(Generator, "restrict", wrong)
        assert self.differences(generator)[2] > 2e-2


class Line(nn.Module):
    """A generator of pairs of numbers that is linear in the code, so that it can be a Gaussian exactly."""

    latent, image_shape = 2, (1, 1, 2)

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, z):
        return self.linear(z).unflatten(-1, self.image_shape)


class TestPenalties:
    """Of s(x) = a.x + b |x|^2 / 2, whose gradient is a + b x."""

    a, b = torch.tensor([1.0, -2.0]), 3.0
    x = torch.tensor([[0.5, 1.0], [-1.0, 0.25]]).reshape(2, 1, 1, 2)

    def value(self, images):
        flat = images.flatten(1)
        return flat @ self.a + 0.5 * self.b * flat.square().sum(1)

    def test_r1(self):
        by_hand = 0.5 * np.mean([(1 + 1.5) ** 2 + (-2 + 3) ** 2, (1 - 3) ** 2 + (-2 + 0.75) ** 2])
        assert float(r1_penalty(self.value, self.x).detach()) == pytest.approx(by_hand, rel=1e-5)

    def test_between_the_images(self):
        fake, share = torch.zeros_like(self.x), torch.tensor([0.5, 1.0])
        lengths = np.array([math.hypot(1 + 0.75, -2 + 1.5), math.hypot(1 - 3, -2 + 0.75)])
        found = float(gradient_penalty(self.value, self.x, fake, share).detach())
        assert found == pytest.approx(np.mean((lengths - 1) ** 2), rel=1e-5)

    def test_their_own_gradient_reaches_the_weights(self):
        judge = Discriminator((1, 1, 2), widths=(4,))
        for penalty in (
            r1_penalty(judge, self.x),
            gradient_penalty(judge, self.x, -self.x, torch.full((2,), 0.3)),
        ):
            slope = torch.autograd.grad(penalty, judge.trunk[0].weight)[0]
            assert float(slope.abs().max()) > 0


class TestTraining:
    @pytest.mark.parametrize(
        ("loss", "options"),
        [
            ("r1", {"epochs": 12, "learning_rate": 0.03}),
            (WassersteinGP(penalty=0.1), {"epochs": 20, "learning_rate": 0.01, "batch_size": 64}),
        ],
        ids=["r1", "wgan-gp"],
    )
    def test_learns_a_gaussian(self, loss, options):
        """Both moments within 0.1 of standard deviations near 0.5; the start is far outside."""
        root = torch.tensor([[0.5, 0.0], [0.3, 0.4]])
        centre = torch.tensor([0.8, -0.4])
        data = (torch.randn(4096, 2) @ root.T + centre).reshape(-1, 1, 1, 2)
        generator = Line()
        judge = Discriminator((1, 1, 2), widths=(32, 32), output="logit" if loss == "r1" else loss.output)

        def off(network):
            weight, bias = network.linear.weight.detach(), network.linear.bias.detach()
            return max(
                float((bias - centre).abs().max()), float((weight @ weight.T - root @ root.T).abs().max())
            )

        assert off(generator) > 0.5
        training = train_gan(generator, judge, data, loss=loss, averaging=0.98, progress=False, **options)
        assert off(generator) < 0.1
        assert abs(training.distances[-1]) < abs(training.distances[0])

    def test_same_seed_same_weights_and_callers_generator_left_alone(self):
        data = torch.rand(64, *SHAPE)
        torch.manual_seed(3)
        first, judge = Generator(2, SHAPE, (8,)), Discriminator(SHAPE, widths=(8,))
        before = torch.get_rng_state()
        ends = []
        for seed in (0, 0, 1):
            players = copy.deepcopy(first), copy.deepcopy(judge)
            train_gan(*players, data, epochs=2, batch_size=16, seed=seed, progress=False)
            ends.append(players[0].mean_head.weight)
        assert torch.equal(ends[0], ends[1])
        assert not torch.equal(ends[0], ends[2])
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_average_is_returned(self):
        """With a long memory the generator ends nearer to its start than without one."""
        data = torch.rand(64, *SHAPE)
        first, judge = Generator(2, SHAPE, (8,)), Discriminator(SHAPE, widths=(8,))
        moved = []
        for averaging in (0.0, 0.9):
            players = copy.deepcopy(first), copy.deepcopy(judge)
            train_gan(*players, data, epochs=3, batch_size=16, averaging=averaging, progress=False)
            moved.append(float((players[0].mean_head.weight - first.mean_head.weight).detach().norm()))
        assert 0 < moved[1] < moved[0]

    def test_lazy_penalty_is_as_hard_on_average(self):
        """A penalty every second step, twice as hard: the first step's gradient is twice that of the penalty."""
        data = torch.rand(16, *SHAPE)
        first, judge = Generator(2, SHAPE, (8,)), Discriminator(SHAPE, widths=(8,))
        losses = []
        for every in (1, 2):
            players = copy.deepcopy(first), copy.deepcopy(judge)
            training = train_gan(
                *players,
                data,
                loss=R1(penalty=5.0, penalty_every=every),
                epochs=1,
                batch_size=16,
                progress=False,
            )
            losses.append(training.losses[0])
        assert losses[1] - losses[0] == pytest.approx(5 * float(r1_penalty(judge, data).detach()), rel=1e-3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": "hinge"}, "loss='hinge'; expected one of r1, wgan-gp"),
            ({"loss": "wgan-gp"}, "needs a discriminator with output='critic'; this one has 'logit'"),
            ({"epochs": 0}, "epochs=0, .*expected at least 1 of each"),
            ({"averaging": 1.0}, "averaging=1.0; expected a number in"),
            ({"images": torch.rand(4, 1, 8, 9)}, r"shape \(4, 1, 8, 9\); expected \(1, 8, 8\)"),
            ({"images": torch.rand(*SHAPE)}, r"expected \(n, channel, row, column\) with n > 0"),
            ({"images": torch.full((2, *SHAPE), math.nan)}, "images has 128 values that are NaN"),
            ({"loss": R1(critic_steps=5)}, "3 epochs of 1 steps are fewer than the critic_steps=5"),
            ({"discriminator": Discriminator((1, 4, 4))}, "the discriminator judges"),
            ({"learning_rate": 1e30}, "the loss is .* try a learning rate below"),
        ],
        ids=["loss", "output", "epochs", "averaging", "shape", "one", "nan", "few", "judge", "rate"],
    )
    def test_bad_input(self, options, message):
        given = {
            "generator": Generator(2, SHAPE, (8,)),
            "discriminator": Discriminator(SHAPE, widths=(8,)),
            "images": torch.rand(8, *SHAPE),
            "epochs": 3,
            "progress": False,
        }
        with pytest.raises(ValueError, match=message):
            train_gan(**given | options)

    @pytest.mark.parametrize("options", [{"penalty": -1.0}, {"penalty_every": 0}, {"critic_steps": 0}])
    def test_bad_loss(self, options):
        with pytest.raises(
            ValueError, match="expected a penalty of at least 0, and at least 1 of the others"
        ):
            R1(**options)

    def test_frozen_and_batch_normalised_networks_are_refused(self, discriminator):
        data = torch.rand(8, *SHAPE)
        with pytest.raises(ValueError, match="the generator has frozen weights"):
            train_gan(Generator(2, SHAPE).requires_grad_(False), discriminator, data, progress=False)
        discriminator.convolutions.append(nn.BatchNorm2d(4))
        with pytest.raises(ValueError, match="the discriminator has batch normalisation"):
            train_gan(Generator(2, SHAPE), discriminator, data, progress=False)


class TestNoise:
    def test_of_images_that_the_generator_drew(self, generator):
        """The noise of its own images comes back, pixel by pixel; one value is their root mean square."""
        truth = generator.pixel_scale.clone()
        count = 400
        with torch.no_grad():
            images = generator(torch.randn(count, 3)) + truth * torch.randn(count, *SHAPE)
        fit_noise(generator, images, floor=0.01, rounds=3, restarts=2, steps=100, progress=False)
        # Relative error of a standard deviation from n residuals, and 3 of 64 directions that the code takes up.
        error = 5 / math.sqrt(2 * count) + 3 / 64
        assert float((generator.pixel_scale / truth - 1).abs().max()) < error
        fitted = fit_noise(generator, images, per_pixel=False, rounds=1, steps=100, progress=False)
        assert len(fitted.scale.unique()) == 1
        assert float(fitted.scale[0, 0, 0]) == pytest.approx(float(truth.square().mean().sqrt()), rel=0.05)

    def test_floor(self, generator):
        with torch.no_grad():
            images = generator(torch.randn(20, 3))
        fitted = fit_noise(generator, images, floor=0.07, rounds=2, steps=200, progress=False)
        assert float(fitted.scale.min()) == pytest.approx(0.07)
        assert fitted.error[-1] < 0.02

    def test_a_projection_does_not_depend_on_the_other_images(self, generator):
        images = datasets.load("digits")[:4]
        together = project(generator.double(), images.double(), steps=50)
        for i in range(4):
            torch.testing.assert_close(
                project(generator, images[i : i + 1].double(), steps=50)[0], together[i]
            )

    @pytest.mark.parametrize(
        ("images", "options", "message"),
        [
            (torch.rand(1, *SHAPE), {}, "expected at least 2 as"),
            (torch.rand(4, *SHAPE), {"floor": 0.0}, "expected a positive floor"),
            (torch.rand(4, *SHAPE), {"steps": 0}, "restarts=4, steps=0; expected at least 1 of each"),
        ],
        ids=["one", "floor", "steps"],
    )
    def test_bad_input(self, generator, images, options, message):
        with pytest.raises(ValueError, match=message):
            fit_noise(generator, images, progress=False, **options)


class TestQuality:
    def test_mode_collapse_is_seen(self):
        """Half of the classes, drawn as well as can be, are half of the coverage and show in the shares."""
        images, labels = datasets.load("digits", "train"), datasets.labels("digits", "train")
        real, other, classes = images[::2], images[1::2], labels[::2]
        some = other[labels[1::2] < 5]
        whole, half = (coverage_of_real(real, x) for x in (other, some))
        assert whole > 0.9
        assert half < 0.6
        assert frechet_distance(real, some, 20) > 5 * frechet_distance(real, other, 20)
        assert float(class_shares(some, real, classes)[5:].sum()) < 0.05
        assert float(class_shares(other, real, classes)[5:].sum()) > 0.4


def test_recipe_writes_what_loads(tmp_path):
    recipe = GeneratorRecipe(
        dataset="digits",
        latent=2,
        widths=(16,),
        discriminator_widths=(8,),
        encoder_widths=(8,),
        epochs=1,
        noise_images=20,
        encoder_epochs=1,
    )
    card = train_recipe("small", recipe, tmp_path, progress=False)
    assert card == (tmp_path / "small.md").read_text()
    assert "| noise_images | 20 |" in card
    for part in ("decoder", "discriminator", "encoder"):
        (tmp_path / f"small.{part}.safetensors").rename(tmp_path / f"{part}.safetensors")
    digests = (tmp_path / "SHA256SUMS").read_text()
    (tmp_path / "SHA256SUMS").write_text(digests.replace("small.", ""))
    parts = pretrained.load_parts(tmp_path)
    assert sorted(parts) == ["decoder", "discriminator", "encoder"]
    model = LatentCode(
        parts["decoder"], encoder=parts["encoder"], prior_loss=PriorLoss(parts["discriminator"])
    )
    image = datasets.load("digits")[0]
    assert model.guide(image, MASK).shape == (2,)
    assert float(parts["decoder"].pixel_scale.min()) >= recipe.floor - 1e-4


class TestYeh:
    """The published method in full: context weights, absolute error, GAN term, restarts, blending."""

    @pytest.fixture
    def yeh(self, generator, discriminator):
        return LatentCode(
            generator,
            likelihood=likelihoods.laplace,
            noise=0.1,
            context_window=3,
            prior_weight=0.1,
            prior_loss=PriorLoss(discriminator, 0.7),
        )

    @staticmethod
    def log_joint(model, z, image, mask):
        return poutine.trace(poutine.condition(model, {"z": z})).get_trace(image, mask).log_prob_sum()

    @pytest.mark.parametrize("output", ["logit", "critic"])
    def test_factors_value(self, generator, output):
        judge = Discriminator(SHAPE, widths=(8,), output=output)
        image, z = datasets.load("digits")[0], torch.randn(3)
        with_term = LatentCode(generator, prior_loss=PriorLoss(judge, 0.7))
        found = self.log_joint(with_term, z, image, MASK) - self.log_joint(
            LatentCode(generator), z, image, MASK
        )
        value = judge(generator(z))
        prior_loss = -value if output == "critic" else torch.log(1 - torch.sigmoid(value))
        torch.testing.assert_close(found, -0.7 * prior_loss, rtol=1e-3, atol=1e-4)

    def test_factor_is_each_images_own(self, yeh):
        images, z = datasets.load("digits")[:3], torch.randn(3, 3)
        trace = poutine.trace(poutine.condition(yeh, {"z": z})).get_trace(images, MASK)
        trace.compute_log_prob()
        found = trace.nodes["discriminator"]["log_prob"]
        assert found.shape == (3,)
        torch.testing.assert_close(found, -0.7 * yeh.discriminator.prior_loss(yeh.decoder(z)))

    def test_result_does_not_depend_on_the_batch(self, yeh):
        yeh, images = yeh.double(), datasets.load("digits")[:3].double()
        method = MAP(restarts=2, steps=100)
        torch.manual_seed(0)
        together, _ = method.optimise(Problem(yeh, (images, MASK)))
        for i in range(3):
            torch.manual_seed(0)
            alone, _ = method.optimise(Problem(yeh, (images[i : i + 1], MASK)))
            torch.testing.assert_close(together["z"][:, i], alone["z"][:, 0], atol=1e-5, rtol=1e-5)

    def test_end_to_end(self, yeh):
        image = datasets.load("digits")[1]
        results = []
        for fill in (0.0, float("nan")):
            seen = Observation(torch.where(MASK, image, fill), MASK)
            idata = infer(yeh, seen, MAP(restarts=3, steps=50), progress=False)
            completions = torch.from_numpy(idata.posterior["completion"].to_numpy()[:, 0])
            results.append(blend(completions, image, MASK))
        assert idata.attrs["density"] == "pseudo-posterior"
        assert idata.attrs["draws_are"] == "restarts"
        assert torch.equal(*results)
        assert torch.equal(results[0][:, MASK], image[MASK].expand(3, -1))

    def test_the_term_pulls_towards_what_the_discriminator_likes(self, generator, discriminator):
        image, found = datasets.load("digits")[1], []
        for weight in (1e-6, 30.0):
            model = LatentCode(generator, prior_loss=PriorLoss(discriminator, weight))
            idata = infer(model, Observation(image, MASK), MAP(restarts=2, steps=200), progress=False)
            z = torch.from_numpy(idata.posterior["z"].to_numpy()[:, 0])
            found.append(float(discriminator(generator(z)).mean()))
        assert found[1] > found[0]

    def test_it_has_a_pseudo_posterior(self, yeh):
        seen = Observation(datasets.load("digits")[0], MASK)
        idata = infer(yeh, seen, MALA(warmup=30), draws=30, chains=2, progress=False)
        assert float(idata.posterior["z"].std()) > 0

    def test_bad_options(self, generator, discriminator):
        with pytest.raises(ValueError, match="weight=-1 of the prior loss; expected a positive number"):
            LatentCode(generator, prior_loss=PriorLoss(discriminator, -1))
        with pytest.raises(
            ValueError, match=r"judges images of shape \(1, 4, 4\); the decoder makes \(1, 8, 8\)"
        ):
            LatentCode(generator, prior_loss=PriorLoss(Discriminator((1, 4, 4))))
