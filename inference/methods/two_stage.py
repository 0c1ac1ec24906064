r"""`Joint`: chains over code and weights at once, for one image or many, warm from chains over the code alone.

Two stages. Chains over z under the mean weights start at the prior, find what modes there are, and tell the mean m and
the covariance :math:`L L^\top` of z. Then chains over z and the noises of all units (``models.CodeAndUnits``), which
together are code and weights, go on from there in coordinates in which the posterior is nearly white,

.. math:: z = m + L u, \qquad \log p(u, \epsilon \mid \tilde x) = \log p(z, \epsilon \mid \tilde x) + \mathrm{const},

so that thousands of dimensions need no scales to be learnt and trajectories of a quarter period are short.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from posterior_inpainting.inference.contract import Draws, Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.loop import run_kernel
from posterior_inpainting.inference.results.chain_statistics import autocorrelation_time
from posterior_inpainting.models.code_and_units import CodeAndUnits

__all__ = ["Joint", "JointDraws", "joint_draws"]


@dataclass(frozen=True)
class JointDraws:
    """Draws of both stages, site -> ``(image, chain, draw, *shape)``, and what they cost.

    ``alone`` has the code under the mean weights, ``both`` all sites of ``CodeAndUnits``; ``stats`` are those of the
    second stage, ``(image, chain, draw)``.
    """

    alone: Tensor
    both: dict[str, Tensor]
    stats: dict[str, Tensor]
    gradients: tuple[int, int]

    def rhat(self) -> tuple[Tensor, Tensor]:
        """Return the largest R-hat of the code in each stage, ``(image,)`` each."""
        stages = (self.alone, self.both["z"])
        first, second = (torch.stack([autocorrelation_time(z)[1].max() for z in stage]) for stage in stages)
        return first, second


@dataclass(frozen=True)
class Joint:
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
    >>> method = Joint(ChEES(warmup=20), warmup=20)
    >>> posterior = infer(CodeAndUnits(trained), seen, method, draws=10, chains=4, progress=False)
    >>> dict(posterior.posterior["units"].sizes)["draw"]
    10
    """

    first: ChEES = field(default_factory=lambda: ChEES(warmup=100, max_steps=32))
    warmup: int = 100
    max_steps: int = 16

    def __post_init__(self):
        if self.warmup < 10:
            raise ValueError(f"warmup={self.warmup}; expected at least 10")

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Run both stages for one image."""
        if not isinstance(problem.model, CodeAndUnits):
            raise ValueError(f"{type(problem.model).__name__} has no units; give a CodeAndUnits")
        image, mask = (argument.unsqueeze(0) for argument in problem.args)
        options: Any = {"draws": draws, "chains": chains, "seed": seed, "progress": progress}
        found = joint_draws(problem.model, image, mask, self, **options)
        attrs = {
            "warmup": self.warmup,
            "gradient_evaluations": sum(found.gradients),
            "potential": "closed form",
            "rhat_of_the_code_alone": float(found.rhat()[0]),
        }
        latents, stats = (
            {name: value[0] for name, value in part.items()} for part in (found.both, found.stats)
        )
        return Draws(latents, stats, "markov", attrs)


def joint_draws(
    model: CodeAndUnits,
    images: Tensor,
    masks: Tensor,
    method: Joint,
    *,
    draws: int,
    chains: int,
    seed: int,
    progress: bool = True,
) -> JointDraws:
    """Draw codes and noises of every image in one batch.

    Parameters
    ----------
    images, masks
        ``(image, channel, row, column)``.
    method, draws, chains, seed, progress
        As for :class:`Joint` and ``infer``, of each image.
    """
    alone = Potential(Problem(model.mean_network, (images, masks)), groups=len(images))
    options: Any = {"draws": draws, "chains": chains, "seed": seed, "progress": progress}
    z = run_kernel(method.first, alone, **options).latents["z"]
    target = _WhiteCode(Potential(Problem(model, (images, masks)), groups=len(images)), z)
    generator = torch.Generator().manual_seed(seed + 5_000_011)
    # Each chain goes on from its last code, with the weights as q(theta | D) has them.
    rest = torch.randn(*z.shape[:2], target.potential.dim - model.latent, generator=generator)
    start = torch.cat([target.white(z[:, :, -1]), rest.to(z)], -1)
    kernel = ChEES(warmup=method.warmup, metric="identity", max_steps=method.max_steps)
    state = kernel.begin(target, start, generator, 1.0)  # type: ignore[arg-type]
    kept, infos = [], []
    for iteration in tqdm(range(method.warmup + draws), desc="code and weights", disable=not progress):
        state, info = kernel.step(target, state, generator)  # type: ignore[arg-type]
        if iteration >= method.warmup:
            kept.append(target.plain(state.point.position))
            infos.append(info)
    stats = {name: torch.stack([info[name] for info in infos], -1) for name in infos[0]}
    both = target.potential.constrain(torch.stack(kept, 2))
    return JointDraws(z, both, stats, (alone.gradients, target.potential.gradients))


class _WhiteCode:
    """A potential in coordinates in which the code, which comes first, is white; what a kernel asks of one."""

    def __init__(self, potential: Potential, z: Tensor):
        if next(iter(potential.shapes)) != "z":
            raise ValueError("the code is not the first of the latents")
        self.potential, self.latent = potential, z.shape[-1]
        flat = z.flatten(1, 2)
        self.mean = flat.mean(1, keepdim=True)
        centred = flat - self.mean
        # Towards the prior's covariance, I, by as much as draws are few: full rank whatever the chains did.
        share = self.latent / (flat.shape[1] + self.latent)
        variance = centred.square().mean(1)
        covariance = (1 - share) * centred.mT @ centred / flat.shape[1] + share * torch.diag_embed(variance)
        self.root = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(self.latent).to(z))

    def white(self, code: Tensor) -> Tensor:
        """Return positions in which the posterior is nearly white."""
        return torch.linalg.solve_triangular(self.root, (code - self.mean).mT, upper=False).mT

    def plain(self, position: Tensor, which: Tensor | None = None) -> Tensor:
        """Return codes and noises of such positions."""
        some = slice(None) if which is None else which
        code = self.mean[some] + position[..., : self.latent] @ self.root[some].mT
        return torch.cat([code, position[..., self.latent :]], -1)

    def gradient(
        self, position: Tensor, inverse_temperature: float | Tensor = 1.0, which: Tensor | None = None
    ):
        """Return log prior, log likelihood and the gradient there."""
        prior, likelihood, slope = self.potential.gradient(
            self.plain(position, which), inverse_temperature, which
        )
        some = slice(None) if which is None else which
        code = slope[..., : self.latent] @ self.root[some]
        return prior, likelihood, torch.cat([code, slope[..., self.latent :]], -1)
