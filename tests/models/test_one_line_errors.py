"""Mistakes of a caller are told in one line, however a model is run."""

import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from registry import MODELS, SHAPE

from posterior_inpainting.inference import ChEES, Variational, infer
from posterior_inpainting.models import LatentCode, NearestMeasurement, Observation, pretrained
from posterior_inpainting.models.shapes import InputError

EVERYTHING = torch.ones(SHAPE, dtype=torch.bool)
#: What a model is called with by mistake, and how the line begins.
MISTAKES = {
    "size": (
        (torch.zeros(1, 9, 9), None),
        "image is a float32 tensor of shape (1, 9, 9); expected (1, 8, 8) ",
    ),
    "kind": ((torch.zeros(SHAPE, dtype=torch.long), None), "image is a int64 tensor of shape (1, 8, 8); "),
    "mask": ((torch.zeros(SHAPE), EVERYTHING[..., :5]), "mask is a bool tensor of shape (1, 8, 5); "),
    "floats": ((torch.zeros(SHAPE), EVERYTHING.float()), "mask is a float32 tensor of shape (1, 8, 8); "),
}


def line_of(run, *arguments):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its message is what is returned
        run(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_a_traced_model_says_it_in_one_line(kind, mistake):
    arguments, begins = MISTAKES[mistake]
    model = MODELS[kind]()
    runs = [poutine.trace(model).get_trace, poutine.trace(poutine.scale(poutine.trace(model), 2.0)).get_trace]
    for run in runs:
        line = line_of(run, *arguments)
        assert line.startswith(begins)
        assert "\n" not in line


def test_the_step_of_a_fit():
    model = LatentCode(pretrained.load("digits-vae-2d"))
    arguments, begins = MISTAKES["size"]
    line = line_of(SVI(model, model.guide, Adam({"lr": 0.1}), Trace_ELBO()).step, *arguments)
    assert line.startswith(begins)
    assert "\n" not in line


@pytest.mark.parametrize(
    "method", [ChEES(warmup=10), Variational()], ids=lambda method: type(method).__name__
)
def test_infer(method):
    seen = Observation(torch.zeros(1, 9, 9), torch.ones(1, 9, 9, dtype=torch.bool))
    line = line_of(infer, LatentCode(pretrained.load("digits-vae-2d")), seen, method)
    assert "(1, 9, 9)" in line
    assert "(1, 8, 8)" in line
    assert "\n" not in line


def test_what_only_some_models_are_told_wrongly():
    decoder = pretrained.load("digits-vae-2d")
    even = LatentCode(decoder, context_window=4)
    mask = EVERYTHING.clone()
    line = line_of(poutine.trace(even).get_trace, torch.zeros(SHAPE), mask)
    assert line == "context window=4; expected an odd number of pixels"
    model = NearestMeasurement(decoder, radius=2.0)
    model.radius = 0.0
    line = line_of(poutine.trace(model).get_trace, torch.zeros(SHAPE), mask)
    assert line == "radius=0.0; expected a positive number of pixels"


def test_it_is_a_value_error_of_one_line():
    assert issubclass(InputError, ValueError)
    assert str(InputError("one\ntwo")) == "one"
