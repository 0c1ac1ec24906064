"""The Gaussian process against dense float64 conditioning, and its two routes against each other."""

import math
from functools import partial

import pytest
import torch
from pyro.infer import MCMC, NUTS, Predictive
from statistics_of_draws import assert_moments

from posterior_inpainting.inference import Exact, infer
from posterior_inpainting.models import Observation, datasets, observations
from posterior_inpainting.models.fields import (
    DeepImagePriorKernel,
    HourglassKernel,
    Matern,
    SquaredExponential,
)
from posterior_inpainting.models.fields.block_likelihood import BlockLikelihood, blocks, everything
from posterior_inpainting.models.fields.channel_prior import ChannelPrior
from posterior_inpainting.models.fields.circulant import CirculantEmbedding, fast_length, offsets
from posterior_inpainting.models.fields.completed_field import ConjugateGradients
from posterior_inpainting.models.fields.matheron import WhitePosterior
from posterior_inpainting.models.gaussian_process import GaussianProcess
from posterior_inpainting.models.images import available_memory

KERNELS = [
    SquaredExponential(1.5),
    Matern(2.0, smoothness=0.5),
    Matern(2.0, smoothness=1.5),
    Matern(2.0, smoothness=2.5),
    DeepImagePriorKernel(2.0, depth=1),
    DeepImagePriorKernel(2.5, depth=8),
    DeepImagePriorKernel(2.5, depth=4, slope=0.2),
    HourglassKernel(1.5, scales=1),
    HourglassKernel(1.5, scales=3, slope=0.2, skip=0.1),
    HourglassKernel(1.0, scales=2, upsampling="nearest"),
]
COLOURS = torch.tensor([[0.10, 0.08, 0.05], [0.08, 0.09, 0.06], [0.05, 0.06, 0.12]])
MASKS = {
    "half": observations.half((1, 8, 8), hide="bottom"),
    "scatter": observations.scatter((1, 8, 8), keep=0.3, seed=1),
    "nothing seen": torch.zeros(1, 8, 8, dtype=torch.bool),
    "everything seen": torch.ones(1, 8, 8, dtype=torch.bool),
}


def small_model(**changes):
    settings = {"mean": 0.3, "covariance": 0.1, "noise": 0.1} | changes
    return GaussianProcess(DeepImagePriorKernel(2.0, depth=4), (1, 8, 8), **settings)


def colour_model(side=8, **changes):
    settings = {"mean": [0.3, 0.4, 0.5], "covariance": COLOURS, "noise": 0.05} | changes
    return GaussianProcess(Matern(2.0), (3, side, side), **settings)


def colour_mask(side=8):
    """Green everywhere, the other colours at one pixel in ten."""
    shape = (3, side, side)
    return observations.channels(shape, keep=1) | observations.scatter(shape, keep=0.1, seed=2)


@pytest.fixture(params=MASKS, ids=str)
def seen(request, digits):
    return Observation(digits[3], MASKS[request.param])


@pytest.fixture
def half(digits):
    return Observation(digits[3], MASKS["half"])


def dense_joint(model):
    """Mean and covariance of the noiseless pixels, from the kernel itself, without any embedding."""
    channels, rows, columns = model.image_shape
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    kernel = model.kernel(torch.cdist(place, place).square().round())
    mean = model.mean.double().expand(channels, rows, columns).flatten()
    return mean, torch.kron(model.covariance.double(), kernel)


def dense_posterior(model, image, mask):
    """Mean and covariance of the noiseless pixels given the seen ones."""
    mean, covariance = dense_joint(model)
    index = mask.flatten().nonzero().flatten()
    noisy = covariance[index][:, index] + model.noise.double() ** 2 * torch.eye(len(index))
    gain = torch.linalg.solve(noisy, covariance[index]).T
    return mean + gain @ (image.double().flatten()[index] - mean[index]), covariance - gain @ covariance[
        index
    ]


def draws_of(model, image, mask, count=2000):
    """Noiseless pixels of exact draws, ``(1, draw, pixel)``."""
    return model.completion(model.exact_posterior(image, mask).sample((count,))).flatten(1)[None]


