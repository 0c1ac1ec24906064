"""`Auto`: the method that a model calls for, chosen by what the model declares and by how many latents it has."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.numerical_failures import at_some_draw
from posterior_inpainting.inference.density.tracing import latent_sites, trace_of
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.conditional_diffusion import ConditionalDiffusion
from posterior_inpainting.inference.methods.exact import Exact
from posterior_inpainting.inference.methods.gibbs import Gibbs
from posterior_inpainting.inference.methods.global_local import GlobalLocal
from posterior_inpainting.inference.methods.langevin import MALA
from posterior_inpainting.inference.methods.nested import Nested
from posterior_inpainting.inference.methods.noise_matched_gibbs import NoiseMatchedGibbs
from posterior_inpainting.inference.methods.two_stage import TwoStage
from posterior_inpainting.inference.results.trusted import Trusted
from posterior_inpainting.models.code_and_units import CodeAndUnits
from posterior_inpainting.models.code_and_weights import WeightDraws

__all__ = ["Auto"]

#: Latents up to which a mixture can propose jumps, and up to which scales can be learnt from chains.
_JUMPS, _SCALES = 100, 1000


@dataclass(frozen=True)
class Auto(Method):
    """Choose the method, and draw until the draws can be trusted: what ``infer`` does without a method.

    Exact draws where the model has them; Gibbs sweeps or a reverse diffusion where it is made for these; both stages,
    or chains for each network, where weights are random beside a code; otherwise chains over all latents: with jumps
    between modes up to 100 of them (``GlobalLocal``), ``ChEES`` up to 1,000, and beyond, as for the weights of a
    network, Langevin steps from optima. ``attrs`` of the result say what was chosen.

    Parameters
    ----------
    until
        What the draws of a Markov chain have to reach.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> infer(model, seen).attrs["method"]
    'Exact'
    """

    until: Trusted = field(default_factory=Trusted)

    can_end_early = True  # where chains are what it chooses; nothing else needs to

    @property
    def goal(self) -> Trusted:
        """What the draws have to reach where the caller says nothing else."""
        return self.until

    def chosen(self, problem: Problem) -> Method:
        """Return the method for a problem."""
        abilities, model = problem.abilities, problem.model
        if abilities.guide_is_exact:
            return Exact()
        if isinstance(model, CodeAndUnits):
            return TwoStage()
        if isinstance(model, WeightDraws):
            return Nested()
        if (reverse := abilities.reverse_diffusion()) is not None:
            return ConditionalDiffusion() if reverse.takes_levels_of_pixels else NoiseMatchedGibbs()
        if abilities is model and abilities.conditionals(*problem.args) is not None:
            return Gibbs()
        latents = _latents(problem)
        if latents <= _JUMPS:
            return GlobalLocal()
        return ChEES() if latents <= _SCALES else MALA(warmup=100, thin=10, metric="identity", init="optimum")

    def warmed(self, warmup: int) -> Method:
        """Refuse: what it chooses has a warm-up of its own."""
        raise ValueError(f"warmup={warmup} is given, but Auto chooses the method; name one, such as ChEES()")

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Draw by the chosen method."""
        return self.chosen(problem).run(problem, plan)


def _latents(problem: Problem) -> int:
    """Return how many numbers the latents of a model are, from one run of it."""
    with torch.no_grad():
        trace = at_some_draw(lambda: trace_of(problem.model, *problem.args, **problem.kwargs))
    return sum(torch.as_tensor(trace.nodes[name]["value"]).numel() for name in latent_sites(trace))
