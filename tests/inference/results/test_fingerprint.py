"""A fingerprint differs for what computes something else, is the same before and after use, or is refused."""

import collections
import copy
import functools
import os
import random
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from digit import HALF, SHAPE
from pyro.nn import PyroModule, PyroParam
from torch import nn

from posterior_inpainting.inference import ChEES, infer
from posterior_inpainting.inference.results.fingerprint import fingerprint
from posterior_inpainting.models import (
    BayesianCompletion,
    BayesianDecoder,
    CodeAndUnits,
    CodeAndWeights,
    DeepImagePrior,
    FanIn,
    Gaussian,
    GaussianProcess,
    LatentCode,
    LinearGaussian,
    MixturePrior,
    Observation,
    PixelConstrained,
    PluralisticJoint,
    ScaleMixture,
    VariationalAutoencoder,
    WeightDraws,
    datasets,
    likelihoods,
    observations,
    pretrained,
)
from posterior_inpainting.models.bayesian_completion import CompletionNetwork
from posterior_inpainting.models.fields import Matern
from posterior_inpainting.models.networks import Hourglass, MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.networks.code_mixture import CodeMixture


def decoder_and_encoder(**settings):
    torch.manual_seed(0)
    return MultilayerDecoder(2, SHAPE, (4,), **settings), MaskedEncoder(2, SHAPE, (4,))


def bayesian_decoder(scale=0.3, **settings):
    return BayesianDecoder(*decoder_and_encoder(scale_rank=2), posterior_scale=scale, **settings).eval()


def completion():
    decoder, encoder = decoder_and_encoder()
    return BayesianCompletion(CompletionNetwork(encoder, decoder))


MODELS = {
    BayesianCompletion: completion,
    BayesianDecoder: bayesian_decoder,
    CodeAndUnits: lambda: CodeAndUnits(bayesian_decoder()),
    CodeAndWeights: lambda: CodeAndWeights(bayesian_decoder()),
    DeepImagePrior: lambda: DeepImagePrior(SHAPE, Hourglass(SHAPE, channels=3, scales=1, input_channels=2)),
    GaussianProcess: lambda: GaussianProcess(Matern(1.5), SHAPE, mean=0.3, covariance=0.1, noise=0.1),
    LatentCode: lambda: LatentCode(pretrained.load("digits-vae-2d")),
    LinearGaussian: lambda: LinearGaussian.fit(datasets.load("digits", split="train"), latent=3),
    PixelConstrained: lambda: PixelConstrained.load("fashion-mnist-pixels-binary"),
    PluralisticJoint: lambda: PluralisticJoint(*decoder_and_encoder()),
    VariationalAutoencoder: lambda: VariationalAutoencoder(*decoder_and_encoder()),
    WeightDraws: lambda: WeightDraws(bayesian_decoder(), 2),
}


def mixture(shift):
    made = CodeMixture(2, 2)
    return made.set(
        torch.tensor([0.3, 0.7]), torch.arange(4.0).reshape(2, 2) + shift, torch.eye(2).repeat(2, 1, 1)
    )


class Buffered(nn.Module):
    latent, image_shape, noise = 2, SHAPE, 0.1

    def __init__(self, value):
        super().__init__()
        self.register_buffer("template", torch.full(SHAPE, value), persistent=False)

    def forward(self, z):
        return z.sum(-1)[..., None, None, None] * self.template


