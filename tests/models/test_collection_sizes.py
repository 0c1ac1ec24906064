"""Images of any size made one size: scaled and cut, or patches of them."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from posterior_inpainting.models.images.collection import read_collection
from posterior_inpainting.models.images.resampling import corners, cover


def area_mean(image, seen, size):
    """What :func:`cover` is to do, by brute force: each pixel cut into many, and those of an area averaged."""
    parts = 2 * size[0] * size[1]  # so that every edge lies between two of them
    total, share = (np.kron(values, np.ones((parts, parts))) for values in (image * seen, seen * 1.0))
    step = min(total.shape[0] // size[0], total.shape[1] // size[1])
    top, left = ((whole - step * n) // 2 for whole, n in zip(total.shape, size, strict=True))
    total, share = (
        fine[top : top + step * size[0], left : left + step * size[1]]
        .reshape(size[0], step, size[1], step)
        .sum((1, 3))
        for fine in (total, share)
    )
    half = share >= step**2 / 2
    return np.where(half, total / np.maximum(share, 1), 0), half


@pytest.mark.parametrize("size", [(3, 5), (4, 4), (2, 7), (9, 9), (10, 6)], ids=str)
def test_mean_of_the_seen_part_of_an_area(size):
    random = np.random.default_rng(0)
    image, seen = random.random((8, 10)).astype(np.float32), random.random((8, 10)) < 0.6
    expected, left = area_mean(image, seen, size)
    found, found_left = cover((image * seen)[None], seen[None], size)
    np.testing.assert_array_equal(found_left[0], left)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)  # float32
    assert 0 < left.mean() < 1
    whole, none = cover(image[None], None, size)
    assert none is None
    np.testing.assert_allclose(whole[0], area_mean(image, np.ones_like(seen), size)[0], atol=1e-6)


def test_half_an_area_is_enough():
    seen = np.array([[[True, False, True, True], [False, True, False, False]]])
    image = np.where(seen, np.float32(0.25), np.float32(0))
    found, left = cover(image, seen, (1, 2))
    assert left.tolist() == [[[True, True]]]
    seen[0, 0, 0] = False
    assert cover(image, seen, (1, 2))[1].tolist() == [[[False, True]]]
    np.testing.assert_allclose(found, 0.25)


@pytest.fixture
def folder(tmp_path):
    """Images of several sizes, one of them too small for patches, one with a hole."""
    random = np.random.default_rng(1)
    for name, rows, columns in (("a", 40, 60), ("b", 20, 16), ("c", 30, 30), ("small", 7, 90)):
        pixels = random.integers(0, 256, (rows, columns, 2), np.uint8)
        pixels[..., 1] = 255
        if name == "c":
            pixels[:25, :, 1] = 0
        Pillow.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def test_size(folder):
    read = read_collection(folder, size=(8, 12))
    assert read.images.shape == (3, 1, 8, 12)
    assert read.names == ("a.png", "b.png", "small.png")
    assert read.skipped == (("c.png", "no pixel of it is seen"),)  # in its centre
    a = np.asarray(Pillow.open(folder / "a.png"))[..., 0] / 255
    np.testing.assert_allclose(read.images[0, 0], a.reshape(8, 5, 12, 5).mean((1, 3)), atol=1e-6)
    assert torch.equal(read_collection(folder, size=9).images, read_collection(folder, size=(9, 9)).images)


class TestPatches:
    def test_as_many_as_asked_in_equal_parts(self, folder):
        read = read_collection(folder, patches=8, count=50)
        assert read.images.shape == (50, 1, 8, 8)
        each = [sum(name.startswith(one) for name in read.names) for one in "abc"]
        assert sorted(each) == [16, 17, 17]
        assert dict(read.skipped) == {"small.png": "7 x 90 pixels, less than patches of 8"}

    def test_default_count_is_what_fits_side_by_side(self, folder):
        assert len(read_collection(folder, patches=8)) == 5 * 7 + 2 * 2 + 3 * 3

    def test_are_where_their_names_say(self, folder):
        read = read_collection(folder, patches=8, count=9)
        for name, patch, mask in zip(read.names, read.images, read.masks, strict=True):
            file, _, place = name.partition("[")
            top, left = (int(one.split(":")[0]) for one in place.rstrip("]").split(","))
            cut = np.asarray(Pillow.open(folder / file))[top : top + 8, left : left + 8]
            np.testing.assert_array_equal(mask[0], cut[..., 1] > 0)
            np.testing.assert_allclose(patch[0], cut[..., 0] * (cut[..., 1] > 0) / 255, atol=1e-7)

    def test_of_an_image_share_its_digest_and_see_something(self, folder):
        read, whole = read_collection(folder, patches=8, count=90), read_collection(folder, size=5)
        digests = dict(zip(whole.names, whole.digests, strict=True))
        assert all(
            digests[name.partition("[")[0]] == one for name, one in zip(read.names, read.digests, strict=True)
        )
        assert read.masks.flatten(1).any(1).all()
        assert not read.masks.all()

    def test_depend_on_the_seed(self, folder):
        one, again, other = (read_collection(folder, patches=8, count=30, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(one.images, again.images)
        assert one.names != other.names

    def test_broken_files_change_none_of_the_others(self, folder):
        before = read_collection(folder, patches=8, count=50)
        content = (folder / "a.png").read_bytes()
        (folder / "ab.png").write_bytes(content[: len(content) // 2])  # its head promises an image
        (folder / "notes.txt").write_text("of patches")
        after = read_collection(folder, patches=8, count=50)
        assert after.names == before.names
        assert torch.equal(after.images, before.images)
        assert [name for name, _ in after.skipped] == ["ab.png", "notes.txt", "small.png"]

    def test_fewer_than_images(self, folder):
        assert len(read_collection(folder, patches=8, count=2)) == 2


def test_patches_are_uniform_among_those_in_which_something_is_seen():
    """Each count within 5 standard deviations of its binomial law, of 9 places, 6 of which see the corner."""
    seen = np.zeros((1, 5, 5), bool)
    seen[0, 3:, 2] = True
    allowed = {
        (top, left) for top in range(3) for left in range(3) if seen[0, top : top + 3, left : left + 3].any()
    }
    drawn = corners((5, 5), seen, 3, 6000, np.random.default_rng(0))
    assert set(drawn) == allowed
    expected = 6000 / len(allowed)
    spread = 5 * np.sqrt(expected * (1 - 1 / len(allowed)))
    assert all(abs(drawn.count(place) - expected) < spread for place in allowed)
