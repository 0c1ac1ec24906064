"""Where holes are completed: each hidden pixel in one window, with its margin."""

import numpy as np
import pytest
import torch

from posterior_inpainting.inference.windows import windows

SHAPE = (3, 40, 48)


def holes(*boxes) -> torch.Tensor:
    mask = torch.ones(SHAPE, dtype=torch.bool)
    for top, left, height, width in boxes:
        mask[:, top : top + height, left : left + width] = False
    return mask


class TestWindows:
    def test_holes_far_apart_have_their_own(self):
        found = windows(holes((2, 3, 4, 4), (30, 40, 5, 6)), margin=3)
        assert [(w.rows.start, w.rows.stop, w.columns.start, w.columns.stop) for w in found] == [
            (0, 9, 0, 10),
            (27, 38, 37, 48),
        ]

    def test_holes_whose_margins_touch_share_one(self):
        assert len(windows(holes((10, 10, 4, 4), (10, 18, 4, 4)), margin=2)) == 1
        assert len(windows(holes((10, 10, 4, 4), (10, 20, 4, 4)), margin=2)) == 2

    def test_a_wide_hole_takes_the_whole_image(self):
        (found,) = windows(holes((0, 0, 40, 40)), margin=8)
        assert found.own.shape == (40, 48)

    def test_windows_are_as_large_as_a_model_needs(self):
        for found in windows(holes((0, 0, 1, 1), (39, 47, 1, 1), (20, 20, 2, 2)), margin=2, least=16):
            assert found.own.shape == (16, 16)

    def test_a_hidden_channel_is_a_hole(self):
        mask = holes()
        mask[1, 5, 5] = False
        assert windows(mask, margin=1)[0].rows == slice(4, 7)

    def test_a_negative_margin(self):
        with pytest.raises(ValueError, match="margin=-1"):
            windows(holes((2, 3, 4, 4)), margin=-1)

    @pytest.mark.parametrize("side", [0, -3])
    def test_squares_of_no_size(self, side):
        with pytest.raises(ValueError, match=f"side={side}"):
            windows(holes((2, 3, 4, 4)), margin=1, side=side)

    def test_a_scratch_is_cut(self):
        scratch = torch.ones(1, 200, 300, dtype=torch.bool)
        scratch[0, range(20, 180), range(40, 200)] = False
        (whole,) = windows(scratch, margin=8)
        pieces = windows(scratch, margin=8, side=32)
        assert whole.pixels == 176**2
        assert sum(piece.pixels for piece in pieces) < 0.5 * whole.pixels
        assert {piece.hole for piece in pieces} == {whole.hole}

    def test_what_is_no_cheaper_in_pieces_is_not_cut(self):
        mask = torch.ones(1, 200, 300, dtype=torch.bool)
        mask[0, 50:120, 60:130] = False
        assert len(windows(mask, margin=8, side=32)) == 1

    @pytest.mark.parametrize("side", [None, 1, 5, 12])
    @pytest.mark.parametrize("seed", range(40))
    def test_every_hidden_pixel_has_one_window_with_its_margin(self, seed, side):
        random = np.random.default_rng(seed)
        margin, least, share = random.integers(7), random.integers(1, 13), random.uniform(0.001, 0.1)
        mask = torch.from_numpy(random.random(SHAPE[1:]) > share).expand(SHAPE)
        owners = np.zeros(SHAPE[1:], int)
        for window in windows(mask, margin, least, side):
            owners[window.rows, window.columns] += window.own
            assert window.own.any()
            for row, column in np.argwhere(window.own & ~mask[0, window.rows, window.columns].numpy()):
                for place, part, extent in (
                    (row, window.rows, SHAPE[1]),
                    (column, window.columns, SHAPE[2]),
                ):
                    assert place >= min(margin, place + part.start)
                    assert part.stop - part.start - 1 - place >= min(margin, extent - 1 - part.start - place)
        assert owners.max(initial=0) <= 1
        assert (owners[~mask[0].numpy()] == 1).all()
