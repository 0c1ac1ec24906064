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
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from posterior_inpainting.models.shapes import Image

#: From images ``(n, channel, row, column)`` to values ``(n,)``, each of its own image alone.
Critic = Callable[[Image], Tensor]

__all__ = ["LOSSES", "AdversarialLoss", "gradient_penalty", "r1_penalty"]


@dataclass(frozen=True)
class AdversarialLoss:
    """What ``train_gan`` needs of a loss.

    Parameters
    ----------
    output
        How the discriminator's values are read: ``"logit"`` or ``"critic"``.
    penalty, critic_steps
        Defaults: weight of the gradient penalty, steps of the discriminator for one of the generator.
    discriminator, distance
        From values ``(n,)`` at real and at generated images to what the discriminator minimises, and to its
        estimate of the distance between the two laws.
    generator
        From values ``(n,)`` at generated images to what the generator minimises.
    steepness
        The gradient penalty, before its weight, of a discriminator at real and generated images.
    """

    output: str
    penalty: float
    critic_steps: int
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], Tensor]
    steepness: Callable[[Critic, Image, Image], Tensor]


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


LOSSES: dict[str, AdversarialLoss] = {
    "r1": AdversarialLoss(
        output="logit",
        penalty=1.0,
        critic_steps=1,
        discriminator=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        generator=lambda fake: F.softplus(-fake).mean(),
        distance=lambda real, fake: math.log(2) - 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean()),
        steepness=lambda discriminator, real, fake: r1_penalty(discriminator, real),
    ),
    "wgan-gp": AdversarialLoss(
        output="critic",
        penalty=10.0,
        critic_steps=5,
        discriminator=lambda real, fake: fake.mean() - real.mean(),
        generator=lambda fake: -fake.mean(),
        distance=lambda real, fake: real.mean() - fake.mean(),
        steepness=lambda discriminator, real, fake: gradient_penalty(
            discriminator, real, fake, torch.rand(len(real), device=real.device, dtype=real.dtype)
        ),
    ),
}
