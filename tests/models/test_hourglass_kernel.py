"""The hourglass's kernel against the networks that it is the limit of, and against their covariance phase by phase."""

import math

import pytest
import torch
from torch.nn import functional as F

from posterior_inpainting.models.fields import DeepImagePriorKernel, HourglassKernel
from posterior_inpainting.models.fields.circulant import offsets
from posterior_inpainting.models.fields.stationary_kernels import leaky_units
from posterior_inpainting.models.networks import Hourglass, Layers

SLOPE, BLUR, LAGS = 0.2, 1.5, 6


def network_covariances(scales, width, draws, side=32, skip=0):
    """Covariance of networks' outputs at lags ``(draw, LAGS, LAGS)``, over all places that no border reaches."""
    layers = Layers(normalise=False, padding="circular", slope=SLOPE)
    # What is doubled at a border repeats it, which is nothing of a torus.
    border, inner = 2 ** (scales + 1), side - 2 ** (scales + 2) - LAGS
    found = []
    for seed in range(draws):
        inputs = {"input_channels": width, "input_blur": BLUR, "seed": seed}
        network = Hourglass(
            (1, side, side), channels=width, scales=scales, skip=skip, layers=layers, **inputs
        )
        features = []
        network.out.register_forward_hook(lambda module, given, _, kept=features: kept.append(given[0]))
        with torch.no_grad():
            network()
        maps = features[0][0].double() * network.out.scale
        here = maps[:, border : border + inner, border : border + inner]
        found.append(
            [
                [
                    (here * maps[:, border + r : border + r + inner, border + c : border + c + inner])
                    .sum(0)
                    .mean()
                    for c in range(LAGS)
                ]
                for r in range(LAGS)
            ]
        )
    return torch.tensor(found, dtype=torch.double)


def by_phase(kernel, side):
    """Covariance of every two pixels of a torus, layer by layer, and its average over places, 1 at lag 0."""

    def correlation(halved, layers):
        """Return that of maps on the way down, ``(row, column, row, column)``."""
        step = torch.arange(side >> halved)
        apart = (step[:, None] - step).abs()
        apart = torch.minimum(apart, len(step) - apart).double().square() * 4**halved
        found = (-(apart[:, None, :, None] + apart[None, :, None, :]) / (4 * kernel.lengthscale**2)).exp()
        for _ in range(layers):
            found = leaky_units(found, kernel.slope)
        return found

    covariance = correlation(kernel.scales, kernel.scales)
    for level in reversed(range(kernel.scales)):
        half = torch.eye(side >> (level + 1), dtype=torch.double)
        if kernel.upsampling == "nearest":
            double = half.repeat_interleave(2, 0)
        else:  # what interpolation does away from borders, all around
            padded = F.pad(half[:, None], (1, 1), mode="circular")
            double = F.interpolate(padded, scale_factor=2, mode="linear")[:, 0, 2:-2].T
        covariance = torch.einsum("ai,bj,ijkl,ck,dl->abcd", double, double, covariance, double, double)
        covariance = (1 - kernel.skip) * covariance + kernel.skip * correlation(level, level + 1)
        shifts = [(r, c, r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
        covariance = sum(torch.roll(covariance, shift, (0, 1, 2, 3)) for shift in shifts) / 9
        sd = torch.einsum("abab->ab", covariance).sqrt()
        scale = sd[:, :, None, None] * sd
        covariance = scale * leaky_units(covariance / scale, kernel.slope)
    places = [(r, c) for r in range(side) for c in range(side)]
    average = sum(torch.roll(covariance[r, c], (-r, -c), (0, 1)) for r, c in places)
    return average / average[0, 0]


@pytest.mark.parametrize("skip", [0.0, 0.1])
@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize(("upsampling", "error"), [("bilinear", 5e-5), ("nearest", 1.5e-3)])
def test_equals_the_average_over_phases(upsampling, error, scales, skip):
    kernel = HourglassKernel(BLUR, scales=scales, slope=SLOPE, skip=skip, upsampling=upsampling)
    found = kernel.at(*offsets(8, 8))
    # A torus of 32 is wide enough for lags of 8 of a field as smooth as this one.
    expected = by_phase(kernel, 32)[:8, :8]
    torch.testing.assert_close(found, expected, atol=error, rtol=0)
    plain = DeepImagePriorKernel(BLUR, depth=2 * scales, slope=SLOPE)
    assert (plain.at(*offsets(8, 8)) - expected).abs().max() > 20 * error


@pytest.mark.parametrize(("scales", "skip"), [(1, 0), (2, 0), (2, 16)])
def test_wide_networks_approach_it(scales, skip):
    """Their mean covariance over draws within its standard error; that of other kernels is not."""
    width = 128
    covariances = network_covariances(scales, width, draws=24, skip=skip)
    share = skip / (width + skip)
    kernel = HourglassKernel(BLUR, scales=scales, slope=SLOPE, skip=share)

    def errors(k):
        """Return by how many standard errors, and a bias, the networks miss what a kernel says of each lag."""
        table = k.at(*offsets(LAGS, LAGS))
        variance = covariances[:, 0, 0].mean()
        # The ratio's linearisation: k(lag) times the variance is what a draw should have.
        misses = (covariances - table * covariances[:, :1, :1]) / variance
        error = misses.std(0) / math.sqrt(len(misses))
        # Of a network of finite width the mean over draws is off by an order of 1 / width.
        return (misses.mean(0).abs() - 1 / width).clamp(min=0)[table < 1] / error[table < 1]

    assert errors(kernel).max() < 4
    wrong = [
        DeepImagePriorKernel(BLUR, depth=2 * scales, slope=SLOPE),
        HourglassKernel(BLUR, scales=scales + 1, slope=SLOPE, skip=share),
        HourglassKernel(BLUR, scales=scales, slope=SLOPE, skip=share, upsampling="nearest"),
    ]
    for other in wrong:
        assert errors(other).max() > 4


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
def test_far_away_it_is_its_floor(upsampling):
    kernel = HourglassKernel(2.0, scales=2, skip=0.1, upsampling=upsampling)
    assert float(kernel.at(torch.tensor(0), torch.tensor(300))) == pytest.approx(kernel.floor, abs=1e-12)
    assert float(kernel(torch.tensor(math.inf))) == kernel.floor


def test_along_a_row_and_between_pixels():
    kernel = HourglassKernel(1.5, scales=2)
    row = kernel.at(torch.zeros(4), torch.arange(4))
    found = kernel(torch.tensor([0.0, 1.0, 2.25, 9.0]))
    torch.testing.assert_close(found, torch.stack([row[0], row[1], (row[1] + row[2]) / 2, row[3]]))


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
def test_it_is_a_covariance(upsampling):
    kernel = HourglassKernel(0.8, scales=2, upsampling=upsampling)
    row, column = (
        line.flatten() for line in torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    )
    matrix = kernel.at(row[:, None] - row, column[:, None] - column)
    assert torch.linalg.eigvalsh(matrix)[0] > -1e-10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": 0}, "scales=0, slope=0.0, skip=0.0; expected scales >= 1"),
        ({"slope": 1.0}, r"slope=1.0, skip=0.0; expected scales >= 1, slope and skip in \[0, 1\)"),
        ({"skip": -0.1}, r"skip=-0.1; expected scales >= 1"),
        ({"upsampling": "cubic"}, "upsampling='cubic'; expected 'bilinear' or 'nearest'"),
        ({"lengthscale": 0.0}, "lengthscale=0.0; expected a positive number of pixels"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        HourglassKernel(**{"lengthscale": 1.0} | change)