class TestKernels:
    @pytest.mark.parametrize(
        ("kernel", "form"),
        [
            (SquaredExponential(2.0), lambda d: math.exp(-(d**2) / 8)),
            (Matern(2.0, smoothness=0.5), lambda d: math.exp(-d / 2)),
            (
                Matern(2.0, smoothness=1.5),
                lambda d: (1 + 3**0.5 * d / 2) * math.exp(-(3**0.5) * d / 2),
            ),
            (
                Matern(2.0, smoothness=2.5),
                lambda d: (1 + 5**0.5 * d / 2 + 5 * d**2 / 12) * math.exp(-(5**0.5) * d / 2),
            ),
        ],
        ids=["squared exponential", "matern 1/2", "matern 3/2", "matern 5/2"],
    )
    def test_closed_forms(self, kernel, form):
        for d in (0.0, 0.5, 1.0, 3.0, 10.0):
            assert float(kernel(torch.tensor(d**2, dtype=torch.double))) == pytest.approx(form(d), rel=1e-12)

    @pytest.mark.parametrize("depth", [1, 3, 8])
    def test_deep_image_prior_by_the_recursion_for_relu(self, depth):
        """Unnormalised, as Cheng et al. print it: K' = K(0) / 2 pi [sin t + (pi - t) cos t]."""

        def kernel(d):
            value, variance = math.exp(-(d**2) / (4 * 2.5**2)), 1.0
            for _ in range(depth):
                t = math.acos(value / variance)
                value = variance / (2 * math.pi) * (math.sin(t) + (math.pi - t) * math.cos(t))
                variance /= 2
            return value / variance

        ours = DeepImagePriorKernel(2.5, depth=depth)
        for d in (1.0, 2.0, 5.0, 40.0):
            assert float(ours(torch.tensor(d**2, dtype=torch.double))) == pytest.approx(kernel(d), abs=1e-12)
        assert ours.floor == pytest.approx(kernel(1000.0), abs=1e-12)

    @pytest.mark.parametrize("slope", [0.0, 0.1, 0.5])
    def test_one_layer_is_the_covariance_of_leaky_units(self, slope):
        cosine = 0.6
        u = torch.randn(2_000_000, 2, dtype=torch.double)
        u = torch.stack([u[:, 0], cosine * u[:, 0] + (1 - cosine**2) ** 0.5 * u[:, 1]])
        unit = torch.nn.functional.leaky_relu(u, slope)
        sampled = float((unit[0] * unit[1]).mean() / unit.square().mean())
        squared = torch.tensor(-4 * math.log(cosine), dtype=torch.double)
        assert float(DeepImagePriorKernel(1.0, 1, slope)(squared)) == pytest.approx(sampled, abs=4e-3)

    @pytest.mark.parametrize("kernel", KERNELS, ids=str)
    def test_one_at_zero_and_finite_gradients(self, kernel):
        lengthscale = torch.tensor(1.5, dtype=torch.double, requires_grad=True)
        values = type(kernel)(**{**vars(kernel), "lengthscale": lengthscale}).at(*offsets(4, 4))
        values.sum().backward()
        assert float(values[0, 0].detach()) == 1
        assert lengthscale.grad.isfinite()
        assert lengthscale.grad > 0


class TestCirculantEmbedding:
    @pytest.mark.parametrize("kernel", KERNELS, ids=str)
    def test_is_the_kernel_on_the_grid(self, kernel):
        embedding = CirculantEmbedding(kernel, 9, 14)
        wanted = kernel.at(*offsets(9, 14))
        torch.testing.assert_close(embedding.covariance[:9, :14], wanted, atol=1e-6, rtol=0)
        assert all(extent == fast_length(extent) for extent in embedding.torus)

    def test_products_and_square_root_are_those_of_the_dense_matrix(self):
        embedding = CirculantEmbedding(KERNELS[5], 5, 7)
        K = embedding.dense(torch.arange(35))
        v, z = torch.randn(5, 7, dtype=torch.double), torch.randn(*embedding.torus, dtype=torch.double)
        torch.testing.assert_close(embedding.product(v).flatten(), K @ v.flatten())
        torch.testing.assert_close(embedding.field(embedding.adjoint(v)).flatten(), K @ v.flatten())
        torch.testing.assert_close((embedding.field(z) * v).sum(), (z * embedding.adjoint(v)).sum())

    def test_a_lengthscale_that_is_too_long_is_refused(self):
        with pytest.raises(ValueError, match="lengthscale=300 is too long for 8 x 8 pixels"):
            CirculantEmbedding(SquaredExponential(300.0), 8, 8)

    def test_too_large_for_memory_names_the_size_that_fits(self, monkeypatch):
        monkeypatch.setattr(available_memory, "memory", lambda: 1e6)
        with pytest.raises(
            ValueError, match=r"512 x 512 pixels needs 0.0168 GB .* at most 125 pixels a side fit"
        ):
            CirculantEmbedding(KERNELS[0], 512, 512)
        law = GaussianProcess(KERNELS[0], (1, 64, 64)).exact_posterior()
        with pytest.raises(ValueError, match=r"drawing 100 times needs .* at most \d+ pixels a side fit"):
            law.sample((100,))
        with pytest.raises(ValueError, match="Cholesky factor for 400 seen values; lower dense_limit"):
            GaussianProcess(KERNELS[0], (1, 20, 20)).log_evidence(torch.zeros(1, 20, 20))


