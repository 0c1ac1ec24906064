"""The posteriordb benchmark: its models run, have the reference draws' quantities, and a density where these are."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pyro import poutine

from posterior_inpainting.inference import ChEES, Problem, sample
from posterior_inpainting.inference.density.potential import Potential

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from posteriordb_cases import FOLDER, POSTERIORS, named
from posteriordb_language import Language

EVERY = pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS)


@pytest.fixture(autouse=True)
def _single_precision_afterwards():
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def lib():
    return Language.pyro()


def moments(raw, points):
    """Return means and mean squares of three correlations under the LKJ law with concentration 1, by quadrature.

    Over partial correlations: r12 = a, r13 = b, r23 = ab + c sqrt((1 - a^2)(1 - b^2)), the density of R being flat.
    """
    node, weight = np.polynomial.legendre.leggauss(points)
    z, dz = np.tanh(2.5 * node), weight * (1 - np.tanh(2.5 * node) ** 2)
    a, b, c = np.meshgrid(z, z, z, indexing="ij")
    width = np.sqrt((1 - a**2) * (1 - b**2))
    r = np.stack([a, b, a * b + c * width])
    matrices = np.ones((*a.shape, 3, 3))
    for value, (i, j) in zip(r, [(0, 1), (0, 2), (1, 2)], strict=True):
        matrices[..., i, j] = matrices[..., j, i] = value
    scatter = raw["y"].T @ raw["y"]
    trace = np.einsum("...ij,ji->...", np.linalg.inv(matrices), scatter)
    log = -0.5 * (len(raw["y"]) * np.linalg.slogdet(matrices)[1] + trace) + np.log(width)
    mass = np.exp(log - log.max()) * dz[:, None, None] * dz[:, None] * dz
    mass /= mass.sum()
    return (mass * r).sum((1, 2, 3)), (mass * r**2).sum((1, 2, 3))


@EVERY
def test_has_the_quantities_of_the_reference(posterior, lib):
    nodes = poutine.trace(partial(posterior.model, lib)).get_trace(posterior.data(lib)).nodes
    values = {
        name: node["value"].detach().numpy() for name, node in nodes.items() if node["type"] == "sample"
    }
    reference = posterior.reference()
    assert set(reference.mean) <= set(named(values, leading=0))
    assert all(sd > 0 for sd in reference.sd.values())


@EVERY
def test_density_and_gradient_are_finite_where_the_reference_draws_are(posterior, lib):
    potential = Potential(Problem(partial(posterior.model, lib), (posterior.data(lib),)))
    latents, means = potential.constrain(torch.zeros(1, potential.dim)), posterior.reference().mean
    for site, value in latents.items():
        if set(names := named({site: value.numpy()}, leading=1)) <= set(means):
            mean = torch.tensor([means[name] for name in names])
            latents[site] = mean.reshape(value.shape)
    position = potential.unconstrain(latents, 1)
    assert all(torch.isfinite(one).all() for one in (*potential(position), *potential.gradient(position)))


def test_the_moments_that_are_ours_are_those_of_a_quadrature(lib):
    posterior = POSTERIORS["ours-correlations"]
    raw = {name: one.numpy() for name, one in posterior.data(lib).items()}
    mean, square = moments(raw, 64)
    reference = posterior.reference()
    np.testing.assert_allclose(list(reference.mean.values()), mean, rtol=1e-6)
    np.testing.assert_allclose(list(reference.sd.values()), np.sqrt(square - mean**2), rtol=1e-4)


def test_draws_of_one_of_them_have_the_moments_of_its_reference_draws(lib):
    posterior = POSTERIORS["Rate_5_data-Rate_5_model"]
    model, method = partial(posterior.model, lib), ChEES(warmup=60)
    found = sample(model, method, posterior.data(lib), draws=250, chains=16, progress=False)
    means, sds = posterior.reference().errors({"theta": found.posterior["theta"].to_numpy()})
    assert abs(means["theta"]) < 0.1
    assert abs(sds["theta"]) < 0.1


def test_a_recurrence_is_what_a_loop_gives(lib):
    inputs, value, expected = torch.randn(11), torch.tensor(0.0), []
    for one in inputs:
        value = 0.7 * value + one
        expected.append(value)
    torch.testing.assert_close(lib.recurrence(torch.tensor(0.7), inputs), torch.stack(expected))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_product_of_logarithms_is_that_of_the_matrices(lib, count):
    matrices = torch.rand(count, 3, 3)
    expected = torch.linalg.multi_dot([*matrices]) if count > 1 else matrices[0]
    torch.testing.assert_close(lib.log_product(matrices.log()).exp(), expected)


def test_no_file_of_data_is_large():
    assert all(file.stat().st_size < 300_000 for file in FOLDER.iterdir())
