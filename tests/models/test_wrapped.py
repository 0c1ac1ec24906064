"""Any network as a decoder: its images are read rightly, its speed is what inference finds, its noise comes back."""

import copy
import math
import pickle
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from posterior_inpainting.inference import NUTS, infer
from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.models import LatentCode, Observation, datasets, likelihoods
from posterior_inpainting.models.fitted_noise import Projection, fit_noise
from posterior_inpainting.models.networks.wrapped import WrappedDecoder

SHAPE = (2, 4, 6)
PIXELS = math.prod(SHAPE)


class Network(nn.Module):
    """Codes (n, 3) or (n, 3, 1, 1) to images of SHAPE in [0, 1], then through whatever function a test gives."""

    def __init__(self, then=lambda images: images):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.line = nn.Linear(3, PIXELS)
        self.then = then

    def forward(self, z):
        return self.then(self.line(z.flatten(1)).sigmoid().unflatten(-1, SHAPE))

    def decode(self, z):
        return self(z).flip(-1)


@dataclass
class Sample:
    sample: torch.Tensor


class Pair(NamedTuple):
    image: torch.Tensor
    scale: float


def normalised_over_its_batch(images):
    return images / images.amax()


def branching(images):
    """On the whole batch, in Python: neither one call nor vmap is right."""
    return images if images.sum() > 1e-3 * len(images) + PIXELS / 2 else 1 - images


@pytest.fixture
def z():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def expected(z):
    with torch.no_grad():
        return Network()(z)


def image_and_mask():
    image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, :2] = True
    return image, mask


class TestReading:
    """However a network takes codes and returns images, the decoder's are the same."""

    @pytest.mark.parametrize(
        ("then", "arguments"),
        [
            (lambda x: x, {}),
            (lambda x: x, {"latent": (3, 1, 1)}),
            (lambda x: x.flatten(1), {}),
            (lambda x: 2 * x - 1, {"value_range": (-1, 1)}),
            (lambda x: 255 * (1 - x), {"value_range": (255, 0)}),
            (lambda x: x.movedim(1, -1), {"channels_last": True}),
            (lambda x: {"sample": x, "other": 1}, {"output": "sample"}),
            (Sample, {"output": "sample"}),
            (lambda x: Pair(x, 0.1), {"output": "image"}),
            (lambda x: Pair(x, 0.1), {"output": 0}),
            (lambda x: {"levels": [None, Sample(x)]}, {"output": ("levels", 1, "sample")}),
            (lambda x: x.flip(-1), {"method": "decode"}),
        ],
        ids=[
            "plain",
            "code",
            "flat",
            "tanh",
            "inverted",
            "last",
            "key",
            "field",
            "name",
            "index",
            "path",
            "method",
        ],
    )
    def test_arguments(self, then, arguments, z, expected):
        decoder = WrappedDecoder(Network(then), **{"latent": 3, "image_shape": SHAPE} | arguments)
        torch.testing.assert_close(decoder(z), expected)

    @pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3)])
    @pytest.mark.parametrize(
        "then", [torch.nn.Identity(), normalised_over_its_batch], ids=["plain", "coupled"]
    )
    def test_leading_dimensions(self, batch, then):
        decoder = WrappedDecoder(Network(then), 3, SHAPE)
        assert decoder(torch.zeros(*batch, 3)).shape == (*batch, *SHAPE)

    def test_batch_normalisation_in_training_mode_is_frozen(self):
        module = nn.Sequential(
            nn.Linear(3, PIXELS), nn.BatchNorm1d(PIXELS), nn.Dropout(0.5), nn.Sigmoid()
        ).train()
        decoder = WrappedDecoder(module, 3, SHAPE)
        assert decoder.speed == "closed form"
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())

    def test_double_precision(self, z, expected):
        model = LatentCode.wrap(Network().double(), latent=3, image_shape=SHAPE, noise=0.1)
        assert model.prior().sample().dtype == model.decoder.pixel_scale.dtype == torch.double
        torch.testing.assert_close(model.decoder(z.double()), expected.double())

    def test_copies_decode_alike(self, z, expected):
        model = LatentCode.wrap(Network(nn.Identity()), latent=3, image_shape=SHAPE, noise=0.2)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(other.decoder(z), expected)
            assert torch.equal(other.decoder.pixel_scale, model.decoder.pixel_scale)


