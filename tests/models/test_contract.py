"""Properties that every public model has, and a registry that names the model someone forgot to add."""

import inspect
import warnings
from pathlib import Path

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from registry import DENSITIES, ELSEWHERE, MODELS, OTHERS, SHAPE

from posterior_inpainting import models
from posterior_inpainting.models import ImageModel, datasets, observations

TESTS = Path(__file__).parents[1]


def test_every_public_model_is_in_the_registry():
    public = {
        value
        for value in vars(models).values()
        if inspect.isclass(value) and issubclass(value, ImageModel) and value is not ImageModel
    }
    missing = sorted(kind.__name__ for kind in public - set(MODELS))
    assert not missing, (
        f"{', '.join(missing)} has no row in tests/registry.py: add how it is made small to DENSITIES"
    )
    private = sorted(kind.__name__ for kind in set(MODELS) - public)
    assert not private, f"{', '.join(private)} is not exported: add it to models/__init__.py"
    assert set(ELSEWHERE) == set(OTHERS), "ELSEWHERE of tests/registry.py says where each of OTHERS is tested"
    assert all(kind.__name__ in next(TESTS.rglob(file)).read_text() for kind, file in ELSEWHERE.items())


@pytest.fixture(params=MODELS, ids=lambda kind: kind.__name__)
def model(request):
    return MODELS[request.param]()


@pytest.fixture(params=DENSITIES, ids=lambda kind: kind.__name__)
def density(request):
    """Model that is a density of the seen pixels over continuous latents."""
    return DENSITIES[request.param]()


def trace(model, image, mask):
    return poutine.trace(model).get_trace(image, mask)


def latents_of(traced):
    """Latent sites by name; Pyro's own and deterministic ones left out."""
    return {
        name: site
        for name, site in traced.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and type(site["fn"]).__name__ != "_Subsample"
    }


def guided(model, image, mask):
    """What the guide draws for the latents of the model."""
    drawn = latents_of(poutine.trace(model.guide).get_trace(image, mask))
    return {name: site["value"] for name, site in drawn.items() if not site["infer"].get("is_auxiliary")}


def test_sites(model, image, mask):
    sites = trace(model, image, mask).nodes
    assert sites["image"]["is_observed"]
    assert sites["completion"]["value"].shape == SHAPE
    assert sites["completion"]["infer"]["_deterministic"]
    guide = poutine.trace(model.guide).get_trace(image, mask)
    latents = {n for n, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}
    assert latents
    assert latents == {
        n for n, s in guide.nodes.items() if s["type"] == "sample" and not s["infer"].get("is_auxiliary")
    }


def test_hidden_pixels_change_no_number(model, image, mask):
    reference, first = None, None
    model.guide(image, mask)  # an automatic guide is made at its first call, from draws of its own
    for fill in (0.0, 0.7, float("nan"), float("inf")):
        torch.manual_seed(1)
        changed = torch.where(mask, image, fill)
        log_prob = trace(model, changed, mask).log_prob_sum()
        drawn = torch.cat([value.flatten() for value in guided(model, changed, mask).values()])
        assert log_prob.isfinite()
        reference = log_prob if reference is None else reference
        first = drawn if first is None else first
        assert torch.equal(log_prob, reference)
        assert torch.equal(drawn, first)


def test_gradient_is_finite_with_nan_in_the_hole(density, image, mask):
    latents = latents_of(trace(density, image, mask))
    values = {name: site["value"].detach().requires_grad_() for name, site in latents.items()}
    conditioned = poutine.condition(density, data=values)
    trace(conditioned, torch.where(mask, image, float("nan")), mask).log_prob_sum().backward()
    assert all(value.grad.isfinite().all() for value in values.values())


def test_seen_pixels_do_count(density, image, mask):
    torch.manual_seed(1)
    before = trace(density, image, mask).log_prob_sum()
    changed = image.clone()
    changed[0, 1, 3] = 1 - changed[0, 1, 3]
    torch.manual_seed(1)
    assert trace(density, changed, mask).log_prob_sum() != before


def test_masked_likelihood_is_the_sum_over_seen_pixels(density, image, mask):
    traced = trace(density, image, mask)
    traced.compute_log_prob()
    law = traced.nodes["image"]["fn"].base_dist
    while hasattr(law, "base_dist"):
        law = law.base_dist
    expected = law.log_prob(image)[mask].sum()
    torch.testing.assert_close(traced.nodes["image"]["log_prob_sum"], expected)


