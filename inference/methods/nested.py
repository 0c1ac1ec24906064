r"""`Nested`: code and weights together, as a posterior over z for each network and an evidence for each network.

For networks :math:`\theta_k \sim q(\theta \mid D)` (``models.WeightDraws``) the joint posterior is

.. math:: p(z, \theta_k \mid \tilde x) = w_k \, p(z \mid \tilde x, \theta_k), \qquad
          w_k \propto p(\tilde x \mid \theta_k) = \int p(z)\, p(\tilde x \mid z, \theta_k)\, dz.

The evidences come from the chains' own draws (:mod:`~posterior_inpainting.inference.methods.bridging`).
With equal weights
instead it is the *cut* posterior (Plummer 2015): what is seen of the image then says nothing of the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.contract import Draws, DrawsAre, Method, Plan, Problem
from posterior_inpainting.inference.density.budget import gradients_counted
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.bridging import evidences
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.evidence_resampling import resampled
from posterior_inpainting.inference.methods.loop import ENDED_BY, ENDINGS
from posterior_inpainting.inference.results.autocorrelation import autocorrelation_time
from posterior_inpainting.models.code_and_weights import WeightDraws

__all__ = ["Nested", "NetworkDraws"]


@dataclass(frozen=True)
class NetworkDraws:
    """Codes ``(image, network, draw, latent)``, log evidences ``(image, network)`` and their standard errors.

    ``rhat`` is the largest over networks and codes, ``(image,)``; ``ended`` what ended the run early, if anything.
    """

    z: Tensor
    log_evidence: Tensor
    error: Tensor
    rhat: Tensor
    ended: str = ""

    def weights(self, cut: bool = False) -> Tensor:
        """Return the probability of each network ``(image, network)``: equal for the cut posterior."""
        return (self.log_evidence * (0.0 if cut else 1.0)).softmax(-1)

    def resample(self, image: int, count: int, generator: torch.Generator, cut: bool = False) -> dict:
        """Return ``count`` draws of one image's posterior, in random order: ``network`` and ``z``."""
        log_weight = self.weights(cut)[image].log()
        network, draw = resampled(log_weight, self.z.shape[2], count, generator)
        return {"network": network, "z": self.z[image, network, draw]}


