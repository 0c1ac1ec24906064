r"""The two losses of adversarial training, and the penalties that hold the discriminator's gradient down.

*R1* (Mescheder, Geiger & Nowozin 2018): the non-saturating logistic loss of Goodfellow et al. 2014 with
the discriminator's gradient at real images held down,

.. math:: E\,\zeta(-s(x)) + E\,\zeta(s(G(z))) + \tfrac\gamma2 E \lVert \nabla_x s(x) \rVert^2, \qquad
   \zeta(t) = \log(1 + e^t).

*WGAN-GP* (Gulrajani et al. 2017, equation 3): a critic that is as steep as 1 between real and generated images,

.. math:: E\,s(G(z)) - E\,s(x) + \lambda E (\lVert \nabla s(\hat x) \rVert - 1)^2, \qquad
   \hat x = u x + (1 - u) G(z), \quad u \sim U(0, 1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from posterior_inpainting.models.shapes import Image

#: From images ``(n, channel, row, column)`` to values ``(n,)``, each of its own image alone.
Critic = Callable[[Image], Tensor]

__all__ = ["LOSSES", "R1", "AdversarialLoss", "WassersteinGP", "gradient_penalty", "r1_penalty"]


@dataclass(frozen=True)
class AdversarialLoss(ABC):
    """Abstract pair of losses of discriminator and generator, with a penalty on the discriminator's steepness.

    Parameters
    ----------
    penalty
        Weight of the gradient penalty.
    penalty_every
        Penalise every so many steps, that many times as hard (Karras et al. 2020): cheaper, nearly as good.
    critic_steps
        Steps of the discriminator for one of the generator.

    Raises
    ------
    ValueError
        For a number out of range.
    """

    #: How the discriminator's values are read: ``"logit"`` or ``"critic"``.
    output: ClassVar[str]

    penalty: float
    penalty_every: int = 1
    critic_steps: int = 1

    def __post_init__(self):
        if self.penalty < 0 or min(self.penalty_every, self.critic_steps) < 1:
            raise ValueError(
                f"penalty={self.penalty}, penalty_every={self.penalty_every}, critic_steps={self.critic_steps}; "
                "expected a penalty of at least 0, and at least 1 of the others"
            )

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the discriminator minimises, from its values ``(n,)`` at real and at generated images."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """Return what the generator minimises, from the discriminator's values ``(n,)`` at its images."""

    @abstractmethod
    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's estimate of the distance between the laws of real and generated images."""

    @abstractmethod
    def steepness(self, discriminator: Critic, real: Image, fake: Image) -> Tensor:
        """Return the gradient penalty, before its weight."""


@dataclass(frozen=True)
class R1(AdversarialLoss):
    """The non-saturating logistic loss with the gradient held down at real images (Mescheder et al. 2018).

    >>> R1(penalty_every=4)
    R1(penalty=1.0, penalty_every=4, critic_steps=1)
    """

    output: ClassVar[str] = "logit"

    penalty: float = 1.0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean logistic loss of both kinds of image."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return the mean logistic loss of being told from real images."""
        return F.softplus(-fake).mean()

    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return a lower bound of the Jensen-Shannon divergence in nats, which is at most log 2."""
        return math.log(2) - 0.5 * self.discriminator(real, fake)

    def steepness(self, discriminator: Critic, real: Image, fake: Image) -> Tensor:
        """Return the penalty at real images."""
        return r1_penalty(discriminator, real)


@dataclass(frozen=True)
class WassersteinGP(AdversarialLoss):
    """The Wasserstein loss with the gradient held near 1 between the images (Gulrajani et al. 2017).

    >>> WassersteinGP()
    WassersteinGP(penalty=10.0, penalty_every=1, critic_steps=5)
    """

    output: ClassVar[str] = "critic"

    penalty: float = 10.0
    penalty_every: int = 1
    critic_steps: int = 5

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the critic's mean at generated images above that at real ones."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Return minus the critic's mean at generated images."""
        return -fake.mean()

    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the Wasserstein-1 distance, up to the critic's steepness."""
        return real.mean() - fake.mean()

    def steepness(self, discriminator: Critic, real: Image, fake: Image) -> Tensor:
        """Return the penalty at random mixtures of real and generated images."""
        share = torch.rand(len(real), device=real.device, dtype=real.dtype)
        return gradient_penalty(discriminator, real, fake, share)


LOSSES: dict[str, Callable[..., AdversarialLoss]] = {"r1": R1, "wgan-gp": WassersteinGP}


def r1_penalty(discriminator: Critic, real: Image) -> Tensor:
    """Return the mean of half the squared gradient's length at real images (Mescheder et al. 2018, equation 9).

    >>> float(r1_penalty(lambda x: 3 * x.flatten(1).sum(1), torch.zeros(5, 1, 2, 2)))
    18.0
    """
    return 0.5 * _slopes(discriminator, real).square().sum(1).mean()


def gradient_penalty(discriminator: Critic, real: Image, fake: Image, share: Tensor) -> Tensor:
    """Return the mean squared distance of the gradient's length from 1, between the images (Gulrajani et al. 2017).

    Parameters
    ----------
    discriminator
        From images ``(n, channel, row, column)`` to values ``(n,)``, each of its own image alone.
    real, fake
        ``(n, channel, row, column)``, paired as they stand.
    share
        How much of the real image each mixture has, ``(n,)`` in [0, 1].

    >>> x = torch.zeros(5, 1, 2, 2)
    >>> float(gradient_penalty(lambda x: 3 * x.flatten(1).sum(1), x, x, torch.rand(5)))
    25.0
    """
    share = share.reshape(-1, *[1] * (real.dim() - 1))
    slopes = _slopes(discriminator, share * real + (1 - share) * fake)
    # The root has no derivative at 0, where a fresh critic may well be.
    return ((slopes.square().sum(1) + 1e-12).sqrt() - 1).square().mean()


def _slopes(discriminator: Critic, images: Image) -> Tensor:
    """Gradients of the values by their own images, ``(n, pixel)``, themselves differentiable."""
    images = images.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return slopes.flatten(1)