SPEEDS = pytest.mark.parametrize(
    ("then", "speed"),
    [(nn.Identity(), "closed form"), (normalised_over_its_batch, "vmap"), (branching, "loop")],
    ids=["plain", "normalised over its batch", "branching"],
)


class TestSpeed:
    @SPEEDS
    def test_inference_goes_the_way_that_is_said(self, then, speed):
        model = LatentCode.wrap(Network(then), latent=3, image_shape=SHAPE, noise=0.1)
        assert model.speed == model.decoder.speed == speed
        assert f"speed={speed!r}" in str(model)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert Potential(Problem(model, image_and_mask())).route == speed
        assert [("cannot be vectorised" in str(w.message)) for w in said] == [True] * (speed == "loop")

    @SPEEDS
    def test_every_code_is_decoded_as_it_is_alone(self, then, speed, z):
        module = Network(then)
        decoder = WrappedDecoder(module, 3, SHAPE)
        alone = torch.cat([module(row.unsqueeze(0)) for row in z])
        torch.testing.assert_close(decoder(z), alone)
        together = module(z)
        assert torch.allclose(together, alone) == (speed == "closed form")

    def test_without_a_closed_form_it_is_that_of_the_trace(self):
        decoder = WrappedDecoder(Network(), 3, SHAPE)
        model = LatentCode(decoder, likelihood=likelihoods.laplace)
        assert model.speed == Potential(Problem(model, image_and_mask())).route == "vmap"

    @pytest.mark.parametrize(
        "scale", [0.1, torch.linspace(0.1, 0.3, PIXELS).reshape(SHAPE)], ids=["one", "each"]
    )
    def test_the_closed_form_is_pyros_density(self, scale, z):
        model = LatentCode.wrap(Network().double(), latent=3, image_shape=SHAPE, noise=scale)
        image, mask = image_and_mask()
        problem = Problem(model, (image.double(), mask))
        fast, traced = Potential(problem), Potential(problem, closed_form=False)
        assert (fast.route, traced.route) == ("closed form", "vmap")
        for beta in (1.0, 0.3):
            for one, other in zip(
                fast.gradient(z.double(), beta), traced.gradient(z.double(), beta), strict=True
            ):
                torch.testing.assert_close(one, other)

    def test_draws_are_of_the_right_posterior(self):
        """Of a linear network it is normal, with a known mean and covariance."""
        module = nn.Linear(2, 16).double()
        with torch.no_grad():
            module.bias.copy_(torch.linspace(0.3, 0.7, 16))
            module.weight.copy_(0.1 * torch.randn(16, 2, generator=torch.Generator().manual_seed(0)))
        model = LatentCode.wrap(module, latent=2, image_shape=(1, 4, 4), noise=0.3)
        image = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(3)).double()
        mask = torch.arange(16).reshape(1, 4, 4) < 9
        weight, seen = module.weight[:9] / 0.3, (image.flatten() - module.bias)[:9] / 0.3
        covariance = (torch.eye(2) + weight.T @ weight).inverse()
        mean, deviation = covariance @ weight.T @ seen, covariance.diagonal().sqrt()
        draws = infer(model, Observation(image, mask), NUTS(), draws=100, chains=4, seed=0, progress=False)
        found = torch.from_numpy(draws.posterior["z"].to_numpy().copy()).reshape(-1, 2)
        # NUTS on a normal of two dimensions is worth a fifth of its 400 draws at the very least.
        assert bool(((found.mean(0) - mean).abs() < 4 * deviation / math.sqrt(80)).all())
        assert bool(((found.std(0) / deviation - 1).abs() < 4 / math.sqrt(2 * 80)).all())


COUNT, TRUTH = 100, 0.15


