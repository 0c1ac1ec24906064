"""`NoiseMatchedGibbs`: Markov chains of whole images, by noise on hidden pixels and denoising of all, in turn.

What is exact in it, and what is whose, is said in ``density.denoised_images``. A round moves an image by about the
noise of the seen pixels, so that chains mix in about (spread of a hidden pixel / noise) squared rounds: where those are
many,
``NoiseMatchedTempering`` or ``NoiseMatchedSMC`` do better.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Draws, Plan, Problem
from posterior_inpainting.inference.density.denoised_images import DenoisedImages
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.kernel import Kernel, as_draws, run_kernel

__all__ = ["DenoisingKernel", "NoiseMatchedGibbs", "Places"]


@dataclass(frozen=True)
class Places:
    """Images ``(group, chain, dim)``, their log likelihoods ``(group, chain)``, and how many rounds led there."""

    position: Tensor
    log_likelihood: Tensor
    iteration: int = 0

    @property
    def point(self) -> Places:
        """Where the chains are."""
        return self


class DenoisingKernel(Kernel):
    """Kernel on images that a prior can denoise, in ``steps`` steps from the highest noise level."""

    steps: int | None

    @property
    def is_biased(self) -> bool:  # type: ignore[override]
        """Whether there are steps, whose number makes an error of its own."""
        return self.steps is not None

    def run(self, problem: Problem, plan: Plan) -> Draws:
        """Run all chains at once, each from its own draw of the prior."""
        density = DenoisedImages(problem, self.steps)
        return as_draws(self, self._run(density, plan), density, 0)

    def run_together(self, problem: Problem, groups: int, plan: Plan) -> list[Draws]:
        """Run the chains of all posteriors in one batch."""
        if not self.runs_together:
            return super().run_together(problem, groups, plan)
        density = DenoisedImages(problem, self.steps, groups)
        run = self._run(density, plan)
        return [as_draws(self, run, density, group) for group in range(groups)]

    def _run(self, density: DenoisedImages, plan: Plan):
        generator = plan.streams.generator("starts", device=density.like.device)
        groups = density.groups or 1
        start = density.draw_from_prior(groups * plan.chains, generator)
        return run_kernel(self, density, plan, start.reshape(groups, plan.chains, -1))


@dataclass(frozen=True)
class NoiseMatchedGibbs(DenoisingKernel):
    """Alternate between noise on hidden pixels and denoising of all of them.

    Parameters
    ----------
    steps
        Of the reverse diffusion from the highest noise level; ``None`` for a prior that draws without steps, such as
        ``MixtureField``.
    warmup
        Rounds that are thrown away. In the first half of them the noise falls from that of the prior to the model's.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import MixtureField, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = MixtureField.fit(images, components=2, noise=0.3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> method = NoiseMatchedGibbs(steps=None, warmup=20)
    >>> posterior = infer(model, seen, method, draws=50, chains=4, progress=False)
    >>> posterior.attrs["draws_are"], posterior.attrs["biased"]
    ('markov', 0)
    """

    usual_draws = 50
    usual_chains = 16

    steps: int | None = 40
    warmup: int = 40

    def start(self, density: Density, position: Tensor, generator: Generator) -> Places:
        """Begin at draws of the prior."""
        assert isinstance(density, DenoisedImages)
        return Places(position, density.log_likelihood(position))

    def step(self, density: Density, state: Places, generator: Generator) -> tuple[Places, dict[str, Tensor]]:
        """Make one round."""
        assert isinstance(density, DenoisedImages)
        # From the prior's highest level down to the observation's, evenly in the logarithm.
        hot = max(0.0, 1 - 2 * state.iteration / self.warmup) if self.warmup else 0.0
        reverse = density.reverse
        inverse = state.position.new_full(
            (len(state.position),), (reverse.noise / reverse.highest) ** (2 * hot)
        )
        position = density.move(state.position, inverse, generator)
        likelihood = density.log_likelihood(position)
        return Places(position, likelihood, state.iteration + 1), {"log_likelihood_of_seen": likelihood}
