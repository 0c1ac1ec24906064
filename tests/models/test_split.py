"""The split of a person's own images: by content, whatever their order and their number."""

import hashlib

import numpy as np
import pytest

from posterior_inpainting.models.images.split import split

DIGESTS = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(2000)]


def sides(digests, **options):
    """Which part each digest is in."""
    return {digests[i]: part for part, indices in enumerate(split(digests, **options)) for i in indices}


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.3, 0.2)], ids=str)
def test_shares(shares):
    """Within 4 standard deviations of the binomial law."""
    for indices, share in zip(split(DIGESTS, shares), shares, strict=True):
        assert abs(len(indices) - 2000 * share) < 4 * np.sqrt(2000 * share * (1 - share))


def test_every_image_is_in_one_part():
    parts = split(DIGESTS)
    assert sorted(np.concatenate(parts).tolist()) == list(range(2000))
    assert all(np.all(np.diff(part) > 0) for part in parts)


def test_order_and_others_change_nothing():
    whole = sides(DIGESTS)
    mixed = [DIGESTS[i] for i in np.random.default_rng(0).permutation(2000)]
    assert sides(mixed) == whole
    for n in (300, 1000):
        assert all(whole[digest] == part for digest, part in sides(DIGESTS[:n]).items())


def test_duplicates_stay_together():
    twice = [*DIGESTS[:100], *DIGESTS[:100][::-1]]
    parts = split(twice)
    assert sum(len({twice[i] for i in part}) for part in parts) == 100
    assert sides(twice) == sides(DIGESTS[:100])


@pytest.mark.parametrize("start", range(0, 2000, 20))
def test_no_part_is_empty(start):
    """With 20 images, one in four lots would have none to validate or to test on."""
    parts = split(DIGESTS[start : start + 20])
    assert min(map(len, parts)) >= 1
    assert sum(map(len, parts)) == 20


@pytest.mark.parametrize("start", range(0, 300, 3))
def test_three_different_ones_are_enough(start):
    parts = split([DIGESTS[start + i % 3] for i in range(21)])
    assert [len(part) for part in parts] == [7, 7, 7]


@pytest.mark.parametrize("shares", [(0.98, 0.01, 0.01), (0.01, 0.98, 0.01), (0.01, 0.01, 0.98)], ids=str)
def test_odd_shares(shares):
    assert min(map(len, split(DIGESTS[:20], shares))) >= 1


@pytest.mark.parametrize(
    ("digests", "shares", "message"),
    [
        (DIGESTS[:19], (0.8, 0.1, 0.1), "19 images; expected at least 20"),
        ([], (0.8, 0.1, 0.1), "0 images; expected at least 20"),
        (DIGESTS[:1] * 30, (0.8, 0.1, 0.1), "30 images, but 1 different; expected at least 3"),
        (DIGESTS[:2] * 10, (0.8, 0.1, 0.1), "20 images, but 2 different"),
        (DIGESTS, (0.8, 0.2), "expected three above 0"),
        (DIGESTS, (0.8, 0.2, 0.0), "expected three above 0"),
        (DIGESTS, (0.8, 0.3, -0.1), "expected three above 0"),
        (DIGESTS, (0.8, 0.1, 0.2), "that sum to 1"),
        (DIGESTS, (float("nan"), 0.1, 0.1), "expected three above 0"),
    ],
)
def test_what_cannot_be_split(digests, shares, message):
    with pytest.raises(ValueError, match=message) as error:
        split(digests, shares)
    assert "\n" not in str(error.value)
