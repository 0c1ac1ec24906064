"""A person's own images: every format, whatever is hidden in them, one size, patches."""

import gzip
import struct

import numpy as np
import png as pypng
import pytest
import torch
from PIL import Image as Pillow

from posterior_inpainting.models.images import available_memory
from posterior_inpainting.models.images.collection import read_collection

ROWS, COLUMNS = 6, 11
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (ROWS, COLUMNS), np.uint8)
GREY16 = RANDOM.integers(0, 65536, (ROWS, COLUMNS), np.uint16)
RGB = RANDOM.integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)
RGB16 = RANDOM.integers(0, 65536, (ROWS, COLUMNS, 3), np.uint16)
FLOAT = (GREY / 255).astype(np.float32)
SEEN = RANDOM.random((ROWS, COLUMNS)) < 0.6
ALPHA = np.where(SEEN, 255, 0).astype(np.uint8)
#: As many values as JPEG keeps.
SMOOTH = np.add.outer(20 * np.arange(ROWS), 10 * np.arange(COLUMNS)).astype(np.uint8)


def picture(suffix, pixels, mode=None, **options):
    """A file that Pillow writes."""

    def write(folder):
        made = Pillow.fromarray(pixels)
        (made if mode is None else made.convert(mode)).save(folder / f"a.{suffix}", **options)

    return write


def deep_png(pixels):
    kind = {3: "RGB;16", 4: "RGBA;16"}[pixels.shape[-1]]
    return lambda folder: pypng.from_array(pixels.reshape(ROWS, -1).tolist(), kind).save(folder / "a.png")


def deep_tiff(pixels):
    """16 bits of several channels, which Pillow does not write; the tags of a plain TIFF in one strip."""

    def write(folder):
        channels = pixels.shape[-1]
        bits = struct.pack(f"<{channels}H", *[16] * channels)
        tags = [
            (256, 3, 1, COLUMNS),
            (257, 3, 1, ROWS),
            (258, 3, channels, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 2),
        ]
        data = 8 + len(bits)
        tags += [(273, 4, 1, data), (277, 3, 1, channels), (278, 3, 1, ROWS), (279, 4, 1, pixels.nbytes)]
        tags += [(338, 3, 1, 2)] if channels == 4 else []
        entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
        head = struct.pack("<2sHI", b"II", 42, data + pixels.nbytes)
        body = pixels.astype("<u2").tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)
        (folder / "a.tif").write_bytes(head + bits + body)

    return write


def array(pixels):
    return lambda folder: np.save(folder / "a.npy", pixels)


def zipped(pixels):
    return lambda folder: np.savez_compressed(folder / "a.npz", pixels=pixels)