@pytest.fixture(scope="module")
def images():
    """Draws of a network, with noise."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        means = Network()(torch.randn(COUNT, 3, generator=generator))
    return means + TRUTH * torch.randn(means.shape, generator=generator)


class TestNoise:
    def wrapped(self, images, noise, then=lambda x: x, **settings):
        search = Projection(restarts=2, steps=100)
        return LatentCode.wrap(
            Network(then), latent=3, image_shape=SHAPE, noise=noise, images=images, search=search, **settings
        )

    def test_it_comes_back(self, images):
        """Too small by half of the share of directions that a code takes up; the rest is the error of the sample."""
        (scale,) = self.wrapped(images, "fit").decoder.pixel_scale.unique().tolist()
        right = TRUTH * math.sqrt(1 - 3 / PIXELS)
        assert scale == pytest.approx(right, abs=4 * TRUTH / math.sqrt(2 * COUNT * PIXELS))

    def test_it_comes_back_for_each_pixel(self, images):
        """The largest of 48 errors, and at most the six hundredths that a code may take of one pixel's variance."""
        scale = self.wrapped(images, "fit each pixel").decoder.pixel_scale
        assert float((scale / TRUTH - 1).abs().max()) < 4 / math.sqrt(2 * COUNT) + 3 / PIXELS
        assert len(scale.unique()) == PIXELS

    def test_it_is_in_units_of_zero_to_one(self, images):
        plain = self.wrapped(images[:20], "fit")
        other = self.wrapped(images[:20], "fit", lambda x: 255 * x, value_range=(0, 255))
        torch.testing.assert_close(other.decoder.pixel_scale, plain.decoder.pixel_scale, rtol=1e-3, atol=0)

    @SPEEDS
    def test_at_every_speed(self, images, then, speed):
        scale = self.wrapped(images[:5], "fit", then).decoder.pixel_scale
        assert 0.1 < float(scale.mean()) < 0.6

    def test_the_same_at_every_call_and_nothing_drawn_from_the_callers_generator(self, images):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        first = self.wrapped(images[:10], "fit").decoder.pixel_scale
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(3)
        assert torch.equal(self.wrapped(images[:10], "fit").decoder.pixel_scale, first)

    def test_under_a_bounded_prior(self, images):
        """Codes are searched for where there are any: a box without the right ones leaves larger residuals."""
        free = self.wrapped(images[:20], "fit")
        box = dist.Uniform(torch.full((3,), 2.0), torch.full((3,), 3.0)).to_event(1)
        boxed = self.wrapped(images[:20], "fit", prior=box)
        assert float(boxed.decoder.pixel_scale.mean()) > 1.2 * float(free.decoder.pixel_scale.mean())
        codes = fit_noise(boxed, images[:4], rounds=1, search=Projection(steps=50)).codes
        assert bool(((codes > 2) & (codes < 3)).all())

    def test_given(self):
        each = torch.linspace(0.1, 0.3, PIXELS).reshape(SHAPE)
        for noise in (0.2, each):
            model = LatentCode.wrap(Network(), latent=3, image_shape=SHAPE, noise=noise)
            assert torch.equal(model.decoder.pixel_scale, torch.as_tensor(noise).expand(SHAPE))


def lazily_noisy(images):
    return images + 0.01 * torch.randn_like(images)


