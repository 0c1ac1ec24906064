import gzip
import re
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from posterior_inpainting.models import datasets
from posterior_inpainting.models.datasets import labels, load, patches, read_idx

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
RANDOM = np.random.default_rng(0)
PIXELS = {
    "train": RANDOM.integers(0, 256, (7, 28, 28), np.uint8),
    "t10k": RANDOM.integers(0, 256, (4, 28, 28), np.uint8),
}
CLASSES = {"train": np.arange(7, dtype=np.uint8), "t10k": np.array([3, 1, 9, 0], np.uint8)}
SPLITS = {"train": "train", "test": "t10k"}


def idx(array):
    return b"\x00\x00\x08" + struct.pack(f">B{array.ndim}I", array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(params=["plain", "gz"])
def folder(request, tmp_path):
    """Seven training and four test images with their classes, as IDX files."""
    for prefix in ("train", "t10k"):
        for stem, array in (("images-idx3-ubyte", PIXELS[prefix]), ("labels-idx1-ubyte", CLASSES[prefix])):
            path = tmp_path / f"{prefix}-{stem}"
            if request.param == "gz":
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                path.write_bytes(idx(array))
    return tmp_path


def test_names():
    known = ("digits", "fashion-mnist", "fashion-mnist-samples", "mnist", "natural", "photographs")
    assert known == datasets.NAMES


@pytest.mark.parametrize(
    ("name", "split", "shape"),
    [
        ("digits", "train", (1500, 1, 8, 8)),
        ("digits", "test", (297, 1, 8, 8)),
        ("photographs", "test", (8, 3, 256, 256)),
        ("fashion-mnist-samples", "test", (64, 1, 28, 28)),
        ("natural", "train", (5, 3, 256, 256)),
        ("natural", "test", (3, 3, 256, 256)),
    ],
)
def test_shipped_with_a_dependency(name, split, shape):
    images = load(name, split)
    assert images.shape == shape
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images.flatten(1).std(1) > 0.05).all()  # pictures, not planes
    assert len(images.unique(dim=0)) == len(images)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits = load_digits()
    both = torch.cat([load("digits", "train"), load("digits", "test")])
    np.testing.assert_array_equal(both[:, 0].numpy() * 16, digits.images)
    classes = torch.cat([labels("digits", "train"), labels("digits", "test")])
    np.testing.assert_array_equal(classes.numpy(), digits.target)


def test_natural_photographs_keep_their_colours_and_their_way_up():
    from skimage.data import astronaut

    photograph = torch.from_numpy(astronaut()).permute(2, 0, 1).double() / 255  # already a square
    halves = torch.nn.functional.avg_pool2d(photograph, 2)
    # The anti-aliasing filter is wider than a 2 x 2 mean: edges differ, colours and places do not.
    assert (load("natural", "test")[0] - halves).abs().mean() < 0.02


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
class TestDebian:
    def test_samples_are_its_first_test_images(self):
        assert torch.equal(load("fashion-mnist-samples"), load("fashion-mnist")[:64])

    def test_sizes(self):
        assert load("fashion-mnist").shape == (10_000, 1, 28, 28)
        assert labels("fashion-mnist", "train").bincount().tolist() == [6000] * 10


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("split", SPLITS)
class TestFolder:
    def test_images(self, name, split, folder):
        images = load(name, split, root=folder)
        assert images.dtype == torch.float32
        np.testing.assert_allclose(images.numpy(), PIXELS[SPLITS[split]][:, None] / 255, rtol=1e-6)

    def test_labels(self, name, split, folder):
        found = labels(name, split, root=str(folder))
        assert found.dtype == torch.int64
        np.testing.assert_array_equal(found.numpy(), CLASSES[SPLITS[split]])

    @pytest.mark.parametrize("stem", ["images-idx3-ubyte", "labels-idx1-ubyte"])
    def test_missing_file(self, name, split, folder, stem):
        for path in folder.glob(f"{SPLITS[split]}-{stem}*"):
            path.unlink()
        with pytest.raises(FileNotFoundError, match=f"neither {SPLITS[split]}-{stem} nor"):
            load(name, split, root=folder)

    def test_missing_folder(self, name, split, tmp_path):
        with pytest.raises(FileNotFoundError, match="absent has neither"):
            load(name, split, root=tmp_path / "absent")


