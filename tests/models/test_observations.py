import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from posterior_inpainting.inference import Exact, infer
from posterior_inpainting.models import LinearGaussian, Observation, observations
from posterior_inpainting.models.observations import (
    blobs,
    box,
    channels,
    grid,
    half,
    random_masks,
    scatter,
    strokes,
)

SHAPES = [(1, 28, 28), (3, 8, 8), (1, 5, 9), (3, 12, 7), (2, 7, 5)]
SPATIAL = {
    "box": lambda shape, seed: box(shape, top=1, left=2, height=3, width=3),
    "half": lambda shape, seed: half(shape, hide="left"),
    "strokes": lambda shape, seed: strokes(shape, count=2, width=2, seed=seed),
    "blobs": lambda shape, seed: blobs(shape, count=2, seed=seed),
    "scatter": lambda shape, seed: scatter(shape, keep=0.5, seed=seed),
    "grid": lambda shape, seed: grid(shape, factor=3),
}
RANDOM = ("strokes", "blobs", "scatter")
MAKERS = {**SPATIAL, "channels": lambda shape, seed: channels(shape, keep=0)}


def test_every_maker_is_tested():
    assert {*MAKERS, "random_masks", "Observation"} == set(observations.__all__)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_shape_and_type(name, shape):
    mask = MAKERS[name](shape, 0)
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert mask.is_contiguous()  # no channel shares its memory with another


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] > 1], ids=str)
@pytest.mark.parametrize("name", SPATIAL)
def test_channels_agree(name, shape):
    mask = SPATIAL[name](shape, 0)
    assert (mask == mask[:1]).all()
    assert not mask.all()


def rows_and_columns(shape):
    rows, columns = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    return rows, columns


@pytest.mark.parametrize("shape", SHAPES, ids=str)
class TestExactly:
    def test_box(self, shape):
        rows, columns = rows_and_columns(shape)
        hidden = (rows >= 1) & (rows < 4) & (columns >= 2) & (columns < 5)
        assert torch.equal(~box(shape, 1, 2, 3, 3), hidden.expand(shape))

    def test_box_may_hide_everything(self, shape):
        assert not box(shape, 0, 0, shape[1], shape[2]).any()

    def test_half(self, shape):
        rows, columns = rows_and_columns(shape)
        r, c = shape[1] // 2, shape[2] // 2
        hidden = {
            "top": rows < r,
            "bottom": rows >= shape[1] - r,
            "left": columns < c,
            "right": columns >= shape[2] - c,
        }
        for side, region in hidden.items():
            assert torch.equal(~half(shape, hide=side), region.expand(shape))

    def test_two_halves_leave_the_middle_line(self, shape):
        neither = half(shape, hide="top") & half(shape, hide="bottom")
        assert int(neither.sum()) == shape[0] * (shape[1] % 2) * shape[2]

    @pytest.mark.parametrize("factor", [1, 2, 3, 5])
    def test_grid(self, shape, factor):
        rows, columns = rows_and_columns(shape)
        seen = (rows % factor == 0) & (columns % factor == 0)
        mask = grid(shape, factor)
        assert torch.equal(mask, seen.expand(shape))
        assert int(mask[0].sum()) == math.ceil(shape[1] / factor) * math.ceil(shape[2] / factor)

    def test_channels(self, shape):
        last = shape[0] - 1
        for keep in (last, [last], (last,)):
            mask = channels(shape, keep)
            assert mask[last].all()
            assert not mask[:last].any()
        assert channels(shape, range(shape[0])).all()

    def test_scatter_of_none_and_of_all(self, shape):
        assert not scatter(shape, keep=0).any()
        assert scatter(shape, keep=1).all()


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.9])
def test_scatter_sees_its_share(keep):
    pixels = 200 * 300
    seen = int(scatter((1, 200, 300), keep, seed=3).sum())
    assert abs(seen - keep * pixels) < 5 * math.sqrt(keep * (1 - keep) * pixels)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", RANDOM)
