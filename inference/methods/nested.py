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
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from posterior_inpainting.inference.contract import Draws, Method, Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.evaluation.thinning import runs_together
from posterior_inpainting.inference.methods.bridging import evidences
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.loop import run_kernel
from posterior_inpainting.inference.results.chain_statistics import autocorrelation_time
from posterior_inpainting.models.code_and_weights import WeightDraws

__all__ = ["Nested", "NestedDraws", "nested_draws"]


@dataclass(frozen=True)
class NestedDraws:
    """Codes ``(image, network, draw, latent)``, log evidences ``(image, network)`` and their standard errors.

    ``rhat`` is the largest over networks and codes, ``(image,)``.
    """

    z: Tensor
    log_evidence: Tensor
    error: Tensor
    rhat: Tensor
    gradients: int

    def weights(self, cut: bool = False) -> Tensor:
        """Return the probability of each network ``(image, network)``: equal for the cut posterior."""
        return (self.log_evidence * (0.0 if cut else 1.0)).softmax(-1)

    def resample(self, image: int, count: int, generator: torch.Generator, cut: bool = False) -> dict:
        """Return ``count`` draws of one image's posterior, in random order: ``network`` and ``z``."""
        weights = self.weights(cut)[image].double()
        # Systematic: a network gets its share of the draws to within one, and no draw comes twice before all have once.
        places = (torch.arange(count) + torch.rand((), generator=generator)) / count
        network = torch.searchsorted(weights.cumsum(0), places).clamp(max=len(weights) - 1)
        pool = self.z.shape[2]
        chosen = torch.empty(count, dtype=torch.long)
        for index in network.unique().tolist():
            mine = (network == index).nonzero().flatten()
            orders = [torch.randperm(pool, generator=generator) for _ in range(math.ceil(len(mine) / pool))]
            chosen[mine] = torch.cat(orders)[: len(mine)]
        order = torch.randperm(count, generator=generator)
        return {"network": network[order], "z": self.z[image, network, chosen][order]}


@dataclass(frozen=True)
class Nested:
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

    @property
    def label(self) -> str:
        """What the result is called."""
        return "cut posterior" if self.cut else "nested"

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Run the method for each network, then draw from all of them in proportion to their evidence."""
        model: Any = problem.model
        if not isinstance(model, WeightDraws):
            raise ValueError(f"{type(model).__name__} has no networks to nest; give a WeightDraws")
        if hasattr(self.within, "restarts"):
            return self._optima(model, problem, seed, progress)
        options: Any = {"draws": draws, "chains": chains, "seed": seed, "progress": progress}
        image, mask = (argument.unsqueeze(0) for argument in problem.args)
        found = nested_draws(model, image, mask, self.within, **options)
        generator = torch.Generator().manual_seed(seed + 2_000_003)
        drawn = found.resample(0, chains * draws, generator, self.cut)
        latents = {name: value.unflatten(0, (chains, draws)) for name, value in drawn.items()}
        evidence = found.log_evidence[0]
        count = len(evidence)
        whole = float(evidence.logsumexp(0)) - math.log(count)
        stats = {
            "log_network_evidence": evidence[latents["network"]],
            "log_replicate_evidence": torch.full((chains, draws), whole),
        }
        attrs = {
            "networks": count,
            "effective_networks": float(1 / found.weights(self.cut)[0].square().sum()),
            "log_evidence": whole,
            "log_evidence_sd_between_networks": float(evidence.std()) if count > 1 else 0.0,
            "log_evidence_error_of_a_network": float(found.error[0].mean()),
            "rhat_within_networks": float(found.rhat[0]),
            "gradient_evaluations": found.gradients,
        }
        return Draws(latents, stats, "particles", attrs)

    def _optima(self, model: WeightDraws, problem: Problem, seed: int, progress: bool) -> Draws:
        """Return the best optimum under each network: chain = network, draw = 1."""
        best, lp, gradients = [], [], 0
        for network in tqdm(model.networks, desc="networks", disable=not progress):
            one = Problem(network, problem.args)
            drawn = self.within.run(one, draws=1, chains=1, seed=seed, progress=False)
            top = int(drawn.stats["lp"][:, -1].argmax())
            best.append(drawn.latents["z"][top, -1])
            lp.append(drawn.stats["lp"][top, -1])
            gradients += drawn.attrs["gradient_evaluations"]
        latents = {"z": torch.stack(best).unsqueeze(1), "network": torch.arange(len(best)).unsqueeze(1)}
        attrs = {"gradient_evaluations": gradients, "networks": len(best)}
        return Draws(latents, {"lp": torch.stack(lp).unsqueeze(1)}, "restarts", attrs)


def nested_draws(
    model: WeightDraws,
    images: Tensor,
    masks: Tensor,
    within: Any,
    *,
    draws: int,
    chains: int,
    seed: int,
    progress: bool = True,
    reference: int = 512,
) -> NestedDraws:
    """Draw codes for every image and network, and estimate every network's evidence.

    Parameters
    ----------
    model
        The networks.
    images, masks
        ``(image, channel, row, column)``, all of which run at once where the method can.
    within
        As for :class:`Nested`.
    draws, chains, seed, progress
        Of each image and network, as for ``infer``.
    reference
        Draws from the Gaussian that normalises the evidences.
    """
    potentials = [
        Potential(Problem(network, (images, masks)), groups=len(images)) for network in model.networks
    ]
    pools, rhats, gradients = [], [], 0
    for index, potential in enumerate(tqdm(potentials, desc="networks", disable=not progress)):
        options: Any = {"draws": draws, "chains": chains, "seed": seed + index, "progress": False}
        if runs_together(within):
            run = run_kernel(within, potential, **options)
            pool = run.latents["z"]
            gradients += potential.gradients
        else:
            network = model.networks[index]
            problems = [
                Problem(network, pair, guide=network.guide) for pair in zip(images, masks, strict=True)
            ]
            runs = [within.run(problem, **options) for problem in problems]
            if runs[0].draws_are not in ("markov", "particles"):
                raise ValueError(
                    f"{type(within).__name__} draws are {runs[0].draws_are}; expected Markov chains"
                )
            pool = torch.stack([one.latents["z"] for one in runs])
            gradients += sum(one.attrs["gradient_evaluations"] for one in runs)
        rhats.append(torch.stack([autocorrelation_time(one)[1].max() for one in pool]))
        pools.append(pool)
    z = torch.stack(pools, 1)  # (image, network, chain, draw, latent)
    generator = torch.Generator().manual_seed(seed + 3_000_017)
    evidence, error = evidences(potentials, z, reference, generator)
    return NestedDraws(z.flatten(2, 3), evidence, error, torch.stack(rhats).amax(0), gradients)
