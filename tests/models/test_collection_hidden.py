"""What is hidden in a person's own images reaches nothing that is read, and masks hide what they mark."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from posterior_inpainting.models.images.collection import read_collection

ROWS, COLUMNS = 6, 11
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (ROWS, COLUMNS), np.uint8)
SEEN = RANDOM.random((ROWS, COLUMNS)) < 0.6
ALPHA = np.where(SEEN, 255, 0).astype(np.uint8)


class TestHiddenValues:
    """Two folders that differ in hidden values alone are one to everything that is read from them."""

    @pytest.fixture(params=["rgba", "nan and alpha", "masks", "masks with alpha", "stack"])
    def pair(self, request, tmp_path):
        """Sources with other values in the holes, and masks."""
        pair = []
        for i in range(2):
            folder, other = tmp_path / f"images{i}", np.random.default_rng(i)
            folder.mkdir()
            (tmp_path / "masks").mkdir(exist_ok=True)
            masks, stack = None, []
            for j in range(3):
                chance = np.random.default_rng(j)
                seen = chance.random((20, 24)) < 0.7
                rgb = np.where(
                    seen[..., None], chance.integers(0, 256, (20, 24, 3)), other.integers(0, 256, (20, 24, 3))
                )
                marks = Pillow.fromarray(np.where(seen, 0, 255).astype(np.uint8))
                alpha = np.where(seen, chance.integers(1, 256, seen.shape), 0)
                rgba = Pillow.fromarray(np.dstack([rgb, alpha]).astype(np.uint8))
                if request.param == "rgba":
                    rgba.save(folder / f"{j}.png")
                elif request.param == "nan and alpha":
                    values = np.dstack([rgb / 255, alpha / 255])
                    values[~seen] = [np.nan, 7, -1e30, 0] if i else [0, np.nan, np.inf, np.nan]
                    np.save(folder / f"{j}.npy", values)
                elif request.param == "stack":
                    stack.append(np.dstack([rgb, alpha]).astype(np.uint8))
                else:
                    masks = tmp_path / "masks"
                    if request.param == "masks with alpha":  # each hides a half
                        alpha[:10] = 255
                        rgb = np.dstack([rgb, alpha])
                        marks.paste(0, (0, 10, 24, 20))
                    marks.save(masks / f"{j}.png")
                    Pillow.fromarray(rgb.astype(np.uint8)).save(folder / f"{j}.tiff")
            if stack:
                np.save(folder / "a.npy", stack)
                folder = folder / "a.npy"
            pair.append((folder, masks))
        return pair

    @pytest.mark.parametrize(
        "settings", [{}, {"size": (9, 7)}, {"patches": 8, "count": 9}, {"channels": 1}, {"size": 30}], ids=str
    )
    def test_never_matter(self, pair, settings):
        one, two = (read_collection(folder, masks=masks, **settings) for folder, masks in pair)
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.masks, two.masks)
        assert not one.masks.all()
        assert (one.images[~one.masks] == 0).all()
        assert (one.digests, one.names, one.digest) == (two.digests, two.names, two.digest)

    def test_seen_values_do(self, pair):
        """So that the test above can fail."""
        (folder, masks), _ = pair
        before = read_collection(folder, masks=masks)
        path = folder if folder.is_file() else sorted(folder.iterdir())[0]
        read = np.load(path) if path.suffix == ".npy" else np.array(Pillow.open(path))
        row, column = np.argwhere(before.masks[0].all(0).numpy())[0]
        at = (0, row, column, 0) if folder.is_file() else (row, column, 0)
        read[at] = read[at] / 2 + 0.1 if read.dtype == float else read[at] ^ 1
        np.save(path, read) if path.suffix == ".npy" else Pillow.fromarray(read).save(path)
        after = read_collection(folder, masks=masks)
        assert after.digests[0] != before.digests[0]
        assert after.digests[1:] == before.digests[1:]
        assert after.digest != before.digest


class TestMasks:
    def write(self, folder, **masks):
        (folder / "images/sub").mkdir(parents=True)
        (folder / "masks/sub").mkdir(parents=True)
        Pillow.fromarray(GREY).save(folder / "images/a.png")
        Pillow.fromarray(GREY).save(folder / "images/sub/a.jpg")
        for name, pixels in masks.items():
            Pillow.fromarray(pixels).save(folder / "masks" / name.replace("__", "/").replace("_", "."))
        return folder / "images", folder / "masks"

    def test_by_name_or_stem_and_the_rest_is_whole(self, tmp_path):
        marked = np.where(SEEN, 0, 255).astype(np.uint8)
        images, masks = self.write(tmp_path, sub__a_png=marked, b_png=marked)
        read = read_collection(images, masks=masks)
        assert read.names == ("a.png", "sub/a.jpg")
        assert read.masks[0].all()
        np.testing.assert_array_equal(read.masks[1, 0], SEEN)
        assert read.skipped == ((f"{masks}/b.png", "a mask of no image"),)

    def test_inside_the_folder(self, tmp_path):
        images, masks = self.write(tmp_path, a_png=np.where(SEEN, 0, 255).astype(np.uint8))
        masks.rename(images / "masks")
        read = read_collection(images, masks=images / "masks")
        assert read.names == ("a.png", "sub/a.jpg")
        np.testing.assert_array_equal(read.masks[0, 0], SEEN)

    def test_a_broken_mask_never_shows_what_it_hides(self, tmp_path):
        images, masks = self.write(tmp_path, a_png=ALPHA, sub__a_png=np.zeros((3, 4), np.uint8))
        (masks / "a.png").write_bytes((masks / "a.png").read_bytes()[:60])
        Pillow.fromarray(GREY).save(images / "c.png")
        read = read_collection(images, masks=masks)
        assert read.names == ("c.png",)
        assert [name for name, _ in read.skipped] == ["a.png", "sub/a.jpg"]
        assert "a.png cannot be read" in read.skipped[0][1]
        assert "is 3 x 4 pixels; the image is 6 x 11" in read.skipped[1][1]

    def test_of_a_stack(self, tmp_path):
        np.save(tmp_path / "a.npy", np.stack([GREY, GREY]))
        np.savez(tmp_path / "m.npz", np.stack([np.zeros_like(SEEN), ~SEEN]))
        read = read_collection(tmp_path / "a.npy", masks=tmp_path / "m.npz")
        assert read.masks[0].all()
        np.testing.assert_array_equal(read.masks[1, 0], SEEN)