def test_seeds(name, shape):
    make = SPATIAL[name]
    before = torch.random.get_rng_state()
    assert torch.equal(make(shape, 5), make(shape, 5))
    assert any(not torch.equal(make(shape, 5), make(shape, other)) for other in (6, 7, 8))
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(make(shape, generator), make(shape, 5))
    assert any(not torch.equal(make(shape, generator), make(shape, 5)) for _ in range(3))  # it goes on
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's generator is left alone


@pytest.mark.parametrize("seed", range(5))
class TestStrokesAndBlobs:
    shape = (1, 28, 20)

    def test_more_of_them_hide_more(self, seed):
        for maker, options in ((strokes, {"width": 3}), (blobs, {})):
            one, three = (~maker(self.shape, count=count, seed=seed, **options) for count in (1, 3))
            assert (one <= three).all()
            assert 0 < one.sum() < three.sum() < one.numel()

    def test_wider_strokes_hide_more(self, seed):
        narrow, wide = (~strokes(self.shape, count=1, width=width, seed=seed) for width in (2, 5))
        assert (narrow <= wide).all()
        assert narrow.sum() < wide.sum()

    def test_one_is_connected(self, seed):
        around = np.ones((3, 3))
        assert label(~strokes(self.shape, count=1, width=2, seed=seed)[0].numpy(), around)[1] == 1
        assert label(~blobs(self.shape, count=1, seed=seed)[0].numpy(), around)[1] == 1

    def test_a_blob_grows_at_most_seven_steps(self, seed):
        rows, columns = (~blobs((1, 40, 40), count=1, seed=seed)[0]).nonzero().T
        assert int(rows.max() - rows.min()) <= 14
        assert int(columns.max() - columns.min()) <= 14


IMAGE = (1, 6, 9)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (lambda: box(IMAGE, -1, 0, 2, 2), ["top=-1", "6 rows", "9 columns"]),
        (lambda: box(IMAGE, 0, -3, 2, 2), ["left=-3"]),
        (lambda: box(IMAGE, 5, 0, 2, 2), ["top=5", "height=2"]),
        (lambda: box(IMAGE, 0, 8, 2, 2), ["left=8", "width=2"]),
        (lambda: box(IMAGE, 0, 0, 0, 2), ["height=0"]),
        (lambda: box(IMAGE, 0, 0, 2, 0), ["width=0"]),
        (lambda: half(IMAGE, "middle"), ["'middle'", "top, bottom, left, right"]),
        (lambda: strokes(IMAGE, 0, 2), ["count=0"]),
        (lambda: strokes(IMAGE, 1, 0), ["width=0"]),
        (lambda: strokes(IMAGE, 1, 7), ["width=7", "1..6"]),
        (lambda: blobs(IMAGE, 0), ["count=0"]),
        (lambda: scatter(IMAGE, 1.5), ["keep=1.5"]),
        (lambda: scatter(IMAGE, -0.1), ["keep=-0.1"]),
        (lambda: scatter(IMAGE, math.nan), ["keep=nan"]),
        (lambda: grid(IMAGE, 0), ["factor=0"]),
        (lambda: grid(IMAGE, 7), ["factor=7", "1..6"]),
        (lambda: channels(IMAGE, 1), ["[1]", "0..0"]),
        (lambda: channels((3, 6, 9), -1), ["[-1]", "0..2"]),
        (lambda: channels((3, 6, 9), [0, 5]), ["[0, 5]", "0..2"]),
        (lambda: grid((6, 9), 2), ["(6, 9)", "(channel, row, column)"]),
        (lambda: blobs((1, 0, 9), 2), ["(1, 0, 9)"]),
    ],
)
def test_reaching_outside_is_named(make, given):
    with pytest.raises(ValueError, match=re.escape(given[0])) as error:
        make()
    assert all(words in str(error.value) for words in given)
    assert "\n" not in str(error.value)


