"""Pixel networks: who sees whom, and that a cache changes no number."""

import time

import pytest
import torch

from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage
from posterior_inpainting.models.autoregressive.pixel_laws import CategoricalPixels, LogisticMixturePixels
from posterior_inpainting.models.networks.constraint import ConstraintNetwork
from posterior_inpainting.models.networks.incremental import IncrementalPixelCNN
from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN

SIDE = 6


def network(side=SIDE, channels=1, outputs=3, **options):
    torch.manual_seed(0)
    options = {"features": 6, "layers": 4, "first": 5, "kernel": 3} | options
    net = GatedPixelCNN((channels, side, side), outputs, **options)
    torch.nn.init.normal_(net.row_bias)
    torch.nn.init.normal_(net.column_bias)
    return net


def influence(net, side=SIDE):
    """Boolean ``(pixel, pixel)``: does the output at the first depend on the image at the second?"""
    image = torch.rand(1, net.image_shape[0], side, side, requires_grad=True)
    summed = net(image).abs().sum(1).flatten()
    rows = [
        torch.autograd.grad(value, image, retain_graph=True)[0].abs().sum(1).flatten() > 0 for value in summed
    ]
    return torch.stack(rows)


def sees_only_earlier(net):
    return not influence(net).triu().any()


class TestCausality:
    """A gradient for every pair of pixels; the diagonal is the pixel itself."""

    @pytest.mark.parametrize("kernel", [3, 5])
    @pytest.mark.parametrize("first", [3, 5, 7])
    def test_no_pixel_sees_itself_or_a_later_one(self, first, kernel):
        assert sees_only_earlier(network(first=first, kernel=kernel))

    def test_every_earlier_pixel_counts(self):
        """No blind spot: with enough layers the last pixel hears from each before it, and so do all others."""
        found = influence(network(layers=7))
        assert torch.equal(found, torch.ones_like(found).tril(-1))

    def test_receptive_field_has_no_blind_spot(self):
        """A single masked 3 x 3 kernel stacked never sees up and to the right beyond a diagonal; this one does."""
        found = influence(network(layers=3, first=3, kernel=3)).reshape(*[SIDE] * 4)
        row, column = 3, 2
        # Three layers reach three rows up, three columns beside, in every combination.
        above = found[row, column, :row]
        assert above[:, : column + 3 + 1].all()

    @pytest.mark.parametrize("stack", ["horizontal", "vertical"])
    def test_a_visible_centre_is_found_out(self, stack):
        """The tests above can fail: a first layer that sees its own pixel, or its own row, is caught."""
        net = network()
        getattr(net.layers[0], stack).strict = False
        assert not sees_only_earlier(net)

    def test_changing_a_later_pixel_moves_no_earlier_output(self):
        net = network()
        image = torch.rand(1, 1, SIDE, SIDE)
        before = net(image)
        for pixel in range(SIDE * SIDE):
            changed = image.clone().flatten()
            changed[pixel] = 1 - changed[pixel]
            moved = (net(changed.reshape(image.shape)) != before)[0].any(0).flatten()
            assert not moved[: pixel + 1].any()

    @pytest.mark.parametrize(
        "law", [CategoricalPixels(5), LogisticMixturePixels(8, 2)], ids=["categorical", "mixture"]
    )
    def test_channels_come_in_order(self, law):
        """Red before green before blue, and no channel sees a later one; each does see the earlier."""
        net = network(channels=3, outputs=law.outputs(3), layers=2)
        torch.nn.init.normal_(net.head[3].weight)
        image = law.quantise(torch.rand(1, 3, SIDE, SIDE))
        before = law.log_probabilities(net(image), image)
        for channel in range(3):
            changed = image.clone()
            changed[:, channel, 2, 2] = 1 - changed[:, channel, 2, 2].round()
            moved = (law.log_probabilities(net(changed), changed) != before).any(-1)[0, :, 2, 2]
            assert moved.tolist() == [later > channel for later in range(3)]


