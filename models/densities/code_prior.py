"""The prior of a code as samplers need it: its log density and, with it, the slope."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from posterior_inpainting.models.shapes import Code

__all__ = ["CodePrior", "ScoredLaw"]


class ScoredLaw(TorchDistribution):
    """Abstract distribution that knows the gradient of its log density, the score, without autograd."""

    @abstractmethod
    def log_prob_and_score(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return log densities ``(*batch,)`` and their gradients ``(*batch, *event)``; neither carries a graph."""


class CodePrior:
    """p(z) of codes ``(..., latent)``: standard normal, or any law; differentiated by hand where that is known.

    Parameters
    ----------
    law
        Event shape ``(latent,)``; ``None`` for the standard normal. A :class:`ScoredLaw` is asked for its score, any
        other law is differentiated by autograd.

    Examples
    --------
    >>> log_prob, score = CodePrior().log_prob_and_score(torch.tensor([[1.0, -2.0]]))
    >>> round(float(log_prob), 4), score.tolist()
    (-4.3379, [[-1.0, 2.0]])
    """

    def __init__(self, law: TorchDistribution | None = None):
        self.law = law

    def log_prob(self, z: Code) -> Tensor:
        """Return log p(z), differentiable."""
        if self.law is None:
            return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))
        return self.law.log_prob(z)

    def log_prob_and_score(self, z: Code) -> tuple[Tensor, Tensor]:
        """Return log p(z) and its gradient, shaped as z, without a graph."""
        if self.law is None:
            return self.log_prob(z), -z
        if isinstance(self.law, ScoredLaw):
            return self.law.log_prob_and_score(z)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_prob = self.law.log_prob(z)
            (score,) = torch.autograd.grad(log_prob.sum(), z)
        return log_prob.detach(), score