def test_batch_equals_each_alone(model, mask):
    images = datasets.load("digits")[:4]
    masks = torch.stack([mask, ~mask, mask | ~mask, observations.scatter(SHAPE, 0.5)])

    latents = latents_of(trace(model, images, masks))
    values = {name: site["value"].detach() for name, site in latents.items()}
    own = {n for n, site in latents.items() if any(f.name == "images" for f in site["cond_indep_stack"])}
    batch = trace(poutine.condition(model, data=values), images, masks)
    batch.compute_log_prob()
    for i in range(4):
        one = {name: value[i] if name in own else value for name, value in values.items()}
        single = trace(poutine.condition(model, data=one), images[i], masks[i])
        single.compute_log_prob()
        torch.testing.assert_close(
            batch.nodes["image"]["log_prob"][i], single.nodes["image"]["log_prob"], rtol=1e-5, atol=1e-5
        )


def test_guide_of_a_batch_equals_each_alone(model, mask):
    if type(model).guide is ImageModel.guide:
        return  # an automatic guide belongs to the one problem that it was made for
    images = datasets.load("digits")[:4]
    masks = torch.stack([mask, ~mask, mask | ~mask, observations.scatter(SHAPE, 0.5)])

    def laws(image, mask):
        return {n: s["fn"] for n, s in latents_of(poutine.trace(model.guide).get_trace(image, mask)).items()}

    for name, together in laws(images, masks).items():
        for i in range(4):
            alone = laws(images[i], masks[i])[name]
            if alone.support.is_discrete:
                continue  # a draw of it has no mean, and its parameters no common name
            several = len(together.batch_shape) > len(alone.batch_shape)
            for moment in ("mean", "variance"):
                whole = getattr(together, moment)
                torch.testing.assert_close(
                    whole[i] if several else whole, getattr(alone, moment), atol=1e-5, rtol=1e-5
                )


def test_wrong_shapes_are_named(model, image, mask):
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\); expected \(1, 8, 8\)"):
        model(torch.zeros(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask is a bool tensor"):
        model(image, torch.ones(1, 8, 9, dtype=torch.bool))


class TestBarePyro:
    """The model works in anyone's Pyro code, without our inference layer."""

    def test_svi_step(self, model, image, mask):
        svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
        assert all(torch.isfinite(torch.tensor(svi.step(image, mask))) for _ in range(2))

    def test_svi_with_an_automatic_guide(self, density, image, mask):
        frozen = density.requires_grad_(False)
        with warnings.catch_warnings():  # Pyro mentions that frozen weights are not registered
            warnings.simplefilter("ignore", UserWarning)
            guide = AutoNormal(poutine.block(frozen, hide=["image", "completion"]))
            svi = SVI(frozen, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
            losses = [svi.step(image, mask) for _ in range(200)]
        assert sum(losses[-20:]) < sum(losses[:20])

    def test_nuts(self, density, image, mask):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            mcmc = MCMC(NUTS(density), num_samples=5, warmup_steps=5, disable_progbar=True)
            mcmc.run(image, mask)
        assert all(values.isfinite().all() for values in mcmc.get_samples().values())

    def test_predictive(self, model):
        drawn = Predictive(model, num_samples=6)()
        assert drawn["image"].shape[-3:] == SHAPE
        assert drawn["image"].numel() == 6 * 64

    def test_predictive_completes_a_masked_image(self, model, image, mask):
        values = {n: v.detach().expand(6, *v.shape) for n, v in guided(model, image, mask).items()}
        drawn = Predictive(model, values, return_sites=["completion"])(image, mask)
        assert drawn["completion"].reshape(6, *SHAPE).isfinite().all()


def test_parameter_store_stays_empty_after_infer(digits_model, seen):
    from posterior_inpainting.inference import Variational, infer

    infer(digits_model, seen, Variational(), draws=2, chains=1, progress=False)
    assert not list(pyro.get_param_store().keys())


def test_both_values_of_pyros_local_parameter_setting(image, mask):
    for kind in MODELS.values():
        model = kind()
        for local in (True, False):
            with pyro.settings.context(module_local_params=local):
                assert trace(model, image, mask).log_prob_sum().isfinite()