class TestCache:
    @pytest.mark.parametrize("code", [0, 3], ids=["without code", "with code"])
    @pytest.mark.parametrize(("channels", "kernel"), [(1, 3), (3, 5)])
    def test_equals_the_full_network(self, channels, kernel, code):
        net = network(side=8, channels=channels, kernel=kernel, code=code)
        image, codes = torch.rand(4, channels, 8, 8), torch.randn(4, code) if code else None
        with torch.no_grad():
            full = net(image, codes)
            filling = IncrementalPixelCNN(net, 4, codes)
            for row in range(8):
                filling.begin_row(image, row)
                for column in range(8):
                    found = filling.advance(image, column + 1)
                    torch.testing.assert_close(found, full[:, :, row, column], atol=1e-5, rtol=0)

    def test_runs_of_known_pixels_and_skipped_rows(self):
        net = network(side=8)
        image = torch.rand(2, 1, 8, 8)
        with torch.no_grad():
            full = net(image)
            filling = IncrementalPixelCNN(net, 2)
            for row in range(8):
                filling.begin_row(image, row)
                for column in (2, 3, 7) if row in (1, 6) else ():
                    found = filling.advance(image, column + 1)
                    torch.testing.assert_close(found, full[:, :, row, column], atol=1e-5, rtol=0)

    def test_reads_nothing_that_is_not_known_yet(self):
        net = network()
        image = torch.rand(1, 1, SIDE, SIDE)
        spoilt = image.clone()
        spoilt[0, 0, 2, 3:] = torch.nan
        spoilt[0, 0, 3:] = torch.nan
        with torch.no_grad():
            filling = IncrementalPixelCNN(net, 1)
            for row in range(3):
                filling.begin_row(spoilt, row)
            found = filling.advance(spoilt, 4)
            torch.testing.assert_close(found, net(image)[:, :, 2, 3], atol=1e-5, rtol=0)

    def test_order_is_checked(self):
        filling = IncrementalPixelCNN(network(), 1)
        with pytest.raises(ValueError, match="row=1; expected row 0"):
            filling.begin_row(torch.zeros(1, 1, SIDE, SIDE), 1)
        filling.begin_row(torch.zeros(1, 1, SIDE, SIDE), 0)
        with pytest.raises(ValueError, match="stop=7; expected 1 to 6"):
            filling.advance(torch.zeros(1, 1, SIDE, SIDE), 7)

    def test_is_faster_than_the_network_at_every_pixel(self):
        """At 16 x 16 already by far; `tests/benchmarks/pixel_constrained.md` has the sizes 16 to 64."""
        net = network(side=16, outputs=2)
        law = AutoregressiveImage(net, CategoricalPixels(2))
        images = torch.rand(16, 1, 16, 16)
        with torch.no_grad():
            law.sample((16,))
            start = time.process_time()
            law.sample((16,))
            cached = time.process_time() - start
            start = time.process_time()
            for _ in range(8):
                net(images)
            uncached = (time.process_time() - start) / 8 * 256
        assert uncached > 2 * cached


def test_configuration_makes_the_network_again():
    for net in (network(channels=3, code=2), ConstraintNetwork((3, 8, 8), 4, features=6)):
        again = type(net)(**net.configuration())
        again.load_state_dict(net.state_dict())
        assert again.configuration() == net.configuration()


def test_even_kernels_are_named():
    with pytest.raises(ValueError, match="first=4, kernel=3; expected odd sides"):
        GatedPixelCNN((1, 8, 8), 2, first=4)


class TestConstraintNetwork:
    def test_a_seen_zero_is_not_a_missing_pixel(self):
        torch.manual_seed(0)
        net = ConstraintNetwork((1, 8, 8), 2, features=8)
        torch.nn.init.normal_(net.head.weight)
        image, mask = torch.full((1, 1, 8, 8), 0.5), torch.ones(1, 1, 8, 8, dtype=torch.bool)
        hidden = mask.clone()
        hidden[..., 3, 3] = False
        assert not torch.equal(net(image, mask), net(image, hidden))

    def test_never_reads_a_hidden_pixel(self):
        torch.manual_seed(0)
        net = ConstraintNetwork((1, 8, 8), 2, features=8)
        torch.nn.init.normal_(net.head.weight)
        mask = torch.rand(1, 1, 8, 8) < 0.5
        image = torch.rand(1, 1, 8, 8)
        assert torch.equal(net(image, mask), net(torch.where(mask, image, torch.nan), mask))

    def test_every_pixel_hears_of_every_seen_one(self):
        torch.manual_seed(0)
        net = ConstraintNetwork((1, 28, 28), 2, features=8)
        torch.nn.init.normal_(net.head.weight)
        image = torch.rand(1, 1, 28, 28, requires_grad=True)
        net(image, torch.ones(1, 1, 28, 28, dtype=torch.bool))[0, :, 27, 27].sum().backward()
        assert (image.grad != 0).float().mean() > 0.9
