r"""Teaching a field of experts what filters and which laws of responses images have: two losses, one after the other.

The density has a constant that is not known. *Denoising score matching* does without: where :math:`u = x + t \epsilon`
and p is the law of u,

.. math:: E[x \mid u] = u + t^2 \nabla \log p(u),

and the squared error of this is minimised (Vincent 2011, *A Connection Between Score Matching and Denoising
Autoencoders*). It looks at the density near images alone. *Maximum likelihood* looks at all of it: the gradient of

.. math:: L = E_{images}[- \log p(x)] + E_{model}[\log p(x)]

in the parameters, the second mean being over draws of the model as it is, which a Gibbs sampler keeps up with as the
parameters move (Tieleman 2008, persistent contrastive divergence; Schmidt, Gao & Roth 2010 for these experts).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.training.loss import Loss

__all__ = ["ExpertLikelihood", "ExpertScoreMatching"]


class ExpertScoreMatching(Loss):
    """The squared error of denoising by the score of an ``ExpertField``, over the noise's variance.

    Parameters
    ----------
    level
        Standard deviation t of the noise.

    Examples
    --------
    >>> from posterior_inpainting.inference import train
    >>> from posterior_inpainting.models import ExpertField, datasets
    >>> from posterior_inpainting.models.networks import Experts
    >>> model = ExpertField(Experts(channels=1, count=4, side=3, levels=1), (1, 8, 8))
    >>> images = datasets.load("digits", split="train")
    >>> training = train(model, model.guide, images, loss=ExpertScoreMatching(0.1), epochs=3, progress=False)
    >>> training.losses[-1] < training.losses[0]
    True
    """

    def __init__(self, level: float):
        if not level > 0:
            raise ValueError(f"level={level}; expected a positive number")
        self.level = level

    def differentiable_loss(
        self,
        model: Any,
        guide: Any,
        images: Tensor,
        masks: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a minibatch, of the pixels that are ``known``; neither guide nor masks are read.

        Of images with holes filters count that see none, as those of a patch see nothing outside of it.
        """
        noise = torch.randn_like(images)
        noisy = (images + self.level * noise).requires_grad_()
        density = model.experts.log_density(noisy, known).sum()
        (score,) = torch.autograd.grad(density, noisy, create_graph=True)
        squares = (noise + self.level * score).square()
        return 0.5 * (squares if known is None else torch.where(known, squares, 0.0)).sum()


class ExpertLikelihood(Loss):
    """Minus the log likelihood of an ``ExpertField``, its slope by draws that follow the parameters.

    Parameters
    ----------
    chains
        Images that the model draws on its own, of the size of those that it is trained on.
    sweeps
        Of the Gibbs sampler, each step.
    """

    def __init__(self, chains: int = 32, sweeps: int = 1):
        if min(chains, sweeps) < 1:
            raise ValueError(f"chains={chains}, sweeps={sweeps}; expected at least 1 of each")
        self.chains, self.sweeps = chains, sweeps
        self._latents: dict[str, Tensor] = {}

    def state(self) -> dict[str, Tensor]:
        """Return the images as they are."""
        return self._latents

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on with images that were."""
        self._latents = state

    def differentiable_loss(
        self,
        model: Any,
        guide: Any,
        images: Tensor,
        masks: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Return the difference of log densities, images weighted as many as they are.

        All that a level's parameters are told by images is the mean of what its filters say at a place. Of images in
        which not all pixels are ``known`` it is that of the places where they see nothing else.
        """
        nothing = torch.zeros_like(images[0], dtype=torch.bool)
        conditionals = model.conditionals(torch.zeros_like(images[0]), nothing)
        generator = Generator(images.device).manual_seed(int(torch.randint(2**62, (), device="cpu")))
        with torch.no_grad():
            latents = self._latents or conditionals.start(self.chains, generator)
            for _ in range(self.sweeps):
                latents = conditionals.sweep(latents, generator)
        self._latents = latents
        experts = model.experts
        if known is None:
            of_images = experts.log_density(images).mean()
        else:
            said = experts.log_of_levels(images, known).sum(1)
            shares = torch.stack([seen.to(images).mean() for seen in experts.places_seen(known)])
            of_images = (said / shares.clamp(min=torch.finfo(images.dtype).tiny)).sum() / len(images)
        return len(images) * (experts.log_density(latents["pixels"]).mean() - of_images)
