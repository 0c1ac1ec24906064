r"""Where the codes of real images lie: a mixture of Gaussians over z, fitted after a decoder was trained.

The codes that an encoder gives to real images are rarely standard normal as a whole, and what a decoder makes of
codes where there are none is no image. Ghosh et al. 2020, *From Variational to Deterministic Autoencoders*, section 4,
therefore fit a density to the codes afterwards,

.. math:: p(z) = \sum_k w_k N(z; \mu_k, L_k L_k^\top),

and draw from that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posterior_inpainting.models.shapes import Code

__all__ = ["CodeMixture"]


class CodeMixture(nn.Module):
    r"""Density and draws of a mixture of Gaussians with full covariances; nothing in it is trained.

    Parameters
    ----------
    components, latent
        Number of Gaussians, and the length of z.

    Examples
    --------
    >>> mixture = CodeMixture(components=3, latent=2)  # standard normal until set
    >>> round(float(mixture.log_prob(torch.zeros(2))), 4), tuple(mixture.draw((5,)).shape)
    (-1.8379, (5, 2))
    """

    log_weights: Tensor
    means: Tensor
    scale_trils: Tensor

    def __init__(self, components: int, latent: int):
        super().__init__()
        if components < 1 or latent < 1:
            raise ValueError(f"components={components}, latent={latent}; expected at least 1 of each")
        self.components = components
        self.latent = latent
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("means", torch.zeros(components, latent))
        self.register_buffer("scale_trils", torch.eye(latent).repeat(components, 1, 1))

    def set(self, weights: Tensor, means: Tensor, scale_trils: Tensor) -> CodeMixture:
        """Take weights ``(k,)``, means ``(k, latent)`` and Cholesky factors ``(k, latent, latent)``; return itself."""
        self.log_weights.copy_(weights.log())
        self.means.copy_(means)
        self.scale_trils.copy_(scale_trils)
        return self

    def configuration(self) -> dict:
        """Return the arguments that make this mixture again, as they are stored beside its numbers."""
        return {"components": self.components, "latent": self.latent}

    def whitening(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a density needs, to be made once: matrix ``(k * latent, latent)``, offset, constants ``(k,)``."""
        white = torch.linalg.inv(self.scale_trils)
        offset = (white @ self.means.unsqueeze(-1)).squeeze(-1)
        volume = self.scale_trils.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = self.log_weights.log_softmax(0) - volume - 0.5 * self.latent * math.log(2 * math.pi)
        return white.flatten(0, 1), offset, constant

    def log_prob(self, z: Code, whitening: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
        """Return log p(z), ``(*batch,)``, of codes ``(*batch, latent)``."""
        matrix, offset, constant = self.whitening() if whitening is None else whitening
        # One matrix product whitens z for every component at once: a sampler asks for this at every step.
        residual = (z @ matrix.T).unflatten(-1, (self.components, self.latent)) - offset
        return (constant - 0.5 * residual.square().sum(-1)).logsumexp(-1)

    def log_prob_and_score(
        self, z: Code, whitening: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Return log p(z) and its gradient, :math:`-\sum_k p(k \mid z) (L_k L_k^\top)^{-1} (z - \mu_k)`.

        A third of what autograd takes: a sampler asks for it at every step.

        Returns
        -------
        tuple
            ``(*batch,)``, and ``(*batch, latent)`` as the codes.

        >>> mixture = CodeMixture(components=3, latent=2)  # standard normal until set
        >>> mixture.log_prob_and_score(torch.tensor([1.0, -2.0]))[1]
        tensor([-1.,  2.])
        """
        matrix, offset, constant = self.whitening() if whitening is None else whitening
        residual = (z @ matrix.T).unflatten(-1, (self.components, self.latent)) - offset
        each = constant - 0.5 * residual.square().sum(-1)
        shares = each.softmax(-1).unsqueeze(-1)
        return each.logsumexp(-1), -(shares * residual).flatten(-2) @ matrix

    def draw(self, shape: tuple[int, ...] | torch.Size = ()) -> Code:
        """Draw codes ``(*shape, latent)`` with torch's global generator."""
        uniform = torch.rand((*shape, self.components), device=self.means.device).clamp(min=1e-12)
        which = (self.log_weights - (-uniform.log()).log()).argmax(-1)  # Gumbel's way to draw an index
        noise = torch.randn((*shape, self.latent, 1), device=self.means.device)
        return self.means[which] + (self.scale_trils[which] @ noise).squeeze(-1)
