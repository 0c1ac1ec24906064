r"""`TwoStage`: chains over code and weights at once, warm from chains over the code alone.

Chains over z under the mean weights start at the prior, find what modes there are, and tell the mean m and the
covariance :math:`L L^\top` of z. Then chains over z and the noises of all units (``models.CodeAndUnits``), which
together are code and weights, go on from there in coordinates in which the posterior is nearly white,

.. math:: z = m + L u, \qquad \log p(u, \epsilon \mid \tilde x) = \log p(z, \epsilon \mid \tilde x) + \mathrm{const},

so that thousands of dimensions need no scales to be learnt and trajectories of a quarter period are short.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import BudgetSpentError
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.whitened import Whitened
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.kernel import run_kernel
from posterior_inpainting.inference.methods.loop import DivergedError, Run
from posterior_inpainting.inference.results.autocorrelation import autocorrelation_time
from posterior_inpainting.models.code_and_units import CodeAndUnits

__all__ = ["StagedRun", "TwoStage"]


@dataclass(frozen=True)
class StagedRun:
    """Both stages, ``(image, chain, draw, ...)``: ``alone`` the code under the mean weights, ``both`` all sites."""

    alone: Run
    both: Run

    def rhat(self) -> tuple[Tensor, Tensor]:
        """Return the largest R-hat of the code in each stage, ``(image,)`` each."""
        codes = self.alone.latents["z"], self.both.latents["z"]
        first, second = (torch.stack([autocorrelation_time(z)[1].max() for z in one]) for one in codes)
        return first, second


@dataclass(frozen=True)
class TwoStage(Method):
    """The posterior over code and weights together, for ``CodeAndUnits``.

    Parameters
    ----------
    first
        Method for the code under the mean weights, as many draws as are asked for.
    warmup
        Iterations of the second stage that adapt its step and are thrown away.
    max_steps
        Longest trajectory of the second stage in leapfrog steps.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import Observation, observations
    >>> from posterior_inpainting.models.bayesian_decoder import BayesianDecoder
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> trained = BayesianDecoder(MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,)))
    >>> seen = Observation(torch.rand(1, 8, 8), observations.half((1, 8, 8), hide="bottom"))
    >>> method = TwoStage(ChEES(warmup=20), warmup=20)
    >>> posterior = infer(CodeAndUnits(trained), seen, method, draws=10, chains=4, progress=False)
    >>> dict(posterior.posterior["units"].sizes)["draw"]
    10
    """

    first: ChEES = field(default_factory=lambda: ChEES(warmup=100, max_steps=32))
    warmup: int = 100
    max_steps: int = 16

    draws_are = "markov"
    is_resumable = True
    usual_draws = 50
    usual_chains = 16

    def __post_init__(self):
        if self.warmup < 10:
            raise ValueError(f"warmup={self.warmup}; expected at least 10")

    @property
    def runs_together(self) -> bool:
        """Whether it draws from the posteriors of many images in one batch."""
        return self.first.runs_together

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run both stages for one image."""
        return self.run_together(problem.in_a_batch(), 1, plan)[0]

    def run_together(self, problem: Problem, groups: int, plan: Plan) -> list[Draws]:
        """Run both stages for many images in one batch."""
        found = self.stages(problem, groups, plan)
        rhat, _ = found.rhat()
        shared = {
            "warmup": self.warmup,
            "gradient_evaluations": (found.alone.gradients + found.both.gradients) // groups,
            "potential": "closed form",
            **found.both.label,
        }
        results = []
        for group in range(groups):
            latents, stats = (
                {name: value[group] for name, value in part.items()}
                for part in (found.both.latents, found.both.stats)
            )
            attrs = {**shared, "rhat_of_the_code_alone": float(rhat[group])}
            results.append(Draws(latents, stats, self.draws_are, attrs))
        return results

    def stages(self, problem: Problem, groups: int, plan: Plan) -> StagedRun:
        """Draw codes alone, then codes and noises, of every image in one batch."""
        model = problem.model
        if not isinstance(model, CodeAndUnits):
            raise ValueError(f"{type(model).__name__} has no units; give a CodeAndUnits")
        code = Potential(Problem(model.mean_network, problem.args), groups=groups)
        alone = run_kernel(self.first, code, plan.part("code"))
        if alone.ended == "interrupted":  # of code and weights together nothing was drawn
            raise KeyboardInterrupt
        if alone.ended == "diverged":
            raise DivergedError("the chains over the code alone diverged")
        if alone.ended:
            raise BudgetSpentError("the budget of gradients is spent before the weights have moved")
        z = alone.latents["z"]
        density = Potential(Problem(model, problem.args), groups=groups)
        target = Whitened(density, "z", z.flatten(1, 2))
        second = plan.part("code-and-weights")
        # Each chain goes on from its last code, with the weights as q(theta | D) has them.
        generator = second.streams.generator("weights", device=z.device)
        shape = (*z.shape[:2], density.dim - model.latent)
        rest = torch.randn(shape, generator=generator, device=z.device, dtype=z.dtype)
        start = target.white(torch.cat([z[:, :, -1], rest], -1))
        kernel = ChEES(warmup=self.warmup, metric="identity", max_steps=self.max_steps)
        return StagedRun(alone, run_kernel(kernel, target, second, start))