@dataclass(frozen=True)
class Nested(Method):
    """The posterior over z and the networks of a ``WeightDraws``: chains for each network, weighed by evidence.

    ``draws`` and ``chains`` of ``infer`` are those of each network, and of the result, which is resampled from all
    networks'. With ``MAP`` within, it is the completion of Yeh et al. 2017 under each network: a restart each, which
    are no draws.

    Parameters
    ----------
    within
        Method for z given a network: one that makes Markov chains, or ``MAP``.
    cut
        Whether to weigh all networks equally instead: the cut posterior, which is not p(z, theta | x~).

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import Observation, observations
    >>> from posterior_inpainting.models.bayesian_decoder import BayesianDecoder
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> trained = BayesianDecoder(MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,)))
    >>> seen = Observation(torch.rand(1, 8, 8), observations.half((1, 8, 8), hide="bottom"))
    >>> method = Nested(ChEES(warmup=20))
    >>> posterior = infer(WeightDraws(trained, 3), seen, method, draws=10, chains=4, progress=False)
    >>> posterior.attrs["method"], 1 <= posterior.attrs["effective_networks"] <= 3
    ('nested', True)
    """

    within: Method = field(default_factory=lambda: ChEES(warmup=100))
    cut: bool = False

    def __post_init__(self):
        if self.within.draws_are not in ("markov", "particles", "restarts"):
            raise ValueError(
                f"{self.within.label} draws are {self.within.draws_are}; expected Markov chains, particles or restarts"
            )

    is_resumable = True
    usual_draws = 50
    usual_chains = 16

    @property
    def draws_are(self) -> DrawsAre:  # type: ignore[override]
        """Draws resampled by evidence, or the optima that the method within returns."""
        return "restarts" if self.within.draws_are == "restarts" else "particles"

    @property
    def is_approximate(self) -> bool:  # type: ignore[override]
        """Whether it is the cut posterior, which is another law than p(z, theta | x~)."""
        return self.cut

    @property
    def label(self) -> str:
        """What the result is called."""
        return "cut posterior" if self.cut else "nested"

    @property
    def runs_together(self) -> bool:
        """Whether it draws from the posteriors of many images in one batch."""
        return self.within.runs_together

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run the method for each network, then draw from all of them in proportion to their evidence."""
        if self.within.draws_are == "restarts":
            with gradients_counted() as spent:
                drawn = self._optima(problem, plan)
            return replace(drawn, attrs=drawn.attrs | {"gradient_evaluations": spent.count})
        with gradients_counted() as spent:
            found = self.networks(problem.in_a_batch(), 1, plan)
        return self._result(found, 0, plan, spent.count)

    def run_together(self, problem: Problem, groups: int, plan: Plan) -> list[Draws]:
        """Run the method for each network, on all images in one batch."""
        if not self.runs_together:
            return super().run_together(problem, groups, plan)
        with gradients_counted() as spent:
            found = self.networks(problem, groups, plan)
        share = spent.count // groups
        return [self._result(found, image, plan.part("image", image), share) for image in range(groups)]

    def networks(self, problem: Problem, groups: int, plan: Plan, reference: int = 4000) -> NetworkDraws:
        """Draw codes under every network, of every image, and estimate each network's evidence.

        Parameters
        ----------
        problem
            Of a ``WeightDraws``, with images and masks ``(image, channel, row, column)``.
        groups
            Number of images.
        plan
            Draws and chains are those of each network. A run that is ended early keeps the networks that are done.
        reference
            Draws from the Gaussian that normalises the evidences.
        """
        model = _networks_of(problem)
        pools: list[Tensor] = []
        ended = ""
        for index, network in enumerate(
            progress_bar(model.networks, desc="networks", disable=not plan.progress)
        ):
            part = plan.part("network", index, progress=False)
            try:
                runs = self._of_network(replace(problem, model=network, guide=network.guide), groups, part)
            except tuple(ENDED_BY) as reason:
                if not pools:
                    raise
                ended = ENDED_BY[type(reason)]
                break
            ended = next((word for word in ENDINGS if any(word in one.attrs for one in runs)), "")
            if not ended or not pools:
                pools.append(torch.stack([one.latents["z"] for one in runs]))
            if ended:
                break
        z = torch.stack(pools, 1)  # (image, network, chain, draw, latent)
        done = model.networks[: len(pools)]
        densities = [Potential(Problem(network, problem.args), groups=groups) for network in done]
        generator = plan.streams.generator("reference", device=z.device)
        evidence, error = evidences(densities, z, reference, generator)
        rhat = torch.stack([autocorrelation_time(one)[1].max() for one in z.flatten(0, 1)])
        return NetworkDraws(z.flatten(2, 3), evidence, error, rhat.reshape(z.shape[:2]).amax(1), ended)

    def _of_network(self, problem: Problem, groups: int, plan: Plan) -> list[Draws]:
        """Draw codes under one network: all images together, or one after another."""
        if self.within.runs_together:
            return self.within.run_together(problem, groups, plan)
        return [self.within.run(problem.of(image), plan.part("image", image)) for image in range(groups)]

    def _result(self, found: NetworkDraws, image: int, plan: Plan, gradients: int) -> Draws:
        """Resample one image's draws by evidence."""
        chains, draws = plan.chains, plan.draws
        generator = plan.streams.generator("resampling", device=found.z.device)
        drawn = found.resample(image, chains * draws, generator, self.cut)
        latents = {name: value.unflatten(0, (chains, draws)) for name, value in drawn.items()}
        evidence = found.log_evidence[image]
        count = len(evidence)
        attrs = {
            "networks": count,
            "effective_networks": float(1 / found.weights(self.cut)[image].square().sum()),
            "log_evidence_sd_between_networks": float(evidence.std()) if count > 1 else 0.0,
            "log_evidence_error_of_a_network": float(found.error[image].mean()),
            "rhat_within_networks": float(found.rhat[image]),
            "gradient_evaluations": gradients,
            **({found.ended: 1} if found.ended else {}),
        }
        if not self.cut:  # the evidence is of the joint posterior, whose draws these are not
            attrs["log_evidence"] = float(evidence.logsumexp(0)) - math.log(count)
        stats = {"log_network_evidence": evidence[latents["network"]]}
        return Draws(latents, stats, self.draws_are, attrs)

    def _optima(self, problem: Problem, plan: Plan) -> Draws:
        """Return the best optimum under each network: chain = network, draw = 1."""
        model = _networks_of(problem)
        best: list[Tensor] = []
        lp: list[Tensor] = []
        ended = ""
        for index, network in enumerate(
            progress_bar(model.networks, desc="networks", disable=not plan.progress)
        ):
            one = Problem(network, problem.args)
            part = plan.part("network", index, progress=False, draws=1, chains=1)
            try:
                drawn = self.within.run(one, part)
            except tuple(ENDED_BY) as reason:
                if not best:
                    raise
                ended = ENDED_BY[type(reason)]
                break
            top = int(drawn.stats["lp"][:, -1].argmax())
            best.append(drawn.latents["z"][top, -1])
            lp.append(drawn.stats["lp"][top, -1])
            ended = next((word for word in ENDINGS if word in drawn.attrs), "")
            if ended:
                break
        networks = torch.arange(len(best), device=best[0].device)
        latents = {"z": torch.stack(best).unsqueeze(1), "network": networks.unsqueeze(1)}
        attrs: dict[str, Any] = {"networks": len(best)}
        attrs |= {ended: 1} if ended else {}
        return Draws(latents, {"lp": torch.stack(lp).unsqueeze(1)}, "restarts", attrs)


def _networks_of(problem: Problem) -> WeightDraws:
    if not isinstance(problem.model, WeightDraws):
        raise ValueError(f"{type(problem.model).__name__} has no networks to nest; give a WeightDraws")
    return problem.model