class TestRandomMasks:
    @pytest.mark.parametrize(
        "shape", [*SHAPES, (1, 1, 1), (1, 1, 6), (1, 2, 3), (1, 3, 40), (1, 40, 3)], ids=str
    )
    def test_shape_and_seed(self, shape):
        masks = random_masks(shape, count=60, seed=1)
        assert masks.shape == (60, *shape)
        assert masks.dtype == torch.bool
        assert torch.equal(masks, random_masks(shape, count=60, seed=1))
        alike = (masks == masks[:, :1]).flatten(1).all(1)
        by_channel = masks.flatten(2)
        one_channel = (by_channel.all(2).sum(1) == 1) & (by_channel.any(2).sum(1) == 1)
        assert (alike | one_channel).all()
        assert shape[0] == 1 or one_channel.any()
        assert torch.equal(masks[:20], random_masks(shape, count=20, seed=1))

    def test_another_seed_differs(self):
        assert not torch.equal(random_masks((1, 28, 28), 20, seed=1), random_masks((1, 28, 28), 20, seed=2))

    def test_kinds(self):
        shape, count = (1, 12, 16), 600
        masks = random_masks(shape, count)
        whole = masks.flatten(1).all(1).sum()
        assert abs(int(whole) - count / 10) < 5 * math.sqrt(count * 0.1 * 0.9)
        for side in ("top", "bottom", "left", "right"):
            assert (masks == half(shape, side)).flatten(1).all(1).any(), side
        for factor in (2, 3, 4):
            assert (masks == grid(shape, factor)).flatten(1).all(1).any(), factor

    def test_some_kinds_alone(self):
        masks = random_masks((3, 12, 16), 300, kinds=["half", "channels"])
        known = [half((3, 12, 16), side) for side in ("top", "bottom", "left", "right")]
        known += [channels((3, 12, 16), one) for one in range(3)] + [torch.ones(3, 12, 16, dtype=torch.bool)]
        counts = torch.stack([(masks == one).flatten(1).all(1).sum() for one in known])
        assert counts.sum() == 300
        assert (counts > 0).all()

    @pytest.mark.parametrize(
        ("kinds", "message"),
        [
            (["boxes"], "kinds has 'boxes'; expected some of box, half, scatter"),
            (["channels"], "at least one that an image of 1 channel"),
            ([], "at least one"),
        ],
    )
    def test_no_such_kind(self, kinds, message):
        with pytest.raises(ValueError, match=message):
            random_masks((1, 8, 8), 5, kinds=kinds)


