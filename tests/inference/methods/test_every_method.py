"""What every method promises, whatever it is: the list is that of the catalogue, and no method is left out."""

import dataclasses
import inspect
import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from digit import HALF, SHAPE
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from posterior_inpainting import inference
from posterior_inpainting.inference import (
    DPS,
    HMC,
    MALA,
    MAP,
    NUTS,
    ULA,
    Alternating,
    Auto,
    ChEES,
    ConditionalDiffusion,
    DiffPIR,
    Exact,
    Gibbs,
    GlobalLocal,
    Nested,
    NoiseMatchedGibbs,
    NoiseMatchedSMC,
    NoiseMatchedTempering,
    ParallelTempering,
    ParticleGibbs,
    PiGDM,
    RePaint,
    TemperedSMC,
    TwistedSMC,
    TwoStage,
    Variational,
    catalogue,
    infer,
    infer_many,
    sample,
)
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.density.budget import BudgetSpentError, gradient_budget
from posterior_inpainting.inference.methods import loop
from posterior_inpainting.inference.results.images_of_posterior import completed_images
from posterior_inpainting.models import (
    BayesianDecoder,
    CodeAndUnits,
    ExpertField,
    LatentCode,
    LinearGaussian,
    MixtureField,
    Observation,
    PixelConstrained,
    WeightDraws,
    datasets,
    pretrained,
)
from posterior_inpainting.models.networks import (
    ConstraintNetwork,
    Experts,
    GatedPixelCNN,
    MaskedEncoder,
    MultilayerDecoder,
)

#: Every public method, small: label -> the method, and the model that it is tried on.
METHODS = {
    "ChEES": (ChEES(warmup=20), "code"),
    "ChEES from the guide": (ChEES(warmup=20, init="guide"), "code"),
    "ChEES tempered": (ChEES(warmup=20, init="tempered"), "code"),
    "GlobalLocal": (GlobalLocal(warmup=20, particles=16), "code"),
    "MALA": (MALA(warmup=20, thin=2), "code"),
    "MALA from optima": (MALA(warmup=20, thin=2, init="optimum"), "code"),
    "ULA": (ULA(warmup=20, thin=2), "code"),
    "ParallelTempering": (ParallelTempering(temperatures=3, warmup=20), "code"),
    "NUTS": (NUTS(warmup=20), "code"),
    "HMC": (HMC(warmup=20, trajectory_length=0.5), "code"),
    "TemperedSMC": (TemperedSMC(), "code"),
    "MAP": (MAP(restarts=2, steps=40), "code"),
    "MAP in snapshots": (MAP(restarts=2, steps=40, snapshots=3), "code"),
    "MAP stopped early": (MAP(restarts=2, steps=40, held_out=0.2), "code"),
    "amortised": (Variational(), "code"),
    "refined": (Variational(steps=40), "code"),
    "normal": (Variational(guide="normal", steps=40), "code"),
    "multivariate normal": (Variational(guide="multivariate_normal", steps=40), "code"),
    "iaf": (Variational(guide="iaf", steps=40), "code"),
    "Exact": (Exact(), "linear"),
    "Alternating": (Alternating(warmup=20, code=("z",)), "units"),
    "TwoStage": (TwoStage(ChEES(warmup=10), warmup=10), "units"),
    "Nested": (Nested(ChEES(warmup=10)), "networks"),
    "Nested optima": (Nested(MAP(restarts=2, steps=20)), "networks"),
    "ConditionalDiffusion": (ConditionalDiffusion(steps=10), "mixture"),
    "NoiseMatchedGibbs": (NoiseMatchedGibbs(steps=4, warmup=20), "mixture"),
    "NoiseMatchedTempering": (NoiseMatchedTempering(temperatures=3, steps=4, warmup=20), "mixture"),
    "NoiseMatchedSMC": (NoiseMatchedSMC(steps=4), "mixture"),
    "ParticleGibbs": (ParticleGibbs(particles=3, steps=4, warmup=20), "mixture"),
    "ParticleGibbs of pixels": (ParticleGibbs(particles=3, warmup=20), "pixels"),
    "TwistedSMC": (TwistedSMC(), "pixels"),
    "Gibbs": (Gibbs(warmup=20), "experts"),
    "DPS": (DPS(steps=10), "mixture"),
    "PiGDM": (PiGDM(steps=10), "mixture"),
    "DiffPIR": (DiffPIR(steps=10), "mixture"),
    "RePaint": (RePaint(steps=10, repeats=2), "mixture"),
}
#: Methods that choose another, which has a row; they have tests of their own.
CHOOSERS = {Auto}
#: A method of the catalogue without a row is tried as it is, with a short warm-up.
for _entry in catalogue.METHODS.values():
    _method = _entry.make()
    if type(_method) not in {type(method) for method, _ in METHODS.values()} | CHOOSERS:
        _short = {"warmup": 20} if "warmup" in vars(_method) else {}
        METHODS[_entry.name] = dataclasses.replace(_method, **_short), "code"
