"""Measurements: exact posteriors against dense algebra, laws by their definition, and every model that takes them."""

import pyro
import pytest
import torch
from digit import HALF, SHAPE
from pyro import poutine
from registry import MODELS
from statistics_of_draws import assert_moments
from torch.distributions import MultivariateNormal

from posterior_inpainting.models import (
    EmpiricalPrior,
    GaussianProcess,
    Instrument,
    LatentCode,
    LinearGaussian,
    Measurement,
    MixtureField,
    datasets,
    operators,
    pretrained,
)
from posterior_inpainting.models.fields import Matern

OPERATORS = {
    "average": lambda: operators.average(SHAPE, 2),
    "blur": lambda: operators.blur(SHAPE, 0.8),
    "radon": lambda: operators.radon(SHAPE, [0.0, 30.0, 77.0]),
    "mask": lambda: operators.mask(HALF),
}
NOISE = 0.1


@pytest.fixture(scope="module")
def images():
    return datasets.load("digits", split="train")


@pytest.fixture(params=OPERATORS)
def measured(request, images):
    operator = OPERATORS[request.param]()
    noise = NOISE * torch.randn(operator.output_shape, generator=torch.Generator().manual_seed(0))
    return Measurement(operator, operator(images[3]) + noise, noise=NOISE)


@pytest.fixture
def algebra(measured):
    """Matrix, values and noise covariance, float64."""
    dense = measured.operator.dense(torch.zeros(1)).double()
    return dense, measured.values.flatten().double(), NOISE**2 * torch.eye(len(dense)).double()


