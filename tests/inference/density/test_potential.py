"""The density of a Pyro model: against Pyro's own, its routes, its types, what it refuses."""

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm
from targets import EFFECT, ERROR, eight_schools

from posterior_inpainting.inference import ChEES, sample
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.models import LinearGaussian
from posterior_inpainting.models.abilities import Abilities, JointDensity


def branching():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    scale = 1.0 if x > 0 else 2.0
    pyro.deterministic("scale", torch.tensor(scale))
    pyro.sample("y", dist.Normal(x, scale), obs=torch.tensor(0.5))


def looped(model, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Potential(Problem(model, args))


@pytest.fixture
def schools():
    return Potential(Problem(eight_schools, (EFFECT, ERROR)))


def test_agrees_with_pyros_own(schools):
    """Log density and gradient against `initialize_model`, which Pyro's kernels use."""
    from pyro.infer.mcmc.util import initialize_model

    start, potential_fn, _, _ = initialize_model(eight_schools, (EFFECT, ERROR))
    position = torch.randn(5, schools.dim)
    log_prior, log_likelihood, gradient = schools.gradient(position)
    for i in range(5):
        pieces = {name: position[i][where] for name, where in schools.sites().items()}
        values = {name: pieces[name].reshape(start[name].shape).requires_grad_() for name in start}
        theirs = -potential_fn(values)
        torch.testing.assert_close(log_prior[i] + log_likelihood[i], theirs)
        slopes = torch.autograd.grad(theirs, list(values.values()))
        by_name = dict(zip(values, slopes, strict=True))
        expected = torch.cat([by_name[name].reshape(-1) for name in schools.shapes])
        torch.testing.assert_close(gradient[i], expected, rtol=1e-4, atol=1e-4)


def test_prior_and_likelihood_apart(schools):
    _, likelihood = schools(torch.zeros(1, schools.dim))
    assert float(likelihood) == pytest.approx(norm.logpdf(EFFECT, 0, ERROR).sum(), rel=1e-5)


def test_prior_draws_are_the_prior(schools):
    """Within 5 standard errors of means, of medians on the scale of ranks, and of correlations."""
    count = 4000
    values = schools.constrain(schools.draw_prior(count))
    assert abs(float(values["mu"].std()) / 5 - 1) < 5 / math.sqrt(2 * count)
    assert abs(float((values["tau"] < 5).double().mean()) - 0.5) < 5 * 0.5 / math.sqrt(count)
    assert np.abs(np.corrcoef(values["eta"].T) - np.eye(8)).max() < 5 / math.sqrt(count)


def test_it_is_a_density(schools):
    assert isinstance(schools, Density)
    assert schools.like.shape == (0,)
    position = torch.randn(3, 2, schools.dim)
    torch.testing.assert_close(schools.unconstrain(schools.constrain(position), batch=2), position)


def test_the_callers_generator_is_left_alone_by_construction():
    torch.manual_seed(0)
    Potential(Problem(eight_schools, (EFFECT, ERROR)))
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(3))