class TestExactPosterior:
    def test_equals_dense_conditioning(self, seen):
        model = small_model()
        loc, covariance = dense_posterior(model, seen.image, seen.mask)
        law = model.pixel_posterior(seen.image, seen.mask)
        torch.testing.assert_close(law.mean.flatten(), loc, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(law.variance.flatten(), covariance.diagonal(), atol=1e-6, rtol=1e-4)
        mean = model.completion(model.exact_posterior(seen.image, seen.mask).mean)
        torch.testing.assert_close(mean.flatten().double(), loc, atol=1e-5, rtol=1e-4)

    def test_draws_have_its_moments(self, seen):
        model = small_model()
        loc, covariance = dense_posterior(model, seen.image, seen.mask)
        drawn = draws_of(model, seen.image, seen.mask)
        assert_moments(drawn, loc, covariance.diagonal().sqrt(), independent=True)
        # and along random directions, which pixel by pixel moments do not see
        directions = torch.randn(64, 20, dtype=torch.double)
        sd = (directions * (covariance @ directions)).sum(0).sqrt()
        assert_moments(drawn.double() @ directions, loc @ directions, sd, independent=True)

    def test_law_of_the_white_noise(self, half):
        """Mean, variance and density against the dense posterior over z itself."""
        model = small_model()
        law = model.exact_posterior(half.image, half.mask)
        identity = torch.eye(model.latent, dtype=torch.double)
        A = (model.completion(identity) - model.mean)[:, half.mask].T
        r = (half.image - model.mean)[half.mask].double()
        noise2 = model.noise.double() ** 2
        precision = identity + A.T @ A / noise2
        loc = torch.linalg.solve(precision, A.T @ r / noise2)
        dense = torch.distributions.MultivariateNormal(loc, precision_matrix=precision)
        torch.testing.assert_close(law.mean.double(), loc, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(law.variance.double(), dense.variance, atol=1e-5, rtol=1e-4)
        z = torch.randn(3, model.latent, dtype=torch.double)
        torch.testing.assert_close(law.log_prob(z), dense.log_prob(z))

    def test_evidence_equals_a_dense_gaussian(self, seen):
        model = small_model()
        mean, covariance = dense_joint(model)
        index = seen.mask.flatten().nonzero().flatten()
        expected = 0.0
        if len(index):
            noisy = covariance[index][:, index] + model.noise.double() ** 2 * torch.eye(len(index))
            law = torch.distributions.MultivariateNormal(mean[index], noisy)
            expected = float(law.log_prob(seen.image.double().flatten()[index]))
        assert float(model.log_evidence(seen.image, seen.mask)) == pytest.approx(expected, abs=1e-4)

    def test_a_wrong_rule_fails(self, half, monkeypatch):
        """Matheron's rule without its noise, and with the noise of another sd, is caught."""
        model = small_model()
        loc, covariance = dense_posterior(model, half.image, half.mask)
        sd = covariance.diagonal().sqrt()
        for share in (0.0, 0.7, 1.5):

            def wrong(self, covariance, residual, z, share=share):
                field = self._field(z)
                noise = share * covariance.noise * torch.randn_like(field)
                return self._explained(covariance, residual - field - noise)

            monkeypatch.setattr(WhitePosterior, "_correction", wrong)
            with pytest.raises(AssertionError, match="biased: the variance"):
                assert_moments(draws_of(model, half.image, half.mask), loc, sd, independent=True)


class TestInference:
    def test_exact(self, half):
        model = small_model()
        idata = infer(model, half, Exact(), draws=500, chains=4, seed=3, progress=False)
        loc, covariance = dense_posterior(model, half.image, half.mask)
        hidden = ~half.mask.flatten().numpy()
        drawn = idata.posterior_predictive["image"].to_numpy().reshape(4, 500, 64)[..., hidden]
        sd = (covariance.diagonal() + model.noise.double() ** 2).sqrt()
        assert_moments(drawn, loc[hidden], sd[hidden], independent=True)
        evidence = float(model.log_evidence(half.image, half.mask))
        assert idata.attrs["log_evidence"] == pytest.approx(evidence)
        assert idata.sample_stats["log_weight"].to_numpy() == pytest.approx(evidence, abs=2e-3)

    def test_seeds(self, half):
        model = small_model()
        before = torch.get_rng_state()
        first, again, other = (
            infer(model, half, Exact(), draws=3, chains=1, seed=seed, progress=False).posterior["completion"]
            for seed in (1, 1, 2)
        )
        assert (first == again).all()
        assert not (first == other).any()
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.long
    def test_nuts_agrees(self, half):
        """In anyone's Pyro code; the noise is large so that short trajectories do."""
        model = GaussianProcess(SquaredExponential(0.7), (1, 8, 8), mean=0.3, covariance=0.1, noise=0.2)
        mcmc = MCMC(NUTS(model), num_samples=800, warmup_steps=60, disable_progbar=True)
        mcmc.run(half.image, half.mask)
        loc, covariance = dense_posterior(model, half.image, half.mask)
        drawn = model.completion(mcmc.get_samples()["z"]).flatten(1)[None]
        assert_moments(drawn, loc, covariance.diagonal().sqrt(), floor=50)

    def test_predictive_is_the_prior(self):
        model = colour_model()
        drawn = Predictive(model, num_samples=2000, parallel=True)()["image"].reshape(1, 2000, -1)
        mean, covariance = dense_joint(model)
        sd = (covariance.diagonal() + model.noise.double() ** 2).sqrt()
        assert_moments(drawn, mean, sd, independent=True)


class TestConjugateGradients:
    """The route for large images, on images small enough for the other."""

    @pytest.mark.parametrize("name", ["scatter", "half", "colour"])
    def test_agrees_with_cholesky(self, name):
        if name == "colour":
            dense, mask = colour_model(side=12), colour_mask(side=12)
        else:
            kernel = DeepImagePriorKernel(2.5, depth=8)
            dense = GaussianProcess(kernel, (1, 20, 20), covariance=0.3, noise=0.02)
            mask = {
                "scatter": observations.scatter((1, 20, 20), keep=0.5),
                "half": observations.half((1, 20, 20), hide="left"),
            }[name]
        settings = {"mean": dense.mean.flatten(), "covariance": dense.covariance, "noise": dense.noise}
        iterative = GaussianProcess(dense.kernel, dense.image_shape, dense_limit=0, **settings)
        image = dense().detach()
        laws = [model.exact_posterior(image, mask) for model in (dense, iterative)]
        assert isinstance(laws[1].covariances[0], ConjugateGradients)
        means, draws = [], []
        for model, law in zip((dense, iterative), laws, strict=True):
            means.append(model.completion(law.mean))
            torch.manual_seed(4)
            draws.append(model.completion(law.sample((2000,))))
        torch.testing.assert_close(means[0], means[1], atol=1e-3, rtol=0)
        torch.testing.assert_close(draws[0], draws[1], atol=1e-3, rtol=0)
        exact = dense.pixel_posterior(image, mask)
        assert_moments(
            draws[1].flatten(1)[None], exact.mean.flatten(), exact.stddev.flatten(), independent=True
        )

    def test_what_it_cannot_know(self):
        model = small_model(dense_limit=10)
        image, mask = torch.rand(1, 8, 8), MASKS["half"]
        assert model.log_evidence(image, mask).isnan()
        with pytest.raises(ValueError, match="with 32 seen values; expected one image with at most 10"):
            model.pixel_posterior(image, mask)
        with pytest.raises(ValueError, match="32 seen values are too many for exact variances"):
            _ = model.exact_posterior(image, mask).variance
        idata = infer(model, Observation(image, mask), Exact(), draws=3, chains=2, progress=False)
        assert "log_evidence" not in idata.attrs

    def test_failing_to_converge_is_said(self):
        model = small_model()
        embedding, mask = model.embedding, MASKS["scatter"]
        solver = ConjugateGradients(
            embedding, model.covariance, model.noise.double(), mask, 1e-9, iterations=2
        )
        with pytest.raises(RuntimeError, match="stopped after 2 iterations with a relative residual of"):
            solver.solve(torch.rand(3, 1, 8, 8, dtype=torch.double))

    def test_the_tolerance_is_the_models(self):
        model = small_model(dense_limit=0, tolerance=1e-7)
        assert model.exact_posterior(torch.rand(1, 8, 8)).covariances[0].tolerance == 1e-7

    def test_an_image_of_a_different_shape(self):
        """Rows and columns are told apart, on both routes."""
        shape = (1, 12, 30)
        image, mask = torch.rand(shape), observations.scatter(shape, keep=0.4)
        models = [GaussianProcess(Matern(3.0), shape, dense_limit=limit) for limit in (6144, 0)]
        loc, _ = dense_posterior(models[0], image, mask)
        for model in models:
            mean = model.completion(model.exact_posterior(image, mask).mean)
            torch.testing.assert_close(mean.flatten().double(), loc, atol=1e-3, rtol=0)


class TestColour:
    def test_equals_dense_conditioning(self):
        model, mask = colour_model(), colour_mask()
        image = model().detach()
        loc, covariance = dense_posterior(model, image, mask)
        law = model.pixel_posterior(image, mask)
        torch.testing.assert_close(law.mean.flatten(), loc, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(law.variance.flatten(), covariance.diagonal(), atol=1e-6, rtol=1e-4)
        drawn = draws_of(model, image, mask)
        assert_moments(drawn, loc, covariance.diagonal().sqrt(), independent=True)

    def test_colourisation(self):
        """From one channel and a few colours: the learnt covariance of channels carries colour."""
        photograph = datasets.load("natural", split="test")[:1]
        image = torch.nn.functional.interpolate(photograph, (20, 20), mode="area")[0]
        mask = colour_mask(side=20)
        model = GaussianProcess.fit(Observation(image, mask), Matern(3.0))
        apart = GaussianProcess(
            model.kernel,
            image.shape,
            mean=model.mean.flatten(),
            covariance=model.covariance.diagonal().diag(),
            noise=model.noise,
        )
        together, separate = (
            (m.pixel_posterior(image, mask).mean - image)[~mask].square().mean() for m in (model, apart)
        )
        grey = (image[1] - image)[~mask].square().mean()
        assert together < 0.5 * separate
        assert together < 0.5 * grey


class TestFit:
    @pytest.mark.parametrize("colours", [None, ChannelPrior.of_photographs()], ids=["alone", "with a prior"])
    def test_gradient_of_the_marginal_likelihood(self, colours):
        image, mask = colour_model()().detach(), colour_mask()
        observation = Observation(image, mask, any_values=True)
        likelihood = BlockLikelihood(observation, everything(observation), 0.01, colours)
        for kernel in (Matern(2.0), DeepImagePriorKernel(2.0, depth=3), HourglassKernel(2.0, scales=2)):
            start = likelihood.start(kernel, likelihood.best_start(kernel))
            start = (start + 0.1 * torch.randn(11, dtype=torch.double)).requires_grad_()
            objective = partial(likelihood.objective, kernel)
            objective(start).backward()
            numerical = [
                float(objective((start + h).detach()) - objective((start - h).detach())) / 2e-5
                for h in 1e-5 * torch.eye(len(start), dtype=torch.double)
            ]
            assert start.grad.numpy() == pytest.approx(numerical, rel=1e-4, abs=1e-7)

    def test_value_is_the_evidence(self):
        model, mask = colour_model(), colour_mask()
        image = model().detach()
        fitted = GaussianProcess.fit(Observation(image, mask, any_values=True), Matern(2.0))
        assert fitted.log_evidence(image, mask) > model.log_evidence(image, mask)

    @pytest.mark.long
    def test_recovers_what_was_simulated(self):
        shape = (1, 32, 32)
        truth = GaussianProcess(SquaredExponential(2.0), shape, mean=0.4, covariance=0.04, noise=0.03)
        observation = Observation(truth().detach(), observations.scatter(shape, keep=0.6), any_values=True)
        kernels = [Matern(2.0, smoothness=0.5), SquaredExponential(4.0), DeepImagePriorKernel(2.0, depth=8)]
        fitted = GaussianProcess.fit(observation, kernels)
        assert isinstance(fitted.kernel, SquaredExponential)
        assert fitted.kernel.lengthscale == pytest.approx(2.0, rel=0.15)
        assert float(fitted.noise) == pytest.approx(0.03, rel=0.15)
        assert float(fitted.covariance) == pytest.approx(0.04, rel=0.4)

    def test_blocks_of_a_large_image(self):
        """Blocks find what the whole image would; no seen value is counted twice in a block."""
        shape = (1, 128, 128)
        truth = GaussianProcess(Matern(3.0), shape, mean=0.4, covariance=0.04, noise=0.03)
        observation = Observation(truth().detach(), observations.scatter(shape, keep=0.5), any_values=True)
        some = blocks(observation, seed=0)
        assert some.shape == (8, 512)
        assert all(len(block.unique()) == 512 for block in some)
        assert observation.mask.flatten()[some].all()
        fitted = GaussianProcess.fit(observation, Matern(6.0))
        assert fitted.kernel.lengthscale == pytest.approx(3.0, rel=0.15)
        assert float(fitted.noise) == pytest.approx(0.03, rel=0.15)

    def test_reads_no_hidden_pixel_and_keeps_the_floor(self, digits):
        mask = MASKS["scatter"]
        fits = [
            GaussianProcess.fit(Observation(torch.where(mask, digits[3], fill), mask), noise_floor=0.05)
            for fill in (0.0, float("nan"))
        ]
        assert fits[0].kernel == fits[1].kernel
        assert torch.equal(fits[0].noise, fits[1].noise)
        assert fits[0].noise >= 0.05

    def test_flat_images(self):
        """A constant image has no variance to learn; the fit still ends."""
        observation = Observation(torch.full((1, 8, 8), 0.5), MASKS["scatter"])
        fitted = GaussianProcess.fit(observation)
        mean = fitted.pixel_posterior(observation.image, observation.mask).mean
        torch.testing.assert_close(mean, torch.full_like(mean, 0.5), atol=1e-2, rtol=0)


def test_hidden_pixels_change_no_number(half):
    results = []
    for limit in (6144, 0):
        model = small_model(dense_limit=limit)
        for fill in (0.0, float("nan"), float("inf")):
            torch.manual_seed(1)
            law = model.exact_posterior(torch.where(half.mask, half.image, fill), half.mask)
            results.append(law.sample((2,)))
        assert torch.equal(results[-3], results[-2])
        assert torch.equal(results[-3], results[-1])
        assert results[-1].isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SquaredExponential(0.0), "lengthscale=0.0; expected a positive number of pixels"),
        (lambda: Matern(1.0, smoothness=2.0), "smoothness=2.0; expected 0.5, 1.5 or 2.5"),
        (lambda: DeepImagePriorKernel(1.0, depth=0), "depth=0, slope=0.0; expected depth >= 1"),
        (
            lambda: DeepImagePriorKernel(1.0, slope=1.0),
            r"slope=1.0; expected depth >= 1 and slope in \[0, 1\)",
        ),
        (lambda: small_model(noise=0.0), "noise=0.0; expected one positive number"),
        (lambda: small_model(mean=[0.1, 0.2]), r"mean has 2 elements .* expected 1 \(or 1\) and \(1, 1\)"),
        (lambda: small_model(covariance=-1.0), "not symmetric and positive definite"),
        (lambda: colour_model(covariance=torch.ones(3, 3)), "not symmetric and positive definite"),
        (
            lambda: GaussianProcess.fit(Observation(torch.zeros(1, 8, 8), MASKS["nothing seen"])),
            "0 values are seen, .* expected at least 3",
        ),
        (lambda: small_model()(torch.zeros(1, 4, 4)), r"shape \(1, 4, 4\); expected \(1, 8, 8\)"),
        (
            lambda: small_model().exact_posterior(torch.zeros(1, 8, 8), torch.ones(8, 9) > 0),
            "mask is a bool tensor",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