class TestToldApart:
    """Each of these was the same number before, or would be for a simpler rule."""

    def different(self, *values):
        assert len({fingerprint(value) for value in values}) == len(values)

    def test_mixture_priors(self):
        decoder = decoder_and_encoder()[0]
        priors = [MixturePrior(mixture(shift)) for shift in (0.0, 0.1)]
        self.different(*priors)
        self.different(*(LatentCode(decoder, noise=0.1, prior=prior) for prior in (None, *priors)))

    def test_scale_mixtures(self):
        self.different(
            ScaleMixture(), ScaleMixture(share=0.4), ScaleMixture(wide=2.0), ScaleMixture(narrow=0.1)
        )
        self.different(*(bayesian_decoder(prior=prior) for prior in (ScaleMixture(), ScaleMixture(wide=2.0))))
        self.different(*(bayesian_decoder(prior=prior) for prior in (FanIn(1.0), FanIn(2.0), Gaussian(1.0))))

    def test_code_and_units(self):
        self.different(*(CodeAndUnits(bayesian_decoder(scale)) for scale in (0.01, 0.5)))
        # Of the trunk alone, whose layers are in a private list.
        trunks = (bayesian_decoder(scale, random=lambda path: "trunk" in path) for scale in (0.01, 0.5))
        self.different(*map(CodeAndUnits, trunks))

    def test_buffers(self):
        self.different(*(LatentCode(Buffered(value)) for value in (0.5, 0.6)))

    def test_modules(self):
        weights = nn.Linear(2, 2)
        hooked, other = copy.deepcopy(weights), copy.deepcopy(weights)
        hooked.register_forward_hook(lambda module, inputs, output: output + 1)
        other.register_forward_pre_hook(lambda module, inputs: 2 * inputs[0])
        self.different(weights, hooked, other, copy.deepcopy(weights).eval(), nn.Sequential(weights))
        self.different(nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Tanh(), nn.ReLU()))

    def test_pyro_parameters(self):
        def module(constraint, value):
            made = PyroModule()
            made.scale = PyroParam(torch.tensor(value), constraint)
            return made

        real, positive = dist.constraints.real, dist.constraints.positive
        self.different(module(positive, 1.0), module(positive, 2.0), module(real, 1.0))

    def test_private_lists_tuples_and_dicts(self):
        def module(value, kind):
            made = nn.Module()
            made._kept = kind(value)
            return made

        kinds = [
            lambda v: [torch.full((2,), v)],
            lambda v: (torch.full((2,), v),),
            lambda v: {"a": [{"b": v}]},
            lambda v: collections.deque([v]),
            lambda v: [nn.Dropout(v)],
            lambda v: {torch.full((), v): 0},
        ]
        self.different(*(module(value, kind) for kind in kinds for value in (0.1, 0.2)))

    def test_laws(self):
        zero = torch.zeros(2)
        flow = dist.transforms.AffineTransform
        self.different(
            dist.Normal(zero, 1.0),
            dist.Normal(zero, 2.0),
            dist.Laplace(zero, 1.0),
            dist.Normal(zero, 1.0).to_event(1),
            dist.Normal(zero, 1.0).mask(torch.tensor([True, False])),
            dist.Normal(zero, 1.0).mask(False),
            dist.Bernoulli(probs=torch.tensor(0.3)),
            dist.Bernoulli(logits=torch.tensor(0.3)),
            dist.Categorical(probs=torch.tensor([0.3, 0.7])),
            dist.Categorical(logits=torch.tensor([0.3, 0.7])),
            dist.MultivariateNormal(zero, torch.eye(2)),
            dist.MultivariateNormal(zero, 2 * torch.eye(2)),
            dist.TransformedDistribution(dist.Normal(zero, 1.0), [flow(0.0, 2.0)]),
            dist.TransformedDistribution(dist.Normal(zero, 1.0), [flow(0.0, 3.0)]),
            dist.TransformedDistribution(dist.Normal(zero, 1.0), [flow(0.0, 3.0).inv]),
            dist.TransformedDistribution(dist.Normal(zero, 1.0), [flow(0.0, 4.0).inv]),
            dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(zero, 1.0)),
            dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(zero, 2.0)),
        )

    def test_settings_and_closures(self, digits_model):
        decoder = digits_model.decoder
        wide = dist.Normal(torch.zeros(2), 3.0).to_event(1)
        self.different(
            LatentCode(decoder),
            LatentCode(decoder, likelihood=likelihoods.laplace),
            LatentCode(decoder, prior=wide),
            LatentCode(decoder, noise=0.2),
            *(lambda seen, latent=latent: latent for latent in (5, 30)),
            functools.partial(max, 1),
            functools.partial(max, 2),
            functools.partial(min, 2),
            (lambda seen: 1),
            (lambda seen: 2),
            *(closing_over(value) for value in (1, 2, torch.zeros(2), [torch.zeros(2)])),
            *(functools.partial(closing_over(1), key=value) for value in (1, 2)),
            decoder.forward,
            torch.relu,
            torch.tanh,
            nn.functional.silu,
            nn.functional.gelu,
        )
        again = LatentCode(decoder, prior=dist.Normal(torch.zeros(2), 3.0).to_event(1))
        assert fingerprint(again) == fingerprint(LatentCode(decoder, prior=wide))

    def test_arrays_by_type_shape_and_value(self):
        self.different(
            torch.zeros(2),
            torch.zeros(2, 1),
            torch.zeros(2, dtype=torch.double),
            torch.zeros(2, dtype=torch.bfloat16),
            torch.tensor([0.0, -0.0]),
            np.array([1, 2]),
            np.array(["a", "b"], dtype=object),
            np.float64(0.5),
            np.float64(0.25),
        )
        assert fingerprint(torch.zeros(3, 2).T) == fingerprint(torch.zeros(2, 3))
        assert fingerprint(nn.Parameter(torch.ones(2))) == fingerprint(torch.ones(2))

    def test_objects(self):
        class Slotted:
            __slots__ = ("value",)

            def __init__(self, value):
                self.value = value

        class Counted(dict):
            pass

        counted = Counted(a=1)
        counted.extra = 1
        self.different(Slotted(1), Slotted(2), Counted(a=1), Counted(a=2), counted, {"a": 1})

    def test_what_a_function_or_class_of_a_script_finds_by_name(self):
        """A notebook's constants and code count, where they are read."""

        def made(noise, factor):
            space = {"__name__": "__main__", "NOISE": noise, "UNUSED": noise}
            exec(
                "def helper(x):\n    return NOISE * x\n"
                f"class Net:\n    gain = {factor}\n    def run(self, x):\n        return helper(x) + {factor}\n"
                "def model(x):\n    return Net().run(x)\n"
                "def other(x):\n    return x\n",
                space,
            )
            return space

        one, same, noisier, steeper = made(0.1, 1), made(0.1, 1), made(0.2, 1), made(0.1, 2)
        assert fingerprint(one["model"]) == fingerprint(same["model"])
        self.different(one["model"], noisier["model"], steeper["model"])
        self.different(*(space["Net"]() for space in (one, noisier, steeper)))
        assert fingerprint(one["other"]) == fingerprint(noisier["other"])