def test_images_and_labels_that_do_not_belong_together(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(PIXELS["t10k"]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(CLASSES["train"]))
    with pytest.raises(ValueError, match=re.escape("images of shape (4, 28, 28) and labels of shape (7,)")):
        load("mnist", root=tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(CLASSES["train"]))
    with pytest.raises(ValueError, match=re.escape("images of shape (7,)")):
        load("mnist", root=tmp_path)


WHOLE = idx(PIXELS["t10k"])


class TestIdx:
    @pytest.mark.parametrize("shape", [(5,), (2, 3), (4, 2, 3), (0, 3)], ids=str)
    def test_any_number_of_dimensions(self, shape, tmp_path):
        array = RANDOM.integers(0, 256, shape, np.uint8)
        (tmp_path / "a").write_bytes(idx(array))
        found = read_idx(tmp_path / "a")
        assert found.dtype == torch.uint8
        np.testing.assert_array_equal(found.numpy(), array)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not an IDX file"),
            (b"\x00\x00\x08", "not an IDX file"),
            (WHOLE[:9], "not an IDX file"),  # ends within its header
            (b"\x00\x00\x0d" + WHOLE[3:], "not an IDX file"),  # floats
            (b"<html>no such page</html>" * 50, "not an IDX file"),
            (WHOLE[:-1], "holds 3135 bytes where its header says .4, 28, 28."),
            (WHOLE[:16], "holds 0 bytes"),
            (WHOLE + b"\x00", "holds 3137 bytes"),
        ],
    )
    @pytest.mark.parametrize("name", ["a", "a.gz"])
    def test_garbage(self, name, content, message, tmp_path):
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        with pytest.raises(ValueError, match=message):
            read_idx(path)

    @pytest.mark.parametrize(
        "content",
        [WHOLE, gzip.compress(WHOLE)[:-200], gzip.compress(WHOLE)[:12] + b"\xff" * 300],
        ids=["plain", "truncated", "scrambled"],
    )
    def test_not_a_whole_gzip_file(self, content, tmp_path):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(ValueError, match="not a whole gzip file") as error:
            read_idx(tmp_path / "a.gz")
        assert "\n" not in str(error.value)


class TestOpenml:
    """Without a folder the images are fetched, here from a table of ours."""

    @pytest.fixture(autouse=True)
    def _no_debian(self, monkeypatch, tmp_path):
        monkeypatch.setitem(datasets._DEBIAN, "fashion-mnist", tmp_path / "absent")

    @pytest.mark.parametrize(("name", "there"), [("mnist", "mnist_784"), ("fashion-mnist", "Fashion-MNIST")])
    def test_fetched(self, name, there, monkeypatch):
        data = np.zeros((60_004, 784), np.uint8)
        data[:3], data[60_000:] = PIXELS["train"][:3].reshape(3, -1), PIXELS["t10k"].reshape(4, -1)
        target = np.full(60_004, "7", object)
        target[60_000:] = CLASSES["t10k"].astype(str)
        asked = []

        def fetch(*args, **kwargs):
            asked.append((args, kwargs))
            return SimpleNamespace(data=data, target=target)

        monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
        np.testing.assert_allclose(load(name).numpy(), PIXELS["t10k"][:, None] / 255, rtol=1e-6)
        assert labels(name).tolist() == CLASSES["t10k"].tolist()
        train = load(name, "train")
        assert train.shape == (60_000, 1, 28, 28)
        np.testing.assert_allclose(train[:3, 0].numpy(), PIXELS["train"][:3] / 255, rtol=1e-6)
        assert len(asked) == 3
        assert all(args == (there,) and not kwargs["as_frame"] for args, kwargs in asked)

    @pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
    @pytest.mark.parametrize("read", [load, labels])
    def test_no_network(self, name, read, monkeypatch):
        def fetch(*args, **kwargs):
            raise OSError("Name or service not known")

        monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
        with pytest.raises(
            FileNotFoundError, match=f"{name} is not on this machine.*Name or service.*root=FOLDER"
        ) as e:
            read(name)
        assert ("dataset-fashion-mnist" in str(e.value)) == (name == "fashion-mnist")


@pytest.mark.parametrize("read", [load, labels])
class TestMistakes:
    def test_unknown_name(self, read):
        with pytest.raises(ValueError, match="unknown data set 'cifar'; there are digits, fashion-mnist"):
            read("cifar")

    @pytest.mark.parametrize("name", datasets.NAMES)
    def test_unknown_split(self, read, name):
        with pytest.raises(ValueError, match="split='validation'; expected 'train' or 'test'"):
            read(name, "validation")


def test_samples_have_no_training_split():
    with pytest.raises(ValueError, match="test split only"):
        load("fashion-mnist-samples", "train")


@pytest.mark.parametrize("name", ["natural", "fashion-mnist-samples"])
def test_no_labels(name):
    with pytest.raises(ValueError, match=f"{name} has no labels"):
        labels(name)


class TestPatches:
    images = torch.arange(2 * 3 * 9 * 12, dtype=torch.float32).reshape(2, 3, 9, 12)

    def test_each_is_cut_out_of_one_image(self):
        for patch in patches(self.images, size=4, count=30, seed=1):
            place = int(patch[0, 0, 0])
            image, (row, column) = place // (3 * 9 * 12), divmod(place % (9 * 12), 12)
            assert torch.equal(patch, self.images[image, :, row : row + 4, column : column + 4])

    def test_every_place_is_reached(self):
        corners = patches(self.images, size=8, count=500, seed=0)[:, 0, 0, 0]
        assert len(corners.unique()) == 2 * 2 * 5

    def test_seed(self):
        first, again, other = (patches(self.images, size=4, count=10, seed=seed) for seed in (3, 3, 4))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        generator = torch.Generator().manual_seed(3)
        assert torch.equal(patches(self.images, 4, 10, generator), first)
        assert not torch.equal(patches(self.images, 4, 10, generator), first)

    def test_as_large_as_the_image(self):
        square = self.images[..., :9]
        assert all((patch == square).flatten(1).all(1).any() for patch in patches(square, size=9, count=5))

    @pytest.mark.parametrize("size", [0, -1, 10])
    def test_size(self, size):
        with pytest.raises(ValueError, match=rf"size={size}; expected 1\.\.9 for images of 9 x 12"):
            patches(self.images, size, count=1)