class TestObservation:
    @pytest.fixture
    def image(self):
        return 0.1 + 0.8 * torch.rand(3, 6, 9)

    @pytest.fixture
    def mask(self):
        return half((3, 6, 9), hide="bottom")

    @pytest.mark.parametrize("hidden", [0.7, -1e30, math.nan, math.inf, -math.inf])
    def test_hidden_values_are_zero(self, image, mask, hidden):
        seen = Observation(torch.where(mask, image, hidden), mask)
        assert torch.equal(seen.image[mask], image[mask])
        assert (seen.image[~mask] == 0).all()
        assert torch.equal(seen.mask, mask)
        assert seen.shape == (3, 6, 9)

    def test_hidden_values_cannot_be_recovered(self, image, mask):
        secret = 123.456
        seen = Observation(torch.where(mask, image, secret), mask)
        assert set(vars(seen)) == {"image", "mask", "any_values"}
        memory = np.frombuffer(bytes(seen.image.untyped_storage()), np.float32)
        assert memory.size == image.numel()
        assert not np.isclose(memory, secret).any()

    @pytest.mark.parametrize("shape", [(6, 9), (1, 6, 9), (3, 1, 9), (3, 6, 1), (1,), ()], ids=str)
    def test_mask_broadcasts(self, image, shape):
        mask = torch.ones(shape, dtype=torch.bool)
        mask.view(-1)[:1] = len(shape) == 0
        seen = Observation(image, mask)
        assert seen.mask.shape == image.shape
        assert torch.equal(seen.mask, mask.expand(image.shape))
        assert torch.equal(seen.image, torch.where(mask, image, 0.0))

    def test_caller_keeps_its_tensors(self, image, mask):
        before, before_mask = image.clone(), mask.clone()
        seen = Observation(image, mask)
        assert torch.equal(image, before)
        assert torch.equal(mask, before_mask)
        image.fill_(9)
        mask.logical_not_()
        assert torch.equal(seen.mask, before_mask)
        assert torch.equal(seen.image, torch.where(before_mask, before, 0.0))

    def test_broadcast_mask_owns_its_memory(self, image):
        seen = Observation(image, torch.ones(1, 6, 9, dtype=torch.bool))
        seen.mask[0] = False
        assert seen.mask[1:].all()

    def test_nothing_seen_is_legal(self, image):
        seen = Observation(image.fill_(math.nan), torch.zeros(3, 6, 9, dtype=torch.bool))
        assert (seen.image == 0).all()
        assert not seen.mask.any()

    def test_nothing_hidden_is_legal(self, image):
        assert torch.equal(Observation(image, torch.ones(3, 6, 9, dtype=torch.bool)).image, image)

    def test_seen_values_may_leave_the_unit_interval_if_it_is_said(self, mask):
        image = torch.linspace(-2, 3, mask.numel()).reshape(mask.shape)
        assert torch.equal(Observation(image, mask, any_values=True).image[mask], image[mask])
        with pytest.raises(ValueError, match=r"seen pixels run from -2 to .*any_values=True"):
            Observation(image, mask)

    def test_values_of_eight_bits(self, image, mask):
        with pytest.raises(ValueError, match=r"seen pixels run from .*divide by 255"):
            Observation((255 * image).clamp(max=255), mask)
        with pytest.raises(ValueError, match=r"uint8 tensor .*divide by 255"):
            Observation((200 * image).to(torch.uint8), mask)

    @pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
    def test_is_of_single_precision(self, image, mask, kind):
        seen = Observation(image.to(kind).clamp(0, 1), mask)
        assert seen.image.dtype == torch.float32
        model = LinearGaussian(torch.rand(3 * 6 * 9, 2), torch.rand(3, 6, 9), 0.1)
        posterior = infer(model, seen, Exact(), draws=2, chains=1, progress=False)
        assert posterior.posterior["completion"].dtype == np.float32

    def test_is_frozen(self, image, mask):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Observation(image, mask).mask = ~mask

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_seen_values_must_be_finite(self, image, mask, value):
        image[0, 0, :2] = value
        with pytest.raises(ValueError, match="2 seen pixels are NaN or infinite"):
            Observation(image, mask)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (torch.zeros(6, 9), r"float32 tensor of shape \(6, 9\)"),
            (torch.zeros(1, 3, 6, 9), r"shape \(1, 3, 6, 9\); expected \(channel, row, column\)"),
            (torch.zeros(3, 6, 9, dtype=torch.uint8), "uint8 tensor"),
            (np.zeros((3, 6, 9)), "a ndarray"),
        ],
    )
    def test_wrong_image(self, mask, wrong, message):
        with pytest.raises(ValueError, match=message):
            Observation(wrong, mask)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (torch.ones(3, 6, 9), "float32 tensor .* expected a boolean"),
            (torch.ones(3, 6, 9, dtype=torch.uint8), "uint8 tensor .* expected a boolean"),
            (np.ones((3, 6, 9), bool), "a ndarray"),
            (torch.ones(3, 9, 6, dtype=torch.bool), r"shape \(3, 9, 6\); expected one that broadcasts"),
            (torch.ones(2, 6, 9, dtype=torch.bool), r"shape \(2, 6, 9\)"),
            (torch.ones(2, 3, 6, 9, dtype=torch.bool), r"shape \(2, 3, 6, 9\)"),
        ],
    )
    def test_wrong_mask(self, image, wrong, message):
        with pytest.raises(ValueError, match=message):
            Observation(image, wrong)
