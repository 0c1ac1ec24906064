"""Fields of experts: the filters' algebra, and a Gibbs sampler against posteriors that are known."""

import math

import numpy as np
import pytest
import torch
from statistics_of_draws import assert_moments, ess_of
from torch.distributions import Categorical, MixtureSameFamily, Normal

from posterior_inpainting.inference import ChEES, ExpertLikelihood, ExpertScoreMatching, Gibbs, infer, train
from posterior_inpainting.models import ExpertField, GaussianProcess, Observation, observations, pretrained
from posterior_inpainting.models.expert_field import ExpertConditionals
from posterior_inpainting.models.fields import Matern
from posterior_inpainting.models.networks import Experts


def made(*arguments, gain=3.0, seed=0, **settings) -> Experts:
    torch.manual_seed(seed)
    experts = Experts(*arguments, **settings)
    with torch.no_grad():
        experts.filters.mul_(gain)
        experts.raw_weights.normal_()
    return experts


class TestExperts:
    @pytest.fixture
    def experts(self):
        return made(2, 3, 3, 2, 4).double()

    def test_adjoint(self, experts):
        images = torch.randn(2, 2, 9, 10).double()
        responses = experts.responses(images)
        others = [torch.randn_like(part) for part in responses]
        left = sum((a * b).sum() for a, b in zip(responses, others, strict=True))
        torch.testing.assert_close((experts.adjoint(others, images) * images).sum(), left)

    def test_diagonal_of_the_precision(self, experts):
        images = torch.eye(180).double().reshape(180, 2, 9, 10)
        precisions = [torch.rand_like(part[:1]) for part in experts.responses(images[:1])]
        dense = experts.precision_times(images, [p.expand(180, -1, -1, -1) for p in precisions]).flatten(1)
        torch.testing.assert_close(dense, dense.T)
        torch.testing.assert_close(dense.diagonal(), experts.diagonal(precisions).flatten())

    def test_a_colour_that_an_image_has_everywhere_moves_no_expert(self, experts):
        images, colour = torch.rand(2, 2, 9, 10).double(), torch.tensor([0.3, -0.1]).double()[:, None, None]
        torch.testing.assert_close(experts.log_experts(images), experts.log_experts(images + colour))

    def test_log_density_is_that_of_the_mixtures(self, experts):
        images = torch.rand(2, 2, 9, 10).double()
        expected = -0.5 * experts.ridge * (images - experts.centre).square().sum((-3, -2, -1))
        for responses, raw in zip(experts.responses(images), experts.raw_weights, strict=True):
            for response, weights in zip(responses.unbind(1), raw, strict=True):
                law = MixtureSameFamily(
                    Categorical(logits=weights), Normal(torch.zeros(4).double(), experts.scales)
                )
                expected = expected + law.log_prob(response).sum((-2, -1))
        torch.testing.assert_close(experts.log_density(images), expected)

    def test_components_come_with_their_responsibilities(self, experts):
        images = torch.rand(1, 2, 9, 10).double()
        generator = torch.Generator().manual_seed(0)
        drawn = [experts.draw_precisions(images, generator) for _ in range(800)]
        for level, responses in enumerate(experts.responses(images)):
            weights = experts.raw_weights[level].softmax(-1)[..., None, None, :]
            each = weights * Normal(0, experts.scales).log_prob(responses[0].unsqueeze(-1)).exp()
            share = (each / each.sum(-1, keepdim=True)).detach()
            values = experts.scales.reciprocal().square()
            expected = share @ values
            error = ((share @ values.square() - expected.square()) / 800).sqrt()
            found = torch.stack([one[level][0] for one in drawn]).mean(0)
            # Rare components are counted, and counts of few are no normal numbers.
            assert float(((found - expected).abs() / (error + 0.05)).max()) < 5

    def test_saved_and_loaded(self, tmp_path):
        experts = made(1, 3, 3, 2, 4)
        pretrained.save_parts(tmp_path, "", {"experts": experts})
        found = pretrained.load_parts(tmp_path, "experts")["experts"]
        images = torch.rand(2, 1, 9, 10)
        torch.testing.assert_close(
            found.log_density(images), experts.log_density(images), rtol=1e-2, atol=0.5
        )


#: 2 x 2 pixels under one filter, the last of them hidden.
SQUARE = (1, 2, 2)
SEEN = torch.tensor([[[True, True], [True, False]]])
IMAGE = torch.tensor([[[0.3, 0.6], [0.8, 0.0]]])