def palette(folder):
    made = Pillow.fromarray(np.where(SEEN, GREY // 64 + 1, 0).astype(np.uint8)).convert("P")
    made.putpalette([value for i in range(256) for value in (i, 50 * i % 256, 255 - i)])
    made.save(folder / "a.png", transparency=0)


def first(values):
    return np.moveaxis(np.asarray(values, float).reshape(ROWS, COLUMNS, -1), -1, 0)


INDEX = GREY // 64 + 1.0
FORMATS = {
    # name: how it is written, its values channels first, what is seen, how exact
    "png 1 bit": (picture("png", GREY > 127), first(GREY > 127), None, 0),
    "png 8 bits": (picture("png", GREY), first(GREY) / 255, None, 0),
    "png 16 bits": (picture("png", GREY16), first(GREY16) / 65535, None, 0),
    "png rgb 16 bits": (deep_png(RGB16), first(RGB16) / 65535, None, 0),
    "png rgba 16 bits": (
        deep_png(np.dstack([RGB16, SEEN.astype(np.uint16)])),
        first(RGB16) / 65535,
        SEEN,
        0,
    ),
    "png rgba": (picture("png", np.dstack([RGB, ALPHA])), first(RGB) / 255, SEEN, 0),
    "png grey and alpha": (picture("png", np.dstack([GREY, ALPHA])), first(GREY) / 255, SEEN, 0),
    "png palette": (palette, first(np.dstack([INDEX, 50 * INDEX % 256, 255 - INDEX])) / 255, SEEN, 0),
    "tiff 1 bit": (picture("tif", GREY > 127), first(GREY > 127), None, 0),
    "tiff 8 bits": (picture("tiff", GREY), first(GREY) / 255, None, 0),
    "tiff 16 bits": (picture("tif", GREY16), first(GREY16) / 65535, None, 0),
    "tiff 16 bits lzw": (picture("tif", GREY16, compression="tiff_lzw"), first(GREY16) / 65535, None, 0),
    "tiff 16 bits, 0 is white": (
        picture("tif", 65535 - GREY16, tiffinfo={262: 0}),
        first(GREY16) / 65535,
        None,
        0,
    ),
    "tiff float": (picture("tif", np.where(SEEN, FLOAT, np.nan)), first(FLOAT), SEEN, 0),
    "tiff rgb": (picture("tif", RGB), first(RGB) / 255, None, 0),
    "tiff rgba": (picture("tif", np.dstack([RGB, ALPHA])), first(RGB) / 255, SEEN, 0),
    "tiff rgb 16 bits": (deep_tiff(RGB16), first(RGB16) / 65535, None, 0),
    "tiff rgba 16 bits": (
        deep_tiff(np.dstack([RGB16, SEEN.astype(np.uint16)])),
        first(RGB16) / 65535,
        SEEN,
        0,
    ),
    "tiff cmyk": (picture("tif", RGB, "CMYK"), first(RGB) / 255, None, 0.01),
    "bmp": (picture("bmp", RGB), first(RGB) / 255, None, 0),
    "bmp grey": (picture("bmp", GREY), first(GREY) / 255, None, 0),
    "bmp 1 bit": (picture("bmp", GREY > 127), first(GREY > 127), None, 0),
    "webp": (picture("webp", RGB, lossless=True), first(RGB) / 255, None, 0),
    "webp rgba": (
        picture("webp", np.dstack([RGB, ALPHA]), lossless=True, exact=True),
        first(RGB) / 255,
        SEEN,
        0,
    ),
    "jpeg": (picture("jpg", SMOOTH, quality=98), first(SMOOTH) / 255, None, 0.02),
    "jpeg cmyk": (
        picture("jpg", np.dstack([SMOOTH] * 3), "CMYK", quality=98),
        first(np.dstack([SMOOTH] * 3)) / 255,
        None,
        0.03,
    ),
    "npy bool": (array(GREY > 127), first(GREY > 127), None, 0),
    "npy 16 bits": (array(GREY16), first(GREY16) / 65535, None, 0),
    "npy nan": (array(np.where(SEEN, FLOAT, np.nan)), first(FLOAT), SEEN, 0),
    "npy channels first": (array(first(RGB).astype(np.uint8)), first(RGB) / 255, None, 0),
    "npz": (zipped(RGB), first(RGB) / 255, None, 0),
    "npz float64": (zipped(np.where(SEEN, GREY / 255, np.nan)), first(GREY) / 255, SEEN, 0),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name, tmp_path):
    write, expected, seen, exact = FORMATS[name]
    write(tmp_path)
    read = read_collection(tmp_path)
    assert read.images.dtype == torch.float32
    assert read.skipped == ()
    hidden = np.zeros(expected.shape, bool) if seen is None else np.broadcast_to(~seen, expected.shape)
    np.testing.assert_allclose(read.images[0], np.where(hidden, 0, expected), atol=exact + 1e-7)
    if seen is None:
        assert read.masks is None
    else:
        assert read.masks.dtype == torch.bool
        np.testing.assert_array_equal(read.masks[0], ~hidden)


#: What the EXIF standard says that each tag does to the picture; not by Pillow, which turns some TIFFs into noise.
DISPLAYED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.T,
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).T,
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_displayed(orientation, suffix, tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 98}}.get(suffix, {})
    Pillow.fromarray(SMOOTH).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    displayed = DISPLAYED[orientation](SMOOTH)
    read = read_collection(tmp_path, channels=1)
    np.testing.assert_allclose(read.images[0, 0], displayed / 255, atol=0.005)


STACK = RANDOM.integers(0, 256, (5, 4, 6), np.uint8)


def idx(stack, write=bytes):
    return write(struct.pack(">BBBB3I", 0, 0, 8, 3, *stack.shape) + stack.tobytes())