#: Rows that go forward in no steps, so that nothing can end them early.
AT_ONCE = {"Exact", "amortised"}
#: Rows that have nothing of the posterior before their last step.
NOTHING_BEFORE_THE_END = {"TemperedSMC", "NoiseMatchedSMC", "ConditionalDiffusion", "TwistedSMC"}
NOTHING_BEFORE_THE_END |= {"DPS", "PiGDM", "DiffPIR", "RePaint"}
#: Rows that ask for more than continuous latents.
PARTICULAR = {"Exact", "Alternating", "TwoStage", "Nested", "Nested optima", "amortised", "refined"}
PARTICULAR |= {name for name, (_, model) in METHODS.items() if model in ("mixture", "experts", "pixels")}
PARTICULAR |= {"ChEES from the guide", "MAP stopped early"}


def test_every_public_method_has_a_row():
    public = {v for v in vars(inference).values() if inspect.isclass(v) and issubclass(v, Method)} - {Method}
    missing = sorted(
        kind.__name__ for kind in public - CHOOSERS - {type(method) for method, _ in METHODS.values()}
    )
    assert not missing, (
        f"{', '.join(missing)} is not tried: add a MethodEntry to inference/catalogue/methods.py, or a row to METHODS"
    )


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    decoder, encoder = MultilayerDecoder(2, SHAPE, (4,), scale_rank=2), MaskedEncoder(2, SHAPE, (4,))
    trained = BayesianDecoder(decoder, encoder, posterior_scale=0.1).eval()
    return {
        "code": LatentCode(pretrained.load("digits-vae-2d")),
        "linear": LinearGaussian.fit(datasets.load("digits", split="train"), latent=3),
        "units": CodeAndUnits(trained),
        "networks": WeightDraws(trained, 3),
        "experts": ExpertField(Experts(1, 3, 3, 1), SHAPE),
        "pixels": PixelConstrained(
            GatedPixelCNN(SHAPE, 2, features=4, layers=2), ConstraintNetwork(SHAPE, 2, features=4)
        ),
        "mixture": MixtureField.fit(datasets.load("digits", split="train"), components=2),
    }


@pytest.fixture(scope="module")
def image():
    return datasets.load("digits")[5]


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


@pytest.fixture
def run(name, models, image):
    method, model = METHODS[name]

    def one(image=image, seed=0, **options):
        options = {"draws": 12, "chains": 4, "progress": False} | options
        return infer(models[model], Observation(image, HALF), method, seed=seed, **options)

    return one


def same(one, other, groups=("posterior", "posterior_predictive", "sample_stats", "log_likelihood")):
    return all(
        np.array_equal(one[group][name], other[group][name], equal_nan=True)
        for group in groups
        for name in one[group]
    )


def test_same_seed_same_draws(run):
    torch.rand(3)  # the state of the global generator must not matter
    first = run()
    torch.rand(5)
    assert same(first, run())
    assert not same(first, run(seed=1))


def test_hidden_pixels_are_never_read(run, image):
    reference = run()
    for fill in (torch.rand(image.shape), torch.full(image.shape, float("nan"))):
        assert same(reference, run(torch.where(HALF, image, fill)))


def test_callers_generators_and_parameters_are_left_alone(run):
    torch.manual_seed(5)
    state = np.random.get_state()[1].copy()
    expected = torch.random.get_rng_state()
    run()
    assert torch.equal(torch.random.get_rng_state(), expected)
    assert np.array_equal(np.random.get_state()[1], state)
    assert not list(pyro.get_param_store().keys())