def square(noise=0.2) -> ExpertField:
    return ExpertField(made(1, 1, 2, 1, 5, gain=4.0, ridge=2.0), SQUARE, noise=noise)


def by_quadrature(model: ExpertField):
    """Mean and standard deviation of the four pixels, on a grid."""
    line = torch.linspace(-2.5, 3.0, 41, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line, line, line).reshape(-1, *SQUARE)
    experts = model.experts.double()
    with torch.no_grad():
        residual = (grid - IMAGE.double())[:, SEEN] / model.noise
        log = experts.log_density(grid) - 0.5 * residual.square().sum(1)
    experts.float()
    weight, grid = log.softmax(0), grid.flatten(1)
    mean = weight @ grid
    return mean, (weight @ (grid - mean).square()).sqrt()


class Unperturbed(ExpertConditionals):
    """The Gibbs sampler, but that the image is solved for and not drawn."""

    def _pixels(self, precisions, like, generator):
        deaf = torch.Generator().manual_seed(0)
        return super()._pixels(precisions, like, deaf)


class TestPosterior:
    def test_is_that_of_quadrature(self):
        model = square()
        mean, sd = by_quadrature(model)
        posterior = infer(
            model, Observation(IMAGE, SEEN), Gibbs(warmup=50), draws=1500, chains=8, progress=False
        )
        draws = posterior.posterior["completion"].to_numpy().reshape(8, 1500, 4)
        assert_moments(draws, mean, sd)
        # What is expected given the components alone has the same mean, and less chance in it.
        expected = posterior.sample_stats["expected_completion"].to_numpy().reshape(8, 1500, 4)
        spread = expected.std((0, 1))
        assert (spread < 0.9 * sd.numpy()).all()
        error = np.abs(expected.mean((0, 1)) - mean.numpy()) / (spread / np.sqrt(ess_of(expected, "mean")))
        assert error.max() < 5

    def test_a_broken_sampler_is_found(self, monkeypatch):
        model = square()
        mean, sd = by_quadrature(model)
        monkeypatch.setattr("posterior_inpainting.models.expert_field.ExpertConditionals", Unperturbed)
        posterior = infer(
            model, Observation(IMAGE, SEEN), Gibbs(warmup=50), draws=1500, chains=8, progress=False
        )
        draws = posterior.posterior["completion"].to_numpy().reshape(8, 1500, 4)
        with pytest.raises(AssertionError, match=r"biased|not mixing"):
            assert_moments(draws, mean, sd)

    def test_agrees_with_hamiltonian_chains(self):
        """On two levels and colour, by another sampler on the density that Pyro sees."""
        shape = (2, 8, 8)
        model = ExpertField(made(2, 3, 3, 2, 4, ridge=1.0), shape, noise=0.1)
        seen = Observation(
            torch.rand(shape, generator=torch.Generator().manual_seed(1)),
            observations.half(shape, hide="bottom"),
        )
        settings = {"progress": False}
        ours = infer(model, seen, Gibbs(warmup=50), draws=300, chains=8, **settings)
        other = infer(model, seen, ChEES(warmup=200), draws=500, chains=16, **settings)
        moments = other.posterior["completion"].to_numpy()[..., 4:, :].reshape(16, 500, -1)
        draws = ours.posterior["completion"].to_numpy()[..., 4:, :].reshape(8, 300, -1)
        # The truth has an error too, about as large as that of half as many draws as it has.
        assert_moments(draws, moments.mean((0, 1)), moments.std((0, 1)), errors=6)

    def test_ranks_of_truths_are_uniform(self):
        """Simulation-based calibration: truths by a long chain of the prior, data around them, one posterior each."""
        model = square(noise=0.3)
        nothing = Observation(torch.zeros(SQUARE), torch.zeros(SQUARE, dtype=torch.bool))
        prior = infer(model, nothing, Gibbs(warmup=100, thin=20), draws=12, chains=8, seed=1, progress=False)
        truths = torch.as_tensor(prior.posterior["completion"].to_numpy()).reshape(-1, *SQUARE)
        generator, ranks = torch.Generator().manual_seed(2), []
        for number, truth in enumerate(truths):
            noisy = truth + 0.3 * torch.randn(SQUARE, generator=generator)
            seen = Observation(noisy, SEEN, any_values=True)
            posterior = infer(
                model, seen, Gibbs(warmup=20, thin=4), draws=25, chains=4, seed=number, progress=False
            )
            ranks.append(
                float(
                    (posterior.posterior["completion"].to_numpy()[..., 1, 1] < float(truth[0, 1, 1])).mean()
                )
            )
        ranks = np.array(ranks)
        assert abs(ranks.mean() - 0.5) < 4 * 0.289 / math.sqrt(len(ranks))
        assert abs(ranks.std() - 0.289) < 0.06


