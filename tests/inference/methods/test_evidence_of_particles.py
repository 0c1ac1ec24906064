"""The log evidence of `TemperedSMC` is as far off as its error says, in 32 dimensions, and these tests can tell."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from posterior_inpainting.inference import GlobalLocal, TemperedSMC, infer
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.bridging import evidences
from posterior_inpainting.inference.methods.hamiltonian_moves import HamiltonianMoves
from posterior_inpainting.inference.methods.smc import pooled_evidence
from posterior_inpainting.models import (
    LatentCode,
    LinearGaussian,
    Observation,
    datasets,
    observations,
    pretrained,
)

SEEDS = 16
#: Root mean square of the deviations in errors, above which errors are too small: .1 % of 16 normal ones are.
MOST = 1.6


def deviations(model, seen, truth, seeds, **settings):
    """Return how far the log evidence is off in errors, seed by seed."""
    runs = [infer(model, seen, TemperedSMC(), seed=s, progress=False, **settings).attrs for s in seeds]
    return np.array([(run["log_evidence"] - truth) / run["log_evidence_se"] for run in runs])


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.fixture(scope="module")
def conjugate(digits):
    """A linear Gaussian posterior of 32 latents, and its evidence."""
    model = LinearGaussian.fit(datasets.load("digits", split="train"), latent=32)
    seen = Observation(digits[3], observations.half(model.image_shape, hide="bottom"))
    return model, seen, float(model.log_evidence(seen.image, seen.mask))


def test_of_a_conjugate_posterior(conjugate):
    found = deviations(*conjugate, range(SEEDS), draws=100, chains=8)
    assert rms(found) < MOST
    assert rms(4 * found) > MOST  # an error of a quarter would be noticed


def test_without_moves_it_would_be_noticed(conjugate, monkeypatch):
    """Particles that are only resampled come from a few draws of the prior."""

    def resampled_only(self, cloud, generator):
        """Return the cloud where it is."""
        return replace(cloud)

    monkeypatch.setattr(HamiltonianMoves, "move", resampled_only)
    assert rms(deviations(*conjugate, range(SEEDS), draws=100, chains=8)) > MOST


def test_fewer_replicates_have_a_wider_error():
    """Of Gaussian estimates, 68 % lie within the error of the truth, however few they are."""
    random = np.random.default_rng(0)
    for count in (2, 4, 8):
        pooled = [pooled_evidence(torch.tensor(one)) for one in 0.01 * random.standard_normal((2000, count))]
        assert abs(np.mean([abs(value) < error for value, error in pooled]) - 0.683) < 0.035


@pytest.fixture(scope="module")
def garment():
    """A posterior of the bundled prior that is narrow in places, and its evidence by a bridge from chains."""
    model = LatentCode(pretrained.load("fashion-mnist-vae"))
    image = datasets.load("fashion-mnist", "test")[100]
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(image.shape, generator=generator) < 0.1
    seen = Observation(image, mask)
    chains = infer(model, seen, GlobalLocal(), draws=300, chains=16, seed=1, progress=False, keep=())
    z = torch.as_tensor(chains.posterior["z"].to_numpy().copy())
    density = Potential(Problem(model, (seen.image, seen.mask)))
    parts = [float(evidences([density], part[None, None], 10_000, generator)[0]) for part in z.chunk(4)]
    assert np.std(parts, ddof=1) < 0.1
    return model, seen, float(np.mean(parts))


@pytest.mark.long
def test_against_the_bridge(garment):
    found = deviations(*garment, range(2), draws=128, chains=8)
    assert np.abs(found).max() < 3.5