def test_attributes(name, run):
    method, _ = METHODS[name]
    idata = run()
    attrs = idata.attrs
    assert attrs["method"] == method.label
    assert set(json.loads(attrs["settings"])) == set(vars(method))
    assert attrs["draws_are"] == method.draws_are
    assert (attrs["biased"], attrs["approximate"]) == (method.is_biased, method.is_approximate)
    assert attrs["gradient_evaluations"] >= 0
    assert ("ess_per_second" in attrs) == (method.draws_are == "markov")
    assert not set(loop.ENDINGS) & set(attrs)
    sizes = idata.posterior_predictive["image"].sizes
    if method.draws_are in ("markov", "independent", "particles"):
        assert (sizes["chain"], sizes["draw"]) == (4, 12)


def steps_of(monkeypatch, run):
    """Count the steps that a run takes through the loop."""
    take, count = loop._Recorder.take, [0]

    def counted(self, row):
        count[0] += 1
        return take(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Recorder, "take", counted)
        run()
    return count[0]


def stopped(monkeypatch, run, after, error, **options):
    """Run, and raise an error after so many steps, as Ctrl-C and a kill do."""
    take, count = loop._Recorder.take, [0]

    def counted(self, row):
        count[0] += 1
        if count[0] > after:
            raise error
        return take(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Recorder, "take", counted)
        return run(**options)


def test_ctrl_c_keeps_what_was_drawn_and_labels_it(name, run, monkeypatch):
    if name in AT_ONCE:
        assert steps_of(monkeypatch, run) == 0
        return
    total = steps_of(monkeypatch, run)
    whole = run()
    try:
        partial = stopped(monkeypatch, run, total - 4, KeyboardInterrupt)
    except KeyboardInterrupt:  # nothing of the posterior was drawn
        assert name in NOTHING_BEFORE_THE_END
        return
    assert partial.attrs["interrupted"] == 1
    if METHODS[name][0].draws_are == "markov":
        count = partial.posterior.sizes["draw"]
        assert 0 < count < 12
        for site in partial.posterior:
            assert np.array_equal(partial.posterior[site], whole.posterior[site][:, :count])


class StopError(Exception):
    pass


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_killed_and_taken_up_again(name, run, monkeypatch, tmp_path, share):
    """Whatever had been committed when a run died, the same call ends with the draws of an unbroken one."""
    method, _ = METHODS[name]
    store = tmp_path / "run.zarr"
    if not method.is_resumable:
        with pytest.raises(ValueError, match="cannot use a store"):
            run(store=store)
        return
    options = {"draws": 70}  # more than a block
    expected = run(**options)
    total = steps_of(monkeypatch, lambda: run(**options))
    if total:
        with pytest.raises(StopError):
            stopped(monkeypatch, run, int(share * total), StopError, store=store, **options)
    resumed = run(store=store, **options)
    assert same(resumed, expected)
    assert resumed.attrs["gradient_evaluations"] == expected.attrs["gradient_evaluations"]
    assert same(run(store=store, **options), expected)  # a finished store gives its draws back


def test_a_budget_ends_it_with_what_was_drawn(name, run):
    whole = run().attrs["gradient_evaluations"]
    if not whole:
        assert name in AT_ONCE
        return
    # Between what one draw costs, with all the warm-up, and what all of them do.
    budget = (run(draws=1).attrs["gradient_evaluations"] + whole) // 2
    if METHODS[name][0].draws_are != "markov":
        budget = int(0.9 * whole)
    try:
        with gradient_budget(budget):
            partial = run()
    except BudgetSpentError:
        assert name in NOTHING_BEFORE_THE_END
        return
    assert partial.attrs["gradient_evaluations"] <= budget
    assert partial.attrs["budget_spent"] == 1
    if METHODS[name][0].draws_are == "markov":
        assert 0 < partial.posterior.sizes["draw"] < 12