LEARNT = (1, 6, 6)


@pytest.fixture(scope="module")
def truth():
    experts = made(1, 2, 2, 1, 4, gain=2.0, ridge=4.0)
    with torch.no_grad():
        experts.raw_weights.copy_(torch.tensor([[[-3.0, 0.0, 0.0, 1.0], [1.0, 1.0, -1.0, -3.0]]]))
    return experts.requires_grad_(False)


@pytest.fixture(scope="module")
def images(truth):
    return draws_of_the_prior(truth, LEARNT, 50)


class TestTraining:
    """Images of a field that is known: what is learnt of it, from filters that are right and weights that are not."""

    def learnt(self, truth, images, loss, epochs):
        experts = Experts(1, 2, 2, 1, 4, ridge=4.0)
        with torch.no_grad():
            experts.filters.copy_(truth.filters)
        model = ExpertField(experts, LEARNT)
        train(
            model,
            model.guide,
            images,
            loss=loss,
            epochs=epochs,
            batch_size=100,
            learning_rate=0.03,
            progress=False,
        )
        return experts.requires_grad_(False)

    def test_score_matching_denoises(self, truth, images):
        """The score of images *under the noise*: those of the truth and of the start overshoot."""
        level, generator = 0.1, torch.Generator().manual_seed(3)
        noisy = images + level * torch.randn(images.shape, generator=generator)

        def share_of_the_noise(experts):
            u = noisy.clone().requires_grad_()
            (score,) = torch.autograd.grad(experts.log_density(u).sum(), u)
            return float((noisy + level**2 * score - images).square().mean()) / level**2

        assert share_of_the_noise(truth) > 1.2
        assert share_of_the_noise(self.learnt(truth, images, ExpertScoreMatching(level), epochs=20)) < 0.7

    def test_likelihood_gives_the_prior_the_images_statistics(self, truth, images):
        experts = self.learnt(truth, images, ExpertLikelihood(chains=100), epochs=15)
        mine, theirs = (
            truth.responses(some)[0].abs().mean((0, 2, 3))
            for some in (draws_of_the_prior(experts, LEARNT, 20), images)
        )
        torch.testing.assert_close(mine, theirs, rtol=0.04, atol=0)  # a fifth apart at the start


def draws_of_the_prior(experts, shape, draws):
    """Images of a field, ``(100 * draws, ...)``."""
    nothing = Observation(torch.zeros(shape), torch.zeros(shape, dtype=torch.bool))
    posterior = infer(
        ExpertField(experts, shape),
        nothing,
        Gibbs(warmup=50, thin=2),
        draws=draws,
        chains=100,
        progress=False,
    )
    return torch.as_tensor(posterior.posterior["completion"].to_numpy()).reshape(-1, *shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Experts(count=0), "expected at least 1 of each"),
        (lambda: Experts(ridge=0.0), "a positive ridge"),
        (lambda: ExpertField(Experts(3), (1, 32, 32)), "take 3 channel"),
        (lambda: ExpertField(Experts(1), (1, 32, 9)), "smaller than the widest filter, 10 x 10"),
        (lambda: ExpertField(Experts(1), (1, 32, 32), noise=0.0), "noise=0.0"),
        (lambda: Gibbs(thin=0), "thin=0"),
        (lambda: ExpertScoreMatching(0.0), "level=0.0"),
        (lambda: ExpertLikelihood(chains=0), "chains=0"),
    ],
    ids=range(8),
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gibbs_needs_conditional_draws():
    model = GaussianProcess(Matern(1.5), (1, 8, 8), mean=0.3, covariance=0.1, noise=0.1)
    with pytest.raises(ValueError, match="declares no conditional draws"):
        infer(
            model, Observation(torch.rand(1, 8, 8), torch.ones(1, 8, 8) > 0), Gibbs(), draws=2, progress=False
        )
