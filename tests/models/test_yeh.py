"""Yeh et al. 2017 as options of `LatentCode` + `MAP` + `blend`, one test for each defect of the public code."""

import numpy as np
import pytest
import torch
from pyro import poutine

from posterior_inpainting.inference import MAP, NUTS, blend, infer, scores
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.models import (
    LatentCode,
    Observation,
    datasets,
    likelihoods,
    observations,
    pretrained,
)
from posterior_inpainting.models.likelihoods import context_weights
from posterior_inpainting.models.networks import MultilayerDecoder

MASK = observations.box((1, 8, 8), top=2, left=2, height=4, width=4)


@pytest.fixture
def yeh():
    return LatentCode(
        pretrained.load("digits-vae-2d"),
        likelihood=likelihoods.laplace,
        noise=0.1,
        context_window=3,
        prior_weight=0.1,
    )


@pytest.fixture(scope="module")
def images():
    return datasets.load("digits")[:5]


def test_weights_by_hand():
    mask = observations.box((2, 6, 7), top=1, left=3, height=2, width=2)
    window = 3
    weights = context_weights(mask, window)
    for c, r, k in np.ndindex(2, 6, 7):
        hidden = 0
        for dr, dk in np.ndindex(window, window):
            i, j = r + dr - 1, k + dk - 1
            hidden += 0 <= i < 6 and 0 <= j < 7 and not bool(mask[c, i, j])
        expected = hidden / window**2 if mask[c, r, k] else 0
        assert float(weights[c, r, k]) == pytest.approx(expected, abs=1e-6)


def test_objective_is_the_papers(yeh, images):
    """Up to a constant: weighted absolute error over the noise, plus lambda times the prior."""
    image, weights = images[0], context_weights(MASK, 3)
    objective, found = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        z = torch.randn(2)
        error = (weights * (yeh.decoder(z) - image).abs()).sum() * 2**0.5 / 0.1
        objective.append(float(error + 0.1 * 0.5 * z.square().sum()))
        found.append(
            float(poutine.trace(poutine.condition(yeh, {"z": z})).get_trace(image, MASK).log_prob_sum())
        )
    assert np.diff(objective) == pytest.approx(-np.diff(found), rel=1e-4, abs=1e-3)


def test_weight_zero_means_masked(yeh, images):
    """Pixels far from the hole count for nothing; none becomes infinitely noisy."""
    z = torch.zeros(2)
    conditioned = poutine.condition(yeh, {"z": z})
    reference = poutine.trace(conditioned).get_trace(images[0], MASK).log_prob_sum()
    changed = images[0].clone()
    changed[0, 0, 0] = 1 - changed[0, 0, 0]  # two pixels from the hole, outside the window
    assert torch.equal(poutine.trace(conditioned).get_trace(changed, MASK).log_prob_sum(), reference)
    changed[0, 1, 2] = 1 - changed[0, 1, 2]  # at the hole
    assert not torch.equal(poutine.trace(conditioned).get_trace(changed, MASK).log_prob_sum(), reference)


def test_defect_hidden_pixels_leak(yeh, images):
    noisy = torch.where(MASK, images[0], torch.rand(1, 8, 8))
    results = []
    for image in (images[0], noisy):
        idata = infer(yeh, Observation(image, MASK), MAP(restarts=2, steps=50), progress=False)
        completion = torch.from_numpy(idata.posterior["completion"].to_numpy()[0, 0])
        results.append(blend(completion, image, MASK))
    assert torch.equal(*results)


def test_defect_result_depends_on_the_batch(yeh, images):
    # In double precision: the absolute error has kinks, at which the rounding of a matrix product, which
    # depends on the batch, grows to 1e-4 within 200 steps.
    yeh, images = yeh.double(), images.double()
    masks = torch.stack([MASK, ~MASK, MASK, observations.half((1, 8, 8), "left"), MASK])
    method = MAP(restarts=2, steps=200)
    torch.manual_seed(0)
    together, _ = method.optimise(Problem(yeh, (images, masks)))
    for i in range(len(images)):
        alone, _ = method.optimise(Problem(yeh, (images[i : i + 1], masks[i : i + 1])))
        torch.testing.assert_close(together["z"][:, i], alone["z"][:, 0], atol=1e-5, rtol=1e-5)