def test_a_budget_for_nothing_is_an_error(name, run):
    if name in AT_ONCE:
        return
    with pytest.raises(BudgetSpentError, match="budget of gradients is spent"), gradient_budget(1):
        run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": 0}, "draws=0; expected a whole number of at least 1"),
        ({"chains": 2.5}, "chains=2.5; expected a whole number"),
        ({"seed": -1}, "seed=-1; expected a whole number of at least 0"),
    ],
)
def test_bad_arguments_are_named(run, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        run(**change)
    assert "\n" not in str(caught.value)


def eight_schools(effect, error):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(effect)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("effect", dist.Normal(mu + tau * eta, error), obs=effect)


def test_any_pyro_model_or_a_clear_refusal(name):
    """Continuous latents are enough, or the method says in a line what it needs."""
    method, _ = METHODS[name]
    data = torch.tensor([28.0, 8.0, -3.0]), torch.tensor([15.0, 10.0, 16.0])
    try:
        idata = sample(eight_schools, method, *data, draws=12, chains=4, progress=False)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - which methods refuse is the row's business
        assert name in PARTICULAR
        return
    assert idata.posterior["eta"].shape[2:] == (3,)
    assert (idata.posterior["tau"] > 0).all()


def test_deterministic_sites_are_in_the_result():
    """They were dropped."""

    def model(effect):
        eta = pyro.sample("eta", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        theta = pyro.deterministic("theta", 2 * eta + 1, event_dim=1)
        pyro.sample("effect", dist.Normal(theta, 1.0).to_event(1), obs=effect)

    for method in (ChEES(warmup=20), NUTS(warmup=20), Variational(guide="normal", steps=20)):
        idata = sample(model, method, torch.ones(3), draws=12, chains=4, progress=False)
        np.testing.assert_allclose(idata.posterior["theta"], 2 * idata.posterior["eta"] + 1, rtol=1e-5)


def test_many_images_at_once_or_a_clear_refusal(name, models, image):
    method, model = METHODS[name]
    seen = [Observation(image, HALF), Observation(datasets.load("digits")[6], ~HALF)]
    options = {"draws": 12, "chains": 4, "progress": False}
    if not method.runs_together:
        with pytest.raises(ValueError, match="draws from one posterior at a time"):
            infer_many(models[model], seen, method, **options)
        return
    first, second = infer_many(models[model], seen, method, **options)
    assert (first.attrs["method"], first.attrs["draws_are"]) == (method.label, method.draws_are)
    assert ("ess_per_second" in first.attrs) == (method.draws_are == "markov")
    shown = completed_images(second)[..., ~HALF.numpy()]
    assert (shown == seen[1].image[~HALF].numpy()).all()


def test_a_misspelt_declaration_is_refused():
    with pytest.raises(TypeError, match="defines 'is_resumeable'; is 'is_resumable' meant"):

        class Misspelt(ChEES):
            is_resumeable = True


def test_a_guide_of_the_callers_is_left_as_it_is(models, image):
    """It was fitted in place, so that the same call gave other draws the second time."""
    guide = AutoNormal(poutine.block(models["code"], expose=["z"]))
    options = {"draws": 12, "chains": 2, "progress": False}
    seen = Observation(image, HALF)
    first, second = (infer(models["code"], seen, Variational(guide=guide, steps=20), **options) for _ in "ab")
    assert np.array_equal(first.posterior["z"], second.posterior["z"])


@pytest.mark.parametrize("method", [MAP(restarts=2, steps=40), Variational(guide="normal", steps=40)])
def test_a_store_of_another_budget_is_refused(models, image, tmp_path, method):
    """Its schedule of step sizes is another, so that going on would give neither run's draws."""
    options = {"draws": 12, "chains": 2, "progress": False, "store": tmp_path / "run.zarr"}
    seen = Observation(image, HALF)
    with gradient_budget(24):
        assert infer(models["code"], seen, method, **options).attrs["budget_spent"] == 1
    with pytest.raises(ValueError, match=r"the store holds a run of \d+ steps, and this one has 40"):
        infer(models["code"], seen, method, **options)


def test_a_class_is_no_method(models, image):
    with pytest.raises(ValueError, match=r"method is a .*NUTS.*; expected one such as NUTS"):
        infer(models["code"], Observation(image, HALF), NUTS, progress=False)