class TestRoutes:
    def test_what_cannot_be_vectorised_is_looped_over_and_says_so(self):
        with pytest.warns(
            UserWarning, match="cannot be vectorised .*; chains are evaluated one after another"
        ):
            potential = Potential(Problem(branching))
        assert potential.route == "loop"
        _, likelihood = potential(torch.tensor([[1.0], [-1.0]]))
        assert likelihood.numpy() == pytest.approx(norm.logpdf(0.5, [1, -1], [1, 2]), rel=1e-5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            idata = sample(branching, ChEES(warmup=20), draws=10, chains=4, progress=False)
        assert idata.attrs["potential"] == "loop"

    @pytest.mark.parametrize("by_hand", [True, False], ids=("gradient by hand", "autograd"))
    def test_a_closed_form_is_asked_for_as_declared(self, by_hand):
        class Closed(JointDensity):
            has_gradient = by_hand

            def __call__(self, latents, which=None):
                x = latents["x"]
                return -x.square().sum((-1, -2)), -(x - 1).square().sum((-1, -2))

            def gradient(self, latents, inverse_temperature, which=None):
                x = latents["x"]
                return *self(latents), -2 * x - inverse_temperature * 2 * (x - 1)

        class Model(Abilities):
            def __call__(self, y):
                x = pyro.sample("x", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
                pyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=y)

            def log_densities(self, image, mask=None):
                return Closed()

        potential = Potential(Problem(Model(), (torch.ones(2, 3),)))
        assert potential.route == "closed form"
        position = torch.randn(4, 6)
        _, _, slope = potential.gradient(position, 0.5)
        torch.testing.assert_close(slope, -2 * position - (position - 1))

    def test_a_model_of_someone_else_has_any_arguments(self):
        """The default ability takes an image and a mask: it is not asked with three arguments."""

        def model(a, b, c):
            pyro.sample("y", dist.Normal(pyro.sample("x", dist.Normal(a, b)), 1.0), obs=c)

        assert Potential(Problem(model, (torch.tensor(0.0), 1.0, torch.tensor(1.0)))).route == "vmap"

    def test_an_image_model_without_an_image_is_its_prior(self, linear):
        assert isinstance(linear, LinearGaussian)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            potential = Potential(Problem(linear))
        assert set(potential.shapes) == {"z", "image"}
        assert potential.draw_prior(3).shape == (3, potential.dim)


class TestTypes:
    def test_like_does_not_depend_on_the_order_of_sites(self):
        """A single and a double site: positions are double, each site has its own type."""

        def model(last):
            laws = {
                "single": dist.Normal(torch.zeros(2), 1.0).to_event(1),
                "double": dist.Gamma(torch.tensor(2.0, dtype=torch.float64), 1.0),
            }
            values = {name: pyro.sample(name, laws[name]) for name in sorted(laws, key=lambda n: n == last)}
            # a product of matrices takes one type only
            mean = values["single"] @ torch.ones(2, 1)
            pyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=torch.zeros(1))

        for last in ("single", "double"):
            potential = Potential(Problem(model, (last,)))
            assert potential.like.dtype == torch.float64
            position = potential.draw_prior(3)
            assert position.dtype == torch.float64
            assert potential.gradient(position)[2].dtype == torch.float64
            latents = potential.constrain(position)
            assert (latents["single"].dtype, latents["double"].dtype) == (torch.float32, torch.float64)
            torch.testing.assert_close(
                potential.unconstrain(latents, batch=1), position, rtol=1e-6, atol=1e-6
            )

    def test_double_stays_double(self):
        def model():
            scale = pyro.sample("scale", dist.Gamma(torch.tensor(2.0, dtype=torch.float64), 1.0))
            pyro.sample("x", dist.Uniform(torch.zeros_like(scale), scale))

        potential = Potential(Problem(model))
        position = potential.draw_prior(5)
        parts = [position, *potential.gradient(position), *potential.constrain(position).values()]
        assert {part.dtype for part in parts} == {torch.float64}

    def test_latents_on_two_devices_are_refused(self):
        def model():
            pyro.sample("here", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("there", dist.Normal(torch.zeros(2, device="meta"), 1.0).to_event(1))

        with pytest.raises(ValueError, match=r"^site 'here' is on cpu, 'there' on meta; expected one device"):
            Potential(Problem(model))

    @pytest.mark.parametrize(
        "device",
        [d for d, there in (("cuda", torch.cuda.is_available()), ("mps", torch.mps.is_available())) if there]
        or ["cpu"],
    )
    def test_everything_is_on_the_models_device(self, device):
        def model(y):
            scale = pyro.sample("scale", dist.LogNormal(torch.zeros((), device=device), 1.0))
            x = pyro.sample("x", dist.Uniform(torch.zeros_like(scale), scale))
            pyro.deterministic("double", 2 * x)
            pyro.sample("y", dist.Normal(x, 1.0), obs=y)

        potential = Potential(Problem(model, (torch.ones((), device=device),)))
        position = potential.draw_prior(5)
        parts = [potential.like, position, *potential.gradient(position)]
        parts += [*potential.constrain(position).values(), *potential.deterministics(position).values()]
        assert {part.device.type for part in parts} == {device}


class TestDeterministics:
    @pytest.mark.parametrize("moving", [False, True])
    def test_values_at_positions(self, moving):
        def model():
            x = pyro.sample("x", dist.LogNormal(0.0, 1.0))
            y = pyro.sample("y", dist.Uniform(0.0, x) if moving else dist.LogNormal(0.0, 1.0))
            pyro.deterministic("both", torch.stack([x + y, x * y]), event_dim=1)
            pyro.deterministic("constant", torch.tensor(3.0))

        potential = Potential(Problem(model))
        position = torch.randn(2, 3, 2)
        found, latents = potential.deterministics(position), potential.constrain(position)
        x, y = latents["x"], latents["y"]
        torch.testing.assert_close(found["both"], torch.stack([x + y, x * y], -1))
        assert torch.equal(found["constant"], torch.full((2, 3), 3.0))

    def test_by_loop(self):
        found = looped(branching).deterministics(torch.tensor([[[1.0], [-1.0]], [[2.0], [3.0]]]))
        assert found["scale"].tolist() == [[1.0, 2.0], [1.0, 1.0]]

    def test_each_group_has_its_own_data(self):
        def model(y):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            pyro.deterministic("residual", y - x)
            pyro.sample("y", dist.Normal(x, 1.0), obs=y)

        y = torch.tensor([1.0, 2.0, 3.0])
        position = torch.randn(3, 4, 5, 1)
        found = Potential(Problem(model, (y,)), groups=3).deterministics(position)
        torch.testing.assert_close(found["residual"], y[:, None, None] - position[..., 0])

    def test_completion_of_an_image_model_is_left_out(self, linear, digits):
        potential = Potential(Problem(linear, (digits[0],)))
        assert potential.deterministics(torch.zeros(2, potential.dim)) == {}


class TestRefusals:
    def test_discrete_latents(self):
        def discrete():
            pyro.sample("k", dist.Bernoulli(0.5))

        with pytest.raises(ValueError, match="site 'k' is discrete"):
            sample(discrete, ChEES(), progress=False)

    def test_nothing_latent(self):
        def observed():
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

        with pytest.raises(ValueError, match="no latent site"):
            sample(observed, ChEES(), progress=False)

    def test_a_prior_that_cannot_be_drawn_from(self):
        def improper():
            x = pyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
            pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.0))

        with pytest.raises(
            ValueError, match=r"^the prior of site 'x', ImproperUniform, cannot be drawn from; .*$"
        ):
            Potential(Problem(improper))

    def test_sites_that_change_from_run_to_run(self):
        def model():
            if pyro.sample("x", dist.Normal(0.0, 1.0)) > 0:
                pyro.sample("y", dist.Normal(0.0, 1.0))

        def density():
            potential = looped(model)  # which is refused already where two runs of it differ
            return potential(torch.tensor([[1.0] * potential.dim, [-1.0] * potential.dim]))

        with pytest.raises(ValueError, match="site 'y' is in some runs of the model only"):
            density()

    def test_what_a_model_raises_arrives_as_it_was_raised(self):
        def model(size):
            pyro.sample("x", dist.Normal(0.0, 1.0))
            raise ValueError(f"size={size}; expected at least 2")

        with pytest.raises(ValueError, match=r"^size=1; expected at least 2$") as caught:
            Potential(Problem(model, (1,)))
        assert str(caught.value).count("\n") == 0
