import re
import struct
import zlib

import numpy as np
import png as pypng
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageOps

from posterior_inpainting.models.images.image_files import read_image, read_mask, read_observation

ROWS, COLUMNS = 6, 11
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (ROWS, COLUMNS), np.uint8)
GREY16 = RANDOM.integers(0, 65536, (ROWS, COLUMNS), np.uint16)
RGB = RANDOM.integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)
ALPHA = np.where(RANDOM.random((ROWS, COLUMNS)) < 0.4, 0, RANDOM.integers(1, 256, (ROWS, COLUMNS))).astype(
    np.uint8
)
OPAQUE = ALPHA > 0
RGB16 = RANDOM.integers(0, 65536, (ROWS, COLUMNS, 3), np.uint16)
ALPHA16 = ALPHA.astype(np.uint16)  # so little that 8 bits would make it 0


def png(pixels, **options):
    return lambda path: Pillow.fromarray(pixels).save(path.with_suffix(".png"), **options)


def deep(pixels):
    """16 bits of several channels, which Pillow does not write."""
    kind = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}[pixels.shape[-1]]
    rows = pixels.reshape(ROWS, -1).tolist()
    return lambda path: pypng.from_array(rows, kind).save(path.with_suffix(".png"))


def palette(path):
    Pillow.fromarray(RGB // 128 * 255).quantize(8).save(path.with_suffix(".png"))


def npy(pixels):
    return lambda path: np.save(path.with_suffix(".npy"), pixels)


def written(write, tmp_path, name="image"):
    write(tmp_path / name)
    return next(tmp_path.glob(f"{name}.*"))


def last_first(pixels):
    return np.moveaxis(pixels.reshape(ROWS, COLUMNS, -1), -1, 0)


FORMATS = {
    # name: how it is written, its values channels first, its opaque pixels
    "png-grey": (png(GREY), last_first(GREY) / 255, None),
    "png-grey-16": (png(GREY16), last_first(GREY16) / 65535, None),
    "png-grey-1": (png(GREY > 127), last_first(GREY > 127), None),
    "png-grey-alpha": (png(np.stack([GREY, ALPHA], -1)), last_first(GREY) / 255, OPAQUE),
    "png-rgb": (png(RGB), last_first(RGB) / 255, None),
    "png-rgba": (png(np.dstack([RGB, ALPHA])), last_first(RGB) / 255, OPAQUE),
    "png-rgb-16": (deep(RGB16), last_first(RGB16) / 65535, None),
    "png-rgba-16": (deep(np.dstack([RGB16, ALPHA16])), last_first(RGB16) / 65535, OPAQUE),
    "png-grey-alpha-16": (deep(np.dstack([GREY16, ALPHA16])), last_first(GREY16) / 65535, OPAQUE),
    "png-palette": (palette, last_first(RGB // 128), None),
    "png-grey-with-a-transparent-value": (
        png(GREY, transparency=int(GREY[2, 3])),
        last_first(GREY) / 255,
        GREY[2, 3] != GREY,
    ),
    "png-rgb-with-a-transparent-colour": (
        png(RGB, transparency=tuple(RGB[2, 3].tolist())),
        last_first(RGB) / 255,
        (RGB[2, 3] != RGB).any(-1),
    ),
    "npy-grey": (npy(GREY), last_first(GREY) / 255, None),
    "npy-grey-16": (npy(GREY16), last_first(GREY16) / 65535, None),
    "npy-grey-16-big-endian": (npy(GREY16.astype(">u2")), last_first(GREY16) / 65535, None),
    "npy-bool": (npy(GREY > 127), last_first(GREY > 127), None),
    "npy-float32": (npy((GREY / 255).astype(np.float32)), last_first(GREY) / 255, None),
    "npy-float64": (npy(GREY / 255), last_first(GREY) / 255, None),
    "npy-float16": (npy((GREY > 127).astype(np.float16)), last_first(GREY > 127), None),
    "npy-float-big-endian": (npy((GREY / 255).astype(">f4")), last_first(GREY) / 255, None),
    "npy-fortran": (npy(np.asfortranarray(GREY / 255)), last_first(GREY) / 255, None),
    "npy-float-outside": (npy(GREY - 7.0), last_first(GREY) - 7.0, None),
    "npy-channel-last-1": (npy(GREY[..., None]), last_first(GREY) / 255, None),
    "npy-channel-last-3": (npy(RGB), last_first(RGB) / 255, None),
    "npy-channel-last-4": (npy(np.dstack([RGB, ALPHA])), last_first(RGB) / 255, OPAQUE),
    "npy-channel-first-1": (npy(GREY[None]), last_first(GREY) / 255, None),
    "npy-channel-first-3": (npy(last_first(RGB)), last_first(RGB) / 255, None),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name, tmp_path):
    write, expected, opaque = FORMATS[name]
    image, found = read_image(written(write, tmp_path))
    assert image.dtype == torch.float32
    assert image.shape == expected.shape
    assert image.is_contiguous()
    np.testing.assert_allclose(image.numpy(), expected, rtol=1e-6, atol=1e-7)
    if opaque is None:
        assert found is None
    else:
        assert found.dtype == torch.bool
        assert found.shape == image.shape
        np.testing.assert_array_equal(found.numpy(), np.broadcast_to(opaque, image.shape))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_it_is_displayed(orientation, suffix, tmp_path):
    """A camera that was held upright writes rows of columns, and a tag: who paints a mask sees the picture turned."""
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    smooth = np.add.outer(20 * np.arange(ROWS), 10 * np.arange(COLUMNS)).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    Pillow.fromarray(smooth).save(path, exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    displayed = np.asarray(ImageOps.exif_transpose(Pillow.open(path)))
    image, _ = read_image(path)
    np.testing.assert_allclose(image[0].numpy(), displayed / 255, atol=1e-6)
    painted = np.zeros(displayed.shape, np.uint8)
    painted[0, 0] = 255
    Pillow.fromarray(painted).save(tmp_path / "mask.png")
    seen = read_observation(path, missing=tmp_path / "mask.png")
    assert (~seen.mask).nonzero().tolist() == [[0, 0, 0]]


def test_sixteen_bits_are_turned_too(tmp_path):
    path = written(deep(RGB16), tmp_path)
    upright = read_image(path)[0]
    content, exif = path.read_bytes(), Pillow.Exif()
    exif[0x0112] = 6
    tag = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(tag)) + b"eXIf" + tag + struct.pack(">I", zlib.crc32(b"eXIf" + tag))
    path.write_bytes(content[:33] + chunk + content[33:])
    assert torch.equal(read_image(path)[0], upright.rot90(-1, (1, 2)))


def test_palette_with_transparent_entries(tmp_path):
    colours = Pillow.fromarray(RGB // 128 * 255).quantize(8)
    index = np.asarray(colours)
    colours.save(tmp_path / "a.png", transparency=int(index[2, 3]))
    image, opaque = read_image(tmp_path / "a.png")
    assert image.shape == (3, ROWS, COLUMNS)
    np.testing.assert_array_equal(opaque.numpy(), np.broadcast_to(index != index[2, 3], image.shape))


@pytest.mark.parametrize(("pixels", "channels"), [(GREY, 1), (RGB, 3)], ids=["grey", "rgb"])
def test_jpeg(pixels, channels, tmp_path):
    smooth = np.asarray(Pillow.fromarray(pixels).resize((64, 48), Pillow.Resampling.BICUBIC))
    Pillow.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    image, opaque = read_image(tmp_path / "a.jpg")
    assert image.shape == (channels, 48, 64)
    assert opaque is None
    expected = np.moveaxis(smooth.reshape(48, 64, -1), -1, 0) / 255
    assert np.abs(image.numpy() - expected).mean() < 0.01


def test_cmyk_jpeg_is_colour_and_opaque(tmp_path):
    grey = np.full((16, 16, 3), 128, np.uint8)
    Pillow.fromarray(grey).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    image, opaque = read_image(str(tmp_path / "a.jpg"))
    assert opaque is None
    assert image.shape == (3, 16, 16)
    np.testing.assert_allclose(image.numpy(), 128 / 255, atol=0.02)


class TestMasks:
    image = torch.zeros(3, ROWS, COLUMNS)
    marked = GREY > 127

    @pytest.mark.parametrize(
        "write",
        [
            png(np.where(marked, 255, 0).astype(np.uint8)),
            png(np.where(marked, 200, 30).astype(np.uint8)),
            png(marked.astype(np.uint8)),
            png(marked),
            png(np.where(marked[..., None], [0, 0, 255], 0).astype(np.uint8)),
            png(np.dstack([RGB, np.where(marked, 255, 0).astype(np.uint8)])),
            png(np.dstack([GREY, np.where(marked, 1, 0).astype(np.uint8)])),
            png(np.dstack([*[np.where(marked, 255, 0).astype(np.uint8)] * 3, np.full_like(GREY, 255)])),
            npy(marked),
            npy(marked.astype(np.uint8)),
            npy(marked.astype(float)),
            npy(marked[None]),
        ],
        ids=[
            "255",
            "grey",
            "one",
            "1-bit",
            "blue",
            "rgba",
            "la",
            "opaque-rgba",
            "bool",
            "uint8",
            "float",
            "first",
        ],
    )
    def test_polarity(self, write, tmp_path):
        path = written(write, tmp_path)
        seen, missing = (read_mask(path, self.image, polarity) for polarity in ("seen", "missing"))
        for mask in (seen, missing):
            assert mask.dtype == torch.bool
            assert mask.shape == self.image.shape
            assert mask.is_contiguous()
        np.testing.assert_array_equal(seen.numpy(), np.broadcast_to(self.marked, seen.shape))
        assert torch.equal(missing, ~seen)

    @pytest.mark.parametrize(("value", "share"), [(0, 0.0), (255, 1.0)])
    def test_nothing_and_everything_marked(self, value, share, tmp_path):
        path = written(png(np.full((ROWS, COLUMNS), value, np.uint8)), tmp_path)
        assert float(read_mask(path, self.image, "seen").float().mean()) == share

    def test_jpeg_blur_is_no_mark(self, tmp_path):
        marked = np.zeros((32, 32), np.uint8)
        marked[8:24, 8:24] = 255
        Pillow.fromarray(marked).save(tmp_path / "a.jpg", quality=75)
        mask = read_mask(tmp_path / "a.jpg", torch.zeros(1, 32, 32), "seen")
        np.testing.assert_array_equal(mask[0].numpy(), marked > 0)

    def test_another_size(self, tmp_path):
        path = written(png(GREY.T.copy()), tmp_path)
        with pytest.raises(ValueError, match=f"{COLUMNS} x {ROWS} pixels; the image is {ROWS} x {COLUMNS}"):
            read_mask(path, self.image, "seen")

    def test_polarity_is_named(self, tmp_path):
        with pytest.raises(ValueError, match="'visible'; expected 'seen' or 'missing'"):
            read_mask(written(png(GREY), tmp_path), self.image, "visible")


class TestObservations:
    @pytest.fixture
    def rgba(self, tmp_path):
        return written(png(np.dstack([RGB, ALPHA])), tmp_path, "rgba")

    @pytest.fixture
    def mask_file(self, tmp_path):
        return written(png(GREY > 127), tmp_path, "mask")

    def test_transparent_pixels_are_missing(self, rgba):
        seen = read_observation(rgba)
        np.testing.assert_array_equal(seen.mask.numpy(), np.broadcast_to(OPAQUE, (3, ROWS, COLUMNS)))
        np.testing.assert_allclose(seen.image.numpy(), last_first(RGB) / 255 * OPAQUE, rtol=1e-6)

    @pytest.mark.parametrize("polarity", ["seen", "missing"])
    def test_a_mask_file_goes_first(self, polarity, rgba, mask_file):
        found = read_observation(rgba, **{polarity: mask_file})
        expected = (GREY > 127) == (polarity == "seen")
        np.testing.assert_array_equal(found.mask.numpy(), np.broadcast_to(expected, (3, ROWS, COLUMNS)))

    def test_both(self, rgba, mask_file):
        with pytest.raises(ValueError, match="both given"):
            read_observation(rgba, seen=mask_file, missing=mask_file)

    @pytest.mark.parametrize("alpha", [None, np.full_like(GREY, 255)], ids=["no alpha", "opaque"])
    def test_neither(self, alpha, tmp_path):
        path = written(png(RGB if alpha is None else np.dstack([RGB, alpha])), tmp_path)
        with pytest.raises(ValueError, match="no transparent pixel; give a file"):
            read_observation(path)


def truncated(name, pixels):
    def write(folder):
        Pillow.fromarray(pixels).save(folder / name) if not name.endswith("npy") else np.save(
            folder / name, pixels
        )
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])
        return folder / name

    return write


def holding(name, content):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def array(pixels):
    def write(folder):
        np.save(folder / "a.npy", pixels, allow_pickle=True)
        return folder / "a.npy"

    return write


def lying(shape):
    """An array of few bytes whose header promises more."""

    def write(folder):
        with (folder / "a.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(100))
        return folder / "a.npy"

    return write


def zipped(folder):
    np.savez(folder / "a.npz", GREY)
    return (folder / "a.npz").rename(folder / "a.npy")


def png_of(columns, rows):
    """The head of a large picture."""

    def write(folder):
        head = b"IHDR" + struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        data = b"IDAT" + zlib.compress(bytes(100))
        chunk += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
        (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
        return folder / "a.png"

    return write


NOISE = RANDOM.integers(0, 256, (40, 40, 3), np.uint8)
UNREADABLE = "cannot be read as an image"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (holding("a.png", b"not an image\nat all\n"), UNREADABLE),
        (holding("a.jpg", b""), UNREADABLE),
        (holding("a.npy", b""), UNREADABLE),
        (holding("a.npy", b"not an array\n"), UNREADABLE),
        (holding("a.txt", b"0 1 2\n"), UNREADABLE),
        (holding("a", b"\x89PNG\r\n\x1a\n"), UNREADABLE),
        (truncated("a.png", NOISE), UNREADABLE),
        (truncated("a.jpg", NOISE), UNREADABLE),
        (truncated("a.npy", NOISE), UNREADABLE),
        (array(np.array([{"row": 1}, None])), UNREADABLE),
        (zipped, UNREADABLE),
        (lying((2**40, 2**40)), UNREADABLE),
        (lying((30_000, 30_000)), UNREADABLE),
        (lying((3, 2**70)), UNREADABLE),
        (lying((-3, -5)), UNREADABLE),
        (png_of(10_000, 8_100), "81 megapixels; expected at most 64"),
        (array(np.zeros(5)), r"shape \(5,\)"),
        (array(np.zeros(())), r"shape \(\)"),
        (array(np.zeros((5, 7, 6))), r"shape \(5, 7, 6\)"),
        (array(np.zeros((4, 5, 7))), r"shape \(4, 5, 7\)"),
        (array(np.zeros((1, 1, 5, 7))), r"shape \(1, 1, 5, 7\)"),
        (array(np.zeros((0, 7))), r"shape \(0, 7\)"),
        (array(np.zeros((5, 7), np.int64)), "type int64; expected uint8"),
        (array(np.zeros((5, 7), complex)), "type complex128"),
        (array(np.array([["a", "b"]])), "type <U1"),
    ],
)
def test_no_image(write, message, tmp_path):
    path = write(tmp_path)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} .*{message}") as error:
        read_image(path)
    assert "\n" not in str(error.value)


def test_too_large_for_memory(tmp_path, monkeypatch):
    path = written(png(GREY), tmp_path)
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=UNREADABLE):
        read_image(path)


@pytest.mark.parametrize("name", ["absent.png", "absent.npy", "folder"])
def test_no_file(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no file .*{name}$"):
        read_image(tmp_path / name)
