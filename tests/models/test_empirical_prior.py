"""Training images as the prior: the posterior over them is exact, and the nearest ones are what they are called."""

import numpy as np
import pytest
import torch
from digit import HALF, SHAPE
from scipy.stats import norm

from posterior_inpainting.inference import ChEES, Exact, diagnostics, infer
from posterior_inpainting.models import EmpiricalPrior


@pytest.fixture(scope="module")
def few(digits):
    return EmpiricalPrior(digits[:30], noise=0.4)


def log_densities(model, image):
    seen = HALF.numpy()
    return np.array([norm(one[seen], model.noise).logpdf(image[seen]).sum() for one in model.images.numpy()])


def test_posterior_and_evidence(few, image):
    expected = log_densities(few, image.numpy())
    probs = few.exact_posterior(image, HALF).probs.numpy()
    np.testing.assert_allclose(probs, np.exp(expected) / np.exp(expected).sum(), atol=1e-5)
    assert float(few.log_evidence(image, HALF)) == pytest.approx(np.log(np.exp(expected).mean()), abs=1e-3)


def test_draws_are_images_in_proportion(few, seen):
    idata = infer(few, seen, Exact(), draws=4000, chains=1, progress=False)
    share = np.bincount(idata.posterior["index"].to_numpy().ravel(), minlength=30) / 4000
    probs = few.exact_posterior(seen.image, HALF).probs.numpy()
    assert (np.abs(share - probs) < 5 * np.sqrt(probs * (1 - probs) / 4000) + 1e-9).all()
    index = idata.posterior["index"].to_numpy()
    np.testing.assert_allclose(idata.posterior["completion"].to_numpy(), few.images.numpy()[index], atol=1e-6)


def test_nearest_are_drawn_alike_and_no_posterior(digits, seen):
    model = EmpiricalPrior(digits[:30], noise=0.4, nearest=5)
    idata = infer(model, seen, Exact(), draws=1000, chains=1, progress=False)
    values, counts = np.unique(idata.posterior["index"].to_numpy(), return_counts=True)
    assert set(values) == set(np.argsort(-log_densities(model, seen.image.numpy()))[:5])
    assert (counts == 200).all()
    assert idata.attrs["density"] == "pseudo-posterior"
    assert "log_evidence" not in idata.attrs
    assert "Use the draws" not in str(diagnostics.verdict(idata))


def test_as_many_draws_as_neighbours_are_each_of_them_once(digits, image):
    """Scored as a sample without repetitions, which is how neighbours are compared with posteriors."""
    model = EmpiricalPrior(digits, noise=1e-3, nearest=20)
    drawn = model.draw_completions(image, HALF, draws=20)
    assert len(drawn["index"].unique()) == 20
    torch.testing.assert_close(drawn["completion"], digits[drawn["index"]])
    assert model.draw_completions(image, HALF, draws=45)["index"].bincount().max() == 3


def test_gradients_are_refused(few, seen):
    with pytest.raises(ValueError, match="discrete"):
        infer(few, seen, ChEES(), progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(SHAPE)}, "expected \\(n, channel"),
        ({"noise": 0.0}, "noise=0.0; expected"),
        ({"nearest": 3}, "nearest=3; expected 1 to 2"),
        ({"nearest": 0}, "nearest=0; expected 1 to 2"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        EmpiricalPrior(**({"images": torch.zeros(2, *SHAPE)} | change))
