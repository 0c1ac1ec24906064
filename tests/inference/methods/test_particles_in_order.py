"""Particles along a model's own order: known posteriors and evidences, of discrete pixels and of a state space."""

import dataclasses
import math

import ising
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from statistics_of_draws import assert_moments

from posterior_inpainting.inference import (
    ChEES,
    Exact,
    ParticleGibbs,
    TwistedSMC,
    diagnostics,
    infer,
    sample,
)
from posterior_inpainting.inference.methods import particles_in_order
from posterior_inpainting.inference.methods.particles_in_order import (
    conditional_ancestors,
    sweep,
    systematic_ancestors,
)
from posterior_inpainting.models import LinearGaussian, Observation, OrderedModel, PixelConstrained, datasets
from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage
from posterior_inpainting.models.autoregressive.pixel_laws import CategoricalPixels
from posterior_inpainting.models.autoregressive.pixel_steps import PixelSteps
from posterior_inpainting.models.networks import ConstraintNetwork, GatedPixelCNN, MaskedEncoder

FEW = {"progress": False, "keep": ()}


class TestAncestors:
    WEIGHT = torch.tensor([0.05, 0.35, 0.0, 0.4, 0.2])

    def test_systematic_ones_have_their_share_to_within_one(self):
        found = systematic_ancestors(self.WEIGHT.log().expand(4000, 5), torch.Generator().manual_seed(0))
        copies = torch.stack([(found == i).sum(1) for i in range(5)], 1).double()
        assert (copies >= (5 * self.WEIGHT).floor()).all()
        assert (copies <= (5 * self.WEIGHT).ceil()).all()
        assert ((copies.mean(0) - 5 * self.WEIGHT).abs() < 5 * copies.std(0) / 4000**0.5 + 1e-12).all()

    def test_conditional_ones_with_a_random_first_are_the_unconditional_ones(self):
        """Drawn with their weight, first ancestors leave every other place its weight as well: Chopin & Singh 2015."""
        count, generator = 40_000, torch.Generator().manual_seed(0)
        first = torch.multinomial(self.WEIGHT, count, replacement=True, generator=generator)
        found = conditional_ancestors(self.WEIGHT.log().expand(count, 5), first, generator)
        assert (found[:, 0] == first).all()
        copies = torch.stack([(found == i).sum(1) for i in range(5)], 1)
        assert (copies <= (5 * self.WEIGHT).ceil()).all()
        assert (copies >= (5 * self.WEIGHT).floor()).all()
        for place in range(5):
            share = found[:, place].bincount(minlength=5) / count
            assert ((share - self.WEIGHT).abs() <= 5 * (self.WEIGHT * (1 - self.WEIGHT) / count).sqrt()).all()


@pytest.fixture(scope="module")
def field():
    """Networks that were trained too briefly, so that the constrained law is far from p(hidden | seen)."""
    images, probabilities = ising.states()
    model = ising.trained(images, probabilities, steps=30, batch=500)
    return (
        model,
        images,
        images[torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(3))][0],
    )


def conditional(field, name):
    """Exact p(hidden | seen) under the prior network, by enumeration, its states, and the log evidence."""
    model, images, image = field
    mask = ising.MASKS[name]
    states = images[((images == image) | ~mask).flatten(1).all(1)]
    log_prob = AutoregressiveImage(model._modules["prior"], model.law).log_prob(states).double()
    return Observation(image, mask), states[:, ~mask], log_prob.softmax(0), float(log_prob.logsumexp(0))


def total_variation(completions, mask, exact):
    """Between completions ``(draw, *image)`` and the law of the hidden pixels' states, which count up in binary."""
    bits = completions[:, ~mask].long()
    code = (bits << torch.arange(bits.shape[1] - 1, -1, -1)).sum(1)
    return float((code.bincount(minlength=len(exact)) / len(code) - exact).abs().sum() / 2)


def drawn(idata):
    return torch.as_tensor(idata.posterior["completion"].to_numpy()).flatten(0, 1)


