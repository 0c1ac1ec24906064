"""Whatever is given for images is answered in one line that says what was given and what is expected."""

import gzip
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from posterior_inpainting.models.images.collection import read_collection

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)


def image(name, pixels=PIXELS):
    def write(folder):
        Pillow.fromarray(pixels).save(folder / name)
        return folder

    return write


def file(name, content=b"", alone=True):
    """A file of some bytes; itself what is read, or its folder."""

    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name if alone else folder

    return write


def cut(name, share):
    def write(folder):
        image(name)(folder)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])
        return folder

    return write


def array(pixels, name="a.npy", alone=True):
    def write(folder):
        np.save(folder / name, pixels, allow_pickle=True)
        return folder / name if alone else folder

    return write


def arrays(**given):
    def write(folder):
        np.savez(folder / "a.npz", **given)
        return folder / "a.npz"

    return write


def lying(shape, name="a.npy", alone=True):
    """An array of few bytes whose header promises more."""

    def write(folder):
        with (folder / name).open("wb") as opened:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(opened, header)
            opened.write(bytes(100))
        return folder / name if alone else folder

    return write


def bomb(columns, rows):
    """A PNG of few bytes that unfolds to many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0))
    return file("a.png", b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))), alone=False)


def two(first, second):
    def write(folder):
        first(folder)
        return second(folder)

    return write


def idx(*shape, content=b""):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + content


def as_it_is(folder):
    return folder


STACK = np.zeros((5, 4, 6))
NOTHING = "has no image that can be used; "
GIVEN = {
    # name: what is there, settings, what is said of it
    "no folder": (lambda folder: folder / "absent", {}, "no folder or file .*absent"),
    "an empty folder": (as_it_is, {}, f"{NOTHING}it has no file"),
    "a folder of text": (file("a.txt", b"hello", False), {}, f"{NOTHING}a.txt: expected PNG, JPEG"),
    "an empty file": (file("a.png", b"", False), {}, f"{NOTHING}a.png: expected PNG"),
    "half a png": (cut("a.png", 0.6), {}, f"{NOTHING}a.png: "),
    "half a jpeg": (cut("a.jpg", 0.9), {}, f"{NOTHING}a.jpg: "),
    "half a tiff": (cut("a.tif", 0.5), {}, f"{NOTHING}a.tif: "),
    "half a bmp": (cut("a.bmp", 0.5), {}, f"{NOTHING}a.bmp: "),
    "half a webp": (cut("a.webp", 0.5), {}, f"{NOTHING}a.webp: "),
    "a gif": (image("a.gif"), {}, f"{NOTHING}a.gif: expected PNG"),
    "all transparent": (
        image("a.png", np.zeros((3, 4, 4), np.uint8)),
        {},
        f"{NOTHING}a.png: no pixel of it is seen",
    ),
    "all NaN": (array(np.full((4, 5), np.nan), alone=False), {}, f"{NOTHING}a.npy: no pixel"),
    "all hidden once scaled": (
        array(np.pad(np.ones((1, 1)), 9, constant_values=np.nan), alone=False),
        {"size": 2},
        f"{NOTHING}a.npy: no pixel",
    ),
    "two sizes": (
        two(image("a.png"), image("b.png", PIXELS[:5])),
        {},
        r"9 x 12 pixels \(a.png\) and 5 x 12 \(b.png\); expected one size, or give size or patches",
    ),
    "a bomb": (bomb(9_000, 8_000), {}, "a.png cannot be read .*72 megapixels; expected at most 64"),
    "a bomb of Pillow's": (bomb(10_000, 9_500), {}, "a.png cannot be read as an image"),
    "a large bomb": (bomb(60_000, 60_000), {}, "a.png cannot be read as an image"),
    "a bomb for patches": (bomb(9_000, 8_000), {"patches": 8}, "72 megapixels"),
    "an array that lies": (
        lying((30_000, 30_000), alone=False),
        {},
        f"{NOTHING}a.npy: mmap length is greater than file size",
    ),
    "a stack that lies": (lying((10, 30, 30)), {}, "a.npy cannot be read as an image"),
    "a stack that lies much": (lying((2**30, 2**10, 2**10)), {}, "a.npy cannot be read"),
    "a stack of negative size": (lying((-3, 5, 5)), {}, "a.npy cannot be read"),
    "values of bytes as floats": (
        array(255 * STACK + 255),
        {},
        r"a.npy\[0\] has values from 255 to 255; expected 0 to 1",
    ),
    "negative values": (array(STACK - 0.5), {}, "has values from -0.5 to -0.5; expected 0 to 1"),
    "infinite values": (array(STACK + np.inf, alone=False, name="a.npy"), {}, "shape"),
    "an infinite image": (array(np.full((4, 5), np.inf), alone=False), {}, "values from inf to inf"),
    "more than float32": (array(np.full((4, 5), 1e300), alone=False), {}, "values from inf to inf"),
    "integers": (array(STACK.astype(int)), {}, "type int64; expected uint8, uint16, bool or floats"),
    "complex numbers": (array(STACK.astype(complex)), {}, "type complex128; expected uint8"),
    "objects": (array(np.array([{"row": 1}, None])), {}, "a.npy cannot be read"),
    "text in an array": (array(np.array([[["a"]]])), {}, "type <U1; expected uint8"),
    "one image for a stack": (array(STACK[0]), {}, r"shape \(4, 6\); expected \(n, row, column\)"),
    "a number": (array(np.zeros(())), {}, r"shape \(\); expected \(n, row"),
    "no image in a stack": (array(STACK[:0]), {}, r"shape \(0, 4, 6\); expected"),
    "five channels": (array(np.zeros((5, 4, 6, 5))), {}, r"shape \(5, 4, 6, 5\); expected"),
    "two arrays": (arrays(a=STACK, b=STACK), {}, "2 arrays; expected one"),
    "no array": (arrays(), {}, "0 arrays; expected one"),
    "no zip": (file("a.npz", b"PK nothing"), {}, "a.npz cannot be read"),
    "a picture alone": (
        two(image("a.png"), lambda folder: folder / "a.png"),
        {},
        "is no file of many images",
    ),
    "labels in IDX": (file("a-idx1-ubyte", idx(3, content=b"abc")), {}, r"shape \(3,\); expected"),
    "half an IDX": (
        file("a-idx3-ubyte", idx(3, 4, 5, content=b"abc")),
        {},
        "holds 3 bytes where its header says",
    ),
    "half a gzip": (
        file("a.gz", gzip.compress(idx(3, 2, 2, content=bytes(12)))[:-9]),
        {},
        "not a whole gzip|memory",
    ),
    "size and patches": (image("a.png"), {"size": 4, "patches": 4}, "size=4 and patches=4 are both given"),
    "no size": (image("a.png"), {"size": 0}, "size=0; expected rows and columns above 0"),
    "negative size": (image("a.png"), {"size": (4, -1)}, r"size=\(4, -1\); expected rows and columns"),
    "three sizes": (image("a.png"), {"size": (4, 4, 4)}, "expected rows and columns"),
    "a broken size": (image("a.png"), {"size": 4.5}, "size=4.5; expected rows and columns"),
    "no patches": (image("a.png"), {"patches": 0}, "patches=0; expected a whole number above 0"),
    "large patches": (
        image("a.png"),
        {"patches": 10},
        f"{NOTHING}a.png: 9 x 12 pixels, less than patches of 10",
    ),
    "no count": (image("a.png"), {"patches": 4, "count": 0}, "count=0; expected a whole number above 0"),
    "a count alone": (image("a.png"), {"count": 4}, "count=4 without patches"),
    "two channels": (image("a.png"), {"channels": 2}, "channels=2; expected 1 or 3"),
    "no masks": (image("a.png"), {"masks": "/absent"}, "no folder or file /absent"),
}


@pytest.mark.parametrize("name", GIVEN)
def test_one_line(name, tmp_path):
    make, settings, message = GIVEN[name]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        read_collection(make(tmp_path), **settings)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"b.png": PIXELS}, "has no file named as one in .*, such as a.png"),
        ({"a.bmp": PIXELS, "a.jpg": PIXELS}, "has a.bmp and a.jpg for a.png; expected one"),
        ({"a.png": PIXELS[:4]}, f"{NOTHING}a.png: .*is 4 x 12 pixels; the image is 9 x 12"),
        ({"a.png": np.full((9, 12), 255, np.uint8)}, f"{NOTHING}a.png: no pixel of it is seen"),
    ],
)
def test_masks(names, message, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    image("a.png")(tmp_path / "images")
    for name, pixels in names.items():
        image(name, pixels)(tmp_path / "masks")
    with pytest.raises(ValueError, match=message) as error:
        read_collection(tmp_path / "images", masks=tmp_path / "masks")
    assert "\n" not in str(error.value)


def test_masks_are_another_folder(tmp_path):
    image("a.png")(tmp_path)
    with pytest.raises(ValueError, match="is the folder of the images; expected another one"):
        read_collection(tmp_path, masks=tmp_path)
    with pytest.raises(ValueError, match="expected two folders, or two files of stacks"):
        read_collection(tmp_path, masks=tmp_path / "a.png")


def test_a_mask_with_nan_hides_all(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 3)))
    np.save(tmp_path / "m.npy", np.stack([np.full((3, 3), np.nan), np.zeros((3, 3))]))
    read = read_collection(tmp_path / "a.npy", masks=tmp_path / "m.npy")
    assert read.names == ("a.npy[1]",)
    assert "has NaN; expected a mask of numbers" in read.skipped[0][1]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp", "npy", "npz"])
def test_damaged_files(suffix, tmp_path):
    """Bits that disks change: an image, or a line."""
    chance, refused = random.Random(suffix), 0
    path = tmp_path / f"a.{suffix}"
    if suffix in ("npy", "npz"):
        (np.save if suffix == "npy" else np.savez)(path, PIXELS)
    else:
        image(path.name)(tmp_path)
    whole = path.read_bytes()
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(min(len(content), 200))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                read = read_collection(tmp_path)
                assert read.images.isfinite().all()
            except ValueError as error:
                refused += 1
                lines = str(error)
        if refused:
            assert "\n" not in lines
    assert refused
