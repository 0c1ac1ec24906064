import math

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from posterior_inpainting.inference import blend
from posterior_inpainting.models import observations
from posterior_inpainting.models.observations import box, half, scatter

SHAPE = (1, 7, 11)


def holes(shape):
    """Masks by name: inside, at borders and corners, several, with a seen island, of single pixels."""
    _, rows, columns = shape
    ring = box(shape, 1, 1, 5, 5)
    ring[:, 3, 3] = True
    return {
        "inside": box(shape, 2, 3, 3, 4),
        "top left": box(shape, 0, 0, 3, 2),
        "bottom right": box(shape, rows - 2, columns - 3, 2, 3),
        "left column": box(shape, 0, 0, rows, 1),
        "right column": box(shape, 0, columns - 1, rows, 1),
        "top row": box(shape, 0, 0, 1, columns),
        "all but a corner": box(shape, 0, 0, rows, columns) | ~box(shape, 0, 0, 1, 1),
        "half": half(shape, hide="bottom"),
        "two": box(shape, 0, 0, 2, 2) & box(shape, 4, 6, 2, 3),
        "island": ring,
        "scatter": scatter(shape, 0.5, seed=1),
        "one pixel": box(shape, 3, 5, 1, 1),
    }


HOLES = list(holes(SHAPE))


@pytest.fixture(params=HOLES)
def mask(request):
    return holes(SHAPE)[request.param]


@pytest.fixture
def image():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def completion():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def dense(guide, image, mask):
    """The same equations for one plane, pixel by pixel, by dense algebra; every hidden region touches a seen one."""
    rows, columns = mask.shape
    hidden = [(r, c) for r in range(rows) for c in range(columns) if not mask[r, c]]
    matrix, right = np.zeros((len(hidden), len(hidden))), np.zeros(len(hidden))
    for i, (r, c) in enumerate(hidden):
        for there in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if not (0 <= there[0] < rows and 0 <= there[1] < columns):
                continue
            matrix[i, i] += 1
            right[i] += guide[r, c] - guide[there]
            if mask[there]:
                right[i] += image[there]
            else:
                matrix[i, hidden.index(there)] -= 1
    blended = image.copy()
    for place, value in zip(hidden, np.linalg.solve(matrix, right), strict=True):
        blended[place] = np.clip(value, 0, 1)
    return blended


def test_dense_solution(image, completion, mask):
    # Gradients a fifth as large, so that clipping leaves most values alone.
    guide = 0.4 + 0.2 * completion
    expected = dense(guide[0].numpy(), image[0].numpy(), mask[0].numpy())
    np.testing.assert_allclose(blend(guide, image, mask)[0].numpy(), expected, atol=1e-9)


def test_seen_pixels_are_exactly_as_seen(image, completion, mask):
    for kind in (image, image.float(), 3 * image - 1):  # seen values outside [0, 1] stay too
        blended = blend(completion.to(kind.dtype), kind, mask)
        assert torch.equal(blended[mask], kind[mask])
        assert blended.dtype == kind.dtype
        assert 0 <= blended[~mask].min() <= blended[~mask].max() <= 1


def test_constant_guide_is_harmonic(image, mask):
    """No gradients: every hidden value is the mean of its neighbours."""
    blended = blend(torch.full(SHAPE, 0.8, dtype=torch.float64), image, mask)[0]
    padded = torch.nn.functional.pad(blended, (1, 1, 1, 1), value=math.nan)
    around = torch.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    torch.testing.assert_close(around.nanmean(0)[~mask[0]], blended[~mask[0]])
    assert blended[~mask[0]].max() < image[mask].max() + 1e-9
    assert blended[~mask[0]].min() > image[mask].min() - 1e-9


def test_constant_guide_between_two_walls_is_a_line():
    image = torch.tensor([[[0.2, 0.0, 0.0, 0.0, 1.0]]])
    mask = torch.tensor([[[True, False, False, False, True]]])
    found = blend(torch.zeros(1, 1, 5), image, mask)
    torch.testing.assert_close(found, torch.tensor([[[0.2, 0.4, 0.6, 0.8, 1.0]]]))


def test_the_image_as_guide_gives_the_image_back(image, mask):
    torch.testing.assert_close(blend(image, image, mask), image)


def test_an_offset_of_the_guide_does_not_count(image, completion, mask):
    guide = 0.4 + 0.2 * completion
    torch.testing.assert_close(blend(guide, image, mask), blend(guide + 0.3, image, mask))


@pytest.mark.parametrize("hidden", [0.9, math.nan, math.inf])
def test_hidden_values_of_the_image_are_not_read(image, completion, mask, hidden):
    assert torch.equal(
        blend(completion, torch.where(mask, image, hidden), mask), blend(completion, image, mask)
    )