class TestPixels:
    def test_total_variation(self, field):
        """Below .01 of p(hidden | seen) by particle Gibbs, where the constrained law's own draws are far off."""
        seen, _, exact, _ = conditional(field, "box of 2 x 2")
        found = infer(field[0], seen, ParticleGibbs(particles=4, warmup=5), draws=20, chains=1000, **FEW)
        assert total_variation(drawn(found), seen.mask, exact) < 0.01
        overwritten = infer(field[0], seen, Exact(), draws=20, chains=1000, **FEW)
        assert total_variation(drawn(overwritten), seen.mask, exact) > 0.03

    @pytest.mark.long
    @pytest.mark.parametrize("name", ["top half", "scatter"])
    def test_moments(self, field, name):
        seen, states, exact, _ = conditional(field, name)
        found = infer(field[0], seen, ParticleGibbs(particles=4, warmup=5), draws=200, chains=40, **FEW)
        pixels = found.posterior["completion"].to_numpy()[..., ~seen.mask.numpy()]
        mean = (exact[:, None] * states).sum(0).numpy()
        assert_moments(pixels, mean, np.sqrt(mean * (1 - mean)))
        assert diagnostics.verdict(found).kind == "converged"

    @pytest.mark.long
    def test_weights_that_forget_the_proposal_are_noticed(self, field, monkeypatch):
        """Particles weighed by p alone are of p q, which is another law."""
        extend = PixelSteps.extend

        def forgetful(self, state, step, value):
            """Leave the proposal's density out."""
            found = extend(self, state, step, value)
            pixel = self._constrained(state.outputs, step)
            return dataclasses.replace(
                found, log_increment=found.log_increment + self.law.law.log_prob(pixel, value)[:, 0]
            )

        seen, states, exact, _ = conditional(field, "top half")
        monkeypatch.setattr(PixelSteps, "extend", forgetful)
        found = infer(field[0], seen, ParticleGibbs(particles=4, warmup=5), draws=200, chains=40, **FEW)
        pixels = found.posterior["completion"].to_numpy()[..., ~seen.mask.numpy()]
        mean = (exact[:, None] * states).sum(0).numpy()
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(pixels, mean, np.sqrt(mean * (1 - mean)))

    @pytest.mark.parametrize("share", [0.5, 0.9999])
    @pytest.mark.parametrize("name", list(ising.MASKS))
    def test_evidence(self, field, name, share):
        """Within .05, and within five of its own standard errors; with next to no resampling and with much of it."""
        seen, _, exact, log_evidence = conditional(field, name)
        found = infer(field[0], seen, TwistedSMC(share=share), draws=500, chains=8, **FEW)
        error = abs(found.attrs["log_evidence"] - log_evidence)
        assert error < min(0.05, 5 * found.attrs["log_evidence_se"] + 1e-4)
        assert total_variation(drawn(found), seen.mask, exact) < 3 * (len(exact) / 4000) ** 0.5
        assert (found.attrs["resamplings"] > 1) == (share > 0.9 and name == "scatter")
        assert diagnostics.verdict(found).reason.startswith("replicates agree: log evidence within")

    def test_around_a_kept_path_with_resampling(self, field):
        """A path drawn from the posterior is followed by one that is: all states, in conditional SMC that resamples."""
        model, _, image = field
        seen, states, exact, _ = conditional(field, "scatter")
        steps, chains = PixelSteps(model.constrained_law, image, seen.mask), 20_000
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        chosen = torch.multinomial(exact, chains, replacement=True, generator=generator)
        with torch.no_grad():
            swept = sweep(steps, chains, 3, generator, states[chosen], share=0.999)
        assert float(swept.resamplings.mean()) > 1
        path, new = swept.paths(torch.multinomial(swept.log_weight.softmax(1), 1, generator=generator))
        assert 0.3 < float(new.mean()) < 0.9
        mean = (exact[:, None] * states).sum(0)
        pairs = (exact[:, None, None] * states[:, :, None] * states[:, None]).sum(0)
        found = path[:, 0].double()
        error = (mean * (1 - mean) / chains).sqrt()
        assert ((found.mean(0) - mean).abs() < 4.5 * error).all()
        second = found.T @ found / chains
        assert ((second - pairs).abs() < 4.5 * (pairs * (1 - pairs) / chains).sqrt()).all()

    def test_nothing_ahead_is_exact(self, field):
        """With the lower half hidden the prior network's own draws are the posterior's: all weights are the same."""
        seen, _, _, log_evidence = conditional(field, "bottom half")
        found = infer(field[0], seen, TwistedSMC(), draws=10, chains=4, **FEW)
        assert abs(found.attrs["log_evidence"] - log_evidence) < 1e-4
        assert found.attrs["log_evidence_se"] < 1e-5

    def test_colours_and_hidden_channels(self):
        """One step a pixel, whatever channels of it are hidden; what is seen of it stays."""
        torch.manual_seed(0)
        law, shape = CategoricalPixels(3), (3, 3, 3)
        model = PixelConstrained(
            GatedPixelCNN(shape, law.outputs(3), 4, 2), ConstraintNetwork(shape, law.outputs(3), 4), law=law
        )
        image, mask = law.quantise(torch.rand(shape)), torch.rand(shape) < 0.5
        steps = model.sequential(image, mask)
        assert len(steps.sizes) == int((~mask).any(0).sum())
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            swept = sweep(steps, 2, 5, generator, share=0.999)
            path, _ = swept.paths(torch.arange(5).expand(2, 5))
            images = steps.latents(path)["hidden"]
            assert (images[..., mask] == image[mask]).all()
            # Without resampling, the weights are p(x) / q(hidden) of whole images in one pass each.
            swept = sweep(steps, 2, 5, generator, share=1e-9)
            images = steps.latents(swept.paths(torch.arange(5).expand(2, 5))[0])["hidden"]
            whole = AutoregressiveImage(model._modules["prior"], law).log_prob(images)
            proposal = guide_with_nothing_ahead(model, steps, images)
        assert torch.allclose(swept.log_weight, whole - proposal, atol=1e-3)

    def test_a_code_has_no_order(self):
        prior = GatedPixelCNN((1, 4, 4), 2, features=4, code=2)
        model = PixelConstrained(prior, encoder=MaskedEncoder(2, (1, 4, 4), (4,)))
        seen = Observation(torch.ones(1, 4, 4), torch.arange(4).expand(1, 4, 4) > 1)
        with pytest.raises(ValueError, match="PixelConstrained does not say in which order its latents come"):
            infer(model, seen, TwistedSMC(), progress=False)

    def test_steps_of_a_reverse_chain_are_refused(self, field):
        seen = conditional(field, "scatter")[0]
        with pytest.raises(ValueError, match="steps=5 is of a reverse chain; PixelConstrained has"):
            infer(field[0], seen, ParticleGibbs(steps=5), progress=False)


