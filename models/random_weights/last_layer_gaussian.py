r"""A Gaussian over the weights of a decoder's last layer, with a full covariance for each of its outputs.

Given the codes, no pixel of a fully connected last layer shares a weight with another, and no channel of a
convolution with another, so that a Laplace approximation (MacKay 1992, *A Practical Bayesian Framework for
Backpropagation Networks*) has one block :math:`\Lambda_g` of precision an output, exactly:

.. math:: w_g \sim N(\hat w_g, \Lambda_g^{-1}), \qquad w_g = \hat w_g + L_g^{-\top} \epsilon, \qquad
          \Lambda_g = L_g L_g^\top, \quad \epsilon \sim N(0, I).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posterior_inpainting.models.random_weights.given_weights import Weights
from posterior_inpainting.models.random_weights.last_layer import last_layer_of
from posterior_inpainting.models.random_weights.weight_laws import WeightLaw

__all__ = ["LastLayerGaussian"]


class LastLayerGaussian(WeightLaw):
    """Gaussian law of the weights behind the pixel means; the layers below and the scales' weights are not random.

    Parameters
    ----------
    network
        A decoder that ``last_layer_of`` knows.
    mean
        ``(output, feature)``, the bias last.
    precision
        ``(output, feature, feature)``, of which the Cholesky factor is kept in the type of the mean: as many numbers.

    Attributes
    ----------
    layer
        The decoder's last layer: which weights stand where.
    mean, factor
        The mean, and the lower Cholesky factors of the precision.

    Raises
    ------
    ValueError
        For a decoder without such a layer, shapes that are not its, or a precision that is not positive definite.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MultilayerDecoder
    >>> decoder = MultilayerDecoder(2, (1, 8, 8), (4,))
    >>> law = LastLayerGaussian(decoder, torch.zeros(64, 5), 4 * torch.eye(5).expand(64, 5, 5))
    >>> tuple(law.draw_weights(3)["mean_head.weight"].shape), float(law.covariance(0)[0, 0])
    ((3, 64, 4), 0.25)
    """

    def __init__(self, network: nn.Module, mean: Tensor, precision: Tensor):
        super().__init__(network)
        self.layer = last_layer_of(network)
        outputs, features = self.layer.table(dict(network.named_parameters())).shape
        if mean.shape != (outputs, features) or precision.shape != (outputs, features, features):
            raise ValueError(
                f"mean and precision have shapes {tuple(mean.shape)} and {tuple(precision.shape)}; expected "
                f"{(outputs, features)} and {(outputs, features, features)}"
            )
        factor, failed = torch.linalg.cholesky_ex(precision)
        if failed.any():
            raise ValueError(
                f"the precision of {int(failed.count_nonzero())} outputs is not positive definite; expected "
                "finite numbers and a prior"
            )
        self.mean, self.factor = mean, factor.to(mean.dtype)

    def draw_weights(self, count: int) -> Weights:
        """Return ``count`` networks' weights of the last layer."""
        noise = self.mean.new_empty(*self.mean.shape, count).normal_()
        away = torch.linalg.solve_triangular(self.factor.mT, noise, upper=True)
        return self.layer.weights(self.mean + away.movedim(-1, 0))

    def covariance(self, output: int) -> Tensor:
        """Return the covariance ``(feature, feature)`` of one output's weights, the bias last."""
        return torch.cholesky_inverse(self.factor[output])