def closing_over(value):
    return lambda key=None: (value, key)


class TestTheSame:
    @pytest.fixture(params=MODELS, ids=lambda kind: kind.__name__)
    def model(self, request):
        return MODELS[request.param]()

    def test_before_and_after_use(self, model):
        before = fingerprint(model)
        assert fingerprint(model) == before
        torch.manual_seed(0)
        image = torch.rand(model.image_shape).round()
        mask = observations.half(model.image_shape, hide="bottom")
        torch.manual_seed(1)
        for arguments in ((), (image, mask), (image.unsqueeze(0), mask)):
            model(*arguments)
            model.guide(*arguments)
        model.log_densities(image, mask)
        model.log_evidence(image, mask)
        assert fingerprint(model) == before
        assert fingerprint(copy.deepcopy(model)) == before

    def test_after_a_fit(self, digits_model):
        before = fingerprint(digits_model)
        seen = Observation(datasets.load("digits")[0], HALF)
        infer(digits_model, seen, ChEES(warmup=10), draws=4, chains=4, progress=False)
        assert fingerprint(digits_model) == before

    @pytest.mark.parametrize(
        "law",
        [
            dist.Bernoulli(probs=torch.tensor([0.3])),
            dist.Categorical(logits=torch.zeros(3)),
            dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
            dist.LowRankMultivariateNormal(torch.zeros(2), torch.ones(2, 1), torch.ones(2)),
            dist.TransformedDistribution(
                dist.Normal(0.0, 1.0),
                [dist.transforms.TanhTransform(cache_size=1), dist.transforms.ExpTransform().inv],
            ),
            dist.Dirichlet(torch.ones(3)),
            dist.VonMises(torch.tensor(0.0), torch.tensor(1.0)),
        ],
        ids=lambda law: type(law).__name__,
    )
    def test_a_law_that_was_used(self, law):
        before = fingerprint(law)
        value = law.sample()
        law.log_prob(value)
        for name in (
            "mean",
            "variance",
            "probs",
            "logits",
            "covariance_matrix",
            "precision_matrix",
            "scale_tril",
        ):
            try:
                getattr(law, name)
            except (AttributeError, NotImplementedError):
                continue
        [transform.inv for transform in vars(law).get("transforms", ())]
        assert fingerprint(law) == before

    def test_sets_have_no_order(self):
        words = [f"word {i}" for i in range(100)]
        assert fingerprint(set(words)) == fingerprint(set(reversed(words)))

    def test_an_object_that_holds_itself(self):
        def knot(value):
            one, other = [value], {"a": value}
            one.append(other)
            other["back"] = one
            return [one, other, one]

        assert fingerprint(knot(1)) == fingerprint(knot(1)) != fingerprint(knot(2))

    def test_much_that_is_shared_takes_no_time(self):
        shared = [1.0]
        for _ in range(200):
            shared = [shared, shared]
        assert fingerprint(shared) == fingerprint(copy.deepcopy(shared))

    @pytest.mark.long
    def test_across_processes(self):
        script = textwrap.dedent(
            """
            import functools, torch, pyro.distributions as dist
            from posterior_inpainting.inference.results.fingerprint import fingerprint
            from posterior_inpainting.models import LatentCode, likelihoods, pretrained
            prior = dist.Normal(torch.zeros(2), 3.0).to_event(1)
            model = LatentCode(pretrained.load("digits-vae-2d"), prior=prior, likelihood=likelihoods.laplace)
            names = {"a", "b", "c", ("d", 1)}
            print(fingerprint([model, names, functools.partial(lambda x: x in {"u", "v", "w"}, names)]))
            """
        )
        found = [
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", script],
                env={**dict(os.environ), "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        ]
        assert found[0] == found[1] != ""


class Opaque:
    """What holds a lock, whose state no one can read."""

    def __init__(self):
        self.inner = [{"lock": threading.Lock()}]


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (iter([1, 2]), "the object"),
        ((i for i in range(3)), "the object"),
        ({"data": map(str, [1])}, r"part \['data'\]"),
        (torch.Generator(), "the object is a torch._C.Generator"),
        (np.random.default_rng(0), "the object"),
        (random.Random(0), "the object"),
        (Opaque(), r"part \.inner\[0\]\['lock'\] is a _thread.lock"),
        (torch.zeros(2, device="meta"), "the object"),
        (closing_over(threading.Lock()), r"part 's value"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_shows_nothing_of_itself_is_refused(value, where):
    with pytest.raises(ValueError, match=where) as refusal:
        fingerprint(value)
    assert "which does not show what it computes" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_open_file_is_refused(tmp_path):
    module = nn.Module()
    expected = pytest.raises(ValueError, match=r"part \.log is a _io.TextIOWrapper")
    with (tmp_path / "a").open("w") as module.log, expected:
        fingerprint(module)
