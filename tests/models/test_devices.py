"""No tensor of a density, a law or a network's pass is made on a device of its own choosing: the sources are read."""

import ast
from pathlib import Path

import pyro
import pytest
import torch
from pyro import poutine
from registry import MODELS, SHAPE

from posterior_inpainting.models import (
    FanIn,
    Gaussian,
    NearestMeasurement,
    PixelConstrained,
    ScaleMixture,
    WeightDraws,
    bayesian,
)

ROOT = Path(__file__).parents[2]
#: Folders and files, from the repository's root, whose tensors are made where those are that they meet.
PLACES = [
    "inference/density",
    "inference/methods",
    "models/autoregressive",
    "models/base.py",
    "models/bayesian_completion.py",
    "models/bayesian_decoder.py",
    "models/code_and_units.py",
    "models/code_and_weights.py",
    "models/deep_image_prior.py",
    "models/densities",
    "models/fields",
    "models/gaussian_process.py",
    "models/geology/nearest_measurement.py",
    "models/geology/wells.py:nearest_seen",
    "models/latent_code.py",
    "models/likelihoods.py",
    "models/linear_gaussian.py",
    "models/mixture_prior.py",
    "models/networks",
    "models/pixel_constrained.py",
    "models/pluralistic",
    "models/random_weights",
    "models/shapes.py",
    "models/variational_autoencoder.py",
]
#: Functions of torch that make a tensor, or what draws one, from nothing.
MAKERS = {
    *("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm", "tensor"),
    *("zeros", "Generator"),
}
#: Conversions of a maker's result that name the device, or take it from another tensor.
MOVES = {"to", "type_as"}
#: What only makes a module: its parameters and buffers move with it.
MAKING = {"__init__"}


def bare_tensors(source, only=None):
    """Lines and names of the calls that make a tensor without a device, outside of `__init__` and doctests.

    ``only`` reads a single function of the source.
    """
    tree = ast.parse(source)
    if only is not None:
        (tree,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == only]
    moved = {
        id(node.func.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MOVES
    }
    found = []

    def visit(node):
        if isinstance(node, ast.FunctionDef) and node.name in MAKING:
            return
        if isinstance(node, ast.Call) and id(node) not in moved and not names_device(node):
            name = made_by(node.func)
            if name is not None:
                found.append((node.lineno, name))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def names_device(call):
    keywords = {keyword.arg for keyword in call.keywords}
    positional = made_by(call.func) == "Generator" and bool(call.args)
    return "device" in keywords or positional


def made_by(function):
    """Name of the maker that is called, as ``torch.zeros`` or as an imported ``Generator``."""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr if function.value.id == "torch" and function.attr in MAKERS else None
    return function.id if isinstance(function, ast.Name) and function.id == "Generator" else None


def files_of(place):
    """Files of a place, each with the single function that is meant, or ``None``."""
    path, _, only = place.partition(":")
    whole = ROOT / path
    return [(file, only or None) for file in (sorted(whole.rglob("*.py")) if whole.is_dir() else [whole])]


@pytest.mark.parametrize("place", PLACES)
def test_tensors_are_made_where_those_are_that_they_meet(place):
    files = files_of(place)
    assert files
    found = [
        f"{file.relative_to(ROOT)}:{line} torch.{name}"
        for file, only in files
        for line, name in bare_tensors(file.read_text(), only)
    ]
    assert not found, (
        f"without a device: {', '.join(found)}; use x.new_zeros(...), torch.zeros_like or device="
    )


class TestReader:
    """The test above stands on it: it sees what it should, and nothing else."""

    @pytest.mark.parametrize("name", sorted(MAKERS))
    def test_a_bare_one_is_seen(self, name):
        assert bare_tensors(f"def f(x):\n    return torch.{name}(3)\n") == [] if name == "Generator" else True
        assert bare_tensors(f"def f(x):\n    return torch.{name}()\n") == [(2, name)]

    @pytest.mark.parametrize(
        "line",
        [
            "torch.zeros(3, device=x.device)",
            "torch.zeros(3).to(x)",
            "torch.Generator(x.device)",
            "torch.Generator(device=x.device).manual_seed(0)",
            "torch.zeros_like(x)",
            "x.new_zeros(3)",
            "numpy.zeros(3)",
        ],
    )
    def test_what_has_a_device_is_not(self, line):
        assert bare_tensors(f"def f(x):\n    return {line}\n") == []

    def test_what_is_only_used_and_then_moved_is_seen(self):
        assert bare_tensors("y = (torch.ones(3) + 1).to(x)") == [(1, "ones")]
        assert bare_tensors("g = Generator().manual_seed(0)") == [(1, "Generator")]

    def test_the_making_of_a_module_is_left_alone(self):
        source = "class A:\n    def __init__(self):\n        self.a = torch.zeros(3)\n"
        assert bare_tensors(source) == []
        assert bare_tensors("def f():\n    torch.eye(2)\ndef g():\n    torch.ones(2)\n", only="g") == [
            (4, "ones")
        ]


#: Models that look at values (which network, which level, which pixel is nearest): there is none on `meta`.
LOOKS_AT_VALUES = {NearestMeasurement, PixelConstrained, WeightDraws}


@pytest.mark.parametrize("kind", [k for k in MODELS if k not in LOOKS_AT_VALUES], ids=lambda k: k.__name__)
@pytest.mark.parametrize("seen", ["nothing", "half"])
def test_a_model_that_was_moved_draws_where_it_is(kind, seen):
    """On torch's second device that every machine has; mixing it with the CPU is an error."""
    model = MODELS[kind]().to("meta")
    image, mask = torch.rand(SHAPE, device="meta"), torch.ones(SHAPE, dtype=torch.bool, device="meta")
    arguments = (image, mask) if seen == "half" else ()
    with pyro.validation_enabled(False), poutine.block():
        traced = poutine.trace(model).get_trace(*arguments)
    assert {site["value"].device.type for site in sites(traced)} == {"meta"}


def sites(traced):
    return [
        site for site in traced.nodes.values() if site["type"] == "sample" and torch.is_tensor(site["value"])
    ]


@pytest.mark.parametrize(
    "prior", [ScaleMixture(), Gaussian(0.3), FanIn(), None], ids=lambda p: type(p).__name__
)
def test_priors_of_weights_follow_the_network(prior):
    network = bayesian(torch.nn.Linear(3, 2), prior).to("meta")
    with pyro.validation_enabled(False):
        traced = poutine.trace(network).get_trace(torch.zeros(1, 3, device="meta"))
        traced.compute_log_prob()
    for site in sites(traced):
        assert site["value"].device.type == site["log_prob"].device.type == "meta"
        assert site["fn"].variance.device.type == "meta"


def test_doubles_stay_doubles():
    law = ScaleMixture(0.5, 1.0, 0.1).on(torch.zeros(3, dtype=torch.double)).expand((4,))
    assert law.sample((5,)).dtype == law.mean.dtype == law.variance.dtype == torch.double
    assert law.sample((5,)).shape == (5, 4)