def guide_with_nothing_ahead(model, steps, images):
    """Log density of the proposal: the constrained law, without the constraint after the last seen pixel."""
    law, width = steps.law, images.shape[-1]
    place = torch.arange(images[0, 0, 0].numel()).reshape(images.shape[-2:])
    ahead = place <= steps.last_seen[0] * width + steps.last_seen[1]
    cut = AutoregressiveImage(
        law.network,
        law.law,
        image=law.image,
        mask=law.mask,
        constraint=torch.where(ahead, law.constraint, 0.0),
    )
    return cut.log_prob(images)


class Walk(OrderedModel):
    """Autoregression of the first order under noise, with the locally optimal proposal."""

    order = 1

    def step(self, state, t, seen):
        before = 0.9 * state["x"] if t else torch.zeros(())
        state["x"] = pyro.sample(f"x_{t}", dist.Normal(before, 0.5))
        pyro.sample(f"seen_{t}", dist.Normal(state["x"], 1.0), obs=seen)

    def propose(self, state, t, seen):
        before = 0.9 * state["x"] if t else torch.zeros(())
        pyro.sample(f"x_{t}", dist.Normal((4 * before + seen) / 5, math.sqrt(1 / 5)))


class Bootstrap(Walk):
    """The same model, which proposes as it draws and remembers for any number of steps."""

    order = None
    propose = OrderedModel.propose


