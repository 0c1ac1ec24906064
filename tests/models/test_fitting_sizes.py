"""An image brought to the size of a prior and back: what is missing counts for nothing, what is seen stays."""

import pytest
import torch

from posterior_inpainting.models import Observation, observations
from posterior_inpainting.models.images.fitting_sizes import brought_back, fit, fit_image


def test_the_mean_of_what_is_seen():
    """Against a loop over pixels, for whole factors."""
    image, mask = torch.rand(1, 12, 18), torch.rand(1, 12, 18) < 0.5
    found = fit(Observation(image, mask), (1, 4, 3))
    for row in range(4):
        for column in range(3):
            under = (0, slice(3 * row, 3 * row + 3), slice(6 * column, 6 * column + 6))
            seen = mask[under]
            assert bool(found.mask[0, row, column]) == (int(seen.sum()) >= 9)
            if found.mask[0, row, column]:
                assert float(found.image[0, row, column]) == pytest.approx(
                    float(image[under][seen].mean()), rel=1e-5
                )


@pytest.mark.parametrize("shape", [(1, 5, 7), (1, 40, 60), (3, 7, 61), (1, 23, 31)])
def test_a_flat_image_stays_flat(shape):
    """Whatever the factors, and whichever pixels are missing; there and back."""
    flat = torch.full((3, 23, 31), 0.3)
    observation = Observation(flat, observations.box(flat.shape, 5, 5, 12, 15))
    found = fit(observation, shape)
    torch.testing.assert_close(found.image[found.mask], torch.full_like(found.image, 0.3)[found.mask])
    torch.testing.assert_close(brought_back(torch.full(shape, 0.3), observation), flat)


def test_the_same_shape_is_the_same_image():
    observation = Observation(torch.rand(3, 9, 9), torch.rand(3, 9, 9) < 0.5)
    found = fit(observation, (3, 9, 9))
    assert torch.equal(found.image, observation.image)
    assert torch.equal(found.mask, observation.mask)


def test_hidden_values_move_nothing():
    mask = torch.rand(3, 20, 20) < 0.6
    image = torch.rand(3, 20, 20)
    other = torch.where(mask, image, 0.9)
    first, second = (fit(Observation(one, mask), (1, 7, 9)) for one in (image, other))
    assert torch.equal(first.image, second.image)


def test_colours():
    """Luminance of BT.601; missing where a channel is; white stays within [0, 1]."""
    image = torch.tensor([1.0, 0.0, 0.0])[:, None, None].repeat(1, 2, 2)
    mask = torch.ones(3, 2, 2, dtype=torch.bool)
    mask[2, 0, 0] = False
    grey = fit(Observation(image, mask), (1, 2, 2))
    torch.testing.assert_close(grey.image[0, 1], torch.full((2,), 0.299))
    assert grey.mask.flatten().tolist() == [False, True, True, True]
    assert float(fit_image(torch.ones(3, 5, 5), (1, 3, 3)).max()) == 1.0
    assert fit(Observation(grey.image, grey.mask), (3, 2, 2)).image.std(0).max() == 0


def test_seen_pixels_come_back_exactly():
    observation = Observation(torch.rand(3, 40, 60), torch.rand(3, 40, 60) < 0.5)
    back = brought_back(torch.rand(5, 2, 1, 28, 28), observation)
    assert back.shape == (5, 2, 3, 40, 60)
    assert (back[..., observation.mask] == observation.image[observation.mask]).all()
    assert 0 <= back.min() <= back.max() <= 1


def test_a_ramp_comes_back_as_a_ramp():
    """Bilinear: exact between the middles of the outermost pixels."""
    ramp = lambda n: ((torch.arange(n) + 0.5) / n)[None, None].repeat(1, 4, 1)  # noqa: E731
    nothing = Observation(torch.zeros(1, 4, 60), torch.zeros(1, 4, 60, dtype=torch.bool))
    back = brought_back(ramp(12), nothing)
    torch.testing.assert_close(back[..., 3:-3], ramp(60)[..., 3:-3])


def test_too_little_is_left():
    image = torch.rand(1, 40, 40)
    speck = torch.ones(1, 40, 40, dtype=torch.bool)
    speck[0, 3, 3] = False
    with pytest.raises(
        ValueError, match=r"^no hole is as large as a pixel at 4 x 4, the size of the prior; expected"
    ):
        fit(Observation(image, speck), (1, 4, 4))
    with pytest.raises(
        ValueError, match=r"^nothing is seen of the image at 4 x 4, the size of the prior; expected"
    ):
        fit(Observation(image, ~speck), (1, 4, 4))
    with pytest.raises(ValueError, match=r"^the image has 2 channel\(s\) and the prior 1; expected 1 or 3"):
        fit(Observation(torch.rand(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)), (1, 4, 4))
