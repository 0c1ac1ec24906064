"""A mixture of Gaussians as the prior of a code: ``LatentCode(decoder, prior=MixturePrior(mixture))``."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor

from posterior_inpainting.models.densities.code_prior import ScoredLaw
from posterior_inpainting.models.networks.code_mixture import CodeMixture
from posterior_inpainting.models.shapes import Code

__all__ = ["MixturePrior"]


class MixturePrior(ScoredLaw):
    """Distribution of codes, event shape ``(latent,)``, by a ``CodeMixture``.

    Parameters
    ----------
    mixture
        Weights, means and covariances.
    batch_shape, whitening
        Of independent codes; what the mixture's own ``whitening()`` returned. Both are for ``expand``.

    Examples
    --------
    >>> prior = MixturePrior(CodeMixture(components=2, latent=3))
    >>> tuple(prior.event_shape), tuple(prior.sample((4,)).shape), tuple(prior.log_prob(torch.zeros(4, 3)).shape)
    ((3,), (4, 3), (4,))
    """

    arg_constraints: ClassVar[dict] = {}
    support: Any = constraints.real_vector

    def __init__(
        self,
        mixture: CodeMixture,
        batch_shape: torch.Size = torch.Size(),  # noqa: B008 - torch's type
        whitening: tuple[Tensor, Tensor, Tensor] | None = None,
    ):
        self.mixture = mixture
        self._whitening = mixture.whitening() if whitening is None else whitening
        super().__init__(batch_shape, torch.Size((mixture.latent,)), validate_args=False)

    def expand(self, batch_shape, _instance=None) -> MixturePrior:
        """Broadcast to a larger batch."""
        return MixturePrior(self.mixture, torch.Size(batch_shape), self._whitening)

    def sample(self, sample_shape=torch.Size()) -> Code:  # noqa: B008 - torch's signature
        """Draw codes ``(*sample_shape, *batch_shape, latent)``."""
        with torch.no_grad():
            return self.mixture.draw((*sample_shape, *self.batch_shape))

    def log_prob(self, value: Code) -> Tensor:
        """Return the log density of codes."""
        found = self.mixture.log_prob(value, self._whitening)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def log_prob_and_score(self, value: Code) -> tuple[Tensor, Tensor]:
        """Return log densities and their gradients by the mixture's own formula."""
        with torch.no_grad():
            found, score = self.mixture.log_prob_and_score(value, self._whitening)
        batch = torch.broadcast_shapes(found.shape, self.batch_shape)
        return found.expand(batch), score.expand(*batch, -1)
