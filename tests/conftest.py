"""Every test starts from the same state: one thread, fixed seed, empty parameter store, validation on."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import warnings

import pyro
import pytest
import torch

with warnings.catch_warnings():  # ArviZ 0.23 announces ArviZ 1 when it is first imported
    warnings.simplefilter("ignore", FutureWarning)
    import arviz  # noqa: F401

from digit import HALF

from posterior_inpainting.models import LatentCode, LinearGaussian, Observation, datasets, pretrained


@pytest.fixture(autouse=True)
def _fresh_state():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pyro.clear_param_store()
    pyro.enable_validation(True)
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def digits():
    return datasets.load("digits", split="train")


@pytest.fixture(scope="session")
def image():
    """A digit that nothing was fitted to; never written into."""
    return datasets.load("digits")[0]


@pytest.fixture(scope="session")
def mask():
    """See its upper half."""
    return HALF


@pytest.fixture(scope="session")
def seen(image, mask):
    return Observation(image, mask)


@pytest.fixture(scope="session")
def linear(digits):
    """A yardstick small enough for dense algebra: 64 pixels, 5 components."""
    return LinearGaussian.fit(digits, latent=5)


@pytest.fixture
def digits_model():
    return LatentCode(pretrained.load("digits-vae-2d"))


@pytest.fixture
def fashion_model():
    return LatentCode(pretrained.load("fashion-mnist-vae"))