class TestStateSpace:
    DATA = torch.tensor([0.3, 1.2, 2.5, 1.9, 2.2, 0.1])

    @classmethod
    def exact(cls):
        """Mean and sd of the latents, and the log evidence: Kalman's answers, all times at once."""
        count = len(cls.DATA)
        step = torch.eye(count).double() - torch.diag(torch.full((count - 1,), 0.9).double(), -1)
        prior = 0.25 * torch.linalg.inv(step.T @ step)
        total = prior + torch.eye(count)
        gain = prior @ torch.linalg.inv(total)
        law = torch.distributions.MultivariateNormal(torch.zeros(count).double(), total)
        spread = (prior - gain @ prior).diag().sqrt()
        return (gain @ cls.DATA.double()).numpy(), spread.numpy(), float(law.log_prob(cls.DATA.double()))

    @staticmethod
    def values(idata):
        return np.stack([idata.posterior[f"x_{t}"].to_numpy() for t in range(6)], -1)

    @pytest.mark.parametrize(("model", "particles"), [(Walk(), 5), (Bootstrap(), 30)])
    def test_particle_gibbs(self, model, particles):
        mean, sd, _ = self.exact()
        found = sample(model, ParticleGibbs(particles), self.DATA, draws=150, chains=40, progress=False)
        assert_moments(self.values(found), mean, sd)

    @pytest.mark.parametrize("model", [Walk(), Bootstrap()])
    def test_evidence(self, model):
        _, _, log_evidence = self.exact()
        found = sample(model, TwistedSMC(), self.DATA, draws=1000, chains=16, progress=False)
        assert abs(found.attrs["log_evidence"] - log_evidence) < 5 * found.attrs["log_evidence_se"] + 1e-4
        assert found.attrs["log_evidence_se"] < 0.1

    def test_the_whole_program_is_the_same_posterior(self):
        mean, sd, _ = self.exact()
        found = sample(Walk(), ChEES(warmup=200), self.DATA, draws=300, chains=16, progress=False)
        assert_moments(self.values(found), mean, sd)

    def test_ancestors_of_another_law_are_noticed(self, monkeypatch):
        """Drawn anew by their weights alone, they need not lead to the rest of the path."""
        mean, sd, _ = self.exact()
        ancestor = particles_in_order._ancestor_of_kept
        monkeypatch.setattr(
            particles_in_order,
            "_ancestor_of_kept",
            lambda w, twist, leads, g: ancestor(w, twist, 0 * leads, g),
        )
        found = sample(Walk(), ParticleGibbs(5), self.DATA, draws=150, chains=40, progress=False)
        with pytest.raises(AssertionError, match="biased"):
            assert_moments(self.values(found), mean, sd)

    def test_a_twist_changes_no_evidence(self):
        """Of any twist: the last one is taken out again."""

        class Twisted(Walk):
            def log_twist(self, state, t, seen):
                return -0.3 * (state["x"] - seen[min(t + 1, len(seen) - 1)]).square()

        _, _, log_evidence = self.exact()
        found = sample(Twisted(), TwistedSMC(share=0.9), self.DATA, draws=1000, chains=16, progress=False)
        assert abs(found.attrs["log_evidence"] - log_evidence) < 5 * found.attrs["log_evidence_se"] + 1e-4

    def test_a_proposal_without_a_latent_is_named(self):
        class Forgetful(Walk):
            def propose(self, state, t, seen):
                """Sample nothing."""

        with pytest.raises(ValueError, match=r"propose\(\) of step 0 samples no x_0"):
            sample(Forgetful(), TwistedSMC(), self.DATA, progress=False)


def test_a_model_without_an_order_is_refused():
    model = LinearGaussian.fit(datasets.load("digits", split="train"), latent=3)
    seen = Observation(datasets.load("digits")[0], torch.ones(1, 8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="LinearGaussian does not say in which order its latents come"):
        infer(model, seen, TwistedSMC(), progress=False)
