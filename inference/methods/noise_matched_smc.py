r"""`NoiseMatchedSMC`: a cloud of images carried from the prior to the posterior as the noise of seen pixels falls.

Raising the likelihood to a power below 1 is raising the noise, :math:`\rho = s / \sqrt\beta`, at which noise and
denoising in turn leave the tempered posterior as it is. Weights are likelihoods of the seen pixels alone, so that the
evidence is estimated without the prior's density:

.. math:: \hat p(\tilde x) = \prod_l \frac1N \sum_i p(\tilde x \mid x_i)^{\beta_l - \beta_{l-1}}.

Annealing the noise of a split sampler is due to Xu & Chi 2024 (PnP-DM) and, with particles, to Achituve et al. 2025
(DDSMC); matching it to the observation's, so that nothing but the steps is approximate, and the evidence are not
theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.density.denoised_images import DenoisedImages
from posterior_inpainting.inference.methods.annealing import Annealing, Cloud, Moves, check_share
from posterior_inpainting.inference.methods.loop import drive
from posterior_inpainting.inference.methods.smc import from_replicates
from posterior_inpainting.inference.streams import Streams

__all__ = ["NoiseMatchedMoves", "NoiseMatchedSMC"]


class NoiseMatchedMoves(Moves):
    """Rounds of noise on hidden pixels and denoising of all of them."""

    def __init__(self, density: DenoisedImages, rounds: int):
        self.density: DenoisedImages = density
        self.rounds = rounds

    def start(self, count: int, streams: Streams) -> tuple[Tensor, Tensor]:
        """Draw images of the prior."""
        generator = streams.generator("starts", device=self.density.like.device)
        position = self.density.draw_from_prior(count, generator)
        return position, self.density.log_likelihood(position.unsqueeze(0)).squeeze(0)

    def move(self, cloud: Cloud, generator: Generator) -> Cloud:
        """Make all rounds."""
        position = cloud.position
        for _ in range(self.rounds):
            position = self.density.move(position, cloud.inverse_temperature, generator)
        return replace(cloud, position=position, log_likelihood=self.density.log_likelihood(position))


@dataclass(frozen=True)
class NoiseMatchedSMC(Method):
    """Sequential Monte Carlo over the noise of seen pixels; ``chains`` replicates of ``draws`` images.

    Parameters
    ----------
    share
        Effective sample size that a reweighting keeps, as a share of the images: the nearer to 1 the more levels.
    steps
        Of the reverse diffusion from the highest noise level; ``None`` for a prior that draws without steps.
    rounds
        Of noise and denoising at each level.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import MixtureField, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = MixtureField.fit(images, components=2)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> idata = infer(model, seen, NoiseMatchedSMC(steps=None), draws=200, chains=4, progress=False)
    >>> truth = float(model.log_evidence(seen.image, seen.mask))
    >>> abs(idata.attrs["log_evidence"] - truth) < 5 * idata.attrs["log_evidence_se"] + 0.1
    True
    """

    share: float = 0.7
    steps: int | None = 40
    rounds: int = 1

    draws_are = "particles"
    is_resumable = True

    def __post_init__(self):
        check_share(self.share)
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}; expected at least 1")

    @property
    def is_biased(self) -> bool:  # type: ignore[override]
        """Whether there are steps, whose number makes an error of its own."""
        return self.steps is not None

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Carry ``chains`` replicates of ``draws`` images from prior to posterior, and draw from their mixture."""
        density = DenoisedImages(problem, self.steps)
        process = Annealing(
            NoiseMatchedMoves(density, self.rounds), self.share, plan.chains, plan.draws, plan.streams
        )
        drive(process, plan)
        stats = {"log_likelihood_of_seen": process.cloud.log_likelihood}
        return from_replicates(process, problem, plan, stats)