class TestErrors:
    @pytest.mark.parametrize(
        ("then", "arguments", "message"),
        [
            (
                None,
                {"latent": (4, 8, 8)},
                r"Network fails at codes of shape \(1, 4, 8, 8\): mat1 and mat2 .*; expected",
            ),
            (
                None,
                {"image_shape": (1, 4, 6)},
                r"returns shape \(1, 2, 4, 6\) for codes of shape \(1, 3\); expected \(1, 1, 4, 6\) for image_shape",
            ),
            (
                None,
                {"channels_last": True},
                r"returns shape \(1, 2, 4, 6\) .*; expected \(1, 4, 6, 2\) for image",
            ),
            (lambda x: x.sum(0), {}, r"returns shape \(2, 4, 6\) for codes"),
            (
                lambda x: {"sample": x, "mask": 1},
                {},
                "returns a dict; expected an image: say output='sample' or 'mask'",
            ),
            (lambda x: (x, x), {}, "returns a tuple; expected an image: say output=0 or 1"),
            (Sample, {}, "returns a Sample; expected an image: say output='sample'"),
            (Sample, {"output": "image"}, "output='image' is not in what Network returns; expected 'sample'"),
            (lambda x: None, {}, "returns a NoneType; expected an image: say output=nothing inside"),
            (
                lambda x: x * torch.nan,
                {},
                r"returns NaN or infinity for standard normal codes of shape \(1, 3\)",
            ),
            (lambda x: x.detach(), {}, "no gradient goes from the image to the code"),
            (lazily_noisy, {}, "the same code gives another image at each call"),
            (
                None,
                {"method": "decoder"},
                "module is a Network without a method 'decoder'; expected one that decodes",
            ),
            (None, {"value_range": (1, 1)}, "expected two values, of black and of white"),
            (None, {"latent": 0}, "latent=0; expected a positive number"),
            (None, {"image_shape": (4, 6)}, r"shape=\(4, 6\); expected \(channel, row, column\)"),
            (None, {"noise": 0.0}, "the noise has values from 0 to 0; expected positive"),
            (None, {"noise": "fit"}, "noise='fit' and no images; expected images to fit it to"),
            (
                None,
                {"noise": "fitted"},
                "noise='fitted'; expected a number, a tensor, or one of fit, fit each pixel",
            ),
            (None, {"images": torch.rand(4, *SHAPE)}, "noise is a float: 0.1, and there are images"),
            (None, {"noise": "fit", "images": torch.rand(1, *SHAPE)}, "expected at least 2 as"),
            (None, {"noise": "fit", "images": torch.rand(4, 1, 8, 8)}, r"expected \(2, 4, 6\) as"),
            (None, {"noise": "fit", "images": 255 * torch.rand(4, *SHAPE)}, "divide by 255"),
        ],
    )
    def test_in_one_line(self, then, arguments, message):
        module = Network() if then is None else Network(then)
        with pytest.raises(ValueError, match=message) as caught:
            LatentCode.wrap(module, **{"latent": 3, "image_shape": SHAPE, "noise": 0.1} | arguments)
        assert "\n" not in str(caught.value)

    def test_a_function_is_no_module(self):
        with pytest.raises(ValueError, match=r"module is a function: .*; expected a torch module"):
            WrappedDecoder(lambda z: z, 3, SHAPE)

    def test_another_range_than_was_said(self):
        with pytest.warns(
            UserWarning, match=r"values from -2.2 to 0.765; expected about value_range=\(0.0, 1.0\)"
        ):
            WrappedDecoder(Network(lambda x: 4 * x - 2.7), 3, SHAPE)


class TestDiffusers:
    """The optional extra: an autoencoder made from its configuration, with random weights."""

    @pytest.fixture
    def autoencoder(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library that is not ours says while it is imported
            diffusers = pytest.importorskip("diffusers", reason="pip install -e '.[diffusers]' to test it")
            AutoencoderKL = diffusers.AutoencoderKL  # loaded lazily, by name
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return AutoencoderKL(
                down_block_types=["DownEncoderBlock2D"] * 3,
                up_block_types=["UpDecoderBlock2D"] * 3,
                block_out_channels=[8, 8, 8],
                latent_channels=4,
                norm_num_groups=4,
            )

    def test_an_autoencoder(self, autoencoder):
        with torch.no_grad():
            expected = (autoencoder.eval().decode(torch.ones(1, 4, 8, 8)).sample + 1) / 2
        pictures = datasets.load("natural")[:2, :, :32, :32]
        model = LatentCode.wrap(
            autoencoder,
            latent=(4, 8, 8),
            image_shape=(3, 32, 32),
            method="decode",
            output="sample",
            value_range=(-1, 1),
            images=pictures,
            search=Projection(restarts=1, steps=5),
        )
        assert (model.latent, model.speed) == (256, "closed form")
        torch.testing.assert_close(model.decoder(torch.ones(256)), expected[0])
        assert 0.03 < float(model.decoder.pixel_scale.mean()) < 1
        mask = torch.ones(3, 32, 32, dtype=torch.bool)
        mask[:, 16:] = False
        _, log_likelihood, slope = Potential(Problem(model, (pictures[0], mask))).gradient(
            torch.zeros(2, 256)
        )
        assert bool(log_likelihood.isfinite().all())
        assert slope.shape == (2, 256)
        assert float(slope.abs().max()) > 0
        with pytest.raises(
            ValueError, match=r"AutoencoderKL returns a DecoderOutput; .* say output='sample'"
        ):
            WrappedDecoder(autoencoder, (4, 8, 8), (3, 32, 32), method="decode")