class TestExactPosteriors:
    def test_linear_gaussian(self, images, measured, algebra):
        model = LinearGaussian.fit(images, latent=5)
        rows, values, noise = algebra
        loadings, mean = rows @ model.loadings.double(), rows @ model.mean.flatten().double()
        covariance = float(model.noise) ** 2 * rows @ rows.T + noise
        precision = torch.eye(5).double() + loadings.T @ torch.linalg.solve(covariance, loadings)
        loc = torch.linalg.solve(precision, loadings.T @ torch.linalg.solve(covariance, values - mean))
        law = model.exact_posterior(*measured.arguments)
        torch.testing.assert_close(law.mean, loc.float(), atol=1e-5, rtol=1e-4)
        expected = torch.linalg.inv(precision).float()
        torch.testing.assert_close(law.covariance_matrix, expected, atol=1e-6, rtol=1e-3)
        evidence = MultivariateNormal(mean, loadings @ loadings.T + covariance).log_prob(values)
        torch.testing.assert_close(model.log_evidence(*measured.arguments), evidence, atol=1e-5, rtol=1e-6)

    def test_mixture_field(self, images, measured, algebra):
        model = MixtureField.fit(images, components=2)
        rows, values, noise = algebra
        means = model.means @ rows.T
        covariances = rows @ model.covariances @ rows.T + noise
        evidence = model.log_weights + MultivariateNormal(means, covariances).log_prob(values)
        found = model.log_evidence(*measured.arguments)
        torch.testing.assert_close(found, evidence.logsumexp(0), atol=1e-5, rtol=1e-6)
        gain = model.covariances @ rows.T @ torch.linalg.inv(covariances)
        each = model.means + (gain @ (values - means).unsqueeze(-1)).squeeze(-1)
        expected = evidence.softmax(0) @ each
        law = model.exact_posterior(*measured.arguments)
        torch.testing.assert_close(law.mean, expected.float(), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("dense_limit", [6144, 3], ids=("factorised", "iterated"))
    def test_gaussian_process(self, measured, algebra, dense_limit):
        model = GaussianProcess(
            Matern(1.5), SHAPE, mean=0.3, covariance=0.1, noise=0.5, dense_limit=dense_limit
        )
        rows, values, noise = algebra
        everything = torch.arange(64)
        prior = GaussianProcess(Matern(1.5), SHAPE, mean=0.3, covariance=0.1, noise=0.5)
        field = prior._covariance(torch.ones(SHAPE).bool()).covariance(everything, everything)
        covariance, mean = rows @ field @ rows.T + noise, torch.full((64,), 0.3).double()
        gain = field @ rows.T @ torch.linalg.inv(covariance)
        loc = mean + gain @ (values - rows @ mean)
        law = model.exact_posterior(*measured.arguments)
        torch.testing.assert_close(model.completion(law.mean).flatten(), loc.float(), atol=3e-4, rtol=1e-3)
        torch.manual_seed(0)
        draws = model.completion(law.sample((4000,))).reshape(1, 4000, 64)
        sd = (field - gain @ rows @ field).diagonal().sqrt()
        assert_moments(draws, loc, sd, independent=True)
        with pytest.raises(AssertionError, match="biased"):  # as if nothing had been measured
            assert_moments(draws, mean, field.diagonal().sqrt(), independent=True)
        if dense_limit > 64:
            evidence = MultivariateNormal(rows @ mean, covariance).log_prob(values)
            torch.testing.assert_close(
                model.log_evidence(*measured.arguments), evidence, atol=1e-4, rtol=1e-5
            )

    def test_empirical_prior(self, images, measured, algebra):
        some = images[:50]
        model = EmpiricalPrior(some, noise=0.2)
        rows, values, noise = algebra
        law = MultivariateNormal(some.flatten(1).double() @ rows.T, 0.04 * rows @ rows.T + noise)
        expected = law.log_prob(values).softmax(0).float()
        torch.testing.assert_close(
            model.exact_posterior(*measured.arguments).probs, expected, atol=1e-4, rtol=1e-3
        )


class TestInstrument:
    """The law of values, and images given them, by their definition."""

    @pytest.fixture
    def pixels(self):
        torch.manual_seed(0)
        return torch.rand(SHAPE), 0.01 + 0.05 * torch.rand(SHAPE)

    def test_law(self, measured, algebra, pixels):
        mean, variance = pixels
        rows, values, noise = algebra
        expected = MultivariateNormal(
            rows @ mean.flatten().double(), rows * variance.flatten().double() @ rows.T + noise
        )
        law = measured.arguments[1].law(mean, variance)
        torch.testing.assert_close(
            law.log_prob(measured.values.flatten()).double(), expected.log_prob(values), atol=1e-3, rtol=1e-4
        )

    def test_images_given_values(self, measured, algebra, pixels):
        mean, variance = pixels
        rows, values, noise = algebra
        flat, spread = mean.flatten().double(), torch.diag(variance.flatten().double())
        gain = spread @ rows.T @ torch.linalg.inv(rows @ spread @ rows.T + noise)
        torch.manual_seed(1)
        many = mean.expand(4000, *SHAPE), variance
        draws = measured.arguments[1].image_given(measured.values, *many).reshape(1, 4000, 64)
        loc, sd = flat + gain @ (values - rows @ flat), (spread - gain @ rows @ spread).diagonal().sqrt()
        assert_moments(draws, loc, sd, independent=True)
        # Noise of pixels alone, whatever was measured.
        broken = (many[0] + variance.sqrt() * torch.randn(4000, *SHAPE)).reshape(1, 4000, 64)
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(broken, loc, sd, independent=True)


#: Every model that takes measurements.
TAKES = [kind for kind, make in MODELS.items() if kind.takes_measurements]


def test_which_models_take_measurements():
    """Those over codes, weights and fields; an encoder or an order of pixels needs pixels."""
    names = {kind.__name__ for kind in set(MODELS) - set(TAKES)}
    assert names == {
        "BayesianCompletion",
        "DiffusionPrior",
        "NearestMeasurement",
        "PixelConstrained",
        "PluralisticConditional",
        "PluralisticTwoPath",
    }


@pytest.mark.parametrize("kind", TAKES, ids=lambda kind: kind.__name__)
def test_a_model_scores_what_was_measured(kind, measured):
    model = MODELS[kind]()
    torch.manual_seed(0)
    trace = poutine.trace(model).get_trace(*measured.arguments)
    site = trace.nodes["measurement"]
    assert site["is_observed"]
    assert "image" not in trace.nodes
    completion = trace.nodes["completion"]["value"]
    assert tuple(completion.shape[-3:]) == SHAPE
    expected = measured.operator(completion).flatten(-3)
    torch.testing.assert_close(site["fn"].mean.reshape(expected.shape), expected, atol=1e-5, rtol=1e-4)
    trace.compute_log_prob()
    assert bool(site["log_prob_sum"].isfinite())


def _codes(noise=None):
    return LatentCode(pretrained.load("digits-vae-2d"), noise=noise)


class TestDensityOfCodes:
    @pytest.mark.parametrize(
        "model", [_codes, lambda: MODELS[LinearGaussian]()], ids=("LatentCode", "LinearGaussian")
    )
    def test_closed_form_is_the_trace(self, model, measured):
        model = model()
        density = model.log_densities(*measured.arguments)
        z = torch.randn(4, model.latent, generator=torch.Generator().manual_seed(0))
        prior, likelihood = density({"z": z})
        for index in range(4):
            conditioned = poutine.condition(model, {"z": z[index]})
            trace = poutine.trace(conditioned).get_trace(*measured.arguments)
            torch.testing.assert_close(
                prior[index] + likelihood[index], trace.log_prob_sum(), atol=1e-3, rtol=1e-4
            )
        leaf = z.clone().requires_grad_()
        total = density({"z": leaf})
        (slope,) = torch.autograd.grad((total[0] + 0.3 * total[1]).sum(), leaf)
        torch.testing.assert_close(density.gradient({"z": z}, 0.3)[2], slope, atol=1e-3, rtol=1e-3)

    def test_of_a_mask_it_is_that_of_seen_pixels(self, images):
        model, z = _codes(), torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
        pick = operators.mask(HALF)
        measured = Measurement(pick, pick(images[3]), noise=0.0)
        found = model.log_densities(*measured.arguments)({"z": z})[1]
        expected = model.log_densities(images[3], HALF)({"z": z})[1]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)

    def test_pyro_samples_it(self, measured):
        from pyro.infer import MCMC, NUTS

        pyro.set_rng_seed(0)
        mcmc = MCMC(NUTS(_codes()), num_samples=20, warmup_steps=20, disable_progbar=True)
        mcmc.run(*measured.arguments)
        assert tuple(mcmc.get_samples()["z"].shape) == (20, 2)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda a: Measurement(a, torch.zeros(1, 3, 4)), r"expected a float tensor of shape \(1, 4, 4\)"),
        (lambda a: Measurement(a, torch.full((1, 4, 4), torch.nan)), r"16 values are NaN or infinite"),
        (lambda a: Measurement(a, torch.zeros(1, 4, 4), noise=-1.0), r"noise=-1.0; expected"),
        (lambda a: Measurement("average", torch.zeros(1, 4, 4)), r"expected one of models.operators"),
        (lambda a: Instrument(a, float("inf")), r"noise=inf"),
        (
            lambda a: MODELS[GaussianProcess]().exact_posterior(torch.zeros(1, 4, 4), Instrument(a, 0.0)),
            r"noise=0 leaves",
        ),
        (
            lambda a: MODELS[GaussianProcess]().pixel_posterior(torch.zeros(1, 4, 4), Instrument(a)),
            r"take draws of a measurement",
        ),
    ],
)
def test_bad_input_is_answered_in_a_line(made, message):
    with pytest.raises(ValueError, match=message) as error:
        made(operators.average(SHAPE, 2))
    assert "\n" not in str(error.value)