@pytest.mark.parametrize(
    ("name", "write", "shape"),
    [
        ("a.npy", lambda path: np.save(path, STACK), (1, 4, 6)),
        ("a.npz", lambda path: np.savez_compressed(path, STACK), (1, 4, 6)),
        ("a.npy", lambda path: np.save(path, STACK[..., None]), (1, 4, 6)),
        ("a.npy", lambda path: np.save(path, STACK[:, None]), (1, 4, 6)),
        ("a.npy", lambda path: np.save(path, np.stack([STACK] * 3, 1)), (3, 4, 6)),
        ("a.npy", lambda path: np.save(path, np.stack([STACK] * 3, -1)), (3, 4, 6)),
        ("a.npy", lambda path: np.save(path, (STACK / 255).astype(np.float32)), (1, 4, 6)),
        ("a-idx3-ubyte", lambda path: path.write_bytes(idx(STACK)), (1, 4, 6)),
        ("a.gz", lambda path: path.write_bytes(idx(STACK, gzip.compress)), (1, 4, 6)),
    ],
    ids=["npy", "npz", "last 1", "first 1", "first 3", "last 3", "float", "idx", "idx.gz"],
)
def test_stacks(name, write, shape, tmp_path):
    write(tmp_path / name)
    read = read_collection(tmp_path / name)
    assert read.images.shape == (5, *shape)
    np.testing.assert_allclose(read.images[:, -1], STACK / 255, rtol=1e-6)
    assert read.names[4] == f"{name}[4]"
    assert len(set(read.digests)) == 5
    assert read.masks is None


def test_what_is_read_is_one_whatever_the_format(tmp_path):
    """A copy in another format, or in a stack, has the digest of the first: they stay together when split."""
    for name in ("a.png", "b.bmp", "c.tif"):
        Pillow.fromarray(GREY).save(tmp_path / name)
    np.save(tmp_path / "d.npy", GREY)
    np.save(tmp_path / "e.npy", np.dstack([GREY, np.full_like(GREY, 9)]))
    digests = {*read_collection(tmp_path).digests}
    (tmp_path / "stack").mkdir()
    np.save(tmp_path / "stack/a.npy", GREY[None])
    assert digests == {*read_collection(tmp_path / "stack/a.npy").digests}
    assert len(digests) == 1


def test_a_folder_of_everything(tmp_path):
    (tmp_path / "deep/er").mkdir(parents=True)
    Pillow.fromarray(GREY).save(tmp_path / "deep/er/b.png")
    Pillow.fromarray(RGB).save(tmp_path / "a.png")
    Pillow.fromarray(RGB).save(tmp_path / "broken.jpg")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "broken.jpg").read_bytes()[:-200])
    (tmp_path / "notes.txt").write_text("colours of cats\n")
    (tmp_path / "named.png").write_text("colours of cats\n")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    Pillow.fromarray(np.dstack([RGB, np.zeros_like(GREY)])).save(tmp_path / "hidden.png")
    read = read_collection(tmp_path)
    assert len(read) == 2
    assert read.names == ("a.png", "deep/er/b.png")
    assert read.images.shape == (2, 3, ROWS, COLUMNS)
    assert torch.equal(read.images[1, 0], read.images[1, 2])  # grey among colours
    reasons = dict(read.skipped)
    assert list(reasons) == ["broken.jpg", "gone.png", "hidden.png", "named.png", "notes.txt"]
    assert "truncated" in reasons["broken.jpg"].lower()
    assert reasons["hidden.png"] == "no pixel of it is seen"
    assert reasons["notes.txt"] == reasons["named.png"] == "expected PNG, JPEG, WebP, TIFF, BMP, NPY or NPZ"
    grey = read_collection(tmp_path, channels=1)
    np.testing.assert_allclose(grey.images[0, 0], (RGB / 255) @ [0.299, 0.587, 0.114], rtol=1e-5)
    assert grey.digests == read.digests


def test_memory_is_asked_first(tmp_path, monkeypatch):
    for i in range(4):
        Pillow.fromarray(RGB).save(tmp_path / f"{i}.png")
    np.save(tmp_path / "a.npy", STACK)
    monkeypatch.setattr(available_memory, "memory", lambda: 1000.0)
    with pytest.raises(
        ValueError, match=r"a stack of 5 images of 3 x 6 x 11 needs .* expected fewer"
    ) as error:
        read_collection(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"a\.npy of 120 values needs"):
        read_collection(tmp_path / "a.npy")
