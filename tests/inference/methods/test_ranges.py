"""Settings out of their range: a line before anything is drawn, whatever the method."""

import math
from dataclasses import fields, replace

import pytest
import torch

import posterior_inpainting.inference as inference
from posterior_inpainting.inference import HMC, MAP, ChEES, Method, Nested, ParallelTempering, infer, sample
from posterior_inpainting.inference.methods import ranges
from posterior_inpainting.inference.training.schedule import Schedule
from posterior_inpainting.models import LinearGaussian, Observation

MODEL = LinearGaussian(torch.ones(4, 1), torch.zeros(1, 2, 2), 0.1)
SEEN = Observation(torch.zeros(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))
EXPORTED = [getattr(inference, name) for name in inference.__all__]
METHODS = [one for one in EXPORTED if isinstance(one, type) and issubclass(one, Method) and one is not Method]
#: Numbers that a method checks by itself, or of which all are meant.
OWN = {"fresh"}


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_every_number_has_a_range(kind):
    known = {*ranges._WHOLE, *ranges._SHARES, *ranges._POSITIVE, *OWN}
    for one in fields(kind):
        if str(one.type).split(" ")[0] in ("int", "float"):
            assert one.name in known, f"{kind.__name__}.{one.name}: give it a range in methods/ranges.py"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (HMC(target_acceptance=2.0), "target_acceptance=2.0; expected a number between 0 and 1"),
        (HMC(target_acceptance=math.nan), "target_acceptance=nan"),
        (HMC(trajectory_length=math.inf), "trajectory_length=inf; expected a positive number"),
        (HMC(warmup=2.5), "warmup=2.5; expected a whole number"),
        (HMC(warmup=-1), "warmup=-1; expected a whole number of at least 0"),
        (MAP(learning_rate=math.inf), "learning_rate=inf"),
        (MAP(learning_rate="fast"), "learning_rate='fast'"),
        (ParallelTempering(moves=ChEES(max_steps=0)), "max_steps=0; expected a whole number of at least 1"),
        (Nested(ChEES(target_acceptance=0.0)), "target_acceptance=0.0"),
    ],
    ids=str,
)
def test_out_of_range(method, message):
    with pytest.raises(ValueError, match=message) as error:
        infer(MODEL, SEEN, method, draws=10, chains=2, progress=False)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        sample(MODEL, method, SEEN.image, SEEN.mask, draws=10, chains=2, progress=False)


def test_the_defaults_are_in_range():
    for kind in METHODS:
        if kind is not Nested:
            ranges.check_ranges(kind())
    for entry in inference.catalogue.MODELS.values():
        ranges.check_ranges(entry.method)


@pytest.mark.parametrize("rate", [math.inf, -1.0, math.nan])
def test_learning_rates_of_a_training(rate):
    with pytest.raises(ValueError, match="learning_rate="):
        replace(Schedule(), learning_rate=rate)


@pytest.mark.parametrize("seed", ["0", 1.5, -1, True])
def test_seeds(seed):
    with pytest.raises(ValueError, match=r"seed=.*; expected a whole number"):
        infer(MODEL, SEEN, HMC(), draws=10, chains=2, seed=seed, progress=False)