def test_defect_batch_of_plain_map(images):
    """The honest density too: each image of a batch gets what it gets alone, to 1e-5."""
    model = LatentCode(pretrained.load("digits-vae-2d"))
    method = MAP(restarts=3, steps=300)
    torch.manual_seed(0)
    together, _ = method.optimise(Problem(model, (images, MASK)))
    for i in range(len(images)):
        torch.manual_seed(0)
        alone, _ = method.optimise(Problem(model, (images[i : i + 1], MASK)))
        torch.testing.assert_close(together["z"][:, i], alone["z"][:, 0], atol=1e-5, rtol=1e-5)


def test_defect_blended_seen_pixels_are_changed(yeh, images):
    idata = infer(yeh, Observation(images[1], MASK), MAP(restarts=2, steps=50), progress=False)
    completions = torch.from_numpy(idata.posterior["completion"].to_numpy()[:, 0])
    blended = blend(completions, images[1], MASK)
    assert torch.equal(blended[:, MASK], images[1][MASK].expand(2, -1))
    assert not torch.equal(blended, completions)


def test_defect_row_ends_wrap(images):
    """A hole in the first column must not see the last one."""
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    mask[0, 3, 0] = False
    other = images[2].clone()
    other[0, :, -1] = 1 - other[0, :, -1]
    guide = torch.rand(1, 8, 8)
    assert torch.equal(blend(guide, images[2], mask)[0, 3, 0], blend(guide, other, mask)[0, 3, 0])


def test_defect_single_image_and_non_square():
    shape = (3, 6, 10)
    model = LatentCode(MultilayerDecoder(4, shape, (8,)), likelihood=likelihoods.laplace, context_window=5)
    image, mask = torch.rand(shape), observations.box(shape, 1, 6, 3, 4)
    idata = infer(model, Observation(image, mask), MAP(restarts=1, steps=20), progress=False)
    completion = torch.from_numpy(idata.posterior["completion"].to_numpy()[0, 0])
    assert blend(completion, image, mask).shape == shape


def test_defect_restarts_called_samples(images):
    model = LatentCode(pretrained.load("digits-vae-2d"))
    idata = infer(model, Observation(images[0], MASK), MAP(restarts=5, steps=100), draws=400, progress=False)
    assert idata.attrs["draws_are"] == "restarts"
    assert (idata.posterior.sizes["chain"], idata.posterior.sizes["draw"]) == (5, 1)
    figures = scores.score(idata, truth=images[0])
    assert not any("coverage" in name for name in figures)
    assert "PSNR of the best restart (oracle, dB)" in figures


def test_pseudo_posterior_is_labelled(yeh, images):
    seen = Observation(images[0], MASK)
    method = MAP(restarts=1, steps=5)
    assert infer(yeh, seen, method, progress=False).attrs["density"] == "pseudo-posterior"
    honest = LatentCode(pretrained.load("digits-vae-2d"))
    assert infer(honest, seen, method, progress=False).attrs["density"] == "posterior"


def test_the_same_model_has_a_posterior(yeh, images):
    """The review's wish: the weighted model can be sampled like any other."""
    idata = infer(yeh, Observation(images[0], MASK), NUTS(warmup=50), draws=50, chains=2, progress=False)
    assert float(idata.posterior["z"].std()) > 0


def test_l2_is_the_normal_law(images):
    model = LatentCode(pretrained.load("digits-vae-2d"), noise=0.1, context_window=3)
    law = model.pixel_law(torch.zeros(2))
    assert type(law).__name__ == "Normal"


def test_even_windows_are_refused():
    with pytest.raises(ValueError, match="window=4; expected an odd number"):
        context_weights(MASK, 4)