def test_rows_do_not_wrap_round(image, completion):
    """What happens at one border is nothing to the other."""
    for hole, far in (("left column", -1), ("right column", 0)):
        mask = holes(SHAPE)[hole]
        changed, guide = image.clone(), completion.clone()
        changed[..., far] = 1 - changed[..., far]
        guide[..., far] = 1 - guide[..., far]
        before, after = blend(completion, image, mask), blend(guide, changed, mask)
        assert torch.equal(before[~mask], after[~mask])
    for hole, far in (("top row", -1), ("bottom right", 0)):
        mask = holes(SHAPE)[hole]
        changed = image.clone()
        changed[:, far] = 1 - changed[:, far]
        assert torch.equal(blend(completion, image, mask)[~mask], blend(completion, changed, mask)[~mask])


def test_transposed(image, completion, mask):
    turned = blend(completion.mT, image.mT, mask.mT)
    torch.testing.assert_close(turned.mT, blend(completion, image, mask))


@pytest.mark.parametrize("shape", [(3, 7, 11), (2, 5, 12)], ids=str)
def test_channels_are_blended_each_on_its_own(shape):
    torch.manual_seed(0)
    image, completion = torch.rand(shape), torch.rand(shape)
    mask = torch.stack([scatter((1, *shape[1:]), 0.5, seed=i)[0] for i in range(shape[0])])
    together = blend(completion, image, mask)
    for i in range(shape[0]):
        alone = blend(completion[i : i + 1], image[i : i + 1], mask[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)


def test_colourisation_keeps_the_hidden_channels_of_the_completion():
    torch.manual_seed(0)
    image, completion = torch.rand(3, 4, 5), torch.rand(3, 4, 5)
    found = blend(completion, image, observations.channels((3, 4, 5), keep=1))
    assert torch.equal(found[1], image[1])
    assert torch.equal(found[[0, 2]], completion[[0, 2]])


@pytest.mark.parametrize("batch", [(4,), (2, 3)], ids=str)
def test_batch_equals_each_alone(image, mask, batch):
    completions = torch.rand(*batch, *SHAPE, dtype=torch.float64)
    together = blend(completions, image, mask)
    assert together.shape == completions.shape
    for found, alone in zip(together.reshape(-1, *SHAPE), completions.reshape(-1, *SHAPE), strict=True):
        torch.testing.assert_close(found, blend(alone, image, mask))


def test_broadcast_mask(completion):
    image = torch.rand(3, 7, 11, dtype=torch.float64)
    mask = half(SHAPE, hide="left")
    completion = completion.expand(3, 7, 11)
    assert torch.equal(blend(completion, image, mask), blend(completion, image, mask.expand(3, 7, 11)))


def test_nothing_seen_keeps_the_completion(image, completion):
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    assert torch.equal(blend(completion, image, mask), completion)
    assert torch.equal(blend(3 * completion - 1, image, mask), (3 * completion - 1).clamp(0, 1))


def test_nothing_hidden_is_the_image(image, completion):
    assert torch.equal(blend(completion, image, torch.ones(SHAPE, dtype=torch.bool)), image)


def test_a_channel_of_which_nothing_is_seen_beside_one_that_is():
    torch.manual_seed(3)
    image, completion = torch.rand(2, 5, 6), torch.rand(2, 5, 6)
    mask = torch.stack([torch.zeros(5, 6, dtype=torch.bool), half((1, 5, 6), hide="left")[0]])
    found = blend(completion, image, mask)
    assert torch.equal(found[0], completion[0])
    assert torch.equal(found[1:], blend(completion[1:], image[1:], mask[1:]))


def test_enclosed_regions_do_not_meet(image, completion):
    """Two holes in a frame: what is seen inside one does not reach the other."""
    mask = holes(SHAPE)["two"]
    regions, count = label(~mask[0].numpy())
    assert count == 2
    changed = image.clone()
    changed[0, 6:, 6:] = 1 - changed[0, 6:, 6:]  # touches the lower hole only
    before, after = (blend(0.4 + 0.2 * completion, kind, mask)[0] for kind in (image, changed))
    assert torch.equal(before[regions == 1], after[regions == 1])
    assert not torch.equal(before[regions == 2], after[regions == 2])


def test_the_caller_keeps_its_tensors(image, completion, mask):
    copies = [value.clone() for value in (completion, image, mask)]
    blend(completion, image, mask)
    assert all(torch.equal(one, other) for one, other in zip(copies, (completion, image, mask), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.zeros(1, 7, 10), torch.zeros(SHAPE), torch.ones(SHAPE, dtype=torch.bool)),
            r"\(1, 7, 10\); expected \(1, 7, 11\)",
        ),
        ((torch.zeros(7, 11), torch.zeros(SHAPE), torch.ones(SHAPE, dtype=torch.bool)), r"\(7, 11\)"),
        ((torch.zeros(SHAPE), torch.zeros(7, 11), torch.ones(7, 11, dtype=torch.bool)), r"\(7, 11\)"),
        (
            (torch.zeros(SHAPE), torch.zeros(SHAPE), torch.ones(1, 7, 10, dtype=torch.bool)),
            r"\(1, 7, 10\); expected one that",
        ),
        ((torch.zeros(SHAPE), torch.zeros(SHAPE), torch.ones(SHAPE)), "expected a boolean"),
    ],
)
def test_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        blend(*arguments)
